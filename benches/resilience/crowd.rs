//! `Crowd`: many policies, each for a Service of its own, from their creation to `Ready`.

use std::time::Duration;

use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    runtime::wait::{await_condition, conditions::is_deleted},
};
use serde_json::json;
use trellis_api::ResiliencePolicy;
use trellis_benches::{CONCURRENCY, Error, replay::Replay, site::Site, throng};
use trellis_testkit::{
    calls,
    fixtures::{policy, service},
    operator::Signal,
};

/// How long the crowd may take before it counts as failed.
pub(crate) const PATIENCE: Duration = Duration::from_mins(3);

/// The names of what is recorded, and of its namespace; no part of anything else that is said.
const RECORDED: (&str, &str) = ("recorded-one", "recorded-here");

/// A namespace of Services, and the policies to come.
pub(crate) struct Crowd {
    client: Client,
    namespace: String,
    services: Vec<Service>,
}

/// What the operator writes for one policy.
pub(crate) async fn recorded(site: &Site) -> Result<Replay, Error> {
    let (name, namespace) = RECORDED;
    site.namespace(namespace).await?;
    let (client, (operator, proxy)) = (site.admin(), site.recorded().await?);
    let services: Api<Service> = Api::namespaced(client.clone(), namespace);
    let policies: Api<ResiliencePolicy> = Api::namespaced(client, namespace);
    let began = proxy.recording().place();
    let target = services
        .create(&PostParams::default(), &service(name).port(80).build())
        .await?;
    let made = policies.create(&PostParams::default(), &wanted(name)).await?;
    await_condition(policies.clone(), name, |found: Option<&ResiliencePolicy>| {
        found.is_some_and(is_ready)
    })
    .await?;
    // The Event follows what it tells.
    proxy.recording().ended(&calls().resource("events"), 1).await;
    let writes = calls().writes().namespace(namespace);
    let mut said = proxy.recording().since(began);
    said.retain(|call| writes.matches(&call.info));
    let uids = [made.uid(), target.uid()].map(Option::unwrap_or_default);
    let replay = Replay::of(&said).with(&[(&uids[0], "uid-of-policy"), (&uids[1], "uid-of-service")]);
    policies.delete(name, &DeleteParams::default()).await?;
    await_condition(policies, name, is_deleted(&uids[0])).await?;
    operator.stop(Signal::Term).await;
    Ok(replay)
}

fn wanted(name: &str) -> ResiliencePolicy {
    policy(name)
        .breaker(5)
        .retry(3, "5xx,429")
        .request_timeout("2s")
        .build()
}

pub(crate) fn is_ready(policy: &ResiliencePolicy) -> bool {
    let conditions = policy.status.iter().flat_map(|status| &status.common.conditions);
    let mut ready = conditions.filter(|condition| condition.type_ == "Ready" && condition.status == "True");
    ready.any(|ready| ready.observed_generation == policy.metadata.generation)
}

/// Runs these, so many at once, each as a task of its own.
fn at_once<T: Send + 'static, F>(all: impl Stream<Item = F>) -> impl Stream<Item = Result<T, Error>>
where
    F: Future<Output = Result<T, Error>> + Send + 'static,
{
    let joined = all.map(|one| async { tokio::spawn(one).await? });
    joined.buffer_unordered(CONCURRENCY)
}

impl Crowd {
    /// A namespace with so many Services.
    pub(crate) async fn new(site: &Site, namespace: &str, size: usize) -> Result<Self, Error> {
        site.namespace(namespace).await?;
        let client = site.admin();
        let services: Api<Service> = Api::namespaced(client.clone(), namespace);
        let made = stream::iter(0..size).map(|index| {
            let services = services.clone();
            async move {
                let service = service(&format!("web-{index}")).port(80).build();
                Ok(services.create(&PostParams::default(), &service).await?)
            }
        });
        Ok(Self {
            services: at_once(made).try_collect().await?,
            client,
            namespace: namespace.to_owned(),
        })
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    pub(crate) fn services(&self) -> &[Service] {
        &self.services
    }

    pub(crate) fn policies(&self) -> Api<ResiliencePolicy> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Creates the policies; the uid of each with the Service that it is for.
    fn created(&self) -> impl Stream<Item = Result<(ResiliencePolicy, Service), Error>> {
        let all = stream::iter(self.services.clone()).map(|service| {
            let policies = self.policies();
            async move {
                Ok((
                    policies
                        .create(&PostParams::default(), &wanted(&service.name_any()))
                        .await?,
                    service,
                ))
            }
        });
        at_once(all)
    }

    /// How long the operator takes for all.
    pub(crate) async fn operated(&self) -> Result<Duration, Error> {
        self.timed(self.created().try_for_each(|_| async { Ok(()) })).await
    }

    /// How long a bare client takes that sends the same for all.
    pub(crate) async fn raw(&self, site: &Site, replay: &Replay) -> Result<Duration, Error> {
        let client = site.bare().await?;
        let writes = self.created().map_ok(|(policy, service)| {
            let (name, uids) = (
                policy.name_any(),
                [policy.uid(), service.uid()].map(Option::unwrap_or_default),
            );
            let words = [
                (RECORDED.0, name.as_str()),
                (RECORDED.1, self.namespace.as_str()),
                ("uid-of-policy", &uids[0]),
                ("uid-of-service", &uids[1]),
            ];
            replay.with(&words).send(client.clone())
        });
        let sent = writes
            .map(|one| async { tokio::spawn(one?).await? })
            .buffer_unordered(CONCURRENCY);
        self.timed(sent.try_for_each(|()| async { Ok(()) })).await
    }

    /// The time from the first creation until a watch has shown that all are Ready.
    async fn timed(&self, work: impl Future<Output = Result<(), Error>>) -> Result<Duration, Error> {
        throng::until_ready(self.policies(), self.services.len(), is_ready, work, PATIENCE).await
    }

    /// Deletes everything; the operator lets the policies go.
    pub(crate) async fn delete(self) -> Result<(), Error> {
        throng::until_gone(&self.policies(), &self.client, &self.namespace, PATIENCE).await
    }

    /// The same without an operator.
    pub(crate) async fn abandon(self) -> Result<(), Error> {
        let freed = stream::iter(self.services.clone()).map(|service| {
            let policies = self.policies();
            async move {
                let free = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
                policies
                    .patch_metadata(&service.name_any(), &PatchParams::default(), &free)
                    .await?;
                Ok(())
            }
        });
        at_once(freed).try_for_each(|()| async { Ok(()) }).await?;
        self.delete().await
    }
}
