//! `CircuitBreaker`: when an endpoint gets no more requests.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::enabled;
use crate::rules;

/// Stops sending to an endpoint that keeps failing. Each client proxy counts for itself, per endpoint; a failure is an
/// HTTP 5xx or a gRPC status such as UNAVAILABLE or INTERNAL. With a single endpoint, calls fail fast while it is out.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new(rules::penalties()).message(rules::PENALTIES).field_path(".minPenalty"))]
#[x_kube(validation = rules::UNIFIED)]
#[serde(rename_all = "camelCase")]
pub struct CircuitBreaker {
    /// Whether the policy sets a circuit breaker.
    #[serde(default = "enabled")]
    pub enabled: bool,

    /// Failures in a row after which an endpoint gets no more requests.
    #[serde(default = "five")]
    #[schemars(with = "i32", range(min = 1, max = 100))]
    pub failure_threshold: u32,

    /// How failures are counted.
    #[serde(default)]
    pub failure_accrual_method: FailureAccrualMethod,

    /// Shortest time that an endpoint stays out before it is tried again, such as 1s. Absent: Linkerd's default, 1s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 2, max = 10))]
    #[x_kube(validation = Rule::new(rules::duration()).message(rules::DURATION))]
    pub min_penalty: Option<String>,

    /// Longest time that an endpoint stays out between trials, such as 60s; the time doubles from the shortest to this
    /// one. Absent: Linkerd's default, 60s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 2, max = 10))]
    #[x_kube(validation = Rule::new(rules::duration()).message(rules::DURATION))]
    pub max_penalty: Option<String>,

    /// Random share added to each penalty so that clients do not all try again at once; 0.5 adds up to half.
    /// Absent: Linkerd's default, 0.5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "f64", range(min = 0, max = 100))]
    pub jitter_ratio: Option<f64>,

    /// The second dimension of `unified`: an endpoint whose share of successes is low goes out as well. Absent:
    /// Linkerd's defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SuccessRate")]
    pub success_rate: Option<SuccessRate>,

    /// With `unified`: an endpoint that answers with Retry-After stays out at least that long. Absent: Linkerd's
    /// default, false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "bool")]
    pub honor_retry_after: Option<bool>,
}

/// How a circuit breaker counts failures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum FailureAccrualMethod {
    /// Failures in a row; one success starts the count anew.
    #[default]
    Consecutive,
    /// Failures in a row, or a low share of successes; Linkerd 2.20 and newer.
    Unified,
}

/// A share of successes, measured over a sliding window. Status 429, too, counts as a failure here.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SuccessRate {
    /// Lowest share of successes that keeps an endpoint in, from 0 to 1; 0 switches this dimension off. Absent:
    /// Linkerd's default, 0.8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "f64", range(min = 0, max = 1))]
    pub threshold: Option<f64>,

    /// Time over which the share is measured, such as 10s; below 1s it is coarse. Absent: Linkerd's default, 10s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 2, max = 10))]
    #[x_kube(validation = Rule::new(rules::window()).message(rules::WINDOW))]
    pub window: Option<String>,

    /// Requests in the window below which nothing is decided. Absent: Linkerd's default, 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i32", range(min = 1, max = 1_000_000))]
    pub min_requests: Option<u32>,
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self {
            enabled: enabled(),
            failure_threshold: five(),
            failure_accrual_method: FailureAccrualMethod::default(),
            min_penalty: None,
            max_penalty: None,
            jitter_ratio: None,
            success_rate: None,
            honor_retry_after: None,
        }
    }
}

fn five() -> u32 {
    5
}
