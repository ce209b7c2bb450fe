//! The model of whole clusters against single facts about routes, profiles and versions.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, like tests")]

#[path = "routes/matches.rs"]
mod matches;

use k8s_openapi::api::core::v1::Service;
use rstest::rstest;
use serde_json::{Value, json};
use trellis_model::{Bias, Block, Inert, Outlook, Profile, Retry, Route, State, Timeouts, Version, outlook};

fn service(annotations: &Value, ports: &Value) -> Service {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "shop", "annotations": annotations},
        "spec": {"clusterIP": "10.0.0.1", "ports": ports},
    }))
    .unwrap()
}

/// A route in `shop` that is attached to `web` and accepted, changed by a merge patch.
fn route(kind: &str, name: &str, changes: &Value) -> Route {
    let mut whole = json!({
        "kind": kind,
        "metadata": {"name": name, "namespace": "shop", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "web"}], "rules": [{}]},
        "status": {"parents": [{
            "controllerName": "linkerd.io/policy-controller",
            "parentRef": {"group": "core", "kind": "Service", "namespace": "shop", "name": "web"},
            "conditions": [{"type": "Accepted", "status": "True"}],
        }]},
    });
    merge(&mut whole, changes);
    Route::read(&whole)
}

fn merge(onto: &mut Value, changes: &Value) {
    match (onto, changes) {
        (Value::Object(onto), Value::Object(changes)) => {
            for (key, change) in changes {
                merge(onto.entry(key.clone()).or_insert(Value::Null), change);
            }
        }
        (onto, change) => *onto = change.clone(),
    }
}

fn state(version: Version, annotations: &Value, routes: Vec<Route>) -> State<'static> {
    State {
        version,
        services: vec![service(annotations, &json!([{"port": 80}, {"port": 81}]))],
        routes,
        profiles: Vec::new(),
        http: vec!["v1", "v1beta1"],
        grpc: vec!["v1"],
    }
}

fn at(state: &State<'_>, client: &str) -> Outlook {
    outlook(state, "shop", "web", 80, client)
}

fn titles(outlook: &Outlook) -> Vec<&str> {
    outlook.rules.iter().filter_map(|rule| rule.route.as_deref()).collect()
}

const NONE: Timeouts = Timeouts {
    request: None,
    response: None,
    idle: None,
};

#[test]
fn without_a_route_the_services_values_hold_for_every_request() {
    let found = at(
        &state((2, 20), &json!({"retry.linkerd.io/http": "5xx"}), Vec::new()),
        "shop",
    );
    assert_eq!(found.rules.len(), 1);
    assert_eq!(found.rules[0].route, None);
    assert_eq!(found.rules[0].retry.as_ref().unwrap().retry.statuses, [(500, 599)]);
    assert!(!found.others_refused && !found.grpc);
}

/// The rows of "Blocks": a block of the rule replaces the Service's, whole.
#[rstest]
#[case::nothing(json!({}), json!({}), Some(3), Timeouts { response: Some(5000), ..NONE })]
#[case::retry(json!({"retry.linkerd.io/timeout": "1s"}), json!({}), Some(1), Timeouts { response: Some(5000), ..NONE })]
#[case::timeout(json!({"timeout.linkerd.io/request": "9s"}), json!({}), Some(3), Timeouts { request: Some(9000), ..NONE })]
#[case::field(json!({}), json!({"request": "8s"}), Some(3), Timeouts { request: Some(8000), ..NONE })]
#[case::annotation_above_field(json!({"timeout.linkerd.io/request": "9s"}), json!({"request": "8s"}), Some(3), Timeouts { request: Some(9000), ..NONE })]
#[case::field_beside_annotation(json!({"timeout.linkerd.io/idle": "7s"}), json!({"request": "8s"}), Some(3), Timeouts { request: Some(8000), idle: Some(7000), ..NONE })]
#[case::field_zero(json!({}), json!({"request": "0s"}), Some(3), Timeouts { response: Some(5000), ..NONE })]
#[case::field_compound(json!({}), json!({"request": "1h30m"}), Some(3), Timeouts { response: Some(5000), ..NONE })]
#[case::backend_request(json!({}), json!({"backendRequest": "8s"}), Some(3), Timeouts { response: Some(5000), ..NONE })]
#[case::limit_zero_alone(json!({"retry.linkerd.io/limit": "0"}), json!({}), Some(3), Timeouts { response: Some(5000), ..NONE })]
#[case::grpc_alone(json!({"retry.linkerd.io/grpc": "internal"}), json!({}), Some(3), Timeouts { response: Some(5000), ..NONE })]
#[case::grpc_bad(json!({"retry.linkerd.io/grpc": "14"}), json!({}), Some(3), Timeouts { response: Some(5000), ..NONE })]
#[case::zero_is_real(json!({"timeout.linkerd.io/request": "0s"}), json!({}), Some(3), Timeouts { request: Some(0), ..NONE })]
fn a_rules_block_replaces_the_services(
    #[case] annotations: Value,
    #[case] timeouts: Value,
    #[case] limit: Option<u16>,
    #[case] expected: Timeouts,
) {
    let changes = json!({"metadata": {"annotations": annotations}, "spec": {"rules": [{"timeouts": timeouts}]}});
    let service = json!({"retry.linkerd.io/limit": "3", "timeout.linkerd.io/response": "5s"});
    let found = at(
        &state((2, 20), &service, vec![route("HTTPRoute", "r", &changes)]),
        "shop",
    );
    assert_eq!(found.rules.len(), 1);
    assert_eq!(found.rules[0].retry.as_ref().map(|block| block.retry.limit), limit);
    assert_eq!(found.rules[0].timeouts, expected);
    assert!(found.others_refused);
}

