//! `Story`: a namespace, what runs in it, and what is counted there.

use std::{fmt::Debug, time::Duration};

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Namespace, Pod, Service},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, LogParams, PostParams, Preconditions},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::time::{Instant, interval};
use trellis_api::ResiliencePolicy;

use crate::{
    Args, Error,
    measured::Measured,
    prometheus::Samples,
    scene::{self, BAD, DONE, GOOD, RETRIES, THRESHOLD},
};

/// How often the cluster is asked.
const LOOK: Duration = Duration::from_secs(1);
/// The container that a client's answers come from.
const CLIENT: &str = "client";
/// Clients with a sidecar, and the one without.
const CLIENTS: usize = 2;

/// A namespace that this program made.
pub(crate) struct Story<'a> {
    client: Client,
    args: &'a Args,
    namespace: Namespace,
}

impl<'a> Story<'a> {
    /// Makes the namespace, and nothing in it yet.
    pub(crate) async fn begin(client: &Client, args: &'a Args) -> Result<Self, Error> {
        let id = uuid::Uuid::new_v4()
            .simple()
            .to_string()
            .chars()
            .take(8)
            .collect::<String>();
        let name = format!("trellis-live-{id}");
        let namespace: Namespace = serde_json::from_value(scene::namespace(&name, &id))?;
        let namespace = Api::all(client.clone())
            .create(&PostParams::default(), &namespace)
            .await
            .map_err(Error::kubernetes(format!("create namespace {name}")))?;
        eprintln!("namespace {name}");
        Ok(Self {
            client: client.clone(),
            args,
            namespace,
        })
    }

    pub(crate) fn namespace(&self) -> String {
        self.namespace.name_any()
    }

    /// Everything, in order. A policy is Ready before its first client starts.
    pub(crate) async fn measure(&self) -> Result<Measured, Error> {
        let server = &self.args.server_image;
        for (name, status) in [("bad", 503), ("good", 200)] {
            self.create::<ConfigMap>(scene::configuration(name, status)).await?;
        }
        for service in ["failing", "mixed"] {
            self.create::<Service>(scene::service(service)).await?;
        }
        let servers = [
            ("failing", "failing", "bad", 1),
            ("mixed-good", "mixed", "good", GOOD),
            ("mixed-bad", "mixed", "bad", BAD),
        ];
        for (name, service, configuration, replicas) in servers {
            self.create::<Deployment>(scene::server(name, service, configuration, replicas, server))
                .await?;
        }
        self.create::<ResiliencePolicy>(scene::policy("failing", "retry", &scene::retries()))
            .await?;
        self.create::<ResiliencePolicy>(scene::policy("mixed", "circuitBreaker", &scene::breaker()))
            .await?;
        for (name, ..) in servers {
            self.until(&format!("the servers {name} are not there"), name, available)
                .await?;
        }
        for name in ["failing", "mixed"] {
            self.until(&format!("the policy {name} is not Ready"), name, ready)
                .await?;
        }

        let requests = self.args.requests;
        let mut measured = Measured::default();
        self.runs("retrying", "failing", "enabled").await?;
        measured.attempts(&self.metrics("retrying").await?, "failing", requests, RETRIES);
        let failing = self.pod_of("failing").await?;
        let tries = requests * (1 + RETRIES);
        let what = "tries that arrived from the client with a sidecar";
        measured.arrived(what, &self.metrics(&failing).await?, tries);
        self.runs("outside", "failing", "disabled").await?;
        let what = "with those of the client without one, which are not retried";
        measured.arrived(what, &self.metrics(&failing).await?, tries + requests);

        let log = self.runs("breaking", "mixed", "enabled").await?;
        measured.answers("failures until the breaker opened", &log, "503", THRESHOLD);
        measured.answers("good answers", &log, "200", requests - THRESHOLD);
        measured.ejected(&self.metrics("breaking").await?, "mixed", GOOD, BAD);

        let pods = self
            .api::<Pod>()
            .list(&ListParams::default())
            .await
            .map_err(Error::kubernetes("list Pods"))?;
        let servers = usize::try_from(1 + GOOD + BAD).unwrap_or_default();
        measured.sidecars(&pods.items, servers + CLIENTS);
        Ok(measured)
    }

