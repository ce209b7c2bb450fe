//! Which policy decides: rows, and the laws that hold for every set of policies.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, like tests")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::{prelude::*, sample::select};
use rstest::rstest;
use serde_json::{Value, json};
use trellis_api::{ResiliencePolicy, Section};
use trellis_resilience::{
    Cluster, Mesh, PolicyName,
    annotations::Place,
    attach::{Level, Target, winners},
};

fn policy(name: &str, created: Option<u8>, spec: &Value) -> ResiliencePolicy {
    let created = created.map(|second| format!("2026-01-01T00:00:{second:02}Z"));
    serde_json::from_value(json!({
        "apiVersion": "resilience.trellis.dev/v1alpha1",
        "kind": "ResiliencePolicy",
        "metadata": {"name": name, "namespace": "shop", "creationTimestamp": created},
        "spec": spec,
    }))
    .unwrap()
}

/// A policy that sets retries in one of the ways to be for Service `web`.
fn way(name: &str, way: &str, strategy: &str, created: Option<u8>) -> ResiliencePolicy {
    let mut spec = json!({"strategy": strategy, "retry": {}});
    let (field, target) = match way {
        "name" => ("targetRef", json!({"name": "web"})),
        "selector" => ("targetSelector", json!({"matchLabels": {"app": "web"}})),
        "namespace" => ("targetRef", json!({"kind": "Namespace", "name": "shop"})),
        _ => ("targetRef", json!({"kind": "HTTPRoute", "name": "web-search"})),
    };
    spec.as_object_mut().unwrap().insert(field.into(), target);
    policy(name, created, &spec)
}

fn service() -> Target {
    Target {
        labels: BTreeMap::from([("app".into(), "web".into()), ("tier".into(), "front".into())]),
        ..Target::new(Place::Service, "shop", "web")
    }
}

fn route() -> Target {
    Target {
        parents: vec![service()],
        ..Target::new(Place::HttpRoute, "shop", "web-search")
    }
}

fn winner(target: &Target, policies: &[ResiliencePolicy], section: Section) -> Option<String> {
    let candidates: Vec<&ResiliencePolicy> = policies.iter().collect();
    winners(target, &candidates)
        .get(&section)
        .map(|winner| winner.policy.name().to_owned())
}

#[rstest]
#[case::specific_first([("name", "Defaults", 3), ("selector", "Defaults", 2), ("namespace", "Defaults", 1)], "a")]
#[case::selector_next([("selector", "Defaults", 3), ("namespace", "Defaults", 1), ("route", "Defaults", 0)], "a")]
#[case::overrides_beat_defaults([("namespace", "Overrides", 3), ("name", "Defaults", 1), ("selector", "Defaults", 2)], "a")]
#[case::general_first_among_overrides([("namespace", "Overrides", 3), ("name", "Overrides", 1), ("selector", "Overrides", 2)], "a")]
#[case::selector_over_name_among_overrides([("selector", "Overrides", 3), ("name", "Overrides", 1), ("namespace", "Defaults", 0)], "a")]
#[case::oldest([("name", "Defaults", 1), ("name", "Defaults", 2), ("name", "Defaults", 3)], "a")]
#[case::then_by_name([("name", "Defaults", 1), ("name", "Defaults", 1), ("name", "Defaults", 1)], "a")]
fn one_policy_wins_a_service(#[case] policies: [(&str, &str, u8); 3], #[case] expected: &str) {
    let names = ["a", "b", "c"];
    let policies: Vec<ResiliencePolicy> = policies
        .into_iter()
        .zip(names)
        .map(|((how, strategy, created), name)| way(name, how, strategy, Some(created)))
        .collect();
    assert_eq!(winner(&service(), &policies, Section::Retry).as_deref(), Some(expected));
}

#[rstest]
#[case::its_own("route", "Defaults", "name", "Defaults", Some("a"))]
#[case::a_services_default_stays_there("other", "Defaults", "name", "Defaults", Some("a"))]
#[case::a_services_override_reaches("route", "Defaults", "name", "Overrides", Some("b"))]
#[case::a_namespaces_override_reaches("route", "Overrides", "namespace", "Overrides", Some("b"))]
#[case::an_override_of_its_own("route", "Overrides", "namespace", "Defaults", Some("a"))]
fn one_policy_wins_a_route(
    #[case] a: &str,
    #[case] strategy_a: &str,
    #[case] b: &str,
    #[case] strategy_b: &str,
    #[case] expected: Option<&str>,
) {
    let policies = [way("a", a, strategy_a, Some(1)), way("b", b, strategy_b, Some(0))];
    assert_eq!(winner(&route(), &policies, Section::Retry).as_deref(), expected);
    // Without the first policy, only an override of the Service is left for the route.
    let left = winner(&route(), &policies[1..], Section::Retry);
    assert_eq!(left.is_some(), strategy_b == "Overrides");
}