#[rstest]
#[case((2, 20), Some(8000))]
#[case((2, 19), None)]
#[case((2, 16), None)]
fn the_field_counts_since_2_20(#[case] version: Version, #[case] request: Option<u64>) {
    let changes = json!({"spec": {"rules": [{"timeouts": {"request": "8s"}}]}});
    let found = at(
        &state(version, &json!({}), vec![route("HTTPRoute", "r", &changes)]),
        "shop",
    );
    assert_eq!(found.rules[0].timeouts.request, request);
}

/// Two rules of one route share its annotations, not its fields.
#[test]
fn rules_are_told_apart() {
    let changes = json!({
        "metadata": {"annotations": {"retry.linkerd.io/limit": "2"}},
        "spec": {"rules": [{"timeouts": {"request": "1s"}}, {}]},
    });
    let found = at(
        &state((2, 20), &json!({}), vec![route("HTTPRoute", "r", &changes)]),
        "shop",
    );
    let rules: Vec<_> = found
        .rules
        .iter()
        .map(|rule| (rule.index, rule.timeouts.request))
        .collect();
    assert_eq!(rules, [(0, Some(1000)), (1, None)]);
    assert!(
        found
            .rules
            .iter()
            .all(|rule| rule.retry.as_ref().unwrap().retry.limit == 2)
    );
}

#[rstest]
#[case::empty_group(json!([{"group": "", "kind": "Service", "name": "web"}]), true)]
#[case::core(json!([{"group": "core", "kind": "Service", "name": "web"}]), true)]
#[case::no_group(json!([{"kind": "Service", "name": "web"}]), true)]
#[case::defaulted_group(json!([{"group": "gateway.networking.k8s.io", "kind": "Service", "name": "web"}]), false)]
#[case::defaulted_kind(json!([{"group": "", "kind": "Gateway", "name": "web"}]), false)]
#[case::other_name(json!([{"group": "", "kind": "Service", "name": "api"}]), false)]
#[case::other_namespace(json!([{"group": "", "kind": "Service", "name": "web", "namespace": "other"}]), false)]
#[case::port(json!([{"group": "", "kind": "Service", "name": "web", "port": 80}]), true)]
#[case::other_port(json!([{"group": "", "kind": "Service", "name": "web", "port": 81}]), false)]
fn a_parent_is_what_is_stored(#[case] parents: Value, #[case] counts: bool) {
    let found = at(
        &state(
            (2, 20),
            &json!({}),
            vec![route("HTTPRoute", "r", &json!({"spec": {"parentRefs": parents}}))],
        ),
        "shop",
    );
    assert_eq!(found.others_refused, counts);
}

