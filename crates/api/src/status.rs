//! `CommonStatus`: what every kind reports, flattened into its own status.
//!
//! Invariant: conditions are a map by type, so that two writers never fight over their order.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What every kind reports.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CommonStatus {
    /// Generation of the spec that this status speaks of. If it is behind `metadata.generation`, the status is of an
    /// earlier spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64")]
    pub observed_generation: Option<i64>,

    /// What is true now, by type. Ready says whether the effect is there; Reconciling and Stalled follow kstatus.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// Value of the annotation that asks for a reconcile now (`reconcile.trellis.dev/requestedAt`; for kinds of Flux,
    /// `reconcile.fluxcd.io/requestedAt`) that was handled last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub last_handled_reconcile_at: Option<String>,

    /// The objects that were written for this one, and that are cleaned up with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub inventory: Vec<InventoryEntry>,
}

/// An object that we wrote to or own: where to clean up.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InventoryEntry {
    /// API version of the object, such as `v1` or `apps/v1`.
    pub api_version: String,

    /// Kind of the object.
    pub kind: String,

    /// Namespace of the object; absent when it is cluster-scoped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub namespace: Option<String>,

    /// Name of the object.
    pub name: String,

    /// Unique identifier that the object had when it was written. An object of the same name with another identifier
    /// is somebody else's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub uid: Option<String>,

    /// True when only some fields of somebody else's object were written; then only those are taken back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub part: bool,
}