#[test]
fn sections_are_won_apart_and_whole() {
    let both = json!({"targetRef": {"name": "web"}, "retry": {"maxAttempts": 1}, "timeout": {"idleTimeout": "1m"}});
    let one = json!({"targetRef": {"name": "web"}, "retry": {"retryTimeout": "1s"}, "circuitBreaker": {}});
    let policies = [policy("old", Some(1), &both), policy("new", Some(2), &one)];
    let by = |section| winner(&service(), &policies, section);
    assert_eq!(by(Section::Retry).as_deref(), Some("old"));
    assert_eq!(by(Section::Timeout).as_deref(), Some("old"));
    assert_eq!(by(Section::CircuitBreaker).as_deref(), Some("new"));
    assert_eq!(by(Section::LoadBias), None);
}

/// A section that is present and off is a decision, too.
#[test]
fn off_by_name_beats_on_for_the_namespace() {
    let off = json!({"targetRef": {"name": "web"}, "retry": {"enabled": false}});
    let policies = [
        way("all", "namespace", "Defaults", Some(0)),
        policy("off", Some(9), &off),
    ];
    assert_eq!(winner(&service(), &policies, Section::Retry).as_deref(), Some("off"));
}

#[rstest]
#[case::another_service(json!({"targetRef": {"name": "api"}, "retry": {}}))]
#[case::another_namespace(json!({"targetRef": {"kind": "Namespace", "name": "other"}, "retry": {}}))]
#[case::service_elsewhere(json!({"targetRef": {"name": "web", "namespace": "other"}, "retry": {}}))]
#[case::other_labels(json!({"targetSelector": {"matchLabels": {"app": "web", "tier": "back"}}, "retry": {}}))]
#[case::no_labels(json!({"targetSelector": {"matchLabels": {}}, "retry": {}}))]
#[case::another_kind(json!({"targetRef": {"kind": "EgressNetwork", "name": "web"}, "retry": {}}))]
#[case::only_some_requests(json!({"targetRef": {"name": "web"}, "routes": [{"name": "get", "http": {"matches": [{"method": "GET"}]}}], "retry": {}}))]
fn what_is_not_meant_does_not_take_part(#[case] spec: Value) {
    assert!(winners(&service(), &[&policy("web", Some(1), &spec)]).is_empty());
}

#[test]
fn a_policy_that_goes_lets_go() {
    let mut going = way("a", "name", "Defaults", Some(1));
    going.metadata.deletion_timestamp = going.metadata.creation_timestamp.clone();
    let policies = [going, way("b", "namespace", "Defaults", Some(2))];
    assert_eq!(winner(&service(), &policies, Section::Retry).as_deref(), Some("b"));
}

#[test]
fn a_route_of_a_policys_own_is_its_own() {
    let own = Target {
        owner: Some(PolicyName::new("shop", "a")),
        ..route()
    };
    let spec = json!({"targetRef": {"name": "web"}, "routes": [{"name": "get", "http": {"matches": [{"method": "GET"}]}}], "retry": {}});
    let policies = [policy("a", Some(2), &spec), policy("b", Some(1), &spec)];
    let candidates: Vec<&ResiliencePolicy> = policies.iter().collect();
    let found = winners(&own, &candidates);
    assert_eq!(found.len(), 1);
    let found = found.get(&Section::Retry).unwrap();
    assert_eq!((found.policy.name(), found.level), ("a", Level::Route));
    let policies = [policies[0].clone(), way("all", "namespace", "Overrides", Some(9))];
    assert_eq!(winner(&own, &policies, Section::Retry).as_deref(), Some("all"));
}