#[rstest]
#[case::no_status(json!({"status": null}), false)]
#[case::refused(json!({"status": {"parents": [{"controllerName": "linkerd.io/policy-controller", "parentRef": {"group": "core", "kind": "Service", "namespace": "shop", "name": "web"}, "conditions": [{"type": "Accepted", "status": "False", "reason": "RouteReasonConflicted"}]}]}}), false)]
#[case::by_another(json!({"status": {"parents": [{"controllerName": "istio.io/gateway-controller", "parentRef": {"group": "", "kind": "Service", "name": "web"}, "conditions": [{"type": "Accepted", "status": "True"}]}]}}), false)]
#[case::at_another_port(json!({"status": {"parents": [{"controllerName": "linkerd.io/policy-controller", "parentRef": {"group": "core", "kind": "Service", "namespace": "shop", "name": "web", "port": 81}, "conditions": [{"type": "Accepted", "status": "True"}]}]}}), false)]
#[case::mirror(json!({"spec": {"rules": [{"filters": [{"type": "RequestMirror"}]}]}}), false)]
#[case::rewrite(json!({"spec": {"rules": [{"filters": [{"type": "URLRewrite"}]}]}}), false)]
#[case::extension(json!({"spec": {"rules": [{"filters": [{"type": "ExtensionRef"}]}]}}), false)]
#[case::header(json!({"spec": {"rules": [{"filters": [{"type": "RequestHeaderModifier"}]}]}}), true)]
#[case::bad_statuses(json!({"metadata": {"annotations": {"retry.linkerd.io/http": "3"}}}), false)]
#[case::bad_timeout(json!({"metadata": {"annotations": {"timeout.linkerd.io/idle": "1m30s"}}}), false)]
#[case::bad_breaker_is_not_read(json!({"metadata": {"annotations": {"balancer.linkerd.io/failure-accrual": "x"}}}), true)]
fn only_what_is_accepted_and_readable_counts(#[case] changes: Value, #[case] counts: bool) {
    let found = at(
        &state((2, 20), &json!({}), vec![route("HTTPRoute", "r", &changes)]),
        "shop",
    );
    assert_eq!(found.others_refused, counts);
}

/// Producers are for everybody, consumers for the clients of their namespace.
#[rstest]
#[case("shop", &["HTTPRoute shop/p"])]
#[case("other", &["HTTPRoute shop/p", "HTTPRoute other/c"])]
#[case("third", &["HTTPRoute shop/p"])]
fn clients_see_their_own_routes_and_the_services(#[case] client: &str, #[case] expected: &[&str]) {
    let consumer = json!({
        "metadata": {"namespace": "other", "creationTimestamp": "2026-01-01T00:00:01Z"},
        "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "web", "namespace": "shop"}]},
    });
    let routes = vec![route("HTTPRoute", "c", &consumer), route("HTTPRoute", "p", &json!({}))];
    assert_eq!(titles(&at(&state((2, 20), &json!({}), routes), client)), expected);
}

#[test]
fn older_routes_come_first_then_names() {
    let later = json!({"metadata": {"creationTimestamp": "2026-01-01T00:00:09Z"}});
    let routes = vec![
        route("HTTPRoute", "a", &later),
        route("HTTPRoute", "c", &json!({})),
        route("HTTPRoute", "b", &json!({})),
    ];
    let found = at(&state((2, 20), &json!({}), routes), "shop");
    assert_eq!(
        titles(&found),
        ["HTTPRoute shop/b", "HTTPRoute shop/c", "HTTPRoute shop/a"]
    );
}

#[rstest]
#[case::none(None, &["GRPCRoute shop/g"])]
#[case::http(Some("http"), &["HTTPRoute shop/h"])]
#[case::h2c(Some("kubernetes.io/h2c"), &["GRPCRoute shop/g"])]
fn one_kind_wins_at_a_port(#[case] app_protocol: Option<&str>, #[case] expected: &[&str]) {
    let routes = vec![route("HTTPRoute", "h", &json!({})), route("GRPCRoute", "g", &json!({}))];
    let mut state = state((2, 20), &json!({}), routes);
    state.services = vec![service(&json!({}), &json!([{"port": 80, "appProtocol": app_protocol}]))];
    let found = at(&state, "shop");
    assert_eq!(titles(&found), expected);
    assert_eq!(found.grpc, expected[0].starts_with("GRPC"));
}

/// Statuses of gRPC act with a `GRPCRoute` only, and those of HTTP without one only.
#[rstest]
#[case::http("HTTPRoute", &[(500, 599)], &[])]
#[case::grpc("GRPCRoute", &[], &["unavailable"])]
fn statuses_are_of_one_protocol(#[case] kind: &str, #[case] statuses: &[(u16, u16)], #[case] codes: &[&str]) {
    let service = json!({
        "retry.linkerd.io/limit": "3", "retry.linkerd.io/http": "5xx", "retry.linkerd.io/grpc": "Unavailable",
    });
    let found = at(&state((2, 20), &service, vec![route(kind, "r", &json!({}))]), "shop");
    let expected = Block {
        retry: Retry {
            limit: 3,
            statuses: statuses.to_vec(),
            timeout: None,
        },
        codes: codes.iter().map(|&code| code.to_owned()).collect(),
    };
    assert_eq!(found.rules[0].retry, Some(expected));
}

