//! `Retry`: sending a failed request again.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::enabled;
use crate::rules;

/// Sends a failed request again, to an endpoint that Linkerd picks anew. Requests of every method are retried, POST
/// included, if their body is at most 64 KiB. Linkerd waits 25 to 250 ms between tries; this cannot be set.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// Whether the policy sets retries.
    #[serde(default = "enabled")]
    pub enabled: bool,

    /// Number of retries: with 3, a request is sent at most four times.
    #[serde(default = "three")]
    #[schemars(with = "i32", range(min = 1, max = 10))]
    pub max_attempts: u32,

    /// Response statuses that are retried: a comma-separated list, without blanks, of 5xx, gateway-error (502 to 504),
    /// a code from 100 to 599, or a range such as 500-504. It does not count where only gRPC is served.
    #[serde(default = "server_errors")]
    #[schemars(length(min = 3, max = 128))]
    #[x_kube(validation = Rule::new(rules::status_codes()).message(rules::STATUS_CODES))]
    #[x_kube(validation = rules::RANGES)]
    pub retryable_status_codes: String,

    /// gRPC statuses that are retried: a comma-separated list, without blanks, of cancelled, deadline-exceeded,
    /// internal, resource-exhausted and unavailable. On a Service they count only where a GRPCRoute is attached.
    /// Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 8, max = 128))]
    #[x_kube(validation = Rule::new(rules::grpc_codes()).message(rules::GRPC_CODES))]
    pub retryable_grpc_codes: Option<String>,

    /// How long one try may take until the response headers are there, such as 300ms; not applied to the last try.
    /// Absent: no such limit. It should be well below timeout.requestTimeout, which bounds all tries together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 2, max = 10))]
    #[x_kube(validation = Rule::new(rules::duration()).message(rules::DURATION))]
    pub retry_timeout: Option<String>,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            enabled: enabled(),
            max_attempts: three(),
            retryable_status_codes: server_errors(),
            retryable_grpc_codes: None,
            retry_timeout: None,
        }
    }
}

fn three() -> u32 {
    3
}

fn server_errors() -> String {
    "5xx".into()
}
