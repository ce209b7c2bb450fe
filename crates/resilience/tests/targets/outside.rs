//! EgressNetworks and rate limits.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail by panicking, like tests"
)]

use rstest::rstest;
use serde_json::{Value, json};
use trellis_api::Section;
use trellis_resilience::{Enactment, Standing};

use crate::stage::{SEARCH, cluster, done, entries, reason};

fn network(status: &Value) -> Value {
    json!({
        "apiVersion": "policy.linkerd.io/v1alpha1", "kind": "EgressNetwork",
        "metadata": {"name": "internet", "namespace": "shop"}, "spec": {"trafficPolicy": "Allow"}, "status": status,
    })
}

#[rstest]
#[case::accepted("2.20", json!({"conditions": [{"type": "Accepted", "status": "True"}]}), None)]
#[case::silent("2.20", json!({}), Some("EgressNetworkNotAccepted"))]
#[case::overlap("2.20", json!({"conditions": [{"type": "Accepted", "status": "False", "reason": "EgressReasonNetworkOverlap"}]}), Some("EgressNetworkNotAccepted"))]
#[case::old("2.16", json!({"conditions": [{"type": "Accepted", "status": "True"}]}), Some("FeatureNotInVersion"))]
fn an_egress_network_must_be_taken(#[case] version: &str, #[case] status: Value, #[case] expected: Option<&str>) {
    let mut cluster = cluster(version);
    cluster.egress_networks = vec![serde_json::from_value(network(&status)).unwrap()].into();
    let target = json!({"kind": "EgressNetwork", "name": "internet", "port": 443});
    let found = done(&cluster, &json!({"targetRef": target, "retry": {}}));
    assert_eq!(reason(&found), expected);
    assert_eq!(found.targets[0].annotations.is_empty(), expected.is_some());
    let routed = done(
        &cluster,
        &json!({"targetRef": target, "routes": entries(SEARCH), "retry": {}}),
    );
    assert_eq!(reason(&routed), expected.or(Some("RoutePending")));
    if expected.is_none() {
        let parents = serde_json::to_value(&routed.targets[0].routes[0]).unwrap()["spec"]["parentRefs"].clone();
        assert_eq!(
            parents,
            json!([{"group": "policy.linkerd.io", "kind": "EgressNetwork", "name": "internet", "port": 443}])
        );
    }
}

#[test]
fn an_egress_network_has_no_breaker() {
    let mut cluster = cluster("2.20");
    let taken = json!({"conditions": [{"type": "Accepted", "status": "True"}]});
    cluster.egress_networks = vec![serde_json::from_value(network(&taken)).unwrap()].into();
    let found = done(
        &cluster,
        &json!({"targetRef": {"kind": "EgressNetwork", "name": "internet"}, "retry": {}, "circuitBreaker": {}}),
    );
    assert_eq!(reason(&found), Some("NoBalancer"));
    assert_eq!(found.targets[0].sections[&Section::Retry], Standing::Won);
}

/// A route acts only once Linkerd takes it.
#[rstest]
#[case::silent(None, json!([]), Some("GrpcNeedsGRPCRoute"))]
#[case::refused(Some("False"), json!([]), Some("GrpcNeedsGRPCRoute"))]
#[case::dropped(Some("True"), json!([{"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "x"}}}]), Some("GrpcNeedsGRPCRoute"))]
#[case::taken(Some("True"), json!([]), None)]
fn statuses_of_grpc_need_a_route_that_linkerd_takes(
    #[case] accepted: Option<&str>,
    #[case] filters: Value,
    #[case] expected: Option<&str>,
) {
    let mut cluster = cluster("2.20");
    let taken = json!({"conditions": [{"type": "Accepted", "status": "True"}]});
    cluster.egress_networks = vec![serde_json::from_value(network(&taken)).unwrap()].into();
    let parent = json!({"group": "policy.linkerd.io", "kind": "EgressNetwork", "name": "internet", "port": 443});
    let verdict = |status| {
        json!([{"controllerName": "linkerd.io/policy-controller", "parentRef": parent,
                "conditions": [{"type": "Accepted", "status": status, "reason": "Accepted"}]}])
    };
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GRPCRoute",
        "metadata": {"name": "calls", "namespace": "shop"},
        "spec": {"parentRefs": [parent], "rules": [{"filters": filters}]},
        "status": {"parents": accepted.map_or_else(|| json!([]), verdict)},
    });
    cluster.grpc_routes = vec![serde_json::from_value(route).unwrap()].into();
    let target = json!({"kind": "EgressNetwork", "name": "internet"});
    let found = done(
        &cluster,
        &json!({"targetRef": target, "retry": {"retryableGrpcCodes": "unavailable"}}),
    );
    assert_eq!(reason(&found), expected);
    // Statuses of HTTP count at the other ports.
    let found = done(&cluster, &json!({"targetRef": target, "retry": {}}));
    let notes = found.targets[0].notes.join("; ");
    assert_eq!(notes.contains("at port 443 only gRPC"), expected.is_none(), "{notes}");
}

