//! A living cluster, read once, as the plain data that explanations, diffs and lints work on.

use std::fmt::Debug;

use anyhow::{Context as _, bail};
use k8s_openapi::{
    api::core::v1::ConfigMap, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{Api, Client, CustomResourceExt as _, Resource, api::ListParams};
use serde::de::DeserializeOwned;
use trellis_bindings::gateway::{GrpcRoute, HttpRoute};
use trellis_resilience::{Cluster, Gateway, Mesh, mesh::Source};

/// Objects per page: a large cluster comes in bounded pieces.
const PAGE: u32 = 500;

/// What every command that reads a cluster takes.
#[derive(clap::Args)]
pub(crate) struct From {
    /// Version of Linkerd, such as 2.18; default: read from ConfigMap linkerd/linkerd-config
    #[arg(long, value_name = "VERSION")]
    linkerd_version: Option<String>,
}

impl From {
    /// Reads the cluster of the current kubeconfig. Kinds that are not installed, or that the user may not list, have no
    /// objects; the second is an error for Services.
    pub(crate) async fn cluster(&self) -> anyhow::Result<Cluster> {
        let client = Client::try_default().await.context("no cluster: set KUBECONFIG")?;
        let mesh = mesh(&client, self.linkerd_version.as_deref()).await?;
        let mut cluster = Cluster::of(mesh);
        cluster.services = list(&client).await?;
        cluster.http_routes = list(&client).await?;
        cluster.grpc_routes = list(&client).await?;
        cluster.linkerd_routes = list(&client).await?;
        cluster.profiles = list(&client).await?;
        cluster.egress_networks = list(&client).await?;
        cluster.servers = list(&client).await?;
        cluster.rate_limits = list(&client).await?;
        cluster.policies = list(&client).await?;
        cluster.gateway = Gateway {
            http: served(&client, HttpRoute::crd_name()).await?,
            grpc: served(&client, GrpcRoute::crd_name()).await?,
        };
        Ok(cluster)
    }
}

/// The installed Linkerd, or the one that the user names.
pub(crate) async fn mesh(client: &Client, told: Option<&str>) -> anyhow::Result<Mesh> {
    let configs: Api<ConfigMap> = Api::namespaced(client.clone(), "linkerd");
    let config = configs
        .get_opt("linkerd-config")
        .await
        .context("cannot read ConfigMap linkerd/linkerd-config")?;
    let read = config.map(|config| Mesh::from_config_map(&config.data.unwrap_or_default()));
    Ok(match (told, read) {
        (None, None) => bail!("there is no ConfigMap linkerd/linkerd-config; say which Linkerd with --linkerd-version"),
        (None, Some(mesh)) => mesh?,
        (Some(told), Some(Ok(mesh))) => Mesh {
            version: told.parse()?,
            source: Source::Flag,
            ..mesh
        },
        (Some(told), _) => Mesh::from_flag(told)?,
    })
}

async fn list<K>(client: &Client) -> anyhow::Result<Vec<K>>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let api: Api<K> = Api::all(client.clone());
    let mut params = ListParams::default().limit(PAGE);
    let mut found = Vec::new();
    loop {
        let page = match api.list(&params).await {
            Ok(page) => page,
            // Not installed.
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(found),
            Err(error) => return Err(error).with_context(|| format!("cannot list {}", K::plural(&()))),
        };
        found.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(found),
        }
    }
}

async fn served(client: &Client, name: &str) -> anyhow::Result<std::collections::BTreeSet<String>> {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let crd = crds
        .get_opt(name)
        .await
        .with_context(|| format!("cannot read CRD {name}"))?;
    Ok(crd.map(|crd| trellis_runtime::crds::served(&crd)).unwrap_or_default())
}
