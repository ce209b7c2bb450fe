//! Destinations outside the cluster.

use kube::ResourceExt as _;
use serde_json::{Value, json};
use trellis_bindings::{gateway::HttpRoute, linkerd::policy::EgressNetwork};

use crate::{
    site::{FOREIGN, Site, not_ready, ours, owned, policy, ready, route},
    stand_in::Says,
};

/// An EgressNetwork carries retries and timeouts once Linkerd takes it, and routes at a port.
#[tokio::test(flavor = "multi_thread")]
async fn an_egress_network_carries_a_policy() {
    let site = Site::new("egress", "2.18").await;
    site.linkerd.says(Says::Nothing);
    let retry = json!({ "targetRef": { "kind": "EgressNetwork", "name": "out" }, "retry": { "maxAttempts": 2 } });
    site.policy("out", retry).await;
    site.until("out", "TargetNotFound").await;
    let network = json!({
        "apiVersion": "policy.linkerd.io/v1alpha1", "kind": "EgressNetwork",
        "metadata": { "name": "out", "annotations": { FOREIGN.0: FOREIGN.1 } }, "spec": { "trafficPolicy": "Allow" },
    });
    site.namespace.apply(network).await.unwrap();
    not_ready(
        &site.until("out", "EgressNetworkNotAccepted").await,
        "EgressNetworkNotAccepted",
    );
    site.linkerd.says(Says::No("EgressReasonNetworkOverlap"));
    let reached = |policy: &trellis_api::ResiliencePolicy| ready(policy).2.contains("EgressReasonNetworkOverlap");
    site.namespace.until("out", "says what Linkerd said", reached).await;
    site.linkerd.says(Says::TheTruth);
    let policy_now = site.until("out", "Applied").await;
    assert_eq!(ready(&policy_now).0, "True");
    let living: EgressNetwork = site.namespace.get("out").await.unwrap();
    let retries = [("retry.linkerd.io/limit", "2"), ("retry.linkerd.io/http", "5xx")];
    assert_eq!(ours(living.annotations()), owned(&retries));
    assert_eq!(living.annotations()[FOREIGN.0], FOREIGN.1);
    // Its own traffic has no endpoints that a breaker could count.
    site.edit("out", json!({ "circuitBreaker": { "failureThreshold": 3 } }))
        .await;
    not_ready(&site.until("out", "NoBalancer").await, "NoBalancer");
    site.edit("out", json!({ "circuitBreaker": Value::Null })).await;
    site.until("out", "Applied").await;

    let paths = json!([{ "name": "pay", "http": { "matches": [{ "path": { "value": "/pay" } }] } }]);
    let mut spec = json!({
        "targetRef": { "kind": "EgressNetwork", "name": "out" }, "routes": paths,
        "timeout": { "requestTimeout": "4s" },
    });
    let error = site
        .namespace
        .apply(policy("paths", spec.clone()))
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("need targetRef.port"), "{error}");
    spec["targetRef"]["port"] = json!(443);
    site.policy("paths", spec).await;
    site.until("paths", "Applied").await;
    // A network that denies would be opened by a route for all other requests.
    let traffic = |policy: &str| json!({ "spec": { "trafficPolicy": policy } });
    site.namespace
        .merge::<EgressNetwork>("out", traffic("Deny"))
        .await
        .unwrap();
    site.namespace.gone::<HttpRoute>("paths-rest").await;
    let said =
        |policy: &trellis_api::ResiliencePolicy| ready(policy).1 == "Applied" && ready(policy).2.contains("admits");
    site.namespace.until("paths", "says what it admits", said).await;
    assert!(site.namespace.get::<HttpRoute>("paths-pay").await.is_ok());
    site.namespace
        .merge::<EgressNetwork>("out", traffic("Allow"))
        .await
        .unwrap();
    site.namespace
        .until("paths-rest", "there again", |_: &HttpRoute| true)
        .await;
    site.until("paths", "Applied").await;
    let pay = route(&site.namespace, "HTTPRoute", "paths-pay").await.unwrap();
    let parent = json!({ "group": "policy.linkerd.io", "kind": "EgressNetwork", "name": "out", "port": 443 });
    assert_eq!(pay["spec"]["parentRefs"], json!([parent]));
    site.remove("paths").await;
    site.namespace.gone::<HttpRoute>("paths-pay").await;
    site.remove("out").await;
    let living: EgressNetwork = site.namespace.get("out").await.unwrap();
    assert_eq!(living.annotations(), &owned(&[FOREIGN]));
    site.finish().await;
}
