//! Which rule gets the requests that several are for, and Linkerd's own routes.

use rstest::rstest;
use serde_json::{Value, json};
use trellis_model::State;

use super::{at, route, state, titles};

/// Of equal matches the older route's counts; what the API server fills in and the order of headers do not matter.
#[rstest]
#[case::same(json!({"path": {"value": "/x"}}), json!({"path": {"type": "PathPrefix", "value": "/x"}}), true)]
#[case::exact(json!({"path": {"value": "/x"}}), json!({"path": {"type": "Exact", "value": "/x"}}), false)]
#[case::method(json!({}), json!({"method": "GET"}), false)]
#[case::everything(json!({}), json!({"path": {"type": "PathPrefix", "value": "/"}}), true)]
#[case::headers(json!({"headers": [{"name": "A", "value": "1"}, {"name": "b", "value": "2"}]}), json!({"headers": [{"name": "b", "value": "2"}, {"name": "a", "value": "1"}]}), true)]
#[case::value(json!({"headers": [{"name": "a", "value": "1"}]}), json!({"headers": [{"name": "a", "value": "2"}]}), false)]
fn of_equal_matches_the_older_counts(#[case] old: Value, #[case] new: Value, #[case] taken: bool) {
    let one = |name: &str, second: u8, matches: &Value| {
        let created = format!("2026-01-01T00:00:0{second}Z");
        let changes = json!({"metadata": {"creationTimestamp": created}, "spec": {"rules": [{"matches": [matches]}]}});
        route("HTTPRoute", name, &changes)
    };
    // By age, not by name.
    let found = at(
        &state((2, 20), &json!({}), vec![one("a", 2, &new), one("b", 1, &old)]),
        "shop",
    );
    assert_eq!(titles(&found), ["HTTPRoute shop/b", "HTTPRoute shop/a"]);
    assert_eq!(found.rules[0].taken_by, None);
    assert_eq!(found.rules[1].taken_by.as_deref(), taken.then_some("HTTPRoute shop/b"));
}

/// A rule is taken when all of its matches are, by another rule of its own route as well.
#[test]
fn a_rule_with_one_match_left_is_reached() {
    let rules = json!([
        {"matches": [{"path": {"value": "/x"}}]},
        {"matches": [{"path": {"value": "/x"}}, {"path": {"value": "/y"}}]},
        {"matches": [{"path": {"value": "/y"}}]},
    ]);
    let routes = vec![route("HTTPRoute", "r", &json!({"spec": {"rules": rules}}))];
    let found = at(&state((2, 20), &json!({}), routes), "shop");
    let taken: Vec<_> = found.rules.iter().map(|rule| rule.taken_by.as_deref()).collect();
    assert_eq!(taken, [None, None, Some("HTTPRoute shop/r")]);
}

/// Linkerd's own routes: in every version, without the Gateway API, with timeouts as Go writes them.
#[rstest]
#[case("1m30s", Some(90_000))]
#[case("0s", None)]
#[case("1d", None)]
fn linkerds_own_routes_count(#[case] text: &str, #[case] expected: Option<u64>) {
    let changes =
        json!({"apiVersion": "policy.linkerd.io/v1beta3", "spec": {"rules": [{"timeouts": {"request": text}}]}});
    let state = State {
        http: Vec::new(),
        grpc: Vec::new(),
        ..state((2, 16), &json!({}), vec![route("HTTPRoute", "r", &changes)])
    };
    let found = at(&state, "shop");
    assert_eq!(titles(&found), ["HTTPRoute.policy.linkerd.io shop/r"]);
    assert_eq!(found.rules[0].timeouts.request, expected);
}
