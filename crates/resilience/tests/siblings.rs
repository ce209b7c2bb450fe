//! Somebody else's annotations beside ours.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, like tests")]

use k8s_openapi::api::core::v1::Service;
use rstest::rstest;
use serde_json::{Value, json};
use trellis_core::Refusal;
use trellis_resilience::{
    annotations::{self, Place},
    siblings,
};

const OURS: &str = "trellis-resilience/shop/web";
const MIN: &str = "balancer.linkerd.io/failure-accrual-consecutive-min-penalty";
const MAX: &str = "balancer.linkerd.io/failure-accrual-consecutive-max-penalty";
const JITTER: &str = "balancer.linkerd.io/failure-accrual-consecutive-jitter-ratio";

fn check(sections: &Value, annotations: &Value, managed: &Value, version: &str) -> Result<(), Refusal> {
    let mut spec = json!({"targetRef": {"name": "web"}});
    spec.as_object_mut()
        .unwrap()
        .extend(sections.as_object().unwrap().clone());
    let linkerd = version.parse().unwrap();
    let desired = annotations::desired(&serde_json::from_value(spec).unwrap(), &linkerd).unwrap();
    let service: Service = serde_json::from_value(json!({
        "metadata": {"name": "web", "annotations": annotations, "managedFields": managed},
    }))
    .unwrap();
    siblings::check(&desired, &service.metadata, OURS, Place::Service, &linkerd)
}

#[rstest]
#[case::min(json!({"circuitBreaker": {}}), MIN, "1.5s")]
#[case::max(json!({"circuitBreaker": {}}), MAX, "x")]
#[case::max_zero(json!({"circuitBreaker": {}}), MAX, "0")]
#[case::min_above_default(json!({"circuitBreaker": {}}), MIN, "61s")]
#[case::max_below_ours(json!({"circuitBreaker": {"minPenalty": "30s"}}), MAX, "10s")]
#[case::jitter(json!({"circuitBreaker": {}}), JITTER, "100.5")]
#[case::jitter_nan(json!({"circuitBreaker": {}}), JITTER, "NaN")]
#[case::jitter_blank_before_2_20(json!({"circuitBreaker": {}}), JITTER, " 0.5")]
#[case::per_try(json!({"retry": {}}), "retry.linkerd.io/timeout", "300")]
#[case::idle(json!({"timeout": {"requestTimeout": "10s"}}), "timeout.linkerd.io/idle", "1m30s")]
#[case::zero_beside_retries(json!({"retry": {}}), "timeout.linkerd.io/request", "0s")]
#[case::zero_beside_a_breaker(json!({"circuitBreaker": {}}), "timeout.linkerd.io/idle", "0")]
#[case::zero(json!({"timeout": {"requestTimeout": "10s"}}), "timeout.linkerd.io/response", "0s")]
#[case::request(json!({"timeout": {"idleTimeout": "10s"}}), "timeout.linkerd.io/request", "")]
fn a_neighbour_that_switches_ours_off_is_named(#[case] sections: Value, #[case] key: &str, #[case] value: &str) {
    let refusal = check(&sections, &json!({key: value}), &json!([]), "2.19").unwrap_err();
    assert_eq!(refusal.reason, "ForeignAnnotation");
    assert!(
        refusal.message.contains(key) && refusal.message.contains(value),
        "{refusal}"
    );
}

#[rstest]
#[case::good(json!({"circuitBreaker": {}}), json!({MIN: "2s", MAX: "1m", JITTER: "1"}))]
#[case::ours_wins(json!({"circuitBreaker": {"jitterRatio": 1}}), json!({JITTER: "x"}))]
#[case::jitter_blank(json!({"circuitBreaker": {}}), json!({JITTER: " 0.5 "}))]
#[case::another_block(json!({"retry": {}}), json!({MIN: "x", "timeout.linkerd.io/idle": "x"}))]
#[case::alpha(json!({"circuitBreaker": {}}), json!({"balancer.alpha.linkerd.io/failure-accrual-success-rate-window": "x"}))]
#[case::grpc(json!({"retry": {}}), json!({"retry.linkerd.io/grpc": "x"}))]
#[case::look_alike(json!({"timeout": {"requestTimeout": "1s"}}), json!({"timeout.linkerd.io/idl": "x"}))]
#[case::nothing_enabled(json!({"retry": {"enabled": false}}), json!({"retry.linkerd.io/timeout": "x"}))]
#[case::zero_that_is_dropped(json!({"retry": {}}), json!({"timeout.linkerd.io/request": "0s", "timeout.linkerd.io/idle": "x"}))]
#[case::none(json!({"retry": {}}), json!({}))]
fn a_neighbour_that_does_no_harm_is_left_alone(#[case] sections: Value, #[case] annotations: Value) {
    check(&sections, &annotations, &json!([]), "2.20").unwrap();
}

fn manages(manager: &str, keys: &[&str]) -> Value {
    let fields: serde_json::Map<String, Value> = keys.iter().map(|key| (format!("f:{key}"), json!({}))).collect();
    json!({"manager": manager, "operation": "Apply", "fieldsV1": {"f:metadata": {"f:annotations": fields}}})
}

/// An earlier `minPenalty` of ours must not stand in the way of a new, lower `maxPenalty`.
#[test]
fn what_only_we_own_is_about_to_go() {
    let sections = json!({"circuitBreaker": {"maxPenalty": "70s"}});
    let annotations = json!({MIN: "90s"});
    let ours = manages(OURS, &[MIN]);
    check(&sections, &annotations, &json!([ours]), "2.20").unwrap();
    check(&sections, &annotations, &json!([ours, {"manager": "other"}]), "2.20").unwrap();
    for managed in [
        json!([]),
        json!([manages("other", &[MIN])]),
        json!([ours, manages("other", &[MIN])]),
    ] {
        let refusal = check(&sections, &annotations, &managed, "2.20").unwrap_err();
        assert!(refusal.message.contains(MIN), "{refusal}");
    }
}
