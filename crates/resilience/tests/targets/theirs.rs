//! What somebody else holds under our keys: the section is inert there, and nothing else is.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail by panicking, like tests"
)]

use rstest::rstest;
use serde_json::{Value, json};
use trellis_api::Section;
use trellis_resilience::{Cluster, Enacted, Standing, enact, project::project};

use crate::stage::{cluster, done, policy, reason, route, with_route};

const LIMIT: &str = "retry.linkerd.io/limit";

/// Metadata by which a manager holds an annotation.
fn held(manager: &str, key: &str, value: &str) -> Value {
    json!({
        "annotations": {key: value},
        "managedFields": [{
            "manager": manager, "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:metadata": {"f:annotations": {format!("f:{key}"): {}}}},
        }],
    })
}

fn with_held(mut cluster: Cluster, manager: &str, value: &str) -> Cluster {
    let mut service = serde_json::to_value(&cluster.services[0]).unwrap();
    let held = held(manager, LIMIT, value);
    service["metadata"]["annotations"] = held["annotations"].clone();
    service["metadata"]["managedFields"] = held["managedFields"].clone();
    cluster.services[0] = serde_json::from_value(service).unwrap();
    cluster
}

#[test]
fn only_the_section_that_somebody_holds_is_inert() {
    let cluster = with_held(cluster("2.20"), "kubectl", "9");
    let spec = json!({"targetRef": {"name": "web"}, "retry": {"maxAttempts": 2}, "timeout": {"requestTimeout": "1s"}, "circuitBreaker": {}});
    let found = done(&cluster, &spec);
    assert_eq!(reason(&found), Some("ForeignOwner"));
    let target = &found.targets[0];
    let Standing::Inert(refusal) = &target.sections[&Section::Retry] else {
        panic!("{:?}", target.sections)
    };
    assert!(
        refusal.message.contains(LIMIT) && refusal.message.contains("kubectl"),
        "{}",
        refusal.message
    );
    assert_eq!(target.sections[&Section::Timeout], Standing::Won);
    assert_eq!(target.sections[&Section::CircuitBreaker], Standing::Won);
    let keys: Vec<&str> = target.annotations.keys().copied().collect();
    assert!(keys.contains(&"balancer.linkerd.io/failure-accrual") && keys.contains(&"timeout.linkerd.io/request"));
    assert!(!keys.iter().any(|key| key.starts_with("retry.linkerd.io/")), "{keys:?}");
    // The same value is shared, not contended for.
    let shared = with_held(cluster.clone(), "kubectl", "2");
    assert_eq!(reason(&done(&shared, &spec)), None);
}

#[test]
fn another_service_of_the_namespace_goes_on() {
    let mut cluster = with_held(cluster("2.20"), "kubectl", "9");
    let mut other = cluster.services[0].clone();
    other.metadata.name = Some("zoo".into());
    other.metadata.annotations = None;
    other.metadata.managed_fields = None;
    cluster.services.push(other);
    let spec = json!({"targetRef": {"kind": "Namespace", "name": "shop"}, "retry": {"maxAttempts": 2}});
    let found = done(&cluster, &spec);
    let in_force: Vec<bool> = found.targets.iter().map(Enacted::in_force).collect();
    assert_eq!(in_force, [false, true]);
    assert_eq!(found.targets[1].annotations[LIMIT], "2");
}

#[test]
fn the_projection_names_what_stays() {
    let mut cluster = with_held(cluster("2.20"), "kubectl", "9");
    cluster.policies.push(policy(
        "p",
        &json!({"targetRef": {"name": "web"}, "retry": {"maxAttempts": 2}, "timeout": {"requestTimeout": "1s"}}),
    ));
    let (after, conflicts) = project(&cluster);
    let annotations = after.services[0].metadata.annotations.clone().unwrap();
    assert_eq!(
        annotations,
        [(LIMIT, "9"), ("timeout.linkerd.io/request", "1s")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into()
    );
    let [conflict] = conflicts.as_slice() else {
        panic!("{conflicts:?}")
    };
    assert_eq!((conflict.key, conflict.value.as_str()), (LIMIT, "9"));
}

#[test]
fn on_a_route_too_only_the_section_is_inert() {
    let held = held("kubectl", "timeout.linkerd.io/request", "9s");
    let cluster = with_route(cluster("2.20"), route("HTTPRoute", &json!({"metadata": held})));
    let spec = json!({"targetRef": {"kind": "HTTPRoute", "name": "web-search"}, "retry": {}, "timeout": {"requestTimeout": "1s"}});
    let found = done(&cluster, &spec);
    let sections = &found.targets[0].sections;
    assert_eq!(sections[&Section::Retry], Standing::Won);
    assert!(matches!(&sections[&Section::Timeout], Standing::Inert(refusal) if refusal.reason == "ForeignOwner"));
}

/// A policy that lost lets go by itself; a suspended one never does, and is named.
#[test]
fn a_suspended_policy_that_holds_a_key_is_named() {
    for suspended in [false, true] {
        let mut cluster = with_held(cluster("2.20"), "trellis-resilience/shop/old", "9");
        let old = json!({"targetRef": {"name": "web"}, "suspend": suspended, "timeout": {"requestTimeout": "1s"}});
        cluster.policies.push(policy("old", &old));
        let new = policy("p", &json!({"targetRef": {"name": "web"}, "retry": {"maxAttempts": 2}}));
        cluster.policies.push(new.clone());
        let found = enact(&new, &cluster);
        assert_eq!(reason(&found), suspended.then_some("ForeignOwner"));
        if suspended {
            let message = found.targets[0].refusal().unwrap().to_string();
            assert!(message.contains("policy shop/old"), "{message}");
        }
    }
}

/// Nobody's policy decides a route that another policy made.
#[test]
fn a_route_of_a_policy_is_no_target() {
    let made = json!({
        "apiVersion": "resilience.trellis.dev/v1alpha1", "kind": "ResiliencePolicy", "name": "maker", "uid": "maker",
        "controller": true,
    });
    let changes = json!({"metadata": {
        "labels": {"resilience.trellis.dev/policy": "maker"}, "ownerReferences": [made],
        "annotations": {"trellis.dev/owner": "shop/maker"},
    }});
    let cluster = with_route(cluster("2.20"), route("HTTPRoute", &changes));
    let found = done(
        &cluster,
        &json!({"targetRef": {"kind": "HTTPRoute", "name": "web-search"}, "retry": {}}),
    );
    assert_eq!(reason(&found), Some("Invalid"));
    assert!(found.targets[0].annotations.is_empty());
    assert!(!found.targets[0].in_force());
}

/// Of which kind the other route is, Linkerd does not say.
#[rstest]
#[case("HTTPRoute")]
#[case("GRPCRoute")]
fn a_conflict_is_with_another_kind(#[case] kind: &str) {
    let mut theirs = route(kind, &json!({}));
    theirs["status"]["parents"][0]["conditions"][0] =
        json!({"type": "Accepted", "status": "False", "reason": "RouteReasonConflicted"});
    let found = done(
        &with_route(cluster("2.20"), theirs),
        &json!({"targetRef": {"kind": kind, "name": "web-search"}, "timeout": {"requestTimeout": "1s"}}),
    );
    assert_eq!(reason(&found), Some("RouteConflicted"));
    let told = found.targets[0].refusal().unwrap().to_string();
    assert!(
        told.contains("Service web also has a route of another kind at this port"),
        "{told}"
    );
}
