//! Routes for the same requests: of equal matches Linkerd follows the older one (facts, section 6).

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, like tests")]

use rstest::rstest;
use serde_json::{Value, json};
use trellis_api::{ResiliencePolicy, Section};
use trellis_resilience::{Cluster, Standing, enact, explain, lint::lint, project::project};

use crate::stage::{CARTS, cluster, done, entries, policy, reason, route, with_route};

fn at(mut policy: ResiliencePolicy, namespace: &str) -> ResiliencePolicy {
    policy.metadata.namespace = Some(namespace.into());
    policy
}

fn entry(path: &str) -> Value {
    json!([{"name": "x", "http": {"matches": [{"path": {"value": path}}]}}])
}

/// The policy alone in the cluster, and everything it makes there, made on that day.
fn made(mut cluster: Cluster, policy: &ResiliencePolicy, day: u8) -> Cluster {
    cluster.policies.push(policy.clone());
    let (mut after, _) = project(&cluster);
    let date = serde_json::from_value(json!(format!("2026-02-{day:02}T00:00:00Z"))).unwrap();
    let date = Some(date);
    for route in &mut after.http_routes {
        route.metadata.creation_timestamp = route.metadata.creation_timestamp.take().or_else(|| date.clone());
    }
    for route in &mut after.grpc_routes {
        route.metadata.creation_timestamp = route.metadata.creation_timestamp.take().or_else(|| date.clone());
    }
    after
}

fn spec(path: &str, timeout: &str) -> Value {
    json!({"targetRef": {"name": "web"}, "routes": entry(path), "timeout": {"requestTimeout": timeout}})
}

/// Two policies for the same path: the one whose route is there stays, whatever the policies' ages; the other one makes
/// none, and says why.
#[rstest]
#[case::same_path("/x", None, "/x", None, true)]
#[case::other_path("/x", None, "/y", None, false)]
#[case::same_port("/x", Some(80), "/x", Some(80), true)]
#[case::other_port("/x", Some(80), "/x", Some(81), false)]
#[case::all_ports_before_one("/x", None, "/x", Some(80), true)]
#[case::one_port_before_all("/x", Some(80), "/x", None, false)]
fn of_two_policies_for_the_same_requests_one_acts(
    #[case] first: &str,
    #[case] port: Option<u16>,
    #[case] second: &str,
    #[case] other: Option<u16>,
    #[case] conflict: bool,
) {
    let with = |path: &str, port: Option<u16>, timeout: &str| {
        let mut spec = spec(path, timeout);
        if let Some(port) = port {
            spec["targetRef"]["port"] = json!(port);
        }
        spec
    };
    let winner = policy("z", &with(first, port, "1s"));
    let cluster = made(cluster("2.20"), &winner, 1);
    let loser = policy("a", &with(second, other, "9s"));
    let cluster = made(cluster, &loser, 2);
    let found = enact(&winner, &cluster);
    assert!(found.targets[0].in_force(), "{:?}", found.targets[0].sections);
    let found = enact(&loser, &cluster);
    assert_eq!(
        found.targets[0].in_force(),
        !conflict,
        "{:?}",
        found.targets[0].sections
    );
    assert_eq!(found.targets[0].routes.is_empty(), conflict);
    assert_eq!(reason(&found), conflict.then_some("RouteConflicted"));
    if conflict {
        let message = found.targets[0].refusal().unwrap().to_string();
        assert!(
            message.contains("policy shop/z") && message.contains("shop/z-x"),
            "{message}"
        );
    }
    let partly = found.targets[0].notes.iter().any(|note| note.contains("shop/z"));
    assert_eq!(partly, port.is_some() && other.is_none());
}