/// A route's own block replaces the network's, at the route's port.
#[test]
fn what_a_route_of_a_network_sets_itself_is_noted() {
    let mut cluster = cluster("2.20");
    let taken = json!({"conditions": [{"type": "Accepted", "status": "True"}]});
    cluster.egress_networks = vec![serde_json::from_value(network(&taken)).unwrap()].into();
    let parent = json!({"group": "policy.linkerd.io", "kind": "EgressNetwork", "name": "internet", "port": 443});
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "api", "namespace": "shop", "annotations": {"retry.linkerd.io/limit": "1"}},
        "spec": {"parentRefs": [parent], "rules": [{}]},
        "status": {"parents": [{"controllerName": "linkerd.io/policy-controller", "parentRef": parent,
                                "conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted"}]}]},
    });
    cluster.http_routes = vec![serde_json::from_value(route).unwrap()].into();
    let spec = json!({"targetRef": {"kind": "EgressNetwork", "name": "internet"},
                      "retry": {}, "timeout": {"requestTimeout": "1s"}});
    let found = done(&cluster, &spec);
    assert_eq!(reason(&found), None);
    assert_eq!(
        found.targets[0].notes,
        ["at port 443 HTTPRoute shop/api sets its own retry for its requests"]
    );
}

/// A route without timeouts has those of the network, and zero ends every request.
#[rstest]
#[case::inherits(json!([{}]), Some("ForeignAnnotation"))]
#[case::its_own(json!([{"timeouts": {"request": "1s"}}]), None)]
fn a_route_of_a_network_inherits_its_zero(#[case] rules: Value, #[case] expected: Option<&str>) {
    let mut cluster = cluster("2.20");
    let taken = json!({"conditions": [{"type": "Accepted", "status": "True"}]});
    let mut internet = network(&taken);
    internet["metadata"]["annotations"] = json!({"timeout.linkerd.io/request": "0s"});
    cluster.egress_networks = vec![serde_json::from_value(internet).unwrap()].into();
    let parent = json!({"group": "policy.linkerd.io", "kind": "EgressNetwork", "name": "internet", "port": 443});
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "api", "namespace": "shop"}, "spec": {"parentRefs": [parent], "rules": rules},
        "status": {"parents": [{"controllerName": "linkerd.io/policy-controller", "parentRef": parent,
                                "conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted"}]}]},
    });
    cluster.http_routes = vec![serde_json::from_value(route).unwrap()].into();
    let found = done(
        &cluster,
        &json!({"targetRef": {"kind": "HTTPRoute", "name": "api"}, "retry": {}}),
    );
    assert_eq!(reason(&found), expected);
}

