//! A policy in words: one line for messages, and what its user should think about.

use trellis_api::{FailureAccrualMethod, ResiliencePolicySpec, Section};

use crate::duration;

/// What the policy does, such as `breaker after 5 failures, 3 retries on 5xx, request timeout 10s`; `nothing enabled`
/// when every section is off.
#[must_use]
pub fn summary(spec: &ResiliencePolicySpec) -> String {
    let mut parts = Vec::new();
    if let Some(section) = spec.circuit_breaker.as_ref().filter(|section| section.enabled) {
        let failures = count(section.failure_threshold, "failure", "failures");
        parts.push(match section.failure_accrual_method {
            FailureAccrualMethod::Consecutive => format!("breaker after {failures}"),
            FailureAccrualMethod::Unified => format!("breaker after {failures} or at a low share of successes"),
        });
    }
    if let Some(section) = spec.retry.as_ref().filter(|section| section.enabled) {
        let retries = count(section.max_attempts, "retry", "retries");
        let grpc = section
            .retryable_grpc_codes
            .iter()
            .map(|codes| format!(" and gRPC {codes}"));
        parts.push(format!(
            "{retries} on {}{}",
            section.retryable_status_codes,
            grpc.collect::<String>()
        ));
    }
    if let Some(section) = spec.timeout.as_ref().filter(|section| section.enabled) {
        let named = [
            ("request", &section.request_timeout),
            ("response", &section.response_timeout),
            ("idle", &section.idle_timeout),
        ];
        let named = named
            .into_iter()
            .filter_map(|(name, value)| Some(format!("{name} timeout {}", value.as_ref()?)));
        parts.extend(named);
    }
    if spec.enables(Section::LoadBias) {
        parts.push("load bias".into());
    }
    if let Some(section) = spec.rate_limit.as_ref().filter(|section| section.enabled) {
        let rates = [
            ("", section.requests_per_second),
            (" and client", section.per_client_requests_per_second),
        ];
        let rates = rates
            .into_iter()
            .filter_map(|(of, rate)| Some(format!("{} requests per second and pod{of}", rate?)));
        parts.extend(rates.map(|rate| format!("at most {rate}")));
    }
    if parts.is_empty() {
        "nothing enabled".into()
    } else {
        parts.join(", ")
    }
}

/// What is allowed and yet probably not meant: tries that do not fit into the whole. Unreadable durations are left to
/// [`crate::annotations::desired`].
#[must_use]
pub fn warning(spec: &ResiliencePolicySpec) -> Option<String> {
    let retry = spec.retry.as_ref().filter(|section| section.enabled)?;
    let timeout = spec.timeout.as_ref().filter(|section| section.enabled)?;
    let (per_try, total) = (retry.retry_timeout.as_ref()?, timeout.request_timeout.as_ref()?);
    let (per_try_ms, total_ms) = (duration::linkerd(per_try)?, duration::linkerd(total)?);
    let tries = u64::from(retry.max_attempts) + 1;
    if per_try_ms >= total_ms {
        return Some(format!(
            "retryTimeout {per_try} is not below requestTimeout {total}, so it never causes a retry"
        ));
    }
    (per_try_ms.saturating_mul(tries) > total_ms)
        .then(|| format!("{tries} tries of {per_try} each do not fit into requestTimeout {total}"))
}

fn count(number: u32, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn spec(sections: &Value) -> ResiliencePolicySpec {
        let mut whole = json!({"targetRef": {"name": "web"}});
        whole
            .as_object_mut()
            .unwrap()
            .extend(sections.as_object().unwrap().clone());
        serde_json::from_value(whole).unwrap()
    }

    #[rstest]
    #[case(json!({"circuitBreaker": {}}), "breaker after 5 failures")]
    #[case(json!({"circuitBreaker": {"failureThreshold": 1}, "retry": {"maxAttempts": 1}}), "breaker after 1 failure, 1 retry on 5xx")]
    #[case(json!({"retry": {"retryableStatusCodes": "429"}, "timeout": {"requestTimeout": "10s", "idleTimeout": "1m"}}), "3 retries on 429, request timeout 10s, idle timeout 1m")]
    #[case(json!({"timeout": {"responseTimeout": "5s"}}), "response timeout 5s")]
    #[case(json!({"circuitBreaker": {"failureAccrualMethod": "unified"}, "loadBias": {}}), "breaker after 5 failures or at a low share of successes, load bias")]
    #[case(json!({"retry": {"retryableGrpcCodes": "internal"}}), "3 retries on 5xx and gRPC internal")]
    #[case(json!({"rateLimit": {"enabled": true, "requestsPerSecond": 9, "perClientRequestsPerSecond": 3}}), "at most 9 requests per second and pod, at most 3 requests per second and pod and client")]
    #[case(json!({"circuitBreaker": {"enabled": false}, "retry": {"enabled": false}, "timeout": {"enabled": false}}), "nothing enabled")]
    fn a_policy_in_one_line(#[case] sections: Value, #[case] text: &str) {
        assert_eq!(summary(&spec(&sections)), text);
    }

    #[rstest]
    #[case::no_retry(json!({"circuitBreaker": {}}), None)]
    #[case::disabled(json!({"retry": {"enabled": false}}), None)]
    #[case::alone(json!({"retry": {}}), None)]
    #[case::timeout_off(json!({"retry": {"retryTimeout": "2s"}, "timeout": {"enabled": false, "requestTimeout": "1s"}}), None)]
    #[case::no_total(json!({"retry": {"retryTimeout": "2s"}, "timeout": {"idleTimeout": "1s"}}), None)]
    #[case::unreadable(json!({"retry": {"retryTimeout": "x"}, "timeout": {"requestTimeout": "1s"}}), None)]
    #[case::fits(json!({"retry": {"retryTimeout": "250ms"}, "timeout": {"requestTimeout": "1s"}}), None)]
    #[case::too_many(json!({"retry": {"retryTimeout": "251ms"}, "timeout": {"requestTimeout": "1s"}}), Some("4 tries of 251ms"))]
    #[case::useless(json!({"retry": {"retryTimeout": "1s"}, "timeout": {"requestTimeout": "1000ms"}}), Some("never causes"))]
    fn what_is_probably_not_meant_is_said(#[case] sections: Value, #[case] words: Option<&str>) {
        let found = warning(&spec(&sections));
        match words {
            None => assert_eq!(found, None),
            Some(words) => assert!(found.unwrap().contains(words)),
        }
    }
}
