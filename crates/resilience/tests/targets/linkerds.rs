//! Linkerd's own `HTTPRoute`, of `policy.linkerd.io`: served like that of the Gateway API (facts, section 5).

#![expect(clippy::indexing_slicing, reason = "helpers of tests fail by panicking, like tests")]

use rstest::rstest;
use serde_json::{Value, json};
use trellis_api::Section;
use trellis_resilience::{explain, lint::lint};

use crate::stage::{CARTS, SEARCH, cluster, done, entries, reason, route, with_route};

fn theirs(changes: &Value) -> Value {
    let mut route = route("HTTPRoute", changes);
    route["apiVersion"] = json!("policy.linkerd.io/v1beta3");
    route
}

/// With a block of its own on every rule, the Service's does nothing; in every version of Linkerd, and with the Gateway
/// API or without.
#[rstest]
#[case::annotation("2.20", json!({"metadata": {"annotations": {"timeout.linkerd.io/request": "1s"}}}), Some("ShadowedByRoutes"))]
#[case::field("2.16", json!({"spec": {"rules": [{"timeouts": {"request": "1s"}}]}}), Some("ShadowedByRoutes"))]
#[case::in_gos_grammar("2.20", json!({"spec": {"rules": [{"timeouts": {"request": "1m30s"}}]}}), Some("ShadowedByRoutes"))]
#[case::zero_is_none("2.20", json!({"spec": {"rules": [{"timeouts": {"request": "0s"}}]}}), None)]
#[case::none("2.20", json!({}), None)]
#[case::not_accepted("2.20", json!({"status": null, "metadata": {"annotations": {"timeout.linkerd.io/request": "1s"}}}), None)]
#[case::defaulted_group("2.20", json!({"spec": {"parentRefs": [{"group": "policy.linkerd.io", "kind": "Service", "name": "web"}]}, "metadata": {"annotations": {"timeout.linkerd.io/request": "1s"}}}), None)]
fn a_route_of_linkerds_own_shadows_the_service(
    #[case] version: &str,
    #[case] changes: Value,
    #[case] expected: Option<&str>,
) {
    let mut cluster = with_route(cluster(version), theirs(&changes));
    cluster.gateway.http.clear();
    cluster.gateway.grpc.clear();
    let found = done(
        &cluster,
        &json!({"targetRef": {"name": "web"}, "timeout": {"idleTimeout": "1m"}, "retry": {}}),
    );
    assert_eq!(reason(&found), expected);
    assert!(found.targets[0].annotations.contains_key("retry.linkerd.io/limit"));
    if expected.is_some() {
        assert_ne!(
            found.targets[0].sections[&Section::Timeout],
            trellis_resilience::Standing::Won
        );
    }
}

/// It takes what fits no entry, wins where it is older, and is not pushed out by gRPC.
#[test]
fn it_counts_as_a_route_of_somebody_else() {
    let with = |changes: &Value| with_route(cluster("2.20"), theirs(changes));
    let spec = json!({"targetRef": {"name": "web"}, "routes": entries(SEARCH), "timeout": {"requestTimeout": "1s"}});
    let names: Vec<String> = done(&with(&json!({})), &spec).targets[0]
        .routes
        .iter()
        .map(|built| built.as_route().name())
        .collect();
    assert_eq!(names, ["p-search"]);
    let same = json!({"spec": {"rules": [{"matches": [{"path": {"value": "/search"}, "method": "GET"}]}]}});
    let found = done(&with(&same), &spec);
    assert_eq!(reason(&found), Some("RouteConflicted"));
    let message = found.targets[0].refusal().unwrap().message.clone();
    assert!(
        message.contains("HTTPRoute.policy.linkerd.io shop/web-search"),
        "{message}"
    );
    let grpc = json!({"targetRef": {"name": "web"}, "routes": entries(CARTS), "timeout": {"requestTimeout": "1s"}});
    assert_eq!(reason(&done(&with(&json!({})), &grpc)), Some("RouteConflicted"));
    // A targetRef means the Gateway API's.
    let on = json!({"targetRef": {"kind": "HTTPRoute", "name": "web-search"}, "retry": {}});
    assert_eq!(reason(&done(&with(&json!({})), &on)), Some("TargetNotFound"));
}

