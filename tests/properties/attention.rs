//! What a policy does when somebody asks for something: a reconcile, a pause; when its keys are touched; and what it
//! tells in Events.

use k8s_openapi::api::{core::v1::Service, events::v1::Event};
use kube::{Api, ResourceExt as _, api::ListParams};
use serde_json::json;
use trellis_api::ResiliencePolicy;
use trellis_testkit::{
    eventually,
    fixtures::{policy, service},
    plane::Isolated,
};

use crate::{
    chronicle::Chronicle,
    served,
    steps::Step,
    story::Story,
    verdict::{condition, manager, owned},
};

const LIMIT: &str = "retry.linkerd.io/limit";

fn is(policy: &ResiliencePolicy, reason: &str) -> bool {
    let generation = policy
        .status
        .as_ref()
        .and_then(|status| status.common.observed_generation);
    generation == policy.metadata.generation && condition(policy, "Ready").is_some_and(|ready| ready.reason == reason)
}

async fn applied(prefix: &str) -> Isolated {
    let (plane, _) = served().await;
    let namespace = plane.isolated(prefix).await.unwrap();
    namespace.create_object(service("web").port(80).build()).await.unwrap();
    namespace.apply(policy("web").retry(3, "5xx").json()).await.unwrap();
    until(&namespace, "web", "Applied").await;
    namespace
}

async fn until(namespace: &Isolated, name: &str, reason: &str) -> ResiliencePolicy {
    namespace
        .until(name, reason, |policy: &ResiliencePolicy| is(policy, reason))
        .await
}

/// A second policy that becomes ready after everything that came before was looked at.
async fn everything_was_looked_at(namespace: &Isolated, marker: &str) {
    namespace.create_object(service(marker).port(80).build()).await.unwrap();
    namespace.apply(policy(marker).breaker(5).json()).await.unwrap();
    until(namespace, marker, "Applied").await;
}

/// A key that a user deletes comes back; a value that another manager overwrites is not taken back by force, and is
/// written again once it is given back.
#[tokio::test(flavor = "multi_thread")]
async fn drift_is_repaired_and_nothing_is_stolen() {
    let (plane, _) = served().await;
    let client = plane.client().unwrap();
    let chronicle = Chronicle::start(&client).await;
    let namespace = applied("drift").await;
    let has = |value: &'static str| {
        move |service: &Service| service.annotations().get(LIMIT).is_some_and(|found| found == value)
    };

    namespace
        .merge::<Service>("web", json!({ "metadata": { "annotations": { LIMIT: null } } }))
        .await
        .unwrap();
    namespace.until("web", "the deleted key is back", has("3")).await;
    namespace
        .merge::<Service>("web", json!({ "metadata": { "annotations": null } }))
        .await
        .unwrap();
    namespace.until("web", "all keys are back", has("3")).await;

    let mut story = Story::new(&namespace, &client, &chronicle);
    story.take(&Step::Annotate("web", LIMIT, Some("9"))).await;
    let taken = until(&namespace, "web", "ForeignOwner").await;
    let message = &condition(&taken, "Ready").unwrap().message;
    assert!(
        message.contains(LIMIT) && message.contains("kubectl-annotate"),
        "{message}"
    );
    story.request("web", "while it is taken").await;
    story.check_ledger(&chronicle.now(&story.namespace));
    let service: Service = namespace.get("web").await.unwrap();
    let us = manager(namespace.name(), "web");
    assert!(!owned(&service.metadata, |by| by == us).contains(LIMIT));
    assert_eq!(
        service.annotations()["retry.linkerd.io/http"],
        "5xx",
        "what runs, runs on"
    );

    story.take(&Step::Annotate("web", LIMIT, None)).await;
    until(&namespace, "web", "Applied").await;
    let service: Service = namespace.get("web").await.unwrap();
    assert!(has("3")(&service) && owned(&service.metadata, |by| by == us).contains(LIMIT));
}