/// Both raced and both routes exist: the younger one is dead, and its policy does not say that it is in force.
#[test]
fn a_route_that_is_younger_by_a_day_is_dead() {
    let (one, two) = (policy("a", &spec("/x", "1s")), policy("b", &spec("/x", "9s")));
    let alone = made(cluster("2.20"), &one, 2);
    let mut both = made(cluster("2.20"), &two, 1);
    both.http_routes.extend(alone.http_routes);
    both.policies.push(one.clone());
    assert_eq!(reason(&enact(&one, &both)), Some("RouteConflicted"));
    assert_eq!(reason(&enact(&two, &both)), None);
    let explained = explain(&both, "shop", "web", 80, "shop").unwrap();
    let rules: Vec<(String, Option<String>)> = explained
        .rules
        .iter()
        .map(|rule| {
            (
                rule.route.as_ref().unwrap().name.clone(),
                rule.taken_by.as_ref().map(ToString::to_string),
            )
        })
        .collect();
    let taken = |by: &str| Some(format!("HTTPRoute shop/{by}"));
    assert_eq!(
        rules,
        [
            ("b-rest".into(), None),
            ("b-x".into(), None),
            ("a-rest".into(), taken("b-rest")),
            ("a-x".into(), taken("b-x")),
        ]
    );
    let found: Vec<String> = lint(&both)
        .into_iter()
        .filter(|finding| finding.rule.to_string() == "unreached-rule")
        .map(|finding| finding.object)
        .collect();
    assert_eq!(
        found,
        ["HTTPRoute shop/a-x", "HTTPRoute shop/a-x"],
        "once for each port"
    );
}

/// Consumers of one namespace are not merged: the younger route would be dead.
#[test]
fn a_second_consumer_is_refused() {
    let target = json!({"name": "web", "namespace": "shop"});
    let one = at(policy("a", &json!({"targetRef": target, "retry": {}})), "other");
    let two = at(
        policy("b", &json!({"targetRef": target, "timeout": {"requestTimeout": "1s"}})),
        "other",
    );
    let elsewhere = at(policy("c", &json!({"targetRef": target, "retry": {}})), "third");
    let cluster = made(made(cluster("2.20"), &one, 1), &two, 2);
    assert_eq!(reason(&enact(&one, &cluster)), None);
    let found = enact(&two, &cluster);
    assert!(found.targets[0].routes.is_empty());
    let Standing::Inert(refusal) = &found.targets[0].sections[&Section::Timeout] else {
        panic!("{found:?}")
    };
    assert_eq!(refusal.reason, "RouteConflicted");
    assert!(refusal.message.contains("policy other/a"), "{refusal}");
    // Clients of another namespace see neither.
    assert_eq!(reason(&enact(&elsewhere, &made(cluster, &elsewhere, 3))), None);
}

/// The Service's namespace has an older route for everything: a consumer's would be dead.
#[test]
fn a_consumer_behind_the_rest_is_refused() {
    let producer = policy("p", &spec("/x", "1s"));
    let consumer = at(
        policy(
            "c",
            &json!({"targetRef": {"name": "web", "namespace": "shop"}, "retry": {}}),
        ),
        "other",
    );
    let cluster = made(made(cluster("2.20"), &producer, 1), &consumer, 2);
    assert_eq!(reason(&enact(&producer, &cluster)), None);
    let found = enact(&consumer, &cluster);
    assert_eq!(reason(&found), Some("RouteConflicted"));
    assert!(
        found.targets[0]
            .refusal()
            .unwrap()
            .message
            .contains("policy shop/p, by HTTPRoute shop/p-rest")
    );
}

/// An entry for every request takes the place of the rest, which would be the older.
#[test]
fn an_entry_for_everything_leaves_no_rest() {
    let names = |routes: Value| -> Vec<String> {
        let spec = json!({"targetRef": {"name": "web"}, "routes": routes, "timeout": {"requestTimeout": "1s"}});
        let found = done(&cluster("2.20"), &spec);
        found.targets[0]
            .routes
            .iter()
            .map(|built| built.as_route().name())
            .collect()
    };
    assert_eq!(names(entry("/")), ["p-x"]);
    assert_eq!(names(entry("/y")), ["p-rest", "p-x"]);
}

/// A user's route for the same requests, older than ours.
#[rstest]
#[case::same(json!([{"path": {"value": "/x"}}]), Some("RouteConflicted"))]
#[case::defaulted(json!([{"path": {"type": "PathPrefix", "value": "/x"}, "headers": []}]), Some("RouteConflicted"))]
#[case::one_of_two(json!([{"path": {"value": "/y"}}, {"path": {"value": "/x"}}]), Some("RouteConflicted"))]
#[case::exact(json!([{"path": {"type": "Exact", "value": "/x"}}]), Some("RoutePending"))]
#[case::method(json!([{"path": {"value": "/x"}, "method": "GET"}]), Some("RoutePending"))]
#[case::everything(json!([]), Some("RoutePending"))]
fn a_users_route_for_the_same_requests_wins(#[case] matches: Value, #[case] expected: Option<&str>) {
    let theirs = route("HTTPRoute", &json!({"spec": {"rules": [{"matches": matches}]}}));
    let found = done(&with_route(cluster("2.20"), theirs), &spec("/x", "1s"));
    assert_eq!(reason(&found), expected);
}

