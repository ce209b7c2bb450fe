//! `LoadBias`: fewer requests for endpoints that fail or ask for less.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::enabled;
use crate::rules;

/// Makes Linkerd's balancer prefer endpoints that neither fail nor ask clients to come back later (status 429 or
/// Retry-After). Linkerd 2.20 and newer; on Services only.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadBias {
    /// Whether the policy sets a load bias.
    #[serde(default = "enabled")]
    pub enabled: bool,

    /// Latency that a failure counts for in the balancer's choice, such as 5s. Absent: Linkerd's default, 5s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 2, max = 10))]
    #[x_kube(validation = Rule::new(rules::duration()).message(rules::DURATION))]
    pub penalty: Option<String>,

    /// Longest Retry-After that is believed, such as 300s. Absent: Linkerd's default, 300s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 2, max = 10))]
    #[x_kube(validation = Rule::new(rules::duration()).message(rules::DURATION))]
    pub max_retry_after: Option<String>,
}

impl Default for LoadBias {
    fn default() -> Self {
        Self {
            enabled: enabled(),
            penalty: None,
            max_retry_after: None,
        }
    }
}