/// A suspended policy neither changes what it has written nor repairs it, and does both when it goes on. It can be
/// deleted while it is suspended, and cleans up.
#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_policy_rests_until_it_goes_on() {
    let namespace = applied("suspend").await;
    namespace
        .merge::<ResiliencePolicy>(
            "web",
            json!({ "spec": { "suspend": true, "retry": { "maxAttempts": 7 } } }),
        )
        .await
        .unwrap();
    let told = until(&namespace, "web", "Suspended").await;
    assert_eq!(condition(&told, "Ready").unwrap().status, "Unknown");
    namespace
        .merge::<Service>(
            "web",
            json!({ "metadata": { "annotations": { "retry.linkerd.io/http": null } } }),
        )
        .await
        .unwrap();
    everything_was_looked_at(&namespace, "marker").await;
    let service: Service = namespace.get("web").await.unwrap();
    assert_eq!(service.annotations().get(LIMIT).map(String::as_str), Some("3"));
    assert!(
        !service.annotations().contains_key("retry.linkerd.io/http"),
        "nothing is repaired"
    );
    let now: ResiliencePolicy = namespace.get("web").await.unwrap();
    assert_eq!(now.resource_version(), told.resource_version(), "nothing more is told");

    namespace
        .merge::<ResiliencePolicy>("web", json!({ "spec": { "suspend": false } }))
        .await
        .unwrap();
    namespace
        .until("web", "it goes on", |service: &Service| {
            let read = |key: &str| service.annotations().get(key).map(String::as_str);
            (read(LIMIT), read("retry.linkerd.io/http")) == (Some("7"), Some("5xx"))
        })
        .await;
    until(&namespace, "web", "Applied").await;

    namespace
        .merge::<ResiliencePolicy>("web", json!({ "spec": { "suspend": true } }))
        .await
        .unwrap();
    namespace.delete::<ResiliencePolicy>("web").await.unwrap();
    namespace.gone::<ResiliencePolicy>("web").await;
    let service: Service = namespace.get("web").await.unwrap();
    assert!(service.annotations().is_empty(), "{:?}", service.annotations());
}

/// The annotation `requestedAt` asks for a reconcile, whose end is told in the status; the same value asks only once.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_handled_once() {
    let namespace = applied("request").await;
    let service: Service = namespace.get("web").await.unwrap();
    let request = |at: &str| json!({ "metadata": { "annotations": { trellis_api::REQUESTED_AT: at } } });
    let handled = |policy: &ResiliencePolicy| policy.status.as_ref()?.common.last_handled_reconcile_at.clone();
    for at in ["2026-01-01T00:00:00Z", "any other value"] {
        namespace.merge::<ResiliencePolicy>("web", request(at)).await.unwrap();
        namespace
            .until("web", "handled", |policy| handled(policy).as_deref() == Some(at))
            .await;
    }
    let before: ResiliencePolicy = namespace.get("web").await.unwrap();
    namespace
        .merge::<ResiliencePolicy>("web", request("any other value"))
        .await
        .unwrap();
    everything_was_looked_at(&namespace, "marker").await;
    let after: ResiliencePolicy = namespace.get("web").await.unwrap();
    assert_eq!(after.resource_version(), before.resource_version());
    let untouched: Service = namespace.get("web").await.unwrap();
    assert_eq!(untouched.resource_version(), service.resource_version());
}

/// One Event for every change of Ready, none for a reconcile that changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn events_tell_what_changed() {
    let (plane, _) = served().await;
    let namespace = plane.isolated("events").await.unwrap();
    namespace.apply(policy("web").retry(3, "5xx").json()).await.unwrap();
    until(&namespace, "web", "TargetServiceNotFound").await;
    namespace.create_object(service("web").port(80).build()).await.unwrap();
    until(&namespace, "web", "Applied").await;
    let request = json!({ "metadata": { "annotations": { trellis_api::REQUESTED_AT: "now" } } });
    namespace.merge::<ResiliencePolicy>("web", request).await.unwrap();
    let handled = |policy: &ResiliencePolicy| {
        policy
            .status
            .as_ref()
            .is_some_and(|status| status.common.last_handled_reconcile_at.is_some())
    };
    namespace.until("web", "handled", handled).await;
    namespace.delete::<Service>("web").await.unwrap();
    until(&namespace, "web", "TargetServiceNotFound").await;

    let events: Api<Event> = namespace.api();
    let expected = [("Normal", "Applied", 1), ("Warning", "TargetServiceNotFound", 2)];
    eventually("the Events", async || {
        let list = events
            .list(&ListParams::default())
            .await
            .map_err(|error| error.to_string())?;
        let about = list.items.iter().filter(|event| {
            event
                .regarding
                .as_ref()
                .is_some_and(|object| object.name.as_deref() == Some("web"))
        });
        let mut told: Vec<(String, String, i32)> = about
            .map(|event| {
                assert_eq!(event.reporting_controller.as_deref(), Some("trellis-resilience"));
                assert_eq!(event.reporting_instance.as_deref(), Some("shared"));
                let times = event.series.as_ref().map_or(1, |series| series.count);
                (
                    event.type_.clone().unwrap_or_default(),
                    event.reason.clone().unwrap_or_default(),
                    times,
                )
            })
            .collect();
        told.sort();
        let right = told
            .iter()
            .map(|(type_, reason, times)| (type_.as_str(), reason.as_str(), *times))
            .eq(expected);
        if right { Ok(()) } else { Err(format!("{told:?}")) }
    })
    .await;
}