/// What is written and does not act is named, with what can be done.
#[test]
fn explain_says_what_does_not_act() {
    let mut cluster = with_route(cluster("2.20"), route("HTTPRoute", &json!({})));
    let calls = json!({
        "metadata": {"name": "calls"},
        "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "web", "port": 80}]},
    });
    cluster = with_route(cluster, route("GRPCRoute", &calls));
    let stored = [("retry.linkerd.io/grpc".to_owned(), "14".to_owned())];
    cluster.services[0].metadata.annotations = Some(stored.into());
    let notes = explain(&cluster, "shop", "web", 80, "shop").unwrap().notes;
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(notes[0].contains("retry.linkerd.io/grpc"), "{}", notes[0]);
    let displaced =
        "HTTPRoute shop/web-search has no effect: port 80 serves gRPC only, because of GRPCRoute shop/calls";
    assert_eq!(notes[1], displaced);
    let ports = json!([{"port": 80, "appProtocol": "grpc"}]);
    cluster.services[0].spec.as_mut().unwrap().ports = serde_json::from_value(ports).unwrap();
    let inert = explain(&cluster, "shop", "web", 80, "shop").unwrap().inert.unwrap();
    assert!(inert.hint.unwrap().contains("kubernetes.io/h2c"));
}

/// Each value of a breaker stands beside its origin, under the same name.
#[test]
fn explain_says_where_every_value_of_a_breaker_comes_from() {
    let mut cluster = cluster("2.20");
    let stored = [
        ("balancer.linkerd.io/failure-accrual", "unified"),
        ("balancer.alpha.linkerd.io/failure-accrual-success-rate-window", "30s"),
    ];
    let stored = stored.map(|(key, value)| (key.to_owned(), value.to_owned()));
    cluster.services[0].metadata.annotations = Some(stored.into());
    let found = explain(&cluster, "shop", "web", 80, "shop").unwrap();
    let breaker = serde_json::to_value(&found.breaker).unwrap();
    let origins = breaker["origins"].as_object().unwrap();
    assert_eq!(breaker.as_object().unwrap().len(), origins.len() + 1);
    assert_eq!(
        (&breaker["window"], &origins["window"]["from"]),
        (&json!(30_000), &json!("service"))
    );
    assert_eq!(origins["threshold"]["from"], "linkerd");
}

#[test]
fn it_is_explained_and_linted() {
    let rules = json!([{"timeouts": {"request": "1m30s"}}]);
    let cluster = with_route(cluster("2.19"), theirs(&json!({"spec": {"rules": rules}})));
    let found = explain(&cluster, "shop", "web", 80, "shop").unwrap();
    assert!(found.others_refused);
    assert_eq!(
        found.rules[0].route.as_ref().unwrap().to_string(),
        "HTTPRoute.policy.linkerd.io shop/web-search"
    );
    assert_eq!(found.rules[0].timeouts.as_ref().unwrap().values.request, Some(90_000));
    assert_eq!(lint(&cluster), []);
    let inert = json!({"spec": {"parentRefs": [{"group": "policy.linkerd.io", "kind": "Service", "name": "web"}]}});
    let found = lint(&with_route(crate::stage::cluster("2.20"), theirs(&inert)));
    assert!(
        found.iter().any(|finding| finding.rule.to_string() == "inert-parent"),
        "{found:?}"
    );
}

/// A version that may read a route's field may leave nothing to the Service: only what is true either way is said.
#[rstest]
#[case::unread("2.19", None)]
#[case::read("2.20", Some("ShadowedByRoutes"))]
#[case::in_doubt("edge-26.6.1", Some("ShadowedByRoutes"))]
fn timeouts_that_may_be_shadowed_are_not_in_force(#[case] version: &str, #[case] expected: Option<&str>) {
    let rules = json!([{"timeouts": {"request": "1s"}}]);
    let cluster = with_route(cluster(version), route("HTTPRoute", &json!({"spec": {"rules": rules}})));
    let found = done(
        &cluster,
        &json!({"targetRef": {"name": "web"}, "timeout": {"idleTimeout": "1m"}}),
    );
    assert_eq!(reason(&found), expected);
}
