//! Policies that make routes, and policies for routes that others made.

use rstest::rstest;
use serde_json::{Value, json};
use trellis_api::Section;
use trellis_resilience::{Standing, enact, project::project};

use crate::stage::{CARTS, SEARCH, cluster, done, entries, policy, reason, route, with_route};

/// A path-scoped policy makes a route for its path, and one for the rest, without which the rest would get 404.
#[test]
fn a_path_gets_a_route_and_the_rest_another() {
    let spec = json!({"targetRef": {"name": "web", "port": 80}, "routes": entries(SEARCH), "retry": {}});
    let found = done(&cluster("2.20"), &spec);
    let routes = serde_json::to_value(&found.targets[0].routes).unwrap();
    let parent = json!([{"group": "", "kind": "Service", "name": "web", "port": 80}]);
    assert_eq!(
        routes,
        json!([
            {
                "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
                "metadata": {"name": "p-rest", "namespace": "shop", "labels": {"resilience.trellis.dev/policy": "p"}},
                "spec": {
                    "parentRefs": parent,
                    "rules": [{"matches": [{"path": {"type": "PathPrefix", "value": "/"}}]}],
                },
            },
            {
                "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
                "metadata": {
                    "name": "p-search", "namespace": "shop", "labels": {"resilience.trellis.dev/policy": "p"},
                    "annotations": {"retry.linkerd.io/http": "5xx", "retry.linkerd.io/limit": "3"},
                },
                "spec": {
                    "parentRefs": parent,
                    "rules": [{"matches": [{"path": {"type": "PathPrefix", "value": "/search"}, "method": "GET"}]}],
                },
            },
        ])
    );
    assert!(found.targets[0].annotations.is_empty(), "nothing on the Service");
    assert_eq!(reason(&found), Some("RoutePending"));
}

/// Somebody else's routes already say what happens to the rest.
#[test]
fn beside_other_routes_there_is_no_rest() {
    let cluster = with_route(cluster("2.20"), route("HTTPRoute", &json!({})));
    let spec = json!({"targetRef": {"name": "web"}, "routes": entries(SEARCH), "timeout": {"requestTimeout": "1s"}});
    let names: Vec<String> = done(&cluster, &spec).targets[0]
        .routes
        .iter()
        .map(|built| built.as_route().name())
        .collect();
    assert_eq!(names, ["p-search"]);
}

#[test]
fn a_grpc_policy_makes_grpc_routes() {
    let spec = json!({"targetRef": {"name": "web", "port": 80}, "routes": entries(CARTS), "retry": {"retryableGrpcCodes": "unavailable"}});
    let found = done(&cluster("2.20"), &spec);
    let routes = serde_json::to_value(&found.targets[0].routes).unwrap();
    assert_eq!(routes[1]["kind"], "GRPCRoute");
    assert_eq!(
        routes[1]["metadata"]["annotations"],
        json!({"retry.linkerd.io/grpc": "unavailable", "retry.linkerd.io/limit": "3"})
    );
    assert_eq!(
        routes[1]["spec"]["rules"],
        json!([{"matches": [{"method": {"type": "Exact", "service": "shop.v1.Carts"}}]}])
    );
    assert_eq!(routes[0]["spec"]["rules"], json!([{}]));
}

/// Clients of one namespace: a route there, that points to the Service of the other.
#[test]
fn a_consumer_makes_a_route_of_its_own() {
    let mut cluster = cluster("2.20");
    let mut policy = policy(
        "p",
        &json!({"targetRef": {"name": "web", "namespace": "shop"}, "retry": {}, "circuitBreaker": {}}),
    );
    policy.metadata.namespace = Some("other".into());
    cluster.policies.push(policy.clone());
    let found = enact(&policy, &cluster);
    let routes = serde_json::to_value(&found.targets[0].routes).unwrap();
    assert_eq!(routes[0]["metadata"]["name"], "p-all");
    assert_eq!(routes[0]["metadata"]["namespace"], "other");
    assert_eq!(
        routes[0]["spec"]["parentRefs"],
        json!([{"group": "", "kind": "Service", "namespace": "shop", "name": "web"}])
    );
    assert_eq!(reason(&found), Some("CrossNamespaceTarget"));
    assert!(matches!(
        found.targets[0].sections[&Section::Retry],
        Standing::Pending(_)
    ));
}