#[rstest]
#[case((2, 17), "v1alpha2", true)]
#[case((2, 17), "v1", false)]
#[case((2, 18), "v1", true)]
#[case((2, 18), "v1alpha2", false)]
fn a_grpc_route_is_seen_in_the_version_that_linkerd_reads(
    #[case] version: Version,
    #[case] served: &'static str,
    #[case] seen: bool,
) {
    let mut state = state(version, &json!({}), vec![route("GRPCRoute", "g", &json!({}))]);
    state.grpc = vec![served];
    assert_eq!(at(&state, "shop").grpc, seen);
}

#[rstest]
#[case((2, 17), "v1beta1", true)]
#[case((2, 17), "v1", false)]
#[case((2, 18), "v1", true)]
fn an_http_route_is_seen_in_the_version_that_linkerd_reads(
    #[case] version: Version,
    #[case] served: &'static str,
    #[case] seen: bool,
) {
    let mut state = state(version, &json!({}), vec![route("HTTPRoute", "r", &json!({}))]);
    state.http = vec![served];
    assert_eq!(at(&state, "shop").others_refused, seen);
}

#[rstest]
#[case::of_the_service("shop", 1, "third", true)]
#[case::of_the_client("other", 1, "other", true)]
#[case::of_other_clients("other", 1, "third", false)]
#[case::empty("shop", 0, "third", false)]
fn a_profile_rules(#[case] namespace: &'static str, #[case] routes: usize, #[case] client: &str, #[case] rules: bool) {
    let mut state = state((2, 20), &json!({}), Vec::new());
    state.profiles = vec![Profile {
        namespace,
        name: "web.shop.svc.cluster.local",
        routes,
        overrides: 0,
    }];
    let inert = at(&state, client).inert;
    assert_eq!(inert == Some(Inert::ServiceProfileShadowed), rules);
}

/// The client's own profile is looked at first, even if it says nothing.
#[test]
fn the_clients_profile_hides_the_services() {
    let mut state = state((2, 20), &json!({}), Vec::new());
    let profile = |namespace, routes| Profile {
        namespace,
        name: "web.shop.svc.cluster.local",
        routes,
        overrides: 0,
    };
    state.profiles = vec![profile("shop", 1), profile("other", 0)];
    assert_eq!(at(&state, "other").inert, None);
    assert_eq!(at(&state, "shop").inert, Some(Inert::ServiceProfileShadowed));
}

#[rstest]
#[case::defaults(json!({}), Some((5000, 300_000)))]
#[case::given(json!({"balancer.alpha.linkerd.io/load-biaser-penalty": "2s", "balancer.alpha.linkerd.io/load-biaser-max-retry-after": "1m"}), Some((2000, 60_000)))]
#[case::bad(json!({"balancer.alpha.linkerd.io/load-biaser-penalty": "2"}), None)]
#[case::off(json!({"balancer.alpha.linkerd.io/penalize-failures": "false"}), None)]
#[case::no_truth(json!({"balancer.alpha.linkerd.io/penalize-failures": "yes"}), None)]
fn the_bias_is_of_the_service(#[case] more: Value, #[case] expected: Option<(u64, u64)>) {
    let mut annotations = json!({"balancer.alpha.linkerd.io/penalize-failures": " T "});
    merge(&mut annotations, &more);
    let expected = expected.map(|(penalty, max_retry_after)| Bias {
        penalty,
        max_retry_after,
    });
    let routes = vec![route("HTTPRoute", "r", &json!({}))];
    assert_eq!(at(&state((2, 20), &annotations, routes), "shop").bias, expected);
    assert_eq!(at(&state((2, 19), &annotations, Vec::new()), "shop").bias, None);
}

#[test]
fn a_bias_that_the_proxy_refuses_fails_every_request() {
    let annotations = json!({
        "balancer.alpha.linkerd.io/penalize-failures": "1",
        "balancer.alpha.linkerd.io/load-biaser-penalty": "50d",
    });
    assert_eq!(
        at(&state((2, 20), &annotations, Vec::new()), "shop").inert,
        Some(Inert::RejectedByProxy)
    );
}

#[test]
fn what_is_not_there_is_not_found() {
    let state = state((2, 20), &json!({}), Vec::new());
    assert_eq!(
        outlook(&state, "shop", "api", 80, "shop").inert,
        Some(Inert::TargetServiceNotFound)
    );
    assert_eq!(
        outlook(&state, "shop", "web", 82, "shop").inert,
        Some(Inert::PortNotFound)
    );
}
