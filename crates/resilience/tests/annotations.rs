//! The mapping, row by row.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, like tests")]

use rstest::rstest;
use serde_json::{Value, json};
use trellis_api::{ResiliencePolicySpec, Section};
use trellis_core::Refusal;
use trellis_resilience::annotations::{self, Annotations, Place};

fn spec(sections: &Value) -> ResiliencePolicySpec {
    let mut whole = json!({"targetRef": {"name": "web"}});
    whole
        .as_object_mut()
        .unwrap()
        .extend(sections.as_object().unwrap().clone());
    serde_json::from_value(whole).unwrap()
}

fn desired(sections: &Value) -> Result<Annotations, Refusal> {
    annotations::desired(&spec(sections), &"2.18.1".parse().unwrap())
}

fn newest(sections: &Value) -> Result<Annotations, Refusal> {
    annotations::desired(&spec(sections), &"2.20".parse().unwrap())
}

const MODE: (&str, &str) = ("balancer.linkerd.io/failure-accrual", "consecutive");
const FIVE: (&str, &str) = ("balancer.linkerd.io/failure-accrual-consecutive-max-failures", "5");

#[rstest]
#[case::breaker(json!({"circuitBreaker": {}}), &[MODE, FIVE])]
#[case::threshold(json!({"circuitBreaker": {"failureThreshold": 100}}), &[MODE, ("balancer.linkerd.io/failure-accrual-consecutive-max-failures", "100")])]
#[case::penalties(
    json!({"circuitBreaker": {"minPenalty": "500ms", "maxPenalty": "2m", "jitterRatio": 0.25}}),
    &[MODE, FIVE,
      ("balancer.linkerd.io/failure-accrual-consecutive-min-penalty", "500ms"),
      ("balancer.linkerd.io/failure-accrual-consecutive-max-penalty", "2m"),
      ("balancer.linkerd.io/failure-accrual-consecutive-jitter-ratio", "0.25")],
)]
#[case::jitter_whole(json!({"circuitBreaker": {"jitterRatio": 100}}), &[MODE, FIVE, ("balancer.linkerd.io/failure-accrual-consecutive-jitter-ratio", "100")])]
#[case::jitter_zero(json!({"circuitBreaker": {"jitterRatio": -0.0}}), &[MODE, FIVE, ("balancer.linkerd.io/failure-accrual-consecutive-jitter-ratio", "0")])]
#[case::retry(json!({"retry": {}}), &[("retry.linkerd.io/limit", "3"), ("retry.linkerd.io/http", "5xx")])]
#[case::one_retry(json!({"retry": {"maxAttempts": 1}}), &[("retry.linkerd.io/limit", "1"), ("retry.linkerd.io/http", "5xx")])]
#[case::codes(json!({"retry": {"retryableStatusCodes": "5xx,429,5xx"}}), &[("retry.linkerd.io/limit", "3"), ("retry.linkerd.io/http", "429,5xx")])]
#[case::per_try(
    json!({"retry": {"retryTimeout": "300ms"}}),
    &[("retry.linkerd.io/limit", "3"), ("retry.linkerd.io/http", "5xx"), ("retry.linkerd.io/timeout", "300ms")],
)]
#[case::timeouts(
    json!({"timeout": {"requestTimeout": "10s", "responseTimeout": "1h", "idleTimeout": "1d"}}),
    &[("timeout.linkerd.io/request", "10s"), ("timeout.linkerd.io/response", "1h"), ("timeout.linkerd.io/idle", "1d")],
)]
#[case::disabled(json!({"circuitBreaker": {"enabled": false, "minPenalty": "0"}, "retry": {"enabled": false}, "timeout": {"enabled": false}}), &[])]
#[case::rate_limit_off(json!({"circuitBreaker": {}, "rateLimit": {"enabled": false, "burstSize": 5}}), &[MODE, FIVE])]
fn a_section_is_written_so(#[case] sections: Value, #[case] expected: &[(&str, &str)]) {
    let found = desired(&sections).unwrap();
    let found: Vec<(&str, &str)> = found.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[rstest]
#[case::nothing(json!({}), "spec", "at least one")]
#[case::grpc(json!({"retry": {"retryableGrpcCodes": "14"}}), "spec.retry.retryableGrpcCodes", "14")]
#[case::rate_without_unified(json!({"circuitBreaker": {"successRate": {}}}), "spec.circuitBreaker", "unified")]
#[case::threshold_zero(json!({"circuitBreaker": {"failureThreshold": 0}}), "spec.circuitBreaker.failureThreshold", "between 1 and 100")]
#[case::threshold_high(json!({"circuitBreaker": {"failureThreshold": 101}}), "spec.circuitBreaker.failureThreshold", "between 1 and 100")]
#[case::min_zero(json!({"circuitBreaker": {"minPenalty": "0s"}}), "spec.circuitBreaker.minPenalty", "positive")]
#[case::max_compound(json!({"circuitBreaker": {"maxPenalty": "1m30s"}}), "spec.circuitBreaker.maxPenalty", "Linkerd understands")]
#[case::min_above_max(json!({"circuitBreaker": {"minPenalty": "2m", "maxPenalty": "90s"}}), "spec.circuitBreaker.minPenalty", "exceeds")]
#[case::min_above_default(json!({"circuitBreaker": {"minPenalty": "61s"}}), "spec.circuitBreaker.minPenalty", "60000ms")]
#[case::max_below_default(json!({"circuitBreaker": {"maxPenalty": "999ms"}}), "spec.circuitBreaker.maxPenalty", "1000ms")]
#[case::jitter_low(json!({"circuitBreaker": {"jitterRatio": -0.1}}), "spec.circuitBreaker.jitterRatio", "between 0 and 100")]
#[case::jitter_high(json!({"circuitBreaker": {"jitterRatio": 100.5}}), "spec.circuitBreaker.jitterRatio", "between 0 and 100")]
#[case::retries_zero(json!({"retry": {"maxAttempts": 0}}), "spec.retry.maxAttempts", "between 1 and 10")]
#[case::retries_many(json!({"retry": {"maxAttempts": 11}}), "spec.retry.maxAttempts", "between 1 and 10")]
#[case::codes(json!({"retry": {"retryableStatusCodes": "4xx"}}), "spec.retry.retryableStatusCodes", "4xx")]
#[case::per_try(json!({"retry": {"retryTimeout": "0"}}), "spec.retry.retryTimeout", "positive")]
#[case::no_timeout(json!({"timeout": {}}), "spec.timeout", "at least one")]
#[case::request_long(json!({"timeout": {"requestTimeout": "25h"}}), "spec.timeout.requestTimeout", "24h")]
#[case::response(json!({"timeout": {"responseTimeout": "1.5s"}}), "spec.timeout.responseTimeout", "positive")]
#[case::idle(json!({"timeout": {"idleTimeout": ""}}), "spec.timeout.idleTimeout", "positive")]
fn what_linkerd_would_not_read_is_refused(#[case] sections: Value, #[case] field: &str, #[case] words: &str) {
    let refusal = desired(&sections).unwrap_err();
    assert_eq!(refusal.reason, "Invalid");
    assert_eq!(refusal.field.as_deref(), Some(field));
    assert!(refusal.message.contains(words), "{refusal}");
}

/// A ratio that is no number cannot come through JSON, but could be computed.
#[test]
fn not_a_number_is_refused() {
    let mut policy = spec(&json!({"circuitBreaker": {}}));
    for ratio in [f64::NAN, f64::INFINITY] {
        policy.circuit_breaker.as_mut().unwrap().jitter_ratio = Some(ratio);
        assert!(annotations::desired(&policy, &"2.20".parse().unwrap()).is_err());
    }
}

/// Keys that the requirement document names and that no Linkerd has ever read are among nothing that we write.
#[test]
fn a_full_policy_writes_every_known_key_and_no_other() {
    let all = newest(&json!({
        "circuitBreaker": {
            "failureAccrualMethod": "unified", "minPenalty": "1s", "maxPenalty": "2s", "jitterRatio": 1,
            "successRate": {"threshold": 0.5, "window": "1s", "minRequests": 1}, "honorRetryAfter": false,
        },
        "retry": {"retryableGrpcCodes": "internal", "retryTimeout": "1s"},
        "timeout": {"requestTimeout": "1s", "responseTimeout": "1s", "idleTimeout": "1s"},
        "loadBias": {"penalty": "1s", "maxRetryAfter": "1s"},
    }))
    .unwrap();
    let written: Vec<&str> = all.keys().copied().collect();
    let mut known = [
        &annotations::BREAKER[..],
        &annotations::RETRY[..],
        &annotations::TIMEOUTS[..],
        &annotations::LOAD_BIAS[..],
    ]
    .concat();
    known.sort_unstable();
    assert_eq!(written, known);
    assert!(
        written
            .iter()
            .all(|key| !key.starts_with("config.linkerd.io/") && !key.contains("http-status-codes"))
    );
}

#[rstest]
#[case::unified(
    json!({"circuitBreaker": {"failureAccrualMethod": "unified", "successRate": {"threshold": 0, "window": "10ms"}, "honorRetryAfter": true}}),
    &[("balancer.linkerd.io/failure-accrual", "unified"), FIVE,
      ("balancer.alpha.linkerd.io/failure-accrual-success-rate-threshold", "0"),
      ("balancer.alpha.linkerd.io/failure-accrual-success-rate-window", "10ms"),
      ("balancer.alpha.linkerd.io/failure-accrual-honor-retry-after", "true")],
    "spec.circuitBreaker.failureAccrualMethod",
)]
#[case::bias(
    json!({"loadBias": {"penalty": "2s"}}),
    &[("balancer.alpha.linkerd.io/penalize-failures", "true"), ("balancer.alpha.linkerd.io/load-biaser-penalty", "2s")],
    "spec.loadBias",
)]
fn what_came_with_2_20_needs_it(
    #[case] sections: Value,
    #[case] expected: &[(&str, &str)],
    #[case] field: &str,
    #[values("2.16", "2.19.4", "edge-26.6.1")] older: &str,
) {
    let found = newest(&sections).unwrap();
    let found: Vec<(&str, &str)> = found.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    assert_eq!(found, expected);
    let refusal = annotations::desired(&spec(&sections), &older.parse().unwrap()).unwrap_err();
    assert_eq!(
        (refusal.reason, refusal.field.as_deref()),
        ("FeatureNotInVersion", Some(field))
    );
    assert!(
        refusal.message.contains("2.20") && refusal.message.contains(older),
        "{refusal}"
    );
}

