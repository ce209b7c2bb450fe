//! Policies for many Services: those with some labels, or all of a namespace.

use k8s_openapi::api::core::v1::Service;
use serde_json::json;
use trellis_api::{Readiness, ResiliencePolicy};

use crate::site::{Site, is_current, not_ready, ready, targets, totals};

const ANNOTATIONS: [(&str, &str); 2] = [("retry.linkerd.io/limit", "3"), ("retry.linkerd.io/http", "5xx")];

async fn counts(site: &Site, name: &str, total: i32, in_force: i32) -> ResiliencePolicy {
    let reached = |policy: &ResiliencePolicy| is_current(policy) && totals(policy) == (Some(total), Some(in_force));
    site.namespace
        .until(name, &format!("in force on {in_force} of {total}"), reached)
        .await
}

async fn label(site: &Site, service: &str, tier: serde_json::Value) {
    let patch = json!({ "metadata": { "labels": { "tier": tier } } });
    site.namespace.merge::<Service>(service, patch).await.unwrap();
}

/// Services are taken up when they get the labels and given up when they lose them, the last one too.
#[tokio::test(flavor = "multi_thread")]
async fn a_selector_follows_the_labels() {
    let site = Site::new("labels", "2.18").await;
    let spec = json!({ "targetSelector": { "matchLabels": { "tier": "front" } }, "retry": { "maxAttempts": 3 } });
    site.policy("front", spec).await;
    not_ready(&site.until("front", "NoTargets").await, "NoTargets");
    for name in ["a", "b"] {
        site.service_with(name, json!({ "tier": "front" }), json!({})).await;
        site.carries(name, &ANNOTATIONS).await;
    }
    site.service("c").await;
    let front = counts(&site, "front", 2, 2).await;
    assert_eq!(ready(&front).0, "True", "{}", ready(&front).2);
    let applied = front.status.unwrap().applied_to_services;
    let place = site.namespace.name();
    assert_eq!(applied, [format!("{place}/a"), format!("{place}/b")]);
    label(&site, "c", json!("front")).await;
    site.carries("c", &ANNOTATIONS).await;
    counts(&site, "front", 3, 3).await;
    label(&site, "a", json!("back")).await;
    site.carries("a", &[]).await;
    counts(&site, "front", 2, 2).await;
    // What Linkerd would ignore is said to be so, and does not fail the rest.
    site.service_with("bare", json!({ "tier": "front" }), json!({ "clusterIP": "None" }))
        .await;
    let front = counts(&site, "front", 3, 2).await;
    assert_eq!(ready(&front).0, "True", "{}", ready(&front).2);
    let inert: Vec<(&str, Readiness, &str)> = targets(&front)
        .iter()
        .filter(|target| target.reason != "Applied")
        .map(|target| (target.name.as_str(), target.ready, target.reason.as_str()))
        .collect();
    assert_eq!(inert, [("bare", Readiness::False, "Headless")]);
    site.carries("bare", &[]).await;
    // Where nothing acts, the policy is not ready.
    for name in ["b", "c"] {
        label(&site, name, json!(null)).await;
    }
    let front = counts(&site, "front", 1, 0).await;
    not_ready(&front, "Headless");
    for name in ["b", "c"] {
        site.carries(name, &[]).await;
    }
    label(&site, "c", json!("front")).await;
    site.carries("c", &ANNOTATIONS).await;
    site.namespace.delete::<Service>("bare").await.unwrap();
    counts(&site, "front", 1, 1).await;
    label(&site, "c", json!(null)).await;
    site.until("front", "NoTargets").await;
    site.carries("c", &[]).await;
    site.remove("front").await;
    site.finish().await;
}

/// A default of the namespace reaches every Service that has nothing of its own, also one that comes later.
#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_default_reaches_every_service() {
    let site = Site::new("default", "2.18").await;
    for name in ["a", "b"] {
        site.service(name).await;
    }
    site.policy(
        "own",
        json!({ "targetRef": { "name": "b" }, "retry": { "maxAttempts": 9 } }),
    )
    .await;
    let spec = json!({
        "targetRef": { "kind": "Namespace", "name": site.namespace.name() }, "retry": { "maxAttempts": 3 },
    });
    site.policy("all", spec).await;
    site.carries("a", &ANNOTATIONS).await;
    let all = counts(&site, "all", 2, 1).await;
    assert_eq!(ready(&all).0, "True", "{}", ready(&all).2);
    let told: Vec<(&str, &str)> = targets(&all)
        .iter()
        .map(|target| (target.name.as_str(), target.reason.as_str()))
        .collect();
    let mut sorted = told.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, [("a", "Applied"), ("b", "Overridden")]);
    site.carries("b", &[("retry.linkerd.io/limit", "9"), ANNOTATIONS[1]])
        .await;
    site.service("late").await;
    site.carries("late", &ANNOTATIONS).await;
    counts(&site, "all", 3, 2).await;
    site.service_with(
        "db",
        json!({}),
        json!({ "ports": [{ "name": "http", "port": 5432, "targetPort": 5432 }] }),
    )
    .await;
    let all = counts(&site, "all", 4, 2).await;
    assert_eq!(ready(&all).0, "True", "{}", ready(&all).2);
    assert!(
        targets(&all)
            .iter()
            .any(|target| target.name == "db" && target.reason == "Opaque")
    );
    site.remove("own").await;
    site.carries("b", &ANNOTATIONS).await;
    counts(&site, "all", 4, 3).await;
    // Another namespace's default is nobody's.
    site.policy(
        "foreign",
        json!({ "targetRef": { "kind": "Namespace", "name": "default" }, "retry": {} }),
    )
    .await;
    not_ready(
        &site.until("foreign", "CrossNamespaceTarget").await,
        "CrossNamespaceTarget",
    );
    site.finish().await;
}