#[rstest]
#[case::pending(json!({"status": null}), Some("RoutePending"))]
#[case::accepted(json!({}), None)]
#[case::another_controller(json!({"status": {"parents": [{"controllerName": "istio.io/gateway-controller", "parentRef": {"group": "", "kind": "Service", "name": "web"}, "conditions": [{"type": "Accepted", "status": "True"}]}]}}), Some("RoutePending"))]
#[case::conflicted(json!({"status": {"parents": [{"controllerName": "linkerd.io/policy-controller", "parentRef": {"group": "core", "kind": "Service", "namespace": "shop", "name": "web"}, "conditions": [{"type": "Accepted", "status": "False", "reason": "RouteReasonConflicted"}]}]}}), Some("RouteConflicted"))]
#[case::no_parent(json!({"status": {"parents": [{"controllerName": "linkerd.io/policy-controller", "parentRef": {"group": "core", "kind": "Service", "namespace": "shop", "name": "web"}, "conditions": [{"type": "Accepted", "status": "False", "reason": "NoMatchingParent"}]}]}}), Some("RouteNotAccepted"))]
#[case::defaulted_group(json!({"spec": {"parentRefs": [{"group": "gateway.networking.k8s.io", "kind": "Service", "name": "web"}]}}), Some("RouteNotConvertible"))]
#[case::filter(json!({"spec": {"rules": [{"filters": [{"type": "RequestMirror"}]}]}}), Some("RouteNotConvertible"))]
#[case::neighbour(json!({"metadata": {"annotations": {"timeout.linkerd.io/idle": "1m30s"}}}), Some("ForeignAnnotation"))]
#[case::own_statuses(json!({"metadata": {"annotations": {"retry.linkerd.io/grpc": "14"}}}), None)]
#[case::another_port(json!({"spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "web", "port": 82}]}, "status": {"parents": [{"controllerName": "linkerd.io/policy-controller", "parentRef": {"group": "core", "kind": "Service", "namespace": "shop", "name": "web", "port": 82}, "conditions": [{"type": "Accepted", "status": "True"}]}]}}), Some("PortNotFound"))]
fn a_users_route_must_act(#[case] changes: Value, #[case] expected: Option<&str>) {
    let cluster = with_route(cluster("2.20"), route("HTTPRoute", &changes));
    let found = done(
        &cluster,
        &json!({"targetRef": {"kind": "HTTPRoute", "name": "web-search"}, "retry": {}}),
    );
    assert_eq!(reason(&found), expected);
    assert!(found.targets[0].routes.is_empty());
}

#[rstest]
#[case::http_policy(CARTS, "HTTPRoute", json!({}), Some("RouteConflicted"))]
#[case::grpc_policy(SEARCH, "GRPCRoute", json!({}), Some("RouteConflicted"))]
#[case::grpc_elsewhere(SEARCH, "GRPCRoute", json!({"spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "web", "port": 81}]}}), Some("RoutePending"))]
#[case::same_kind(SEARCH, "HTTPRoute", json!({}), Some("RoutePending"))]
fn kinds_do_not_push_each_other_out(
    #[case] routes: &str,
    #[case] kind: &str,
    #[case] changes: Value,
    #[case] expected: Option<&str>,
) {
    let cluster = with_route(cluster("2.20"), route(kind, &changes));
    let spec = json!({"targetRef": {"name": "web"}, "routes": entries(routes), "timeout": {"requestTimeout": "1s"}});
    assert_eq!(reason(&done(&cluster, &spec)), expected);
}

