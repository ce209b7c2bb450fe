//! `ExternalArtifact` of Flux, `source.toolkit.fluxcd.io/v1`, written by hand from RFC-0012 and the definition in
//! `config/crd/bases/` of fluxcd/source-controller: what we publish and Flux's consumers read.
//!
//! ```text
//!  spec.sourceRef: whose it is      status.artifact: what consumers download      status.conditions: what people read
//! ```
//!
//! Consumers look at `status.artifact` alone, and start when it appears or its revision changes.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use serde::{Deserialize, Serialize};

use crate::lenient::list;

/// An artifact of a source that Flux itself does not know.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "source.toolkit.fluxcd.io",
    version = "v1",
    kind = "ExternalArtifact",
    plural = "externalartifacts",
    shortname = "ea",
    namespaced,
    schema = "disabled",
    status = "ExternalArtifactStatus",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct ExternalArtifactSpec {
    /// The object that the artifact is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_ref: Option<SourceRef>,
}

/// Names the object that an artifact is of; `flux get` and `flux trace` show it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceRef {
    /// API version, such as `source.flux.oddkin.co/v1alpha1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,

    /// Kind.
    pub kind: String,

    /// Name.
    pub name: String,

    /// Namespace; the artifact's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// What is published. Conditions are one list without keys: whoever writes it, writes all of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExternalArtifactStatus {
    /// What consumers download; absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<Artifact>,

    /// What is true now; `Ready` with a message is what `flux get sources external` prints.
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// An archive that consumers download. All of it is there, or none: the API server requires each field but size and
/// metadata.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    /// Digest of the archive's bytes, as `algorithm:hex`; consumers compute it again.
    pub digest: String,

    /// Where the archive lies in the storage, such as `externalsource/shop/config/….tar.gz`.
    pub path: String,

    /// Where consumers download it.
    pub url: String,

    /// Revision; the helm-controller wants exactly one colon in it, that of the digest behind the `@`.
    pub revision: String,

    /// When it was stored.
    pub last_update_time: Time,

    /// Bytes of the archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<i64>,

    /// What else is known, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
}

#[cfg(test)]
mod tests {
    use kube::Resource as _;
    use serde_json::{Value, json};

    use super::*;

    fn published() -> Value {
        json!({
            "apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "ExternalArtifact",
            "metadata": {"name": "config", "namespace": "shop"},
            "spec": {"sourceRef": {
                "apiVersion": "source.flux.oddkin.co/v1alpha1", "kind": "ExternalSource", "name": "config",
                "namespace": "shop",
            }},
            "status": {
                "artifact": {
                    "digest": "sha256:0a", "path": "externalsource/shop/config/0a.tar.gz",
                    "url": "http://trellis.trellis-system.svc.cluster.local./externalsource/shop/config/0a.tar.gz",
                    "revision": "latest@sha256:0a", "lastUpdateTime": "2026-11-01T10:00:00Z", "size": 7,
                    "metadata": {"etag": "1"},
                },
                "conditions": [{
                    "type": "Ready", "status": "True", "reason": "Succeeded", "observedGeneration": 1,
                    "lastTransitionTime": "2026-11-01T10:00:00Z", "message": "stored artifact for revision latest@sha256:0a",
                }],
            },
        })
    }

    /// What is written is what Flux's definition names, field by field.
    #[test]
    fn what_is_published_is_written_as_flux_reads_it() {
        let artifact: ExternalArtifact = serde_json::from_value(published()).unwrap();
        assert_eq!(serde_json::to_value(&artifact).unwrap(), published());
        assert_eq!(ExternalArtifact::api_version(&()), "source.toolkit.fluxcd.io/v1");
        assert_eq!(ExternalArtifact::plural(&()), "externalartifacts");
    }

    /// Version 1.10 of source-controller adds a field to the status; others may follow.
    #[test]
    fn what_is_not_used_does_not_hinder() {
        let mut newer = published();
        newer["spec"] = json!({});
        newer["status"]["exportedInputs"] = json!({"tag": ["a", 1]});
        newer["status"]["conditions"] = Value::Null;
        newer["status"]["artifact"]["size"] = Value::Null;
        newer["status"]["artifact"]["metadata"] = Value::Null;
        let artifact: ExternalArtifact = serde_json::from_value(newer).unwrap();
        assert_eq!(artifact.spec.source_ref, None);
        let status = artifact.status.unwrap();
        assert!(status.conditions.is_empty());
        assert_eq!(status.artifact.unwrap().metadata, None);
    }
}