/// The user's own second route for the same requests does nothing, and a policy for it neither.
#[test]
fn a_policy_for_a_dead_route_is_not_in_force() {
    let rules = json!([{"matches": [{"path": {"value": "/x"}}]}]);
    let older = route("HTTPRoute", &json!({"spec": {"rules": rules}}));
    let younger = route(
        "HTTPRoute",
        &json!({
            "metadata": {"name": "again", "creationTimestamp": "2026-01-02T00:00:00Z"}, "spec": {"rules": rules},
        }),
    );
    let cluster = with_route(with_route(cluster("2.20"), older), younger);
    let on = |name: &str| {
        done(
            &cluster,
            &json!({"targetRef": {"kind": "HTTPRoute", "name": name}, "retry": {}}),
        )
    };
    assert_eq!(reason(&on("web-search")), None);
    assert_eq!(reason(&on("again")), Some("RouteConflicted"));
}

/// A split of a user is not passed by: ours has no backends, and is more specific.
#[rstest]
#[case::split(json!({"backendRefs": [{"name": "v1", "port": 80}, {"name": "v2", "port": 80}]}), "/x", Some("RouteConflicted"))]
#[case::filter(json!({"filters": [{"type": "RequestHeaderModifier"}]}), "/x", Some("RouteConflicted"))]
#[case::other_port(json!({"backendRefs": [{"name": "web", "port": 8080}]}), "/x", Some("RouteConflicted"))]
#[case::below(json!({"matches": [{"path": {"value": "/x/y"}}], "backendRefs": [{"name": "v1", "port": 80}]}), "/x", Some("RouteConflicted"))]
#[case::apart(json!({"matches": [{"path": {"value": "/y"}}], "backendRefs": [{"name": "v1", "port": 80}]}), "/x", Some("RoutePending"))]
#[case::dropped(json!({"filters": [{"type": "URLRewrite"}]}), "/x", Some("RoutePending"))]
#[case::itself(json!({"backendRefs": [{"name": "web", "port": 80}]}), "/x", Some("RoutePending"))]
fn a_split_is_not_passed_by(#[case] rule: Value, #[case] path: &str, #[case] expected: Option<&str>) {
    let theirs = route("HTTPRoute", &json!({"spec": {"rules": [rule]}}));
    let mut spec = spec(path, "1s");
    spec["targetRef"]["port"] = json!(80);
    let found = done(&with_route(cluster("2.20"), theirs), &spec);
    assert_eq!(reason(&found), expected);
    if expected == Some("RouteConflicted") {
        let refusal = found.targets[0].refusal().unwrap();
        assert!(
            refusal
                .to_string()
                .contains("targetRef.kind HTTPRoute, name web-search"),
            "{refusal}"
        );
        assert!(found.targets[0].routes.is_empty());
    }
}

/// A consumer's route for everything passes by only what is for everything.
#[rstest]
#[case::everything(json!([]), Some("RouteConflicted"))]
#[case::path(json!([{"path": {"value": "/x"}}]), Some("RoutePending"))]
fn a_consumer_passes_by_no_split(#[case] matches: Value, #[case] expected: Option<&str>) {
    let rule = json!({"matches": matches, "backendRefs": [{"name": "v1", "port": 80}]});
    let mut cluster = with_route(cluster("2.20"), route("HTTPRoute", &json!({"spec": {"rules": [rule]}})));
    let consumer = at(
        policy(
            "c",
            &json!({"targetRef": {"name": "web", "namespace": "shop"}, "retry": {}}),
        ),
        "other",
    );
    cluster.policies.push(consumer.clone());
    assert_eq!(reason(&enact(&consumer, &cluster)), expected);
}

/// The same for gRPC.
#[test]
fn of_two_policies_for_the_same_calls_one_acts() {
    let spec = json!({"targetRef": {"name": "web", "port": 80}, "routes": entries(CARTS), "timeout": {"requestTimeout": "1s"}});
    let (one, two) = (policy("a", &spec), policy("b", &spec));
    let cluster = made(made(cluster("2.20"), &one, 1), &two, 2);
    assert_eq!(reason(&enact(&one, &cluster)), None);
    assert_eq!(reason(&enact(&two, &cluster)), Some("RouteConflicted"));
}
