//! `Timeout`: the longest that a request may take.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::enabled;
use crate::rules;

/// Ends requests that take too long, with status 504. A request that timed out is not retried.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = (
    "!self.enabled || has(self.requestTimeout) || has(self.responseTimeout) || has(self.idleTimeout)",
    "an enabled timeout needs at least one of requestTimeout, responseTimeout and idleTimeout"
))]
#[serde(rename_all = "camelCase")]
pub struct Timeout {
    /// Whether the policy sets timeouts.
    #[serde(default = "enabled")]
    pub enabled: bool,

    /// Longest life of a request, from its first byte to the end of the response, all tries together, such as 10s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 2, max = 10))]
    #[x_kube(validation = Rule::new(rules::duration()).message(rules::DURATION))]
    pub request_timeout: Option<String>,

    /// Longest time from the end of the request to the end of the response. To limit the wait for response headers,
    /// use retry.retryTimeout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 2, max = 10))]
    #[x_kube(validation = Rule::new(rules::duration()).message(rules::DURATION))]
    pub response_timeout: Option<String>,

    /// Longest time in which neither side sends anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 2, max = 10))]
    #[x_kube(validation = Rule::new(rules::duration()).message(rules::DURATION))]
    pub idle_timeout: Option<String>,
}

impl Default for Timeout {
    fn default() -> Self {
        Self {
            enabled: enabled(),
            request_timeout: None,
            response_timeout: None,
            idle_timeout: None,
        }
    }
}
