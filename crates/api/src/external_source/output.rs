//! `Output`: in which form Flux gets the data.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{Display, EnumIter};

use super::rules;

/// In which form Flux gets the data.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = rules::OBJECT_FITS)]
#[x_kube(validation = rules::ARCHIVE_FITS)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// What the artifact holds. Raw: the data in one file. Manifest: the data, which must be Kubernetes objects, as YAML.
    /// ConfigMap and Secret: one that holds the data. Archive: the files of the archive that the data is.
    #[serde(default, rename = "as")]
    pub as_: OutputForm,

    /// The ConfigMap or Secret that is made of the data. Needed with as ConfigMap and as Secret, and only there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ObjectOptions")]
    pub object: Option<ObjectOptions>,

    /// How an archive is unpacked. Only with as Archive; absent: whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ArchiveOptions")]
    pub archive: Option<ArchiveOptions>,

    /// Adds a kustomization.yaml that lists the manifests of the artifact, so that Flux applies these and passes over
    /// other files. Not added where the artifact has one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub kustomization: bool,
}

/// Forms of an artifact's content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Display, EnumIter, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub enum OutputForm {
    /// The data as it is, in one file.
    #[default]
    Raw,
    /// The data is Kubernetes objects, in YAML or JSON; written as YAML, and refused if it is anything else.
    Manifest,
    /// A ConfigMap that holds the data.
    ConfigMap,
    /// A Secret that holds the data.
    Secret,
    /// The data is an archive (tar, gzip-compressed or not, or zip); its files are the artifact's.
    Archive,
}

/// The object that is made of the data.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectOptions {
    /// Name of the object.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = rules::OBJECT_NAME)]
    pub name: String,

    /// Namespace that the manifest names. Absent: none, so that the Kustomization decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 63))]
    #[x_kube(validation = rules::NAMESPACE)]
    pub namespace: Option<String>,

    /// Key that holds the data. Absent: the file name that follows from the URL and the content type, such as
    /// settings.json.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 253))]
    #[x_kube(validation = rules::KEY)]
    pub key: Option<String>,
}

/// How an archive is unpacked.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArchiveOptions {
    /// Leading folders that are cut off every name, as tar's --strip-components does. What has no more of them is left
    /// out.
    #[serde(default)]
    #[schemars(with = "i32", range(min = 0, max = 16))]
    pub strip_components: u32,

    /// Takes only what is below this folder, after stripping, and without it in its name. Absent: everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 1024))]
    #[x_kube(validation = rules::INNER_PATH)]
    pub path: Option<String>,
}
