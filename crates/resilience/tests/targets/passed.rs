//! What requests lose that a policy's routes take from routes of others (facts, sections 5 and 6).

#![expect(clippy::indexing_slicing, reason = "helpers of tests fail by panicking, like tests")]

use rstest::rstest;
use serde_json::{Value, json};
use trellis_resilience::{Cluster, enact};

use crate::stage::{CARTS, cluster, done, entries, policy, reason, route, with_route};

fn searching(section: &str) -> Value {
    let mut spec = json!({
        "targetRef": {"name": "web", "port": 80},
        "routes": [{"name": "search", "http": {"matches": [{"path": {"value": "/search"}}]}}],
    });
    spec[section] = if section == "timeout" {
        json!({"requestTimeout": "1s"})
    } else {
        json!({})
    };
    spec
}

fn notes(cluster: &Cluster, spec: &Value) -> String {
    let found = done(cluster, spec);
    assert_eq!(reason(&found), Some("RoutePending"), "it is no reason to refuse");
    found.targets[0].notes.join("; ")
}

fn annotated(key: &str, value: &str, rule: &Value) -> Value {
    route(
        "HTTPRoute",
        &json!({"metadata": {"annotations": {key: value}}, "spec": {"rules": [rule]}}),
    )
}

const REQUEST: &str = "timeout.linkerd.io/request";
const RETRY: &str = "retry.linkerd.io/limit";

/// A route has its own block, or else the Service's, and none of another route's.
#[rstest]
#[case::annotation("2.16", "retry", annotated(REQUEST, "300ms", &json!({})), Some("timeout"))]
#[case::field("2.20", "retry", route("HTTPRoute", &json!({"spec": {"rules": [{"timeouts": {"request": "300ms"}}]}})), Some("timeout"))]
#[case::field_unread("2.19", "retry", route("HTTPRoute", &json!({"spec": {"rules": [{"timeouts": {"request": "300ms"}}]}})), None)]
#[case::field_in_doubt("edge-26.6.1", "retry", route("HTTPRoute", &json!({"spec": {"rules": [{"timeouts": {"request": "300ms"}}]}})), Some("timeout"))]
#[case::retry("2.20", "timeout", annotated(RETRY, "1", &json!({})), Some("retry"))]
#[case::set_here("2.20", "timeout", annotated(REQUEST, "300ms", &json!({})), None)]
#[case::nothing("2.20", "retry", route("HTTPRoute", &json!({})), None)]
#[case::more_specific("2.20", "retry", annotated(REQUEST, "300ms", &json!({"matches": [{"path": {"value": "/search/x"}}]})), None)]
#[case::more_specific_by_method("2.20", "retry", annotated(REQUEST, "300ms", &json!({"matches": [{"path": {"value": "/search"}, "method": "GET"}]})), None)]
#[case::of_other_requests("2.20", "retry", annotated(REQUEST, "300ms", &json!({"matches": [{"path": {"value": "/carts"}}]})), None)]
fn what_a_users_route_sets_and_ours_lose_is_noted(
    #[case] version: &str,
    #[case] section: &str,
    #[case] theirs: Value,
    #[case] lost: Option<&str>,
) {
    let notes = notes(&with_route(cluster(version), theirs), &searching(section));
    match lost {
        Some(block) => {
            let words = format!("do not get {block} of HTTPRoute shop/web-search, but what the Service says");
            assert!(notes.contains(&words), "{notes}");
        }
        None => assert!(!notes.contains("do not get"), "{notes}"),
    }
}

/// Retries for `/a` by one policy, timeouts for `/a/b` by another.
#[test]
fn what_another_policys_route_sets_is_noted() {
    let theirs = route(
        "HTTPRoute",
        &json!({
            "metadata": {
                "name": "q-a", "annotations": {RETRY: "1"}, "labels": {"resilience.trellis.dev/policy": "q"},
                "ownerReferences": [{"apiVersion": "resilience.trellis.dev/v1alpha1", "kind": "ResiliencePolicy",
                                     "name": "q", "uid": "q", "controller": true}],
            },
            "spec": {"rules": [{"matches": [{"path": {"value": "/a"}}]}]},
        }),
    );
    let mut spec = searching("timeout");
    spec["routes"][0]["http"]["matches"][0]["path"]["value"] = json!("/a/b");
    let notes = notes(&with_route(cluster("2.20"), theirs), &spec);
    assert!(
        notes.contains("do not get retry of HTTPRoute shop/q-a (policy shop/q)"),
        "{notes}"
    );
}

