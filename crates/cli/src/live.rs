//! A living cluster, read once, as the plain data that explanations, diffs and lints work on.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
};

use anyhow::Context as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client, Resource, api::ListParams};
use serde::de::DeserializeOwned;
use trellis_core::Refusal;
use trellis_resilience::{Cluster, Gateway, Mesh, Reason, mesh::Source};

/// Objects per page: a large cluster comes in bounded pieces.
const PAGE: u32 = 500;

/// Groups of the kinds that are read beside Services.
const GROUPS: [&str; 4] = [
    "gateway.networking.k8s.io",
    "policy.linkerd.io",
    "linkerd.io",
    "resilience.trellis.dev",
];

/// What every command that reads a cluster takes.
#[derive(clap::Args)]
pub(crate) struct From {
    /// Version of Linkerd, such as 2.18; default: read from ConfigMap linkerd/linkerd-config
    #[arg(long, value_name = "VERSION")]
    linkerd_version: Option<String>,
}

/// How much of a cluster is read.
pub(crate) enum Scope {
    /// What acts on calls, in these namespaces.
    Only(BTreeSet<String>),
    /// Everything; of a kind that may not be listed everywhere, what is in these namespaces.
    Whole(BTreeSet<String>),
}

/// A cluster, and what of it could not be read.
pub(crate) struct Read {
    pub(crate) cluster: Cluster,
    /// One sentence each.
    pub(crate) notes: Vec<String>,
}

impl From {
    /// A client for the cluster of the current kubeconfig, the Linkerd there, and what of it is not known.
    pub(crate) async fn mesh(&self) -> anyhow::Result<(Client, Mesh, Vec<String>)> {
        let client = client().await?;
        let config = config(&client).await;
        let note = config.as_ref().err().map(|error| {
            format!("{error}: the default opaque ports and the cluster domain are taken to be Linkerd's own")
        });
        let mesh = mesh(config, self.linkerd_version.as_deref())?;
        Ok((client, mesh, note.into_iter().collect()))
    }

    /// Reads the cluster of the current kubeconfig. Kinds that are not installed have no objects.
    pub(crate) async fn cluster(&self, scope: Scope) -> anyhow::Result<Read> {
        let (client, mesh, notes) = self.mesh().await?;
        let served = served(&client, &GROUPS).await?;
        let mut reader = Reader {
            client: &client,
            served: &served,
            scope: &scope,
            notes,
        };
        let mut cluster = Cluster::of(mesh);
        cluster.services = reader.list().await?.into();
        cluster.http_routes = reader.list().await?.into();
        cluster.grpc_routes = reader.list().await?.into();
        cluster.linkerd_routes = reader.list().await?.into();
        cluster.profiles = reader.list().await?.into();
        cluster.policies = reader.list().await?.into();
        if matches!(scope, Scope::Whole(_)) {
            cluster.egress_networks = reader.list().await?.into();
            cluster.servers = reader.list().await?.into();
            cluster.rate_limits = reader.list().await?;
        }
        let notes = reader.notes;
        cluster.gateway = gateway(&served);
        Ok(Read { cluster, notes })
    }
}

/// A client for the cluster of the current kubeconfig.
pub(crate) async fn client() -> anyhow::Result<Client> {
    Client::try_default().await.context("no cluster: set KUBECONFIG")
}

/// The data of `ConfigMap` `linkerd/linkerd-config`, if it is there.
pub(crate) async fn config(client: &Client) -> anyhow::Result<Option<BTreeMap<String, String>>> {
    let configs: Api<ConfigMap> = Api::namespaced(client.clone(), "linkerd");
    let config = configs.get_opt("linkerd-config").await.map_err(|error| {
        refused(
            error,
            "get configmaps",
            Some("linkerd"),
            "give --linkerd-version, or ask for this permission",
        )
    })?;
    Ok(config.map(|config| config.data.unwrap_or_default()))
}

/// The Linkerd of this [`config`], or the one that the user names.
pub(crate) fn mesh(
    config: anyhow::Result<Option<BTreeMap<String, String>>>,
    told: Option<&str>,
) -> anyhow::Result<Mesh> {
    let Some(told) = told else {
        let data = config?.ok_or_else(|| {
            Reason::LinkerdNotFound
                .refuse("there is no ConfigMap linkerd/linkerd-config")
                .hint("install Linkerd, or say which one with --linkerd-version")
        })?;
        return Mesh::from_config_map(&data).map_err(|refusal| {
            let unknown = refusal.reason == Reason::LinkerdVersionUnknown.as_str();
            let hint = "say which release it is with --linkerd-version, such as 2.18";
            if unknown { refusal.hint(hint) } else { refusal }.into()
        });
    };
    let read = config.ok().flatten().and_then(|data| Mesh::from_config_map(&data).ok());
    Ok(match read {
        Some(mesh) => Mesh {
            version: told.parse()?,
            source: Source::Flag,
            ..mesh
        },
        None => Mesh::from_flag(told)?,
    })
}

