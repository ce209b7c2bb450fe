//! Ground: the kinds of Trellis, one file each, and the status that all of them share.
//!
//! ```text
//!  spec (the user's) ─▶ operator ─▶ status (ours): CommonStatus, flattened, plus the kind's own fields
//! ```
//!
//! Invariants: no logic beyond accessors; every field carries a description; defaults live in the schema;
//! what the API server can refuse, it refuses with a message that a person understands.

use std::fmt::Debug;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;
use serde::{Serialize, de::DeserializeOwned};

#[expect(
    unreachable_pub,
    reason = "the KubeSchema derive writes a public twin of each struct inside a function"
)]
#[expect(
    clippy::duplicated_attributes,
    reason = "the lint takes equal keys of two printer columns for one"
)]
pub mod external_source;
#[expect(
    unreachable_pub,
    reason = "the KubeSchema derive writes a public twin of each struct inside a function"
)]
#[expect(
    clippy::duplicated_attributes,
    reason = "the lint takes equal keys of two printer columns for one"
)]
mod resilience_policy;
mod rules;
pub mod status;

pub use external_source::{ExternalSource, ExternalSourceSpec, ExternalSourceStatus};
pub use resilience_policy::{
    AccessPolicy, CircuitBreaker, CreateServer, FailureAccrualMethod, GrpcMatch, GrpcMatches, HeaderMatch, HeaderType,
    HttpMatch, HttpMatches, HttpMethod, LoadBias, MAX_SERVICES, MAX_TARGETS_LISTED, PathMatch, PathType, PolicyRoute,
    RateLimit, Readiness, ResiliencePolicy, ResiliencePolicySpec, ResiliencePolicyStatus, Retry, Section, SectionState,
    SectionStatus, ServerRef, Strategy, SuccessRate, TargetKind, TargetRef, TargetSelector, TargetStatus, Timeout,
};
pub use rules::{MAX_DURATION_MS, MAX_STATUS_CODES_LENGTH};
pub use status::{CommonStatus, InventoryEntry};

/// Annotation that asks for a reconcile now, where the kind has no other ([`Managed::REQUESTED_AT`]); any new value counts.
/// The value handled last is echoed in `status.lastHandledReconcileAt`.
pub const REQUESTED_AT: &str = "reconcile.trellis.dev/requestedAt";

/// What the operator runtime needs to know of a kind.
pub trait Managed {
    /// The kind's status.
    type Status: Serialize + DeserializeOwned + Clone + PartialEq + Default + Send + Sync + Debug;

    /// The annotation that asks for a reconcile now. Kinds for Flux take the one that Flux and its users know.
    const REQUESTED_AT: &'static str = REQUESTED_AT;

    /// Whether the user asked us to leave the object, and what we wrote for it, alone.
    fn suspended(&self) -> bool;

    /// The status as last read; none before the first report.
    fn status(&self) -> Option<&Self::Status>;

    /// The shared part of a status.
    fn common(status: &Self::Status) -> &CommonStatus;

    /// The shared part of a status, to be filled by the runtime.
    fn common_mut(status: &mut Self::Status) -> &mut CommonStatus;

    /// Where the status says when it last changed, for kinds that say it; filled by the runtime.
    fn changed_at(_status: &mut Self::Status) -> Option<&mut Option<String>> {
        None
    }
}

/// The definitions of all our kinds, ordered by name: what the chart ships, what is installed, and what a cluster is expected
/// to have.
#[must_use]
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![ExternalSource::crd(), ResiliencePolicy::crd()]
}