/// Of two policies for different kinds, the older one goes on.
#[test]
fn of_two_kinds_the_older_policy_stays() {
    let mut cluster = cluster("2.20");
    let timeout = json!({"requestTimeout": "1s"});
    let mut old = policy(
        "z",
        &json!({"targetRef": {"name": "web", "port": 80}, "routes": entries(CARTS), "timeout": timeout}),
    );
    old.metadata.creation_timestamp = serde_json::from_value(json!("2025-01-01T00:00:00Z")).unwrap();
    let new = policy(
        "a",
        &json!({"targetRef": {"name": "web"}, "routes": entries(SEARCH), "timeout": timeout}),
    );
    cluster.policies = vec![new.clone(), old.clone()].into();
    assert_eq!(reason(&enact(&old, &cluster)), Some("RoutePending"));
    let refused = enact(&new, &cluster);
    assert_eq!(reason(&refused), Some("RouteConflicted"));
    assert!(refused.targets[0].routes.is_empty());
    assert!(refused.targets[0].refusal().unwrap().message.contains("shop/z"));
}

/// Without a port a GRPCRoute is for every port, and any GRPCRoute makes a port serve gRPC only (facts, section 6).
#[rstest]
#[case::one(json!([{"port": 9090}]), None, None)]
#[case::two(json!([{"port": 80}, {"port": 9090}]), None, Some(false))]
#[case::one_says_http_2(json!([{"port": 80}, {"port": 9090, "appProtocol": "kubernetes.io/h2c"}]), None, Some(true))]
#[case::named(json!([{"port": 80}, {"port": 9090}]), Some(9090), None)]
#[case::the_other_is_for_http_1(json!([{"port": 80, "appProtocol": "http"}, {"port": 9090}]), None, None)]
#[case::the_other_is_opaque(json!([{"port": 5432}, {"port": 9090}]), None, None)]
fn grpc_without_a_port_ends_http_nowhere(
    #[case] ports: Value,
    #[case] port: Option<u16>,
    #[case] refused: Option<bool>,
) {
    let mut cluster = cluster("2.20");
    cluster.services[0].spec.as_mut().unwrap().ports = serde_json::from_value(ports).unwrap();
    let mut spec = json!({"targetRef": {"name": "web"}, "routes": entries(CARTS), "timeout": {"requestTimeout": "1s"}});
    if let Some(port) = port {
        spec["targetRef"]["port"] = json!(port);
    }
    let found = done(&cluster, &spec);
    assert_eq!(
        reason(&found),
        refused.map_or(Some("RoutePending"), |_| Some("GrpcNeedsPort"))
    );
    assert_eq!(found.targets[0].routes.is_empty(), refused.is_some());
    if let Some(known) = refused {
        let told = found.targets[0].refusal().unwrap().to_string();
        assert!(
            told.contains("ports 80, 9090 of Service web") && told.contains("hint: name the port"),
            "{told}"
        );
        assert_eq!(told.contains("such as"), known, "{told}");
    }
}

/// An older policy whose routes for gRPC are not made is in nobody's way.
#[test]
fn grpc_that_is_refused_leaves_http_alone() {
    let mut cluster = cluster("2.20");
    let timeout = json!({"requestTimeout": "1s"});
    let mut old = policy(
        "z",
        &json!({"targetRef": {"name": "web"}, "routes": entries(CARTS), "timeout": timeout}),
    );
    old.metadata.creation_timestamp = serde_json::from_value(json!("2025-01-01T00:00:00Z")).unwrap();
    let new = policy(
        "a",
        &json!({"targetRef": {"name": "web"}, "routes": entries(SEARCH), "timeout": timeout}),
    );
    cluster.policies = vec![new.clone(), old.clone()].into();
    assert_eq!(reason(&enact(&old, &cluster)), Some("GrpcNeedsPort"));
    assert_eq!(reason(&enact(&new, &cluster)), Some("RoutePending"));
}

#[rstest]
#[case::grpc_on_2_17("2.17", CARTS, &["v1"], "FeatureNotInVersion")]
#[case::no_grpc("2.20", CARTS, &[], "GatewayApiMissing")]
#[case::as_2_17_brings_it("2.17", CARTS, &["v1alpha2"], "GatewayApiMissing")]
#[case::older_than_linkerd("2.20", CARTS, &["v1alpha2"], "GatewayApiMissing")]
fn routes_need_kinds_that_linkerd_reads(
    #[case] version: &str,
    #[case] routes: &str,
    #[case] served: &[&str],
    #[case] expected: &str,
) {
    let mut cluster = cluster(version);
    cluster.gateway.grpc = served.iter().map(|&version| version.to_owned()).collect();
    let spec = json!({"targetRef": {"name": "web"}, "routes": entries(routes), "timeout": {"requestTimeout": "1s"}});
    assert_eq!(reason(&done(&cluster, &spec)), Some(expected));
}

