//! `SecretRef` and its kin: Secrets in the source's own namespace.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::rules;

/// Names a Secret in the namespace of the source.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = rules::OBJECT_NAME)]
    pub name: String,
}

/// Names a key of a Secret in the namespace of the source.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = rules::OBJECT_NAME)]
    pub name: String,

    /// Key in the Secret.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = rules::KEY)]
    pub key: String,
}

/// Names the certificates of authorities, in PEM, in a Secret in the namespace of the source.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CaBundleRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = rules::OBJECT_NAME)]
    pub name: String,

    /// Key in the Secret.
    #[serde(default = "ca_crt")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = rules::KEY)]
    pub key: String,
}

fn ca_crt() -> String {
    "ca.crt".into()
}
