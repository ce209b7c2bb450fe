//! `ResiliencePolicy`: circuit breaking, retries, timeouts, load bias and rate limits for calls to Services, through
//! Linkerd.
//!
//! ```text
//!  what for: targetRef │ targetSelector, routes      how it ranks: strategy
//!  what: circuitBreaker  retry  timeout  loadBias  rateLimit, each won or lost as a whole
//! ```
//!
//! Field names are those of the requirement document; values are those that Linkerd's proxies accept.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::{Managed, status::CommonStatus};

mod breaker;
mod load_bias;
mod rate_limit;
mod retry;
mod route;
mod status;
mod target;
mod timeout;

pub use breaker::{CircuitBreaker, FailureAccrualMethod, SuccessRate};
pub use load_bias::LoadBias;
pub use rate_limit::{AccessPolicy, CreateServer, RateLimit, ServerRef};
pub use retry::Retry;
pub use route::{
    GrpcMatch, GrpcMatches, HeaderMatch, HeaderType, HttpMatch, HttpMatches, HttpMethod, PathMatch, PathType,
    PolicyRoute,
};
pub use status::{
    MAX_SERVICES, MAX_TARGETS_LISTED, Readiness, ResiliencePolicyStatus, SectionState, SectionStatus, TargetStatus,
};
pub use target::{Section, Strategy, TargetKind, TargetRef, TargetSelector};
pub use timeout::Timeout;

/// How calls to Services behave when these fail or are slow. The policy acts in the Linkerd proxies of the callers:
/// only meshed clients are protected, whether or not the Services themselves are meshed.
#[derive(CustomResource, KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "resilience.trellis.dev",
    version = "v1alpha1",
    kind = "ResiliencePolicy",
    plural = "resiliencepolicies",
    shortname = "respol",
    category = "trellis",
    namespaced,
    status = "ResiliencePolicyStatus",
    derive = "PartialEq",
    doc = "Makes calls to Services resilient: circuit breakers, retries, timeouts, load bias and rate limits, enforced by Linkerd.",
    printcolumn(
        name = "Target",
        type_ = "string",
        json_path = ".spec.targetRef.name",
        description = "What the policy is for, by name"
    ),
    printcolumn(
        name = "Circuit Breaker",
        type_ = "boolean",
        json_path = ".spec.circuitBreaker.enabled",
        description = "Whether the policy sets a circuit breaker"
    ),
    printcolumn(
        name = "Retry",
        type_ = "boolean",
        json_path = ".spec.retry.enabled",
        description = "Whether the policy sets retries"
    ),
    printcolumn(
        name = "Timeout",
        type_ = "boolean",
        json_path = ".spec.timeout.enabled",
        description = "Whether the policy sets timeouts"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "Whether the policy is in force"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        description = "Why it is, or is not"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Time since the policy was created"
    )
)]
#[x_kube(validation = (
    "has(self.targetRef) != has(self.targetSelector)",
    "a policy needs exactly one of targetRef and targetSelector"
))]
#[x_kube(validation = (
    "has(self.circuitBreaker) || has(self.retry) || has(self.timeout) || has(self.loadBias) || has(self.rateLimit)",
    "a policy needs at least one of circuitBreaker, retry, timeout, loadBias and rateLimit"
))]
#[x_kube(validation = (
    "!has(self.routes) || (has(self.targetRef) && self.targetRef.kind in ['Service', 'EgressNetwork'])",
    "routes need a targetRef to a Service or an EgressNetwork, to which they are attached"
))]
#[x_kube(validation = (
    "!has(self.routes) || !has(self.targetRef) || self.targetRef.kind != 'EgressNetwork' || has(self.targetRef.port)",
    "routes to an EgressNetwork need targetRef.port; Linkerd refuses them without one"
))]
#[x_kube(validation = (
    "!has(self.routes) || self.routes.all(route, has(route.http)) || self.routes.all(route, has(route.grpc))",
    "all routes of a policy must be http, or all grpc; at one port Linkerd serves only one kind"
))]
#[x_kube(validation = (
    "!has(self.routes) || has(self.retry) || has(self.timeout)",
    "routes need retry or timeout, which is all that Linkerd reads from a route"
))]
#[x_kube(validation = (
    "!has(self.routes) || !has(self.circuitBreaker) || !self.circuitBreaker.enabled",
    "Linkerd has no breaker per route; put circuitBreaker into a policy for the whole Service"
))]
#[x_kube(validation = (
    "!has(self.routes) || ((!has(self.loadBias) || !self.loadBias.enabled) \
     && (!has(self.rateLimit) || !self.rateLimit.enabled))",
    "Linkerd has no load bias and no rate limit per route; put them into a policy for the whole Service"
))]
#[x_kube(validation = (
    "!has(self.targetRef) || !(self.targetRef.kind in ['HTTPRoute', 'GRPCRoute']) \
     || ((!has(self.circuitBreaker) || !self.circuitBreaker.enabled) && (!has(self.loadBias) || !self.loadBias.enabled) \
     && (!has(self.rateLimit) || !self.rateLimit.enabled))",
    "Linkerd reads only retries and timeouts from a route; put the rest into a policy for the Service"
))]
#[x_kube(validation = (
    "!has(self.targetRef) || self.targetRef.kind != 'EgressNetwork' || ((!has(self.loadBias) || !self.loadBias.enabled) \
     && (!has(self.rateLimit) || !self.rateLimit.enabled))",
    "an EgressNetwork has no balancer and no pods, so neither load bias nor rate limit act on it"
))]
#[x_kube(validation = (
    "!has(self.rateLimit) || !self.rateLimit.enabled || (has(self.targetRef) && self.targetRef.kind == 'Service')",
    "rateLimit needs a targetRef to one Service"
))]
#[x_kube(validation = (
    "!has(self.rateLimit) || !self.rateLimit.enabled || !has(self.rateLimit.createServer) \
     || (has(self.targetRef) && has(self.targetRef.port))",
    "createServer needs targetRef.port, to know which port of the pods it describes"
))]
#[x_kube(validation = (
    "!has(self.retry) || !has(self.retry.retryableGrpcCodes) || !self.retry.enabled \
     || ((!has(self.targetRef) || self.targetRef.kind != 'HTTPRoute') \
     && (!has(self.routes) || !self.routes.exists(route, has(route.http))))",
    "Linkerd ignores retryableGrpcCodes on an HTTP route; use grpc routes"
))]
#[x_kube(validation = (
    "!has(self.retry) || has(self.retry.retryableGrpcCodes) || !self.retry.enabled \
     || ((!has(self.targetRef) || self.targetRef.kind != 'GRPCRoute') \
     && (!has(self.routes) || !self.routes.exists(route, has(route.grpc))))",
    "retries of gRPC routes need retryableGrpcCodes; statuses of HTTP do not count there"
))]
#[serde(rename_all = "camelCase")]
pub struct ResiliencePolicySpec {
    /// Leaves the policy, and what it has written, alone until this is false again. Deletion still cleans up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,

