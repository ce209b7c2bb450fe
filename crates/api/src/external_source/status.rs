//! `ExternalSourceStatus`: what is served, and what the next run has to know.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::status::CommonStatus;

/// Most revisions that a status remembers.
pub const HISTORY_LIMIT: usize = 5;

/// What is served, and what the next run has to know.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalSourceStatus {
    /// What every kind reports.
    #[serde(flatten)]
    pub common: CommonStatus,

    /// The artifact that is served; it stays through failures. Absent: none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Artifact")]
    pub artifact: Option<Artifact>,

    /// `ETag` of the data in the artifact, as the server gave it.
    #[serde(default, rename = "lastHandledETag", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub last_handled_etag: Option<String>,

    /// Last-Modified of the data in the artifact, as the server gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub last_modified: Option<String>,

    /// Value of the annotation `reconcile.fluxcd.io/forceAt` that was handled last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub last_handled_force_at: Option<String>,

    /// Digest of everything besides the data that decided about the artifact: the spec, the whitelist, the Secrets. Where
    /// it differs from today's, the artifact is made anew, whatever the server says of its data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub pipeline_hash: Option<String>,

    /// Tries that failed since the last success, change of the spec or request for a reconcile; absent: none.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(with = "i32", range(min = 0))]
    pub failures: u32,

    /// When the next try is due after a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Time")]
    pub next_retry_time: Option<Time>,

    /// The revisions before and including the one that is served, newest first; at most 5.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5), extend("x-kubernetes-list-type" = "atomic"))]
    pub history: Vec<HistoryEntry>,
}

/// An artifact that is served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    /// Where it can be fetched, inside the cluster.
    pub url: String,

    /// Revision: a name for people, an @, and the digest.
    pub revision: String,

    /// When this revision was stored.
    pub last_update_time: Time,

    /// Digest of the archive as it is served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub digest: Option<String>,

    /// Bytes of the archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64", range(min = 0))]
    pub size: Option<u64>,

    /// Where the archive lies in the storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub path: Option<String>,

    /// What else is known of the data, such as the `ETag` or the upstream version.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

/// A revision that was published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HistoryEntry {
    /// The revision.
    pub revision: String,

    /// When it was published.
    pub time: Time,

    /// Bytes of its archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64", range(min = 0))]
    pub size: Option<u64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}