    /// Deletes the namespace, if it is still the one that was made, and waits until it is gone.
    pub(crate) async fn end(&self, limit: Duration) -> Result<(), Error> {
        let name = self.namespace();
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let params = DeleteParams::default().preconditions(Preconditions {
            uid: self.namespace.uid(),
            resource_version: None,
        });
        namespaces
            .delete(&name, &params)
            .await
            .map_err(Error::kubernetes(format!("delete namespace {name}")))?;
        eventually(&format!("namespace {name} is not gone"), limit, async || {
            let left = namespaces
                .get_opt(&name)
                .await
                .map_err(Error::kubernetes("read the namespace"))?;
            Ok(left.map_or(Ok(()), |_| {
                Err("its policies wait for the operator, or its Pods for their end".to_owned())
            }))
        })
        .await
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace())
    }

    async fn create<K>(&self, manifest: Value) -> Result<(), Error>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + Debug
            + Serialize
            + DeserializeOwned,
    {
        let object: K = serde_json::from_value(manifest)?;
        let what = format!("create {} {}", K::kind(&()), object.name_any());
        self.api::<K>()
            .create(&PostParams::default(), &object)
            .await
            .map_err(Error::kubernetes(what))?;
        Ok(())
    }

    /// Waits until an object is as wanted, which says otherwise what it is.
    async fn until<K>(&self, what: &str, name: &str, wanted: fn(&K) -> Result<(), String>) -> Result<(), Error>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let api = self.api::<K>();
        eventually(what, self.limit(), async || {
            let object = api.get(name).await.map_err(Error::kubernetes(format!("read {name}")))?;
            Ok(wanted(&object))
        })
        .await
    }

    /// Runs a client to its end. Returns its log.
    async fn runs(&self, name: &str, service: &str, inject: &str) -> Result<String, Error> {
        let image = &self.args.client_image;
        self.create::<Pod>(scene::client(name, service, self.args.requests, image, inject))
            .await?;
        let pods = self.api::<Pod>();
        let params = LogParams {
            container: Some(CLIENT.to_owned()),
            ..LogParams::default()
        };
        let mut log = String::new();
        eventually(
            &format!("the client {name} has not sent its requests"),
            self.limit(),
            async || {
                // There is none before the container has started.
                log = pods.logs(name, &params).await.unwrap_or_default();
                let done = log.lines().any(|line| line == DONE);
                Ok(if done {
                    Ok(())
                } else {
                    Err(format!("{} lines in its log", log.lines().count()))
                })
            },
        )
        .await?;
        Ok(log)
    }

    /// The Pod of a Service with one.
    async fn pod_of(&self, service: &str) -> Result<String, Error> {
        let params = ListParams::default().labels(&format!("app={service}"));
        let pods = self
            .api::<Pod>()
            .list(&params)
            .await
            .map_err(Error::kubernetes("list Pods"))?;
        Ok(pods.items.first().map(ResourceExt::name_any).unwrap_or_default())
    }

    /// What the proxy of a Pod has counted, through the API server.
    async fn metrics(&self, pod: &str) -> Result<Samples, Error> {
        let path = format!("/api/v1/namespaces/{}/pods/{pod}:4191/proxy/metrics", self.namespace());
        let request = http::Request::get(path).body(Vec::new()).unwrap_or_default();
        let text = self
            .client
            .request_text(request)
            .await
            .map_err(Error::kubernetes(format!(
                "read port 4191 of Pod {pod} through the API server, which must reach the network of the Pods"
            )))?;
        Ok(Samples::read(&text))
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(self.args.timeout)
    }
}

/// Looks until it is so. What is returned otherwise says how it stands.
async fn eventually(
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> Result<Result<(), String>, Error>,
) -> Result<(), Error> {
    let end = Instant::now() + limit;
    let mut looks = interval(LOOK);
    loop {
        looks.tick().await;
        match look().await? {
            Ok(()) => return Ok(()),
            Err(last) if Instant::now() >= end => {
                let (what, seconds) = (what.to_owned(), limit.as_secs());
                return Err(Error::Late { what, seconds, last });
            }
            Err(_) => {}
        }
    }
}

fn available(deployment: &Deployment) -> Result<(), String> {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas);
    let found = deployment.status.as_ref().and_then(|status| status.available_replicas);
    if found == wanted {
        return Ok(());
    }
    Err(format!(
        "{} of {} run",
        found.unwrap_or_default(),
        wanted.unwrap_or_default()
    ))
}

fn ready(policy: &ResiliencePolicy) -> Result<(), String> {
    let mut conditions = policy.status.iter().flat_map(|status| &status.common.conditions);
    match conditions.find(|condition| condition.type_ == "Ready") {
        Some(ready) if ready.status.as_str() == "True" => Ok(()),
        Some(ready) => Err(format!("{}: {}", ready.reason, ready.message)),
        None => Err("no operator has looked at it; does one serve this namespace?".to_owned()),
    }
}