/// As Linkerd 2.16 and 2.17 bring it (facts, section 13): it follows routes that are not looked at here.
#[test]
fn only_v1beta1_leaves_whole_services_with_a_word() {
    let mut cluster = cluster("2.16");
    cluster.gateway.http = ["v1beta1".to_owned()].into();
    cluster.gateway.grpc.clear();
    let whole = |spec: Value| done(&cluster, &spec);
    let found = whole(json!({"targetRef": {"name": "web"}, "timeout": {"requestTimeout": "1s"}}));
    assert!(found.targets[0].in_force());
    let notes = found.targets[0].notes.join("; ");
    assert!(notes.contains("HTTPRoute is served as v1beta1 only"), "{notes}");
    let found = whole(json!({"targetRef": {"name": "web"}, "circuitBreaker": {}}));
    assert!(found.targets[0].notes.is_empty(), "routes do not touch a breaker");
    let spec = json!({"targetRef": {"name": "web"}, "routes": entries(SEARCH), "retry": {}});
    let found = whole(spec);
    assert_eq!(reason(&found), Some("GatewayApiMissing"));
    assert!(found.targets[0].routes.is_empty());
    assert!(
        found.targets[0]
            .refusal()
            .unwrap()
            .to_string()
            .contains("install the Gateway API 1.1")
    );
    let found = whole(json!({"targetRef": {"kind": "HTTPRoute", "name": "web-search"}, "retry": {}}));
    assert_eq!(reason(&found), Some("GatewayApiMissing"));
    let told = trellis_resilience::explain(&cluster, "shop", "web", 80, "shop").unwrap();
    assert!(told.notes.iter().any(|note| note.contains("v1beta1 only")));
}

#[test]
fn an_expression_must_be_one() {
    let spec = json!({
        "targetRef": {"name": "web"}, "timeout": {"requestTimeout": "1s"},
        "routes": [{"name": "a", "http": {"matches": [{"path": {"type": "RegularExpression", "value": "/a(b"}}]}}],
    });
    let found = done(&cluster("2.20"), &spec);
    let refusal = found.targets[0].refusal().unwrap();
    assert_eq!(
        (refusal.reason, refusal.field.as_deref()),
        ("Invalid", Some("spec.routes[0].http.matches"))
    );
}

#[rstest]
#[case::without_a_route(None, json!({"retryableGrpcCodes": "internal"}), Some("GrpcNeedsGRPCRoute"))]
#[case::with_a_route(Some("GRPCRoute"), json!({"retryableGrpcCodes": "internal"}), None)]
#[case::http_where_grpc_is_served(Some("GRPCRoute"), json!({}), Some("GrpcNeedsGRPCRoute"))]
#[case::http(Some("HTTPRoute"), json!({}), None)]
fn grpc_statuses_need_a_grpc_route(#[case] kind: Option<&str>, #[case] retry: Value, #[case] expected: Option<&str>) {
    let mut cluster = cluster("2.20");
    if let Some(kind) = kind {
        cluster = with_route(cluster, route(kind, &json!({})));
    }
    let found = done(&cluster, &json!({"targetRef": {"name": "web"}, "retry": retry}));
    assert_eq!(reason(&found), expected);
    assert!(
        !found.targets[0].annotations.is_empty(),
        "the rest of the retries is written"
    );
}

