//! A policy for a Service of another namespace: it acts for the clients of its own.

use k8s_openapi::api::core::v1::Service;
use kube::{ResourceExt as _, api::ListParams};
use serde_json::{Value, json};
use trellis_api::ResiliencePolicy;
use trellis_bindings::gateway::HttpRoute;

use crate::{
    site::{NO, Site, linkerds, not_ready, ours, owned, ready, route, service, targets},
    stand_in::Says,
};

/// The route is in the policy's namespace, and nothing is written in the Service's.
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_gets_a_route_of_its_own() {
    let site = Site::new("consumer", "2.18").await;
    site.linkerd.says(Says::Nothing);
    let elsewhere = site.other.name();
    let spec = json!({
        "targetRef": { "name": "web", "namespace": elsewhere, "port": 80 },
        "retry": { "maxAttempts": 2 }, "timeout": { "responseTimeout": "1s" },
    });
    site.policy("ours", spec).await;
    site.until("ours", "TargetServiceNotFound").await;
    site.other.apply(service("web", json!({}), json!({}))).await.unwrap();
    not_ready(&site.until("ours", "RoutePending").await, "RoutePending");
    let all = route(&site.namespace, "HTTPRoute", "ours-all").await.unwrap();
    let parent = json!({ "group": "", "kind": "Service", "name": "web", "namespace": elsewhere, "port": 80 });
    assert_eq!(all["spec"]["parentRefs"], json!([parent]));
    let annotations = [
        ("retry.linkerd.io/limit", "2"),
        ("retry.linkerd.io/http", "5xx"),
        ("timeout.linkerd.io/response", "1s"),
    ];
    assert_eq!(linkerds(&all), owned(&annotations));
    assert_eq!(all["metadata"]["ownerReferences"][0]["name"], "ours");
    site.linkerd.says(Says::TheTruth);
    let policy = site.until("ours", "Applied").await;
    assert_eq!(ready(&policy).0, "True");
    assert_eq!(targets(&policy)[0].namespace, elsewhere);
    let theirs: Service = site.other.get("web").await.unwrap();
    assert!(ours(theirs.annotations()).is_empty(), "{:?}", theirs.annotations());
    assert!(
        site.other
            .api::<HttpRoute>()
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .is_empty()
    );
    for (says, reason) in NO.into_iter().skip(1) {
        site.linkerd.says(says);
        not_ready(&site.until("ours", reason).await, reason);
    }
    site.linkerd.says(Says::TheTruth);
    site.until("ours", "Applied").await;

    // While there is no such Service, nothing is in force.
    site.other.delete::<Service>("web").await.unwrap();
    not_ready(
        &site.until("ours", "TargetServiceNotFound").await,
        "TargetServiceNotFound",
    );
    site.other.apply(service("web", json!({}), json!({}))).await.unwrap();
    site.until("ours", "Applied").await;
    // What is read from the Service itself is not the consumer's to set.
    site.edit("ours", json!({ "circuitBreaker": { "failureThreshold": 3 } }))
        .await;
    not_ready(
        &site.until("ours", "CrossNamespaceTarget").await,
        "CrossNamespaceTarget",
    );
    site.edit("ours", json!({ "circuitBreaker": Value::Null })).await;
    site.until("ours", "Applied").await;
    // Controller and garbage collector agree that the route goes with the policy, and not before.
    let all: HttpRoute = site.namespace.get("ours-all").await.unwrap();
    let policy: ResiliencePolicy = site.namespace.get("ours").await.unwrap();
    assert_eq!(Some(all.owner_references()[0].uid.clone()), policy.uid());
    site.remove("ours").await;
    site.namespace.gone::<HttpRoute>("ours-all").await;
    site.finish().await;
}