    /// What the policy is for, by name. Either this or targetSelector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "TargetRef")]
    pub target_ref: Option<TargetRef>,

    /// The Services that the policy is for, by label, in its own namespace; at most 2000. Either this or targetRef.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "TargetSelector")]
    pub target_selector: Option<TargetSelector>,

    /// How the policy ranks against others that set the same section for the same target. Among equals, the older one
    /// wins. A section that is present and not enabled takes part, and then stands for 'off'.
    #[serde(default)]
    pub strategy: Strategy,

    /// Requests that the policy is for. Absent: all requests to the target.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 8),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub routes: Vec<PolicyRoute>,

    /// Stops sending to an endpoint of the Service that keeps failing. Absent: no breaker from this policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "CircuitBreaker")]
    pub circuit_breaker: Option<CircuitBreaker>,

    /// Sends a failed request again. Absent: no retries from this policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Retry")]
    pub retry: Option<Retry>,

    /// Ends requests that take too long. Absent: no timeouts from this policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Timeout")]
    pub timeout: Option<Timeout>,

    /// Prefers endpoints that neither fail nor ask for less. Absent: no load bias from this policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "LoadBias")]
    pub load_bias: Option<LoadBias>,

    /// Refuses requests above a rate, at the pods of the Service. Absent: no rate limit from this policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "RateLimit")]
    pub rate_limit: Option<RateLimit>,
}

impl ResiliencePolicySpec {
    /// The sections that are present, enabled or not.
    pub fn sections(&self) -> impl Iterator<Item = Section> {
        [
            (Section::CircuitBreaker, self.circuit_breaker.is_some()),
            (Section::Retry, self.retry.is_some()),
            (Section::Timeout, self.timeout.is_some()),
            (Section::LoadBias, self.load_bias.is_some()),
            (Section::RateLimit, self.rate_limit.is_some()),
        ]
        .into_iter()
        .filter_map(|(section, present)| present.then_some(section))
    }

    /// Whether the section is present and enabled.
    #[must_use]
    pub fn enables(&self, section: Section) -> bool {
        match section {
            Section::CircuitBreaker => self.circuit_breaker.as_ref().is_some_and(|section| section.enabled),
            Section::Retry => self.retry.as_ref().is_some_and(|section| section.enabled),
            Section::Timeout => self.timeout.as_ref().is_some_and(|section| section.enabled),
            Section::LoadBias => self.load_bias.as_ref().is_some_and(|section| section.enabled),
            Section::RateLimit => self.rate_limit.as_ref().is_some_and(|section| section.enabled),
        }
    }
}

impl Managed for ResiliencePolicy {
    type Status = ResiliencePolicyStatus;

    fn suspended(&self) -> bool {
        self.spec.suspend
    }

    fn status(&self) -> Option<&Self::Status> {
        self.status.as_ref()
    }

    fn common(status: &Self::Status) -> &CommonStatus {
        &status.common
    }

    fn common_mut(status: &mut Self::Status) -> &mut CommonStatus {
        &mut status.common
    }

    fn changed_at(status: &mut Self::Status) -> Option<&mut Option<String>> {
        Some(&mut status.last_update_time)
    }
}

fn enabled() -> bool {
    true
}
