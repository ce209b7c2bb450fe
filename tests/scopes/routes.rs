//! Policies for some requests: routes of the Gateway API, made for them and gone with them.

use std::time::Duration;

use kube::ResourceExt as _;
use serde_json::{Value, json};
use trellis_api::ResiliencePolicy;
use trellis_bindings::gateway::{GrpcRoute, HttpRoute};
use trellis_testkit::audit::Event;

use crate::{
    site::{NO, Site, linkerds, not_ready, owned, ready, route, service},
    stand_in::Says,
};

/// One parent, with the group written as `""`, and no backend; the policy as the only owner.
fn is_ours(route: &Value, policy: &ResiliencePolicy, parent: &Value) {
    assert_eq!(route["spec"]["parentRefs"], json!([parent]), "{route}");
    for rule in route["spec"]["rules"].as_array().unwrap() {
        assert!(rule.get("backendRefs").is_none(), "{rule}");
    }
    let owners = route["metadata"]["ownerReferences"].as_array().unwrap();
    assert_eq!(owners.len(), 1, "{route}");
    assert_eq!(owners[0]["kind"], "ResiliencePolicy");
    assert_eq!(owners[0]["uid"], json!(policy.uid()));
    assert_eq!(owners[0]["controller"], true);
}

/// A policy for paths is ready exactly as long as Linkerd takes its routes.
#[tokio::test(flavor = "multi_thread")]
async fn http_routes_are_ready_when_linkerd_says_so() {
    let site = Site::new("http", "2.18").await;
    site.linkerd.says(Says::Nothing);
    site.service("web").await;
    let spec = json!({
        "targetRef": { "name": "web", "port": 80 },
        "routes": [{ "name": "carts", "http": { "matches": [{ "path": { "value": "/carts" }, "method": "GET" }] } }],
        "retry": { "maxAttempts": 3, "retryTimeout": "400ms" }, "timeout": { "requestTimeout": "2s" },
    });
    site.policy("web", spec).await;
    let policy = site.until("web", "RoutePending").await;
    not_ready(&policy, "RoutePending");
    let carts = route(&site.namespace, "HTTPRoute", "web-carts").await.unwrap();
    let parent = json!({ "group": "", "kind": "Service", "name": "web", "port": 80 });
    is_ours(&carts, &policy, &parent);
    let annotations = [
        ("retry.linkerd.io/limit", "3"),
        ("retry.linkerd.io/http", "5xx"),
        ("retry.linkerd.io/timeout", "400ms"),
        ("timeout.linkerd.io/request", "2s"),
    ];
    assert_eq!(linkerds(&carts), owned(&annotations));
    assert_eq!(
        carts["spec"]["rules"][0]["matches"][0]["path"],
        json!({ "type": "PathPrefix", "value": "/carts" })
    );
    // Without it, all other requests would get 404.
    let rest = route(&site.namespace, "HTTPRoute", "web-rest").await.unwrap();
    is_ours(&rest, &policy, &parent);
    assert_eq!(linkerds(&rest), owned(&[]));
    site.carries("web", &[]).await;

    site.linkerd.says(Says::Late(Duration::from_millis(700)));
    let policy = site.until("web", "Applied").await;
    assert_eq!(ready(&policy).0, "True");
    for (says, reason) in NO.into_iter().skip(1) {
        site.linkerd.says(says);
        not_ready(&site.until("web", reason).await, reason);
        site.linkerd.says(Says::TheTruth);
        site.until("web", "Applied").await;
    }

    // One entry more, another one less.
    let entries = json!([{ "name": "orders", "http": { "matches": [{ "path": { "value": "/orders" } }] } }]);
    site.edit("web", json!({ "routes": entries })).await;
    site.namespace.gone::<HttpRoute>("web-carts").await;
    site.until("web", "Applied").await;
    assert!(route(&site.namespace, "HTTPRoute", "web-orders").await.is_some());
    // Repaired when somebody changes it.
    let patch = json!({ "metadata": { "annotations": { "retry.linkerd.io/limit": "9" } } });
    site.namespace.merge::<HttpRoute>("web-orders", patch).await.unwrap();
    let repaired = |route: &HttpRoute| route.annotations()["retry.linkerd.io/limit"] == "3";
    site.namespace.until("web-orders", "repaired", repaired).await;

    // A user's GRPCRoute at the same port pushes ours out.
    let theirs = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GRPCRoute", "metadata": { "name": "theirs" },
        "spec": { "parentRefs": [parent], "rules": [{}] },
    });
    site.namespace.apply(theirs).await.unwrap();
    not_ready(&site.until("web", "RouteConflicted").await, "RouteConflicted");
    site.namespace.delete::<GrpcRoute>("theirs").await.unwrap();
    site.until("web", "Applied").await;
    // What Linkerd said of the former Service proves nothing about another one.
    site.service("api").await;
    site.linkerd.says(Says::Nothing);
    site.edit("web", json!({ "targetRef": { "name": "api" } })).await;
    not_ready(&site.until("web", "RoutePending").await, "RoutePending");
    let moved = route(&site.namespace, "HTTPRoute", "web-orders").await.unwrap();
    assert_eq!(moved["spec"]["parentRefs"][0]["name"], "api");
    site.linkerd.says(Says::TheTruth);
    site.until("web", "Applied").await;

    site.remove("web").await;
    for name in ["web-orders", "web-rest"] {
        site.namespace.gone::<HttpRoute>(name).await;
    }
    // At no time was there an entry without the rest, whose requests would get 404.
    let work = site.written().await;
    let at = |verb: &str, name: &str| {
        let is = |event: &Event| {
            let object = event.object_ref.as_ref();
            event.verb == verb && object.is_some_and(|object| object.resource == "httproutes" && object.name == name)
        };
        work.iter().position(is).unwrap()
    };
    assert!(at("patch", "web-rest") < at("patch", "web-carts"));
    assert!(at("delete", "web-orders") < at("delete", "web-rest"));
    site.finish().await;
}

