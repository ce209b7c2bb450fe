//! `Hook`: a command that runs in the sidecar.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{Display, EnumIter};

use super::{SecretKeyRef, rules};

/// Commands around the request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Hooks {
    /// Run before the request, in order. Each gets a description of the request, as the one before it left it, and may
    /// change query, headers and body.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub pre_request: Vec<Hook>,

    /// Run after the request, in order. The first gets the data, each further one what the one before it wrote.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub post_request: Vec<Hook>,
}

/// A command that reads its standard input and writes its standard output. No shell is involved.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hook {
    /// Name of the hook, unique in its list; it is in messages and metrics.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = rules::HOOK_NAME)]
    pub name: String,

    /// The command: a name or an absolute path that the sidecar's whitelist has.
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = rules::COMMAND)]
    pub command: String,

    /// Its arguments, each of at most 8192 characters; the whitelist may say which are allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(max = 8192)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub args: Vec<String>,

    /// Longest time that the command may run, such as 30s; at most 5m. Then it is killed with all that it started.
    #[serde(default = "half_a_minute")]
    #[schemars(length(min = 2, max = 16))]
    #[x_kube(validation = Rule::new(rules::hook_timeout()).message(rules::HOOK_TIMEOUT))]
    pub timeout: String,

    /// What a failure means. ignore: what came in goes on unchanged. retry: the hook runs again until maxRetries is used
    /// up. fail: the run fails at once.
    #[serde(default)]
    pub retry_policy: RetryPolicy,

    /// Variables of its environment, which otherwise has only what the sidecar allows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub env: Vec<EnvVar>,

    /// Most bytes that the command may write; more is a failure. Absent: as the operator is set, which also has a limit
    /// above this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64", range(min = 1, max = 10_737_418_240_i64))]
    pub max_output_bytes: Option<u64>,
}

/// What the failure of a hook means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Display, EnumIter, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum RetryPolicy {
    /// What came in goes on unchanged.
    Ignore,
    /// The hook runs again, until spec.maxRetries is used up; then the run fails.
    Retry,
    /// The run fails.
    #[default]
    Fail,
}

/// A variable of a hook's environment.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = rules::ONE_VALUE)]
#[serde(rename_all = "camelCase")]
pub struct EnvVar {
    /// Name of the variable.
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = rules::VARIABLE)]
    #[x_kube(validation = rules::NO_LOADER)]
    pub name: String,

    /// Its value. Either this or valueFrom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 32768))]
    pub value: Option<String>,

    /// Where its value is. Either this or value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "EnvSource")]
    pub value_from: Option<EnvSource>,
}

/// Where the value of a variable is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvSource {
    /// A key of a Secret in the namespace of the source.
    pub secret_key_ref: SecretKeyRef,
}

fn half_a_minute() -> String {
    "30s".into()
}
