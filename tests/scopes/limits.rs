//! Rate limits: an object of Linkerd's for a Server, somebody's or ours.

use kube::ResourceExt as _;
use serde_json::{Value, json};
use trellis_api::ResiliencePolicy;
use trellis_bindings::linkerd::policy::{HttpLocalRateLimitPolicy, Server};

use crate::{
    site::{Site, not_ready, policy, ready},
    stand_in::Says,
};

fn server(name: &str) -> Value {
    json!({
        "apiVersion": "policy.linkerd.io/v1beta3", "kind": "Server", "metadata": { "name": name },
        "spec": { "podSelector": { "matchLabels": { "app": "web" } }, "port": 8080, "accessPolicy": "audit" },
    })
}

fn limit(name: &str, server: &str) -> Value {
    json!({
        "apiVersion": "policy.linkerd.io/v1alpha1", "kind": "HTTPLocalRateLimitPolicy", "metadata": { "name": name },
        "spec": {
            "targetRef": { "group": "policy.linkerd.io", "kind": "Server", "name": server },
            "total": { "requestsPerSecond": 1 },
        },
    })
}

/// For a Server that is there: waits for it and for Linkerd, and yields to an older limit.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_for_an_existing_server() {
    let site = Site::new("limit", "2.18").await;
    site.linkerd.says(Says::Nothing);
    site.service("web").await;
    let spec = json!({
        "targetRef": { "name": "web" },
        "rateLimit": {
            "enabled": true, "requestsPerSecond": 100, "perClientRequestsPerSecond": 10,
            "serverRef": { "name": "web-http" },
        },
    });
    site.policy("web", spec).await;
    not_ready(&site.until("web", "ServerNotFound").await, "ServerNotFound");
    site.namespace.apply(server("web-http")).await.unwrap();
    let pending = site.until("web", "RateLimitPending").await;
    not_ready(&pending, "RateLimitPending");
    site.linkerd.says(Says::TheTruth);
    let policy = site.until("web", "Applied").await;
    assert_eq!(ready(&policy).0, "True");
    let made: HttpLocalRateLimitPolicy = site.namespace.get("web").await.unwrap();
    let spec = json!(made.spec);
    assert_eq!(
        spec,
        json!({
            "targetRef": { "group": "policy.linkerd.io", "kind": "Server", "name": "web-http" },
            "total": { "requestsPerSecond": 100 }, "identity": { "requestsPerSecond": 10 },
        })
    );
    assert_eq!(Some(made.owner_references()[0].uid.clone()), policy.uid());
    let theirs: Server = site.namespace.get("web-http").await.unwrap();
    assert!(theirs.owner_references().is_empty());
    assert_eq!(theirs.spec.access_policy.as_deref(), Some("audit"));
    site.carries("web", &[]).await;
    site.linkerd.says(Says::No("RateLimitReasonAlreadyExists"));
    let late = site.until("web", "RateLimitNotAccepted").await;
    not_ready(&late, "RateLimitNotAccepted");
    assert!(ready(&late).2.contains("older rate limit"), "{}", ready(&late).2);
    site.linkerd.says(Says::TheTruth);
    site.until("web", "Applied").await;
    // To another Server, for which somebody else has a limit already.
    site.namespace.apply(server("taken")).await.unwrap();
    site.remove("web").await;
    site.namespace.gone::<HttpLocalRateLimitPolicy>("web").await;
    site.namespace.apply(limit("a", "taken")).await.unwrap();
    let spec = json!({
        "targetRef": { "name": "web" },
        "rateLimit": { "enabled": true, "requestsPerSecond": 100, "serverRef": { "name": "taken" } },
    });
    site.policy("web", spec).await;
    not_ready(&site.until("web", "RateLimitNotAccepted").await, "RateLimitNotAccepted");
    site.namespace.delete::<HttpLocalRateLimitPolicy>("a").await.unwrap();
    site.until("web", "Applied").await;
    // Switched off, it goes.
    site.edit(
        "web",
        json!({ "rateLimit": { "enabled": false }, "retry": { "maxAttempts": 1 } }),
    )
    .await;
    site.namespace.gone::<HttpLocalRateLimitPolicy>("web").await;
    site.until("web", "Applied").await;
    site.finish().await;
}

/// A Server is made only on request, with the access policy that was asked for; and an old Linkerd has no limits.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_made_only_on_request() {
    let site = Site::new("server", "2.20").await;
    site.service("web").await;
    let spec = |create: Value| {
        json!({
            "targetRef": { "name": "web", "port": 80 },
            "rateLimit": { "enabled": true, "requestsPerSecond": 100, "createServer": create },
        })
    };
    for (refused, word) in [
        (spec(json!({})), "accessPolicy"),
        (
            json!({ "targetRef": { "name": "web" }, "rateLimit": { "enabled": true, "requestsPerSecond": 1 } }),
            "createServer",
        ),
        (
            json!({
                "targetRef": { "name": "web" },
                "rateLimit": { "enabled": true, "requestsPerSecond": 1, "serverRef": { "name": "a" }, "burstSize": 5 },
            }),
            "burstSize",
        ),
    ] {
        let error = site
            .namespace
            .apply(policy("web", refused))
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(word), "{error}");
    }
    // Beside one that is there already none is made.
    site.namespace.apply(server("theirs")).await.unwrap();
    site.policy("web", spec(json!({ "accessPolicy": "all-authenticated" })))
        .await;
    not_ready(&site.until("web", "ServerConflicted").await, "ServerConflicted");
    site.namespace.delete::<Server>("theirs").await.unwrap();
    let policy: ResiliencePolicy = site.until("web", "Applied").await;
    let made: Server = site.namespace.get("web").await.unwrap();
    let spec = json!(made.spec);
    assert_eq!(spec["accessPolicy"], "all-authenticated");
    assert_eq!(
        (&spec["port"], &spec["podSelector"]),
        (&json!(8080), &json!({ "matchLabels": { "app": "web" } }))
    );
    assert_eq!(Some(made.owner_references()[0].uid.clone()), policy.uid());
    let limit: HttpLocalRateLimitPolicy = site.namespace.get("web").await.unwrap();
    assert_eq!(limit.spec.target_ref.name, "web");
    site.remove("web").await;
    site.namespace.gone::<Server>("web").await;
    site.namespace.gone::<HttpLocalRateLimitPolicy>("web").await;
    site.finish().await;
}

/// What is taken out of a policy goes, though something else in it is refused; what is still asked for stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_goes_though_the_breaker_is_refused() {
    let site = Site::new("former", "2.18").await;
    site.service("web").await;
    let limit = json!({ "enabled": true, "requestsPerSecond": 100, "createServer": { "accessPolicy": "audit" } });
    let spec = json!({ "targetRef": { "name": "web", "port": 80 }, "rateLimit": limit });
    site.policy("web", spec).await;
    site.until("web", "Applied").await;
    let unified = json!({ "failureAccrualMethod": "unified" });
    site.edit("web", json!({ "circuitBreaker": unified })).await;
    site.until("web", "FeatureNotInVersion").await;
    site.namespace.get::<HttpLocalRateLimitPolicy>("web").await.unwrap();
    site.namespace.get::<Server>("web").await.unwrap();
    site.edit("web", json!({ "rateLimit": { "enabled": false } })).await;
    site.namespace.gone::<HttpLocalRateLimitPolicy>("web").await;
    site.namespace.gone::<Server>("web").await;
    not_ready(&site.until("web", "FeatureNotInVersion").await, "FeatureNotInVersion");
    site.finish().await;
}