/// The same for gRPC; and at one port there is one kind.
#[tokio::test(flavor = "multi_thread")]
async fn grpc_routes_are_ready_when_linkerd_says_so() {
    let site = Site::new("grpc", "2.20").await;
    site.service("web").await;
    let spec = json!({
        "targetRef": { "name": "web" },
        "routes": [{ "name": "add", "grpc": { "matches": [{ "service": "shop.v1.Carts", "method": "Add" }] } }],
        "retry": { "maxAttempts": 2, "retryableGrpcCodes": "unavailable,internal" },
    });
    site.linkerd.says(Says::Nothing);
    site.policy("rpc", spec).await;
    not_ready(&site.until("rpc", "RoutePending").await, "RoutePending");
    site.linkerd.says(Says::TheTruth);
    let policy = site.until("rpc", "Applied").await;
    let add = route(&site.namespace, "GRPCRoute", "rpc-add").await.unwrap();
    is_ours(&add, &policy, &json!({ "group": "", "kind": "Service", "name": "web" }));
    assert_eq!(add["metadata"]["annotations"]["retry.linkerd.io/limit"], "2");
    let codes = add["metadata"]["annotations"]["retry.linkerd.io/grpc"]
        .as_str()
        .unwrap();
    let mut codes: Vec<&str> = codes.split(',').collect();
    codes.sort_unstable();
    assert_eq!(codes, ["internal", "unavailable"]);
    let wanted = json!({ "type": "Exact", "service": "shop.v1.Carts", "method": "Add" });
    assert_eq!(add["spec"]["rules"][0]["matches"][0]["method"], wanted);

    // A younger policy for HTTP at the same port would be ignored by Linkerd, and writes nothing.
    let spec = json!({
        "targetRef": { "name": "web" }, "timeout": { "requestTimeout": "2s" },
        "routes": [{ "name": "slow", "http": { "matches": [{ "path": { "value": "/slow" } }] } }],
    });
    site.policy("web", spec).await;
    not_ready(&site.until("web", "RouteConflicted").await, "RouteConflicted");
    assert!(route(&site.namespace, "HTTPRoute", "web-slow").await.is_none());
    site.remove("rpc").await;
    for name in ["rpc-add", "rpc-rest"] {
        site.namespace.gone::<GrpcRoute>(name).await;
    }
    site.until("web", "Applied").await;
    site.finish().await;
}