#[rstest]
#[case::window(json!({"window": "9ms"}), "window")]
#[case::threshold(json!({"threshold": 1.01}), "threshold")]
#[case::requests(json!({"minRequests": 1_000_001}), "minRequests")]
fn what_only_the_proxies_would_refuse_is_refused(#[case] rate: Value, #[case] field: &str) {
    let sections = json!({"circuitBreaker": {"failureAccrualMethod": "unified", "successRate": rate}});
    let refusal = newest(&sections).unwrap_err();
    assert_eq!(refusal.field, Some(format!("spec.circuitBreaker.successRate.{field}")));
}

#[rstest]
#[case::service(Place::Service, "internal", Ok(&["grpc", "http", "limit"][..]))]
#[case::network(Place::EgressNetwork, "internal", Ok(&["grpc", "http", "limit"][..]))]
#[case::grpc_route(Place::GrpcRoute, "internal", Ok(&["grpc", "limit"][..]))]
#[case::http_route(Place::HttpRoute, "internal", Err("ignores"))]
#[case::http_route(Place::HttpRoute, "", Ok(&["http", "limit"][..]))]
#[case::grpc_route(Place::GrpcRoute, "", Err("need gRPC statuses"))]
fn a_place_has_its_own_statuses(#[case] place: Place, #[case] codes: &str, #[case] expected: Result<&[&str], &str>) {
    let mut policy = spec(&json!({"retry": {}}));
    policy.retry.as_mut().unwrap().retryable_grpc_codes = (!codes.is_empty()).then(|| codes.to_owned());
    let found = annotations::section(&policy, Section::Retry, place, &"2.20".parse().unwrap());
    match (found, expected) {
        (Ok(found), Ok(keys)) => {
            let found: Vec<&str> = found
                .keys()
                .filter_map(|key| key.strip_prefix("retry.linkerd.io/"))
                .collect();
            assert_eq!(found, keys);
        }
        (Err(refusal), Err(words)) => assert!(refusal.message.contains(words), "{refusal}"),
        (found, expected) => panic!("{found:?} instead of {expected:?}"),
    }
}

#[rstest]
#[case(Place::HttpRoute, Section::CircuitBreaker, json!({"circuitBreaker": {}}))]
#[case(Place::GrpcRoute, Section::LoadBias, json!({"loadBias": {}}))]
#[case(Place::EgressNetwork, Section::LoadBias, json!({"loadBias": {}}))]
fn a_section_stays_where_it_acts(#[case] place: Place, #[case] section: Section, #[case] sections: Value) {
    let refusal = annotations::section(&spec(&sections), section, place, &"2.20".parse().unwrap()).unwrap_err();
    assert_eq!(refusal.field, Some(format!("spec.{section}")));
}
