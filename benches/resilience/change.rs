//! From a change of a policy to its effect on the Service, beside a bare client that changes the Service itself.

use std::time::{Duration, Instant};

use futures::{Stream, StreamExt as _, TryStreamExt as _, stream::BoxStream};
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams, PostParams},
    runtime::{wait::await_condition, watcher},
};
use serde_json::{Value, json};
use trellis_api::ResiliencePolicy;
use trellis_benches::{
    Error,
    figures::{Figure, at, median, milliseconds},
    site::Site,
};
use trellis_testkit::fixtures::service;

use crate::crowd::{Crowd, is_ready};

const CHANGED: &str = "web-0";
const BARE: &str = "bare";
pub(crate) const FAILURES: &str = "balancer.linkerd.io/failure-accrual-consecutive-max-failures";

pub(crate) type Seen = BoxStream<'static, Result<watcher::Event<Service>, watcher::Error>>;

/// In turns, so that both meet the same server.
pub(crate) async fn figures(site: &Site, crowd: &Crowd, changes: usize) -> Result<Vec<Figure>, Error> {
    let services: Api<Service> = Api::namespaced(site.admin(), crowd.namespace());
    services
        .create(&PostParams::default(), &service(BARE).port(80).build())
        .await?;
    let mine: Api<Service> = Api::namespaced(site.bare().await?, crowd.namespace());
    let policies = crowd.policies();
    let (mut on_changed, mut on_bare) = (follow(&services, CHANGED).await?, follow(&services, BARE).await?);
    let (mut ours, mut raw) = (Vec::new(), Vec::new());
    for change in 0..changes {
        // From 6 on: 5 is what it says already.
        let failures = (6 + change % 90).to_string();
        let (began, wanted) = (Instant::now(), failures.clone());
        let body = json!({ "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": BARE, "annotations": { FAILURES: wanted } } });
        let by = PatchParams::apply("bare");
        let sent = async { Ok::<_, Error>(mine.patch(BARE, &by, &Patch::Apply(&body)).await?) };
        let (_, seen) = tokio::try_join!(sent, shown(&mut on_bare, &failures, began))?;
        raw.push(seen);

        let began = Instant::now();
        let spec = json!({ "spec": { "circuitBreaker": { "failureThreshold": failures.parse::<u32>()? } } });
        let sent = async { Ok::<_, Error>(merge(&policies, spec).await?) };
        let (_, seen) = tokio::try_join!(sent, shown(&mut on_changed, &failures, began))?;
        ours.push(seen);
        // The next one begins at rest.
        let ready = |found: Option<&ResiliencePolicy>| found.is_some_and(is_ready);
        await_condition(policies.clone(), CHANGED, ready).await?;
    }
    let (ours, raw) = (milliseconds(&ours), milliseconds(&raw));
    Ok(vec![
        Figure::new(
            "one change, from patch sent to annotation seen, median",
            median(&ours),
            "ms",
        )
        .at_most(50.0),
        Figure::new("95 of 100 within", at(&ours, 0.95), "ms"),
        Figure::new(
            "a bare client, from patch sent to annotation seen, median",
            median(&raw),
            "ms",
        ),
    ])
}

async fn merge(policies: &Api<ResiliencePolicy>, patch: Value) -> Result<ResiliencePolicy, kube::Error> {
    policies
        .patch(CHANGED, &PatchParams::default(), &Patch::Merge(patch))
        .await
}

/// A watch of one Service that has its first list.
pub(crate) async fn follow(services: &Api<Service>, name: &str) -> Result<Seen, Error> {
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut watch = watcher(services.clone(), config).boxed();
    while !matches!(watch.try_next().await?, Some(watcher::Event::InitDone)) {}
    Ok(watch)
}

pub(crate) async fn shown(
    watch: &mut (impl Stream<Item = Result<watcher::Event<Service>, watcher::Error>> + Unpin),
    failures: &str,
    began: Instant,
) -> Result<Duration, Error> {
    while let Some(event) = watch.try_next().await? {
        if let watcher::Event::Apply(service) = event
            && service
                .annotations()
                .get(FAILURES)
                .is_some_and(|value| value == failures)
        {
            return Ok(began.elapsed());
        }
    }
    Err("the watch ended".into())
}
