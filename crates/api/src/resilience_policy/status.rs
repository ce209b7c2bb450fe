//! `ResiliencePolicyStatus`: what became of a policy, target by target.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Section, TargetKind};
use crate::status::CommonStatus;

/// Most targets that a status lists; `targetsTotal` counts them all.
pub const MAX_TARGETS_LISTED: usize = 32;

/// Most Services that one policy is written to. Each takes up to some 530 bytes of the policy (its entries in
/// `inventory`, `appliedToServices` and `managedFields`), and etcd takes at most 1.5 MiB in one request.
pub const MAX_SERVICES: usize = 2000;

/// What became of a policy.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResiliencePolicyStatus {
    /// What every kind reports.
    #[serde(flatten)]
    pub common: CommonStatus,

    /// The Services that carry the policy now, as namespace/name; at most 2000.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub applied_to_services: Vec<String>,

    /// What became of each target: first those on which the policy is not in force, then by kind and name; at most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub targets: Vec<TargetStatus>,

    /// Number of targets, listed or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i32")]
    pub targets_total: Option<i32>,

    /// Number of targets on which every section of the policy that was not overridden is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i32")]
    pub targets_in_force: Option<i32>,

    /// When something in this status last changed, in RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub last_update_time: Option<String>,

    /// The Linkerd version that the policy was written for, as found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub linkerd_version: Option<String>,
}

/// What became of a policy on one target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetStatus {
    /// Kind of the target.
    pub kind: TargetKind,

    /// Namespace of the target.
    pub namespace: String,

    /// Name of the target.
    pub name: String,

    /// Whether everything that the policy has to say for this target is in force.
    pub ready: Readiness,

    /// Why it is, or is not; one of the reasons of the Ready condition.
    pub reason: String,

    /// The same for people.
    pub message: String,

    /// What became of each section of the policy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["section"]))]
    pub sections: Vec<SectionStatus>,
}

/// Whether a policy is in force on a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Readiness {
    /// It is.
    True,
    /// It is not.
    False,
}

/// What became of one section on one target.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SectionStatus {
    /// The section of the policy.
    pub section: Section,

    /// What became of it.
    pub state: SectionState,

    /// The policy that overrides it, as namespace/name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub by: Option<String>,
}

/// What became of a section.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum SectionState {
    /// It acts.
    InForce,
    /// Another policy sets this section for the target.
    Overridden,
    /// Linkerd ignores it here.
    Inert,
    /// It is not written yet, or Linkerd has not accepted it yet.
    Pending,
}