/// Of two Servers for one port Linkerd takes one.
#[rstest]
#[case::same(json!({"app": "web"}), json!("http"), Some("ServerConflicted"), false)]
#[case::all_pods(json!({}), json!("http"), Some("ServerConflicted"), false)]
#[case::another_port(json!({"app": "web"}), json!("admin"), None, false)]
#[case::other_pods(json!({"app": "api"}), json!("http"), None, false)]
#[case::perhaps_the_port(json!({"app": "web"}), json!(8080), None, true)]
#[case::perhaps_the_pods(json!({"app": "web", "tier": "front"}), json!("http"), None, true)]
fn a_server_is_made_for_a_port_without_one(
    #[case] pods: Value,
    #[case] port: Value,
    #[case] expected: Option<&str>,
    #[case] noted: bool,
) {
    let limit = json!({"enabled": true, "requestsPerSecond": 1, "createServer": {"accessPolicy": "audit"}});
    let spec = json!({"targetRef": {"name": "web", "port": 80}, "rateLimit": limit});
    let theirs = json!({
        "metadata": {"name": "theirs", "namespace": "shop"},
        "spec": {"podSelector": {"matchLabels": pods}, "port": port},
    });
    let mut cluster = cluster("2.20");
    cluster.servers = vec![serde_json::from_value(with_kind(theirs)).unwrap()].into();
    let found = done(&cluster, &spec);
    assert_eq!(reason(&found), expected.or(Some("RateLimitPending")));
    assert_eq!(found.targets[0].limit.is_some(), expected.is_none());
    let notes = found.targets[0].notes.join("; ");
    assert_eq!(notes.contains("Server theirs may be"), noted, "{notes}");
    // Its own is no second one.
    let own = json!([{"apiVersion": "resilience.trellis.dev/v1alpha1", "kind": "ResiliencePolicy", "name": "p",
                      "uid": "p", "controller": true}]);
    cluster.servers[0].metadata.owner_references = serde_json::from_value(own).unwrap();
    assert_eq!(reason(&done(&cluster, &spec)), Some("RateLimitPending"));
}

fn with_kind(mut server: Value) -> Value {
    server["apiVersion"] = json!("policy.linkerd.io/v1beta3");
    server["kind"] = json!("Server");
    server
}

/// A verdict about the Server that the limit was for before is none.
#[rstest]
#[case::this(Some("web-http"), None)]
#[case::another(Some("old"), Some("RateLimitPending"))]
#[case::unnamed(None, Some("RateLimitPending"))]
fn linkerd_speaks_of_a_server(#[case] about: Option<&str>, #[case] expected: Option<&str>) {
    let server =
        json!({"metadata": {"name": "web-http", "namespace": "shop"}, "spec": {"port": "http", "podSelector": {}}});
    let limit = json!({
        "apiVersion": "policy.linkerd.io/v1alpha1", "kind": "HTTPLocalRateLimitPolicy",
        "metadata": {"name": "p", "namespace": "shop"},
        "spec": {"targetRef": {"group": "policy.linkerd.io", "kind": "Server", "name": "web-http"}},
        "status": {
            "conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted"}],
            "targetRef": about.map(|name| json!({"group": "policy.linkerd.io", "kind": "Server", "name": name})),
        },
    });
    let mut cluster = cluster("2.20");
    cluster.servers = vec![serde_json::from_value(with_kind(server)).unwrap()].into();
    cluster.rate_limits = vec![serde_json::from_value(limit).unwrap()];
    let limit = json!({"enabled": true, "requestsPerSecond": 1, "serverRef": {"name": "web-http"}});
    let found = done(&cluster, &json!({"targetRef": {"name": "web"}, "rateLimit": limit}));
    assert_eq!(reason(&found), expected);
}