/// Where HTTP is served its routes retry on their own, and where the Service's retries would count gRPC is served.
#[test]
fn retries_that_no_port_makes_use_of_are_not_in_force() {
    let at = |port: u16, more: Value| {
        let mut changes = json!({
            "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "web", "port": port}]},
            "status": {"parents": [{
                "controllerName": "linkerd.io/policy-controller",
                "parentRef": {"group": "core", "kind": "Service", "namespace": "shop", "name": "web", "port": port},
                "conditions": [{"type": "Accepted", "status": "True"}],
            }]},
        });
        changes["metadata"] = more;
        changes
    };
    let own = json!({"annotations": {"retry.linkerd.io/limit": "1"}});
    let cluster = with_route(cluster("2.20"), route("HTTPRoute", &at(80, own)));
    let cluster = with_route(cluster, route("GRPCRoute", &at(81, json!({"name": "calls"}))));
    let found = done(&cluster, &json!({"targetRef": {"name": "web"}, "retry": {}}));
    assert_eq!(reason(&found), Some("GrpcNeedsGRPCRoute"));
}

/// A route's own block replaces the Service's: with one on every route, the Service's does nothing.
#[test]
fn routes_that_say_their_own_shadow_the_service() {
    let cluster = with_route(
        cluster("2.20"),
        route(
            "HTTPRoute",
            &json!({"metadata": {"annotations": {"retry.linkerd.io/limit": "1"}}}),
        ),
    );
    let found = done(
        &cluster,
        &json!({"targetRef": {"name": "web"}, "retry": {}, "timeout": {"idleTimeout": "1m"}}),
    );
    assert_eq!(reason(&found), Some("ShadowedByRoutes"));
    assert_eq!(found.targets[0].sections[&Section::Timeout], Standing::Won);
}

/// What the projection writes, the next look finds in force.
#[test]
fn once_written_it_is_in_force() {
    let mut cluster = cluster("2.20");
    let spec = json!({"targetRef": {"name": "web"}, "routes": entries(SEARCH), "retry": {}});
    cluster.policies = vec![policy("p", &spec)].into();
    let (after, conflicts) = project(&cluster);
    assert!(conflicts.is_empty());
    let found = enact(&after.policies[0], &after);
    assert!(found.targets[0].in_force(), "{:?}", found.targets[0].sections);
    assert_eq!(found.targets[0].status().reason, "Applied");
}

/// Somebody else's bad value on the route for all other requests makes Linkerd drop that one.
#[test]
fn the_rest_must_be_readable_too() {
    let mut cluster = cluster("2.20");
    let spec = json!({"targetRef": {"name": "web"}, "routes": entries(SEARCH), "retry": {}});
    cluster.policies = vec![policy("p", &spec)].into();
    let (mut after, _) = project(&cluster);
    let rest = after
        .http_routes
        .iter_mut()
        .find(|route| route.metadata.name.as_deref() == Some("p-rest"));
    let bad = ("timeout.linkerd.io/response".to_owned(), "1.5s".to_owned());
    rest.unwrap().metadata.annotations.get_or_insert_default().extend([bad]);
    let found = enact(&after.policies[0], &after);
    assert_eq!(reason(&found), Some("RouteNotConvertible"));
    assert!(
        found.targets[0]
            .refusal()
            .unwrap()
            .message
            .contains("timeout.linkerd.io/response")
    );
}

/// A route without timeouts of its own gets the Service's: one of zero ends every request before anything can be retried.
#[rstest]
#[case::inherited(None, Some("ForeignAnnotation"))]
#[case::its_own("1s".into(), None)]
fn a_timeout_of_zero_on_the_service_reaches_routes(#[case] own: Option<&str>, #[case] expected: Option<&str>) {
    let mut cluster = with_route(cluster("2.20"), route("HTTPRoute", &json!({})));
    let zero = [("timeout.linkerd.io/request".to_owned(), "0s".to_owned())];
    cluster.services[0].metadata.annotations = Some(zero.into());
    let mut spec = json!({"targetRef": {"kind": "HTTPRoute", "name": "web-search"}, "retry": {}});
    let stored = own.map(|own| [("timeout.linkerd.io/request".to_owned(), own.to_owned())].into());
    cluster.http_routes[0].metadata.annotations = stored;
    assert_eq!(reason(&done(&cluster, &spec)), expected);
    spec["targetRef"] = json!({"name": "web"});
    assert_eq!(reason(&done(&cluster, &spec)), Some("ForeignAnnotation"));
}