/// At one port Linkerd serves gRPC rather than HTTP: routes of ours that were there before a user's give way.
#[tokio::test(flavor = "multi_thread")]
async fn a_users_route_of_the_other_kind_makes_ours_go() {
    let site = Site::new("yields", "2.18").await;
    site.service("web").await;
    let mut spec = json!({
        "targetRef": { "name": "web" }, "timeout": { "requestTimeout": "2s" },
        "routes": [{ "name": "add", "grpc": { "matches": [{ "service": "shop.v1.Carts", "method": "Add" }] } }],
    });
    site.policy("rpc", spec.clone()).await;
    site.until("rpc", "Applied").await;
    let theirs = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": { "name": "theirs" },
        "spec": { "parentRefs": [{ "group": "", "kind": "Service", "name": "web" }], "rules": [{}] },
    });
    site.namespace.apply(theirs).await.unwrap();
    let policy = site.until("rpc", "RouteConflicted").await;
    not_ready(&policy, "RouteConflicted");
    for name in ["rpc-add", "rpc-rest"] {
        site.namespace.gone::<GrpcRoute>(name).await;
    }
    let accepted = |route: &HttpRoute| linkerds_verdict(&json!(route)) == json!("True");
    site.namespace.until("theirs", "accepted", accepted).await;
    site.namespace.delete::<HttpRoute>("theirs").await.unwrap();
    site.until("rpc", "Applied").await;

    // A second port would serve gRPC only, too, as long as the policy does not say which of them speaks it.
    let port = |name: &str, port: u16| json!({ "name": name, "port": port, "targetPort": 8080 });
    let ports = json!({ "ports": [port("http", 80), port("rpc", 9090)] });
    site.namespace.apply(service("web", json!({}), ports)).await.unwrap();
    not_ready(&site.until("rpc", "GrpcNeedsPort").await, "GrpcNeedsPort");
    for name in ["rpc-add", "rpc-rest"] {
        site.namespace.gone::<GrpcRoute>(name).await;
    }
    spec["targetRef"]["port"] = json!(9090);
    site.policy("rpc", spec).await;
    site.until("rpc", "Applied").await;
    site.remove("rpc").await;
    site.finish().await;
}

/// Of two policies for the same requests one acts, and the other one says which, until it can.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_policies_for_the_same_requests_one_acts() {
    let site = Site::new("same", "2.20").await;
    site.service("web").await;
    let spec = |timeout: &str| {
        json!({
            "targetRef": { "name": "web" }, "timeout": { "requestTimeout": timeout },
            "routes": [{ "name": "x", "http": { "matches": [{ "path": { "value": "/x" } }] } }],
        })
    };
    site.policy("one", spec("1s")).await;
    site.until("one", "Applied").await;
    site.policy("two", spec("9s")).await;
    let policy = site.until("two", "RouteConflicted").await;
    not_ready(&policy, "RouteConflicted");
    assert!(ready(&policy).2.contains("one-x"), "{}", ready(&policy).2);
    for name in ["two-x", "two-rest"] {
        assert!(route(&site.namespace, "HTTPRoute", name).await.is_none(), "{name}");
    }
    site.until("one", "Applied").await;
    site.edit(
        "one",
        json!({ "routes": [{ "name": "y", "http": { "matches": [{ "path": { "value": "/y" } }] } }] }),
    )
    .await;
    site.until("two", "Applied").await;
    site.until("one", "Applied").await;
    // A split of a user is not passed by.
    let canary = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": { "name": "canary" },
        "spec": {
            "parentRefs": [{ "group": "", "kind": "Service", "name": "web" }],
            "rules": [{ "backendRefs": [{ "name": "web-v1", "port": 80 }, { "name": "web-v2", "port": 80 }] }],
        },
    });
    site.namespace.apply(canary).await.unwrap();
    for name in ["one", "two"] {
        not_ready(&site.until(name, "RouteConflicted").await, "RouteConflicted");
    }
    for name in ["one-y", "one-rest", "two-x", "two-rest"] {
        site.namespace.gone::<HttpRoute>(name).await;
    }
    site.namespace.delete::<HttpRoute>("canary").await.unwrap();
    for name in ["one", "two"] {
        site.until(name, "Applied").await;
        site.remove(name).await;
    }
    site.finish().await;
}

/// Whether Linkerd accepts the route.
fn linkerds_verdict(route: &Value) -> Value {
    route["status"]["parents"][0]["conditions"][0]["status"].clone()
}