/// A Server that is surely for other pods or another port limits nothing of the Service.
#[rstest]
#[case::same(json!({"podSelector": {"matchLabels": {"app": "web"}}, "port": 8080}), Some("RateLimitPending"), "")]
#[case::other_pods(json!({"podSelector": {"matchLabels": {"app": "api"}}, "port": 8080}), Some("ServerMismatch"), "for other pods")]
#[case::forbidden_label(json!({"podSelector": {"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}, "port": 8080}), Some("ServerMismatch"), "for other pods")]
#[case::perhaps(json!({"podSelector": {"matchLabels": {"tier": "front"}}, "port": 8080}), Some("RateLimitPending"), "may be for other pods")]
#[case::external(json!({"externalWorkloadSelector": {"matchLabels": {"app": "api"}}, "port": 8080}), Some("RateLimitPending"), "may be for other pods")]
#[case::other_port(json!({"podSelector": {}, "port": 9090}), Some("ServerMismatch"), "leads to the port")]
#[case::by_name(json!({"podSelector": {}, "port": "admin"}), Some("RateLimitPending"), "leads to the port")]
fn a_server_of_others_limits_nothing(#[case] spec: Value, #[case] expected: Option<&str>, #[case] words: &str) {
    let mut cluster = cluster("2.20");
    let ports = json!([{"port": 80, "targetPort": 8080}, {"port": 81}]);
    cluster.services[0].spec.as_mut().unwrap().ports = serde_json::from_value(ports).unwrap();
    let server = json!({"metadata": {"name": "web-http", "namespace": "shop"}, "spec": spec});
    cluster.servers = vec![serde_json::from_value(with_kind(server)).unwrap()].into();
    let limit = json!({"enabled": true, "requestsPerSecond": 1, "serverRef": {"name": "web-http"}});
    let spec = json!({"targetRef": {"name": "web"}, "rateLimit": limit});
    let found = done(&cluster, &spec);
    assert_eq!(reason(&found), expected);
    assert_eq!(found.targets[0].limit.is_some(), expected == Some("RateLimitPending"));
    let told = format!(
        "{}; {:?}",
        found.targets[0].notes.join("; "),
        found.targets[0].refusal()
    );
    assert!(told.contains(words), "{told}");
    // A name of a port may be that of any number.
    let ports = json!([{"port": 80, "targetPort": "http"}]);
    cluster.services[0].spec.as_mut().unwrap().ports = serde_json::from_value(ports).unwrap();
    let pods = words == "for other pods";
    assert_eq!(reason(&done(&cluster, &spec)) == Some("ServerMismatch"), pods);
}

fn limited(version: &str, limit: &Value) -> Enactment {
    let mut cluster = cluster(version);
    cluster.servers = [("web-http", "http", "HTTP/1"), ("web-raw", "http", "opaque")]
        .map(|(name, port, protocol)| {
            serde_json::from_value(json!({
                "apiVersion": "policy.linkerd.io/v1beta3", "kind": "Server", "metadata": {"name": name, "namespace": "shop"},
                "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "port": port, "proxyProtocol": protocol},
            }))
            .unwrap()
        })
        .into();
    let mut limit = limit.clone();
    limit["enabled"] = json!(true);
    done(&cluster, &json!({"targetRef": {"name": "web"}, "rateLimit": limit}))
}

#[test]
fn a_rate_limit_is_of_a_server() {
    let found = limited(
        "2.20",
        &json!({"requestsPerSecond": 10, "perClientRequestsPerSecond": 5, "serverRef": {"name": "web-http"}}),
    );
    assert_eq!(reason(&found), Some("RateLimitPending"));
    let limit = serde_json::to_value(found.targets[0].limit.as_ref().unwrap()).unwrap();
    assert_eq!(limit.get("server"), None);
    assert_eq!(
        limit["policy"]["spec"],
        json!({
            "targetRef": {"group": "policy.linkerd.io", "kind": "Server", "name": "web-http"},
            "total": {"requestsPerSecond": 10}, "identity": {"requestsPerSecond": 5},
        })
    );
}

#[test]
fn a_server_is_made_with_an_access_policy() {
    let limit =
        json!({"enabled": true, "requestsPerSecond": 10, "createServer": {"accessPolicy": "all-authenticated"}});
    let spec = |port: u16| json!({"targetRef": {"name": "web", "port": port}, "rateLimit": limit});
    let found = done(&cluster("2.20"), &spec(80));
    let made = serde_json::to_value(found.targets[0].limit.as_ref().unwrap()).unwrap();
    assert_eq!(
        made["server"]["spec"],
        json!({"podSelector": {"matchLabels": {"app": "web"}}, "port": "http", "accessPolicy": "all-authenticated"})
    );
    assert_eq!(
        made["policy"]["spec"]["targetRef"]["name"],
        made["server"]["metadata"]["name"]
    );
    let found = done(&cluster("2.20"), &spec(81));
    let made = serde_json::to_value(found.targets[0].limit.as_ref().unwrap()).unwrap();
    assert_eq!(made["server"]["spec"]["port"], 81);
}

