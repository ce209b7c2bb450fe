//! Routes of users: as targets, and in the way.

use k8s_openapi::api::core::v1::Service;
use kube::{
    ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use trellis_bindings::{
    gateway::HttpRoute,
    linkerd::{ServiceProfile, policy::LinkerdHttpRoute},
};
use trellis_testkit::plane::Isolated;

use crate::{
    site::{FOREIGN, NO, Site, not_ready, ours, owned, ready, service},
    stand_in::{NAME, Says},
};

fn http_route(name: &str, service: &str) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": { "name": name, "annotations": { FOREIGN.0: FOREIGN.1 } },
        "spec": {
            "parentRefs": [{ "group": "", "kind": "Service", "name": service, "port": 80 }],
            "rules": [{ "matches": [{ "path": { "value": "/theirs" } }] }],
        },
    })
}

/// Another controller's verdict on a route, which nobody may touch or believe.
async fn another_controller_accepts(namespace: &Isolated, route: &str, service: &str) {
    let verdict = json!({
        "controllerName": "example.com/gateway",
        "parentRef": { "group": "", "kind": "Service", "name": service },
        "conditions": [{
            "type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }],
    });
    let by = PatchParams {
        field_manager: Some("example.com/gateway".to_owned()),
        ..PatchParams::default()
    };
    let patch = Patch::Merge(json!({ "status": { "parents": [verdict] } }));
    namespace
        .api::<HttpRoute>()
        .patch_status(route, &by, &patch)
        .await
        .unwrap();
}

/// On a user's route only our annotations come and go.
#[tokio::test(flavor = "multi_thread")]
async fn a_users_route_gets_our_annotations_only() {
    let site = Site::new("theirs", "2.18").await;
    site.linkerd.says(Says::Nothing);
    site.service("web").await;
    let spec = json!({
        "targetRef": { "kind": "HTTPRoute", "name": "slow" },
        "retry": { "maxAttempts": 2 }, "timeout": { "requestTimeout": "3s" },
    });
    site.policy("slow", spec).await;
    site.until("slow", "TargetNotFound").await;
    site.namespace.apply(http_route("slow", "web")).await.unwrap();
    let before: HttpRoute = site.namespace.get("slow").await.unwrap();
    not_ready(&site.until("slow", "RoutePending").await, "RoutePending");
    // Somebody else's verdict does not count.
    another_controller_accepts(&site.namespace, "slow", "web").await;
    site.linkerd.says(Says::TheTruth);
    let policy = site.until("slow", "Applied").await;
    assert_eq!(ready(&policy).0, "True");
    let route: HttpRoute = site.namespace.get("slow").await.unwrap();
    let mut said: Vec<String> = route
        .status
        .iter()
        .flat_map(|status| &status.parents)
        .map(|parent| parent.controller_name.clone())
        .collect();
    said.sort_unstable();
    assert_eq!(said, ["example.com/gateway", NAME]);
    let annotations = [
        ("retry.linkerd.io/limit", "2"),
        ("retry.linkerd.io/http", "5xx"),
        ("timeout.linkerd.io/request", "3s"),
    ];
    assert_eq!(ours(route.annotations()), owned(&annotations));
    assert_eq!(route.annotations()[FOREIGN.0], FOREIGN.1);
    assert_eq!((&route.spec, route.owner_references()), (&before.spec, &[][..]));
    for (says, reason) in NO.into_iter().skip(1) {
        site.linkerd.says(says);
        not_ready(&site.until("slow", reason).await, reason);
    }
    site.linkerd.says(Says::TheTruth);
    site.until("slow", "Applied").await;
    site.remove("slow").await;
    let route: HttpRoute = site.namespace.get("slow").await.unwrap();
    assert_eq!(route.annotations(), &owned(&[FOREIGN]));
    assert_eq!(route.spec, before.spec);
    site.finish().await;
}

/// Linkerd says nothing anew of a route when the port that it is attached to becomes one that it does not look into.
#[tokio::test(flavor = "multi_thread")]
async fn a_policy_on_a_route_follows_the_service() {
    let site = Site::new("follows", "2.18").await;
    follows(&site, &site.namespace).await;
    site.finish().await;
}

/// The same for a route of a consumer, whose Service and its profile are in another namespace.
#[tokio::test(flavor = "multi_thread")]
async fn a_policy_on_a_consumers_route_follows_the_service() {
    let site = Site::new("follows-out", "2.18").await;
    follows(&site, &site.other).await;
    site.finish().await;
}

/// With the Service in the namespace `home`.
async fn follows(site: &Site, home: &Isolated) {
    let web = || service("web", json!({}), json!({}));
    home.apply(web()).await.unwrap();
    let mut route = http_route("slow", "web");
    route["spec"]["parentRefs"][0]["namespace"] = home.name().into();
    site.namespace.apply(route).await.unwrap();
    let spec = json!({ "targetRef": { "kind": "HTTPRoute", "name": "slow" }, "retry": {} });
    site.policy("slow", spec).await;
    site.until("slow", "Applied").await;
    let opaque = async |ports: Value| {
        let patch = json!({ "metadata": { "annotations": { "config.linkerd.io/opaque-ports": ports } } });
        home.merge::<Service>("web", patch).await.unwrap();
    };
    opaque(json!("80")).await;
    not_ready(&site.until("slow", "Opaque").await, "Opaque");
    opaque(Value::Null).await;
    site.until("slow", "Applied").await;
    let profile = format!("web.{}.svc.cluster.local", home.name());
    let manifest = json!({
        "apiVersion": "linkerd.io/v1alpha2", "kind": "ServiceProfile", "metadata": { "name": profile },
        "spec": { "routes": [{ "name": "GET /", "condition": { "method": "GET" } }] },
    });
    // In the Service's namespace, and in the clients'.
    for place in [home, &site.namespace] {
        place.apply(manifest.clone()).await.unwrap();
        not_ready(
            &site.until("slow", "ServiceProfileShadowed").await,
            "ServiceProfileShadowed",
        );
        place.delete::<ServiceProfile>(&profile).await.unwrap();
        site.until("slow", "Applied").await;
    }
    // Only the Service tells: what Linkerd said before still stands.
    site.linkerd.says(Says::Nothing);
    home.delete::<Service>("web").await.unwrap();
    not_ready(
        &site.until("slow", "TargetServiceNotFound").await,
        "TargetServiceNotFound",
    );
    home.apply(web()).await.unwrap();
    site.until("slow", "Applied").await;
    site.linkerd.says(Says::TheTruth);
    site.remove("slow").await;
}

/// A user's route of the name that ours would have is never touched.
#[tokio::test(flavor = "multi_thread")]
async fn a_taken_name_is_never_taken_over() {
    let site = Site::new("taken", "2.18").await;
    for name in ["web", "other"] {
        site.service(name).await;
    }
    site.namespace.apply(http_route("web-carts", "other")).await.unwrap();
    let spec = json!({
        "targetRef": { "name": "web" }, "retry": { "maxAttempts": 3 },
        "routes": [{ "name": "carts", "http": { "matches": [{ "path": { "value": "/carts" } }] } }],
    });
    site.policy("web", spec).await;
    not_ready(&site.until("web", "NameTaken").await, "NameTaken");
    let theirs: HttpRoute = site.namespace.get("web-carts").await.unwrap();
    assert_eq!(theirs.annotations(), &owned(&[FOREIGN]));
    assert_eq!(theirs.spec.parent_refs[0].name, "other");
    assert!(theirs.owner_references().is_empty());
    site.namespace.delete::<HttpRoute>("web-carts").await.unwrap();
    site.until("web", "Applied").await;
    let ours: HttpRoute = site.namespace.get("web-carts").await.unwrap();
    assert_eq!(ours.owner_references().len(), 1);
    site.remove("web").await;
    site.namespace.gone::<HttpRoute>("web-carts").await;
    site.finish().await;
}

/// A route's own policy wins over the Service's, unless that overrides; and the route is let go then.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_may_override_its_routes() {
    let site = Site::new("above", "2.18").await;
    site.service("web").await;
    site.namespace.apply(http_route("slow", "web")).await.unwrap();
    let retries = |number: u32| json!({ "maxAttempts": number });
    let spec = json!({ "targetRef": { "name": "web" }, "retry": retries(1) });
    site.policy("whole", spec).await;
    site.carries(
        "web",
        &[("retry.linkerd.io/limit", "1"), ("retry.linkerd.io/http", "5xx")],
    )
    .await;
    let spec = json!({
        "targetRef": { "kind": "HTTPRoute", "name": "slow" },
        "retry": retries(2), "timeout": { "requestTimeout": "3s" },
    });
    site.policy("slow", spec).await;
    site.stands("slow", &["retry InForce", "timeout InForce"]).await;
    let carries = async |annotations: &[(&str, &str)]| {
        let wanted = owned(annotations);
        let reached = |route: &HttpRoute| ours(route.annotations()) == wanted;
        site.namespace.until("slow", &format!("{wanted:?}"), reached).await;
    };
    let timeout = ("timeout.linkerd.io/request", "3s");
    let all = [
        ("retry.linkerd.io/limit", "2"),
        ("retry.linkerd.io/http", "5xx"),
        timeout,
    ];
    carries(&all).await;
    site.edit("whole", json!({ "strategy": "Overrides" })).await;
    carries(&[timeout]).await;
    site.stands("slow", &["retry Overridden whole", "timeout InForce"])
        .await;
    site.edit("whole", json!({ "strategy": "Defaults" })).await;
    carries(&all).await;
    site.stands("slow", &["retry InForce", "timeout InForce"]).await;
    site.remove("slow").await;
    carries(&[]).await;
    site.finish().await;
}

/// A policy that turns from a Service to a route lets the Service go, before Linkerd has said anything of the route.
#[tokio::test(flavor = "multi_thread")]
async fn from_a_service_to_a_route() {
    let site = Site::new("turned", "2.18").await;
    site.linkerd.says(Says::Nothing);
    site.service("web").await;
    site.namespace.apply(http_route("slow", "web")).await.unwrap();
    site.policy(
        "p",
        json!({ "targetRef": { "name": "web" }, "retry": { "maxAttempts": 1 } }),
    )
    .await;
    site.until("p", "Applied").await;
    site.edit("p", json!({ "targetRef": { "kind": "HTTPRoute", "name": "slow" } }))
        .await;
    not_ready(&site.until("p", "RoutePending").await, "RoutePending");
    site.carries("web", &[]).await;
    // And back, where nothing has to be said.
    site.edit("p", json!({ "targetRef": { "kind": "Service", "name": "web" } }))
        .await;
    site.until("p", "Applied").await;
    let route: HttpRoute = site.namespace.get("slow").await.unwrap();
    assert!(ours(route.annotations()).is_empty(), "{:?}", route.annotations());
    site.finish().await;
}

/// Linkerd's own HTTPRoute is watched: it shadows the Service as soon as Linkerd serves it, and no longer.
#[tokio::test(flavor = "multi_thread")]
async fn a_route_of_linkerds_own_shadows_the_service() {
    let site = Site::new("linkerds", "2.18").await;
    site.service("web").await;
    let spec = json!({ "targetRef": { "name": "web" }, "timeout": { "requestTimeout": "2s" } });
    site.policy("web", spec).await;
    site.until("web", "Applied").await;
    let route = json!({
        "apiVersion": "policy.linkerd.io/v1beta3", "kind": "HTTPRoute", "metadata": { "name": "web" },
        "spec": {
            "parentRefs": [{ "group": "", "kind": "Service", "name": "web" }],
            "rules": [{ "timeouts": { "request": "1m30s" } }],
        },
    });
    site.namespace.apply(route).await.unwrap();
    let parent = json!({ "group": "core", "kind": "Service", "namespace": site.namespace.name(), "name": "web" });
    let taken = json!({ "status": { "parents": [{
        "controllerName": "linkerd.io/policy-controller", "parentRef": parent,
        "conditions": [{ "type": "Accepted", "status": "True", "reason": "Accepted" }],
    }] } });
    let routes = site.namespace.api::<LinkerdHttpRoute>();
    routes
        .patch_status("web", &PatchParams::default(), &Patch::Merge(taken))
        .await
        .unwrap();
    not_ready(&site.until("web", "ShadowedByRoutes").await, "ShadowedByRoutes");
    site.namespace.delete::<LinkerdHttpRoute>("web").await.unwrap();
    site.until("web", "Applied").await;
    site.finish().await;
}