#[test]
fn many_of_them_are_a_few() {
    let mut cluster = cluster("2.20");
    for index in 0..9 {
        let matches = json!([{"path": {"value": "/"}, "headers": [{"name": "x", "value": index.to_string()}]}]);
        let name = format!("r{index}");
        let mut theirs = annotated(REQUEST, "300ms", &json!({"matches": matches}));
        theirs["metadata"]["name"] = json!(name);
        cluster = with_route(cluster, theirs);
    }
    let notes = notes(&cluster, &searching("retry"));
    assert!(notes.contains("r3 and 5 more, but what"), "{notes}");
}

/// Once a port has a route, Linkerd refuses what fits none.
#[rstest]
#[case::paths(json!([{"path": {"value": "/carts"}}]), true)]
#[case::below(json!([{"path": {"value": "/search/x"}}]), true)]
#[case::above(json!([{"path": {"value": "/"}}]), false)]
#[case::the_same_for_one_method(json!([{"path": {"value": "/search"}, "method": "GET"}]), true)]
#[case::everything(json!([]), false)]
fn entries_that_open_what_was_shut_are_noted(#[case] matches: Value, #[case] opens: bool) {
    let theirs = route("HTTPRoute", &json!({"spec": {"rules": [{"matches": matches}]}}));
    let told = notes(&with_route(cluster("2.20"), theirs), &searching("retry"));
    assert_eq!(told.contains("no longer refused"), opens, "{told}");
    assert!(!notes(&cluster("2.20"), &searching("retry")).contains("no longer refused"));
}

/// Clients of another namespace see the routes there beside those of the Service's namespace.
#[rstest]
#[case::passed("HTTPRoute", json!([]), false, Some("other"))]
#[case::more_specific("HTTPRoute", json!([{"path": {"value": "/search/x"}}]), false, None)]
#[case::for_what_http_has("HTTPRoute", json!([]), true, Some("other"))]
#[case::grpc_before_ours("GRPCRoute", json!([]), false, None)]
fn namespaces_that_lose_requests_are_named(
    #[case] kind: &str,
    #[case] matches: Value,
    #[case] grpc: bool,
    #[case] expected: Option<&str>,
) {
    let parent = json!({"group": "", "kind": "Service", "name": "web", "namespace": "shop"});
    let theirs = route(
        kind,
        &json!({
            "metadata": {"namespace": "other"},
            "spec": {"parentRefs": [parent], "rules": [{"matches": matches}]},
        }),
    );
    let mut spec = searching("timeout");
    if grpc {
        spec["routes"] = entries(CARTS);
    }
    let notes = notes(&with_route(cluster("2.20"), theirs), &spec);
    let named = expected.map(|name| format!("for their own clients: {name}"));
    assert_eq!(named.is_some(), notes.contains("for their own clients"), "{notes}");
    assert!(named.is_none_or(|named| notes.contains(&named)), "{notes}");
}

/// A status has room for a few notes of others' making.
#[test]
fn a_target_tells_a_few_notes() {
    let mut cluster = cluster("2.20");
    for index in 0..30 {
        let mut theirs = annotated(
            RETRY,
            "1",
            &json!({"matches": [{"path": {"value": format!("/{index}")}}]}),
        );
        theirs["metadata"]["name"] = json!(format!("r{index:02}"));
        cluster = with_route(cluster, theirs);
    }
    let own = policy(
        "p",
        &json!({"targetRef": {"name": "web"}, "timeout": {"requestTimeout": "1s"}}),
    );
    cluster.policies.push(own.clone());
    let found = enact(&own, &cluster);
    let target = found.targets.first().unwrap();
    assert_eq!((reason(&found), target.notes.len()), (None, 30));
    let message = target.status().message;
    assert_eq!(message.matches("sets its own").count(), 8, "{message}");
    assert!(message.ends_with("; and 22 more"), "{message}");
}
