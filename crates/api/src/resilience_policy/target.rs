//! `TargetRef`, `TargetSelector`: what a policy is for, and how it ranks among others.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use strum::{Display, EnumIter};

/// Names what a policy is for.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = (
    "!has(self.group) || (self.kind in ['HTTPRoute', 'GRPCRoute'] ? self.group == 'gateway.networking.k8s.io' : \
     self.kind == 'EgressNetwork' ? self.group == 'policy.linkerd.io' : self.group in ['', 'core'])",
    "group must fit the kind: gateway.networking.k8s.io for routes, policy.linkerd.io for EgressNetwork, '' otherwise; \
     or leave it out"
))]
#[x_kube(validation = (
    "!has(self.port) || self.kind in ['Service', 'EgressNetwork']",
    "port can be named only for a Service or an EgressNetwork"
))]
#[serde(rename_all = "camelCase")]
pub struct TargetRef {
    /// API group of the target; it follows from the kind, and may be left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 253))]
    pub group: Option<String>,

    /// Kind of the target. A Namespace, which must be the policy's own, stands for all its Services. An HTTPRoute or
    /// GRPCRoute gets retries and timeouts for the requests that it matches.
    #[serde(default)]
    pub kind: TargetKind,

    /// Name of the target.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,

    /// Namespace of the target; the policy's own when absent. Only a Service may be in another one: then the policy
    /// acts for clients in the policy's namespace, and can set retries and timeouts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 63))]
    pub namespace: Option<String>,

    /// A port that the Service must list, and on which Linkerd must be able to act. Routes are attached to this port
    /// only. Everything else applies to all ports, since Linkerd reads it from the Service; absent, one port on which
    /// it can act is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i32", range(min = 1, max = 65535))]
    pub port: Option<u16>,
}

/// Kinds that a policy can be for, most specific first.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Display,
    EnumIter,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum TargetKind {
    /// A route of the Gateway API with a Service as parent.
    #[serde(rename = "HTTPRoute")]
    #[strum(serialize = "HTTPRoute")]
    HttpRoute,
    /// A gRPC route of the Gateway API with a Service as parent.
    #[serde(rename = "GRPCRoute")]
    #[strum(serialize = "GRPCRoute")]
    GrpcRoute,
    /// A Service.
    #[default]
    Service,
    /// Destinations outside the cluster.
    EgressNetwork,
    /// All Services of the policy's namespace.
    Namespace,
}

/// Selects Services of the policy's namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetSelector {
    /// Labels that a Service must have, all of them.
    #[schemars(schema_with = "labels")]
    pub match_labels: BTreeMap<String, String>,
}

/// How a policy ranks against others that set the same section for the same target.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Display, Serialize, Deserialize, JsonSchema,
)]
pub enum Strategy {
    /// More specific policies win: one on a route over one on its Service, one by name over one by labels, and that
    /// over one for the namespace.
    #[default]
    Defaults,
    /// This policy wins over every policy with Defaults; among Overrides, the less specific one wins.
    Overrides,
}

/// A part of a policy that wins or loses as a whole.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Display, EnumIter, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
#[strum(serialize_all = "camelCase")]
pub enum Section {
    /// spec.circuitBreaker
    CircuitBreaker,
    /// spec.retry
    Retry,
    /// spec.timeout
    Timeout,
    /// spec.loadBias
    LoadBias,
    /// spec.rateLimit
    RateLimit,
}

fn labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "minProperties": 1,
        "maxProperties": 16,
        "additionalProperties": {"type": "string", "maxLength": 63},
    })
}
