//! One policy for a whole namespace: from its change to the last Service, beside a bare client that sends the same
//! patches as the operator does, one after another; and one Service under it, from its change to its repair.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, TryStreamExt as _};
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
    figures::{Figure, median, milliseconds},
    site::Site,
};

use crate::{
    change::{FAILURES, Seen, follow, shown},
    crowd::{Crowd, PATIENCE, is_ready},
};

const POLICY: &str = "all";
const NAMESPACE: &str = "broad";
const CHANGED: &str = "web-0";
/// Longer than the operator looks at the other Services after a repair: the next change begins at rest.
const REST: Duration = Duration::from_millis(500);

/// In turns, so that both meet the same server; `services` in a namespace for each.
pub(crate) async fn figures(site: &Site, services: usize, runs: usize, changes: usize) -> Result<Vec<Figure>, Error> {
    let crowd = Crowd::new(site, NAMESPACE, services).await?;
    let bare = Crowd::new(site, "broad-bare", services).await?;
    let policies = crowd.policies();
    policies.create(&PostParams::default(), &policy(5)?).await?;
    at_rest(&policies).await?;
    let mine: Api<Service> = Api::namespaced(site.bare().await?, bare.namespace());
    let (mut ours, mut raw) = (Vec::new(), Vec::new());
    for run in 0..runs {
        // From 6 on: 5 is what it says already.
        let failures = 6 + run % 90;
        let sent = send(&mine, bare.services(), failures);
        let seen = spread(
            &Api::namespaced(site.admin(), bare.namespace()),
            services,
            failures,
            sent,
        )
        .await?;
        raw.push(seen.as_secs_f64());
        let spec = Patch::Merge(json!({ "spec": policy(failures)?.spec }));
        let by = PatchParams::default();
        let sent = async { Ok(policies.patch(POLICY, &by, &spec).await.map(drop)?) };
        let seen = spread(&Api::namespaced(site.admin(), NAMESPACE), services, failures, sent).await?;
        ours.push(seen.as_secs_f64());
        at_rest(&policies).await?;
    }
    let repaired = repairs(&Api::namespaced(site.admin(), NAMESPACE), changes).await?;
    crowd.delete().await?;
    bare.delete().await?;
    let ratio = median(&ours) / median(&raw);
    let name = format!("one policy, {services} Services: to the last, ÷ a bare client");
    Ok(vec![
        Figure::new(name, ratio, "")
            .of("operator s", &ours)
            .of("bare client s", &raw),
        Figure::new(
            "one of its Services changed, until repaired, median",
            median(&milliseconds(&repaired)),
            "ms",
        ),
    ])
}

fn policy(failures: usize) -> Result<ResiliencePolicy, Error> {
    Ok(serde_json::from_value(json!({
        "apiVersion": "resilience.trellis.dev/v1alpha1", "kind": "ResiliencePolicy", "metadata": { "name": POLICY },
        "spec": {
            "targetRef": { "kind": "Namespace", "name": NAMESPACE },
            "circuitBreaker": { "failureThreshold": failures },
        },
    }))?)
}

async fn at_rest(policies: &Api<ResiliencePolicy>) -> Result<(), Error> {
    let ready = |found: Option<&ResiliencePolicy>| found.is_some_and(is_ready);
    tokio::time::timeout(PATIENCE, await_condition(policies.clone(), POLICY, ready)).await??;
    Ok(())
}

/// The patches that the operator sends: it writes what one policy asks for one after another.
async fn send(services: &Api<Service>, all: &[Service], failures: usize) -> Result<(), Error> {
    let by = PatchParams::apply("bare");
    for service in all {
        let body = json!({ "apiVersion": "v1", "kind": "Service", "metadata": {
            "name": service.name_any(), "uid": service.uid(),
            "annotations": {
                "balancer.linkerd.io/failure-accrual": "consecutive",
                FAILURES: failures.to_string(),
            },
        } });
        services.patch(&service.name_any(), &by, &Patch::Apply(&body)).await?;
    }
    Ok(())
}

/// The time from the start of the work until a watch has shown so many Services with this value.
async fn spread(
    services: &Api<Service>,
    count: usize,
    failures: usize,
    work: impl Future<Output = Result<(), Error>>,
) -> Result<Duration, Error> {
    let mut watch = watcher(services.clone(), watcher::Config::default()).boxed();
    while !matches!(watch.try_next().await?, Some(watcher::Event::InitDone)) {}
    let (began, wanted) = (Instant::now(), failures.to_string());
    let all = async {
        let mut changed = BTreeSet::new();
        while changed.len() < count {
            if let Some(watcher::Event::Apply(service)) = watch.try_next().await?
                && service.annotations().get(FAILURES) == Some(&wanted)
            {
                changed.insert(service.name_any());
            }
        }
        Ok::<_, Error>(began.elapsed())
    };
    match tokio::time::timeout(PATIENCE, futures::future::try_join(work, all)).await {
        Ok(done) => Ok(done?.1),
        Err(_) => Err(format!("not every Service had {failures} within {PATIENCE:?}").into()),
    }
}

/// From the removal of an annotation, sent by somebody else, until a watch shows it again.
async fn repairs(services: &Api<Service>, changes: usize) -> Result<Vec<Duration>, Error> {
    let found = services.get(CHANGED).await?;
    let failures = found.annotations().get(FAILURES).cloned().unwrap_or_default();
    let mut watch = follow(services, CHANGED).await?;
    let mut times = Vec::new();
    for _ in 0..changes {
        let began = Instant::now();
        let without = Patch::Merge(json!({ "metadata": { "annotations": { FAILURES: Value::Null } } }));
        let by = PatchParams::default();
        let sent = async { Ok::<_, Error>(services.patch(CHANGED, &by, &without).await?) };
        let (_, seen) = tokio::try_join!(sent, repaired(&mut watch, &failures, began))?;
        times.push(seen);
        tokio::time::sleep(REST).await;
    }
    Ok(times)
}

async fn repaired(watch: &mut Seen, failures: &str, began: Instant) -> Result<Duration, Error> {
    while let Some(event) = watch.try_next().await? {
        let without = |service: &Service| !service.annotations().contains_key(FAILURES);
        if matches!(&event, watcher::Event::Apply(service) if without(service)) {
            return tokio::time::timeout(PATIENCE, shown(watch, failures, began)).await?;
        }
    }
    Err("the watch ended".into())
}