/// The kinds of some groups that the API server serves, as (group, plural), each with its versions. Everybody may ask.
pub(crate) type Served = BTreeMap<(String, String), BTreeSet<String>>;

/// What the API server serves of these groups.
pub(crate) async fn served(client: &Client, groups: &[&str]) -> anyhow::Result<Served> {
    let mut served = Served::new();
    let all = client
        .list_api_groups()
        .await
        .context("cannot list the groups of the API")?;
    for group in all
        .groups
        .into_iter()
        .filter(|group| groups.contains(&group.name.as_str()))
    {
        for version in group.versions {
            let listed = client.list_api_group_resources(&version.group_version).await;
            let listed = listed.with_context(|| format!("cannot list the kinds of {}", version.group_version))?;
            for kind in listed.resources {
                let versions = served.entry((group.name.clone(), kind.name)).or_default();
                versions.insert(version.version.clone());
            }
        }
    }
    Ok(served)
}

/// The versions in which a kind is served; none when it is not installed.
pub(crate) fn versions(served: &Served, group: &str, plural: &str) -> BTreeSet<String> {
    let key = (group.to_owned(), plural.to_owned());
    served.get(&key).cloned().unwrap_or_default()
}

/// The versions of the routes of the Gateway API.
pub(crate) fn gateway(served: &Served) -> Gateway {
    let versions = |plural: &str| versions(served, "gateway.networking.k8s.io", plural);
    Gateway {
        http: versions("httproutes"),
        grpc: versions("grpcroutes"),
    }
}

/// One object, if it and its kind are there.
pub(crate) async fn one<K>(client: &Client, namespace: &str, name: &str) -> anyhow::Result<Option<K>>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let found = Api::namespaced(client.clone(), namespace).get_opt(name).await;
    found.map_err(|error| {
        let plural = K::plural(&());
        let hint = format!("ask for a role in namespace {namespace} that may get {plural}");
        refused(error, &format!("get {plural}"), Some(namespace), &hint)
    })
}

struct Reader<'a> {
    client: &'a Client,
    served: &'a Served,
    scope: &'a Scope,
    notes: Vec<String>,
}

impl Reader<'_> {
    async fn list<K>(&mut self) -> anyhow::Result<Vec<K>>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        let (group, plural) = (K::group(&()), K::plural(&()));
        // An absent kind is forbidden, too, to whom nobody has allowed it. The core group is always there.
        if !group.is_empty() && !versions(self.served, &group, &plural).contains(&*K::version(&())) {
            return Ok(Vec::new());
        }
        let namespaces = match self.scope {
            Scope::Only(namespaces) => namespaces,
            Scope::Whole(namespaces) => match pages(Api::<K>::all(self.client.clone())).await {
                Err(error) if is_forbidden(&error) && !namespaces.is_empty() => {
                    let names = namespaces.iter().cloned().collect::<Vec<_>>().join(", ");
                    self.notes.push(format!(
                        "{plural} may not be listed everywhere: only those of {names} were looked at"
                    ));
                    namespaces
                }
                outcome => {
                    let hint = "name a namespace with --namespace, or ask for this permission";
                    return outcome.map_err(|error| refused(error, &format!("list {plural}"), None, hint));
                }
            },
        };
        let mut found = Vec::new();
        for namespace in namespaces {
            let page = pages(Api::<K>::namespaced(self.client.clone(), namespace)).await;
            found.extend(page.map_err(|error| {
                let hint = format!("ask for a role in namespace {namespace} that may list {plural}");
                refused(error, &format!("list {plural}"), Some(namespace), &hint)
            })?);
        }
        Ok(found)
    }
}

async fn pages<K: Clone + DeserializeOwned + Debug>(api: Api<K>) -> kube::Result<Vec<K>> {
    let mut params = ListParams::default().limit(PAGE);
    let mut found = Vec::new();
    loop {
        let page = api.list(&params).await?;
        found.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(found),
        }
    }
}

/// Whether a permission is missing.
pub(crate) fn is_forbidden(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403)
}

/// What could not be done, such as `list services`, and where; everywhere without a namespace.
pub(crate) fn refused(error: kube::Error, what: &str, namespace: Option<&str>, hint: &str) -> anyhow::Error {
    let at = namespace.map_or_else(|| "the whole cluster".to_owned(), |name| format!("namespace {name}"));
    if is_forbidden(&error) {
        Refusal::new("Forbidden", format!("may not {what} in {at}"))
            .hint(hint)
            .into()
    } else {
        anyhow::Error::new(error).context(format!("cannot {what} in {at}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_cannot_be_compared_can_be_told() {
        let values = BTreeMap::from([("values".to_owned(), "linkerdVersion: dev-0f3e".to_owned())]);
        for config in [Some(values.clone()), None] {
            let error = mesh(Ok(config), None).unwrap_err();
            let refusal = error.downcast::<Refusal>().unwrap();
            assert!(refusal.hint.is_some_and(|hint| hint.contains("--linkerd-version")));
        }
        assert_eq!(
            mesh(Ok(Some(values)), Some("2.18")).unwrap().version.to_string(),
            "2.18"
        );
    }
}
