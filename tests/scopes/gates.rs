//! What needs a newer Linkerd, or the Gateway API.

use serde_json::{Value, json};

use crate::{
    BARE, BETA,
    site::{Site, not_ready, ready, route},
};

fn unified() -> Value {
    json!({
        "targetRef": { "name": "web" }, "retry": { "maxAttempts": 2 },
        "circuitBreaker": { "failureAccrualMethod": "unified" }, "loadBias": {},
    })
}

const RETRIES: [(&str, &str); 2] = [("retry.linkerd.io/limit", "2"), ("retry.linkerd.io/http", "5xx")];

/// Linkerd 2.18 would drop the whole breaker; the rest of the policy is in force.
#[tokio::test(flavor = "multi_thread")]
async fn what_linkerd_does_not_know_is_not_written() {
    let site = Site::new("older", "2.18").await;
    site.service("web").await;
    site.policy("web", unified()).await;
    let policy = site.until("web", "FeatureNotInVersion").await;
    not_ready(&policy, "FeatureNotInVersion");
    assert!(ready(&policy).2.contains("2.20"), "{}", ready(&policy).2);
    site.carries("web", &RETRIES).await;
    site.stands("web", &["circuitBreaker Inert", "retry InForce", "loadBias Inert"])
        .await;
    // What is no longer asked for goes, though the rest is refused.
    site.edit("web", json!({ "retry": { "enabled": false } })).await;
    site.carries("web", &[]).await;
    site.edit("web", json!({ "retry": { "enabled": true } })).await;
    site.carries("web", &RETRIES).await;
    site.edit("web", json!({ "retry": null })).await;
    site.carries("web", &[]).await;
    site.finish().await;
}

/// Linkerd 2.20 takes all of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_newer_linkerd_takes_all_of_it() {
    let site = Site::new("newer", "2.20").await;
    site.service("web").await;
    site.policy("web", unified()).await;
    let policy = site.until("web", "Applied").await;
    assert_eq!(ready(&policy).0, "True");
    site.stands("web", &["circuitBreaker InForce", "retry InForce", "loadBias InForce"])
        .await;
    let expected = [
        &RETRIES[..],
        &[
            ("balancer.linkerd.io/failure-accrual", "unified"),
            ("balancer.linkerd.io/failure-accrual-consecutive-max-failures", "5"),
            ("balancer.alpha.linkerd.io/penalize-failures", "true"),
        ],
    ];
    site.carries("web", &expected.concat()).await;
    site.finish().await;
}

/// Linkerd 2.16 has neither rate limits nor EgressNetworks.
#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_linkerd_has_no_limits() {
    let site = Site::new("oldest", "2.16").await;
    site.service("web").await;
    let limit = json!({
        "targetRef": { "name": "web", "port": 80 }, "retry": { "maxAttempts": 2 },
        "rateLimit": { "enabled": true, "requestsPerSecond": 5, "createServer": { "accessPolicy": "audit" } },
    });
    site.policy("web", limit).await;
    not_ready(&site.until("web", "FeatureNotInVersion").await, "FeatureNotInVersion");
    site.carries("web", &RETRIES).await;
    site.finish().await;
}

/// Without the Gateway API policies for whole Services work; once it is installed, so do the others.
#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_api_may_come_later() {
    let site = Site::on(&BARE, "bare", "2.18").await;
    site.service("web").await;
    site.policy(
        "whole",
        json!({ "targetRef": { "name": "web" }, "retry": { "maxAttempts": 2 } }),
    )
    .await;
    let paths = json!([{ "name": "carts", "http": { "matches": [{ "path": { "value": "/carts" } }] } }]);
    site.policy(
        "paths",
        json!({ "targetRef": { "name": "web" }, "routes": paths, "timeout": { "requestTimeout": "1s" } }),
    )
    .await;
    site.until("whole", "Applied").await;
    site.carries("web", &RETRIES).await;
    let missing = site.until("paths", "GatewayApiMissing").await;
    not_ready(&missing, "GatewayApiMissing");
    let plane = site.namespace.plane();
    plane.apply(&trellis_bindings::gateway::crds().unwrap()).await.unwrap();
    site.until("paths", "Applied").await;
    assert!(route(&site.namespace, "HTTPRoute", "paths-carts").await.is_some());
    site.finish().await;
}

/// Linkerd 2.16 with the Gateway API that it brings: routes cannot be made, and the policy says what to install; that
/// users' routes are not looked at is said, too.
#[tokio::test(flavor = "multi_thread")]
async fn routes_of_v1beta1_only_are_said_to_be_too_old() {
    let site = Site::on(&BETA, "beta", "2.16").await;
    site.service("web").await;
    let paths = json!([{ "name": "carts", "http": { "matches": [{ "path": { "value": "/carts" } }] } }]);
    let paths = json!({ "targetRef": { "name": "web" }, "routes": paths, "timeout": { "requestTimeout": "1s" } });
    site.policy("paths", paths).await;
    let policy = site.until("paths", "GatewayApiMissing").await;
    not_ready(&policy, "GatewayApiMissing");
    assert!(ready(&policy).2.contains("v1beta1"), "{}", ready(&policy).2);
    let whole = json!({ "targetRef": { "name": "web" }, "retry": { "maxAttempts": 2 } });
    site.policy("whole", whole).await;
    let policy = site.until("whole", "Applied").await;
    assert!(ready(&policy).2.contains("v1beta1 only"), "{}", ready(&policy).2);
    site.carries("web", &RETRIES).await;
    // Newer definitions serve both.
    let plane = site.namespace.plane();
    plane.apply(&trellis_bindings::gateway::crds().unwrap()).await.unwrap();
    site.until("paths", "Applied").await;
    site.remove("paths").await;
    site.remove("whole").await;
    site.finish().await;
}