fn any_policy() -> impl Strategy<Value = ResiliencePolicy> {
    let targets = select(vec![
        ("targetRef", json!({"name": "web"})),
        ("targetRef", json!({"name": "api"})),
        ("targetRef", json!({"kind": "Namespace", "name": "shop"})),
        ("targetRef", json!({"kind": "HTTPRoute", "name": "web-search"})),
        ("targetSelector", json!({"matchLabels": {"app": "web"}})),
        ("targetSelector", json!({"matchLabels": {"tier": "front"}})),
    ]);
    let sections = prop::collection::btree_set(select(vec!["circuitBreaker", "retry", "timeout", "loadBias"]), 1..4);
    let strategies = select(vec!["Defaults", "Overrides"]);
    let created = prop::option::of(0_u8..3);
    ("[a-d]{1,2}", targets, sections, strategies, created).prop_map(
        |(name, (field, target), sections, strategy, created)| {
            let mut spec = json!({field: target, "strategy": strategy});
            for section in sections {
                spec.as_object_mut()
                    .unwrap()
                    .insert(section.into(), json!({"enabled": false}));
            }
            policy(&name, created, &spec)
        },
    )
}

fn set() -> impl Strategy<Value = Vec<ResiliencePolicy>> {
    prop::collection::vec(any_policy(), 0..9).prop_map(|policies| {
        let named: BTreeMap<String, ResiliencePolicy> = policies
            .into_iter()
            .map(|policy| (PolicyName::of(&policy).to_string(), policy))
            .collect();
        named.into_values().collect()
    })
}

proptest! {
    /// Whatever the order in which policies are looked at, the same ones win.
    #[test]
    fn order_is_irrelevant(policies in set().prop_shuffle(), on_route in any::<bool>()) {
        let target = if on_route { route() } else { service() };
        let mut sorted: Vec<&ResiliencePolicy> = policies.iter().collect();
        let shuffled = winners(&target, &sorted);
        sorted.sort_by_key(|policy| PolicyName::of(policy));
        prop_assert_eq!(&shuffled, &winners(&target, &sorted));
        sorted.reverse();
        prop_assert_eq!(&shuffled, &winners(&target, &sorted));
    }

    /// A section has a winner exactly when somebody sets it for the target; the winner sets it, and is one of them.
    #[test]
    fn exactly_one_policy_wins_each_section(policies in set(), on_route in any::<bool>()) {
        let target = if on_route { route() } else { service() };
        let candidates: Vec<&ResiliencePolicy> = policies.iter().collect();
        let found = winners(&target, &candidates);
        let alone: BTreeSet<Section> =
            policies.iter().flat_map(|policy| winners(&target, &[policy]).into_keys()).collect();
        prop_assert_eq!(found.keys().copied().collect::<BTreeSet<_>>(), alone);
        for (section, winner) in &found {
            let policy = policies.iter().find(|policy| PolicyName::of(policy) == winner.policy).unwrap();
            prop_assert!(policy.spec.sections().any(|set| set == *section));
            prop_assert_eq!(winner.strategy, policy.spec.strategy);
        }
    }

    /// Who wins among all also wins against each other one alone: adding losers changes nothing.
    #[test]
    fn losers_do_not_matter(policies in set(), on_route in any::<bool>()) {
        let target = if on_route { route() } else { service() };
        let candidates: Vec<&ResiliencePolicy> = policies.iter().collect();
        for (section, winner) in winners(&target, &candidates) {
            let best = policies.iter().find(|policy| PolicyName::of(policy) == winner.policy).unwrap();
            for other in &policies {
                let pair = winners(&target, &[other, best]);
                prop_assert_eq!(&pair.get(&section).unwrap().policy, &winner.policy);
            }
        }
    }

    /// Those that a cluster finds for a target decide like all of them.
    #[test]
    fn nobody_wins_who_is_not_asked(policies in set(), kind in 0..4) {
        let target = match kind {
            0 => service(),
            1 => Target::new(Place::Service, "shop", "api"),
            2 => route(),
            _ => Target {
                owner: policies.first().map(PolicyName::of),
                ..route()
            },
        };
        let mut cluster = Cluster::of(Mesh::from_flag("2.20").unwrap());
        cluster.policies = policies.clone().into();
        let all: Vec<&ResiliencePolicy> = policies.iter().collect();
        prop_assert_eq!(winners(&target, &cluster.candidates(&target)), winners(&target, &all));
    }

    /// Sections are independent: taking one away from every policy leaves the winners of the others.
    #[test]
    fn sections_do_not_touch_each_other(policies in set()) {
        let candidates: Vec<&ResiliencePolicy> = policies.iter().collect();
        let mut expected = winners(&service(), &candidates);
        expected.remove(&Section::Retry);
        let without: Vec<ResiliencePolicy> = policies.iter().cloned().map(|mut policy| {
            policy.spec.retry = None;
            policy
        }).collect();
        let candidates: Vec<&ResiliencePolicy> = without.iter().collect();
        prop_assert_eq!(winners(&service(), &candidates), expected);
    }
}
