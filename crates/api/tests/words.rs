//! The spellings and the questions of a policy that other crates rely on: each value is spelt as the API stores it.

use serde_json::json;
use trellis_api::{AccessPolicy, HttpMethod, Managed as _, ResiliencePolicy, ResiliencePolicySpec, Section};

#[test]
fn values_are_spelt_as_they_are_stored() {
    for method in [
        "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
    ] {
        let read: HttpMethod = serde_json::from_value(json!(method)).unwrap();
        assert_eq!(read.as_str(), method);
    }
    for policy in [
        "all-unauthenticated",
        "all-authenticated",
        "cluster-unauthenticated",
        "cluster-authenticated",
        "audit",
        "deny",
    ] {
        let read: AccessPolicy = serde_json::from_value(json!(policy)).unwrap();
        assert_eq!(read.as_str(), policy);
    }
}

#[test]
fn a_section_is_there_or_not_and_on_or_off() {
    let spec: ResiliencePolicySpec = serde_json::from_value(json!({
        "targetRef": { "name": "web" }, "circuitBreaker": {}, "retry": { "enabled": false }, "timeout": { "idleTimeout": "1m" },
        "loadBias": {}, "rateLimit": { "enabled": true, "requestsPerSecond": 1 },
    }))
    .unwrap();
    let on: Vec<(Section, bool)> = spec
        .sections()
        .map(|section| (section, spec.enables(section)))
        .collect();
    assert_eq!(
        on,
        [
            (Section::CircuitBreaker, true),
            (Section::Retry, false),
            (Section::Timeout, true),
            (Section::LoadBias, true),
            (Section::RateLimit, true),
        ]
    );
    let empty: ResiliencePolicySpec = serde_json::from_value(json!({ "targetRef": { "name": "web" } })).unwrap();
    assert_eq!(empty.sections().count(), 0);
    assert!(!empty.enables(Section::RateLimit));
}

#[test]
fn the_status_says_when_it_changed() {
    let mut status = trellis_api::ResiliencePolicyStatus::default();
    *ResiliencePolicy::changed_at(&mut status).unwrap() = Some("now".to_owned());
    assert_eq!(status.last_update_time.as_deref(), Some("now"));
}