#[rstest]
#[case::old("2.16", json!({"requestsPerSecond": 1, "serverRef": {"name": "web-http"}}), "FeatureNotInVersion")]
#[case::no_server("2.20", json!({"requestsPerSecond": 1, "serverRef": {"name": "api"}}), "ServerNotFound")]
#[case::opaque("2.20", json!({"requestsPerSecond": 1, "serverRef": {"name": "web-raw"}}), "Opaque")]
#[case::burst("2.20", json!({"requestsPerSecond": 1, "burstSize": 1, "serverRef": {"name": "web-http"}}), "Invalid")]
#[case::zero("2.20", json!({"requestsPerSecond": 0, "serverRef": {"name": "web-http"}}), "Invalid")]
#[case::none("2.20", json!({"serverRef": {"name": "web-http"}}), "Invalid")]
#[case::more_for_one("2.20", json!({"requestsPerSecond": 1, "perClientRequestsPerSecond": 2, "serverRef": {"name": "web-http"}}), "Invalid")]
#[case::no_port("2.20", json!({"requestsPerSecond": 1, "createServer": {"accessPolicy": "audit"}}), "Invalid")]
fn a_rate_limit_that_cannot_be_is_refused(#[case] version: &str, #[case] limit: Value, #[case] expected: &str) {
    let found = limited(version, &limit);
    assert_eq!(reason(&found), Some(expected));
    assert_eq!(found.targets[0].limit, None);
}

/// Rates are of HTTP requests: no Server is made for a port where Linkerd sees none.
#[rstest]
#[case::opaque_by_number(json!([{"port": 5432}]), 5432, "Opaque")]
#[case::opaque_by_name(json!([{"port": 80, "appProtocol": "linkerd.io/tcp"}]), 80, "Opaque")]
#[case::unknown(json!([{"port": 80, "appProtocol": "grpc"}]), 80, "UnknownAppProtocol")]
#[case::udp(json!([{"port": 80, "protocol": "UDP"}]), 80, "NotTcp")]
#[case::udp_first(json!([{"name": "u", "port": 80, "protocol": "UDP", "targetPort": 9}, {"name": "t", "port": 80, "targetPort": 8080}]), 80, "RateLimitPending")]
fn a_server_is_made_where_http_is(#[case] ports: Value, #[case] port: u16, #[case] expected: &str) {
    let mut cluster = cluster("2.20");
    cluster.services[0].spec.as_mut().unwrap().ports = serde_json::from_value(ports).unwrap();
    let limit = json!({"enabled": true, "requestsPerSecond": 1, "createServer": {"accessPolicy": "audit"}});
    let found = done(
        &cluster,
        &json!({"targetRef": {"name": "web", "port": port}, "rateLimit": limit}),
    );
    assert_eq!(reason(&found), Some(expected));
    let made = serde_json::to_value(&found.targets[0].limit).unwrap();
    let expected = if expected == "RateLimitPending" {
        json!(8080)
    } else {
        Value::Null
    };
    assert_eq!(made["server"]["spec"]["port"], expected);
}

/// A rate limit is the server's affair: it acts where nothing outbound does.
#[test]
fn a_rate_limit_acts_on_a_headless_service() {
    let mut cluster = cluster("2.20");
    cluster.services[0].spec.as_mut().unwrap().cluster_ip = Some("None".into());
    let limit = json!({"enabled": true, "requestsPerSecond": 1, "createServer": {"accessPolicy": "audit"}});
    let found = done(
        &cluster,
        &json!({"targetRef": {"name": "web", "port": 80}, "retry": {}, "rateLimit": limit}),
    );
    assert!(
        matches!(&found.targets[0].sections[&Section::Retry], Standing::Inert(refusal) if refusal.reason == "Headless")
    );
    assert!(matches!(
        &found.targets[0].sections[&Section::RateLimit],
        Standing::Pending(_)
    ));
    assert!(found.targets[0].annotations.is_empty());
}
