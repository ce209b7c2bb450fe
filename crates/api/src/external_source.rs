//! `ExternalSource`: data of an HTTP server or an object store as an artifact that Flux consumes.
//!
//! ```text
//!  generator ─▶ hooks.postRequest ─▶ transforms ─▶ output, destinationPath ─▶ artifact
//!      ▲
//!  hooks.preRequest       when: interval, suspend       what it must be: checksum
//! ```
//!
//! Field names are those of the requirement document; a manifest that was valid there is read here. Invariant: a
//! value that could only fail later is refused by the API server, with a message that says what would be right.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::{Managed, status::CommonStatus};

mod generator;
mod hook;
mod http;
mod output;
mod rules;
mod s3;
mod secret;
mod status;
mod transform;

pub use generator::{Generator, GeneratorBlock, GeneratorType};
pub use hook::{EnvSource, EnvVar, Hook, Hooks, RetryPolicy};
pub use http::{Body, HttpGenerator, Method, QueryParameter};
pub use output::{ArchiveOptions, ObjectOptions, Output, OutputForm};
pub use s3::S3Generator;
pub use secret::{CaBundleRef, SecretKeyRef, SecretRef};
pub use status::{Artifact, ExternalSourceStatus, HISTORY_LIMIT, HistoryEntry};
pub use transform::{LegacyTransform, LegacyTransformType, Transform, TransformType};

/// Set on every `ExternalSource` before anything is published for it.
pub const FINALIZER: &str = "source.flux.oddkin.co/externalsource-finalizer";

/// Annotation of Flux that asks for a reconcile now; any new value counts. Echoed in `status.lastHandledReconcileAt`.
pub const REQUESTED_AT: &str = "reconcile.fluxcd.io/requestedAt";

/// Annotation of Flux that, where it equals [`REQUESTED_AT`], asks for the data even if the server would say that
/// nothing changed. Echoed in `status.lastHandledForceAt`.
pub const FORCE_AT: &str = "reconcile.fluxcd.io/forceAt";

/// Shortest interval in force, in seconds; a shorter one is admitted and counts as this one.
pub const MIN_INTERVAL_SECONDS: u64 = 60;

/// Condition, present only while it is true: data is being fetched.
pub const FETCHING: &str = "Fetching";

/// Condition, present only while it is true: hooks are running.
pub const EXECUTING_HOOKS: &str = "ExecutingHooks";

/// Condition, present only while it is true: an artifact is being stored.
pub const STORING: &str = "Storing";

/// Condition, present only when a checksum is pinned: whether the data has it.
pub const SOURCE_VERIFIED: &str = "SourceVerified";

/// Where data comes from, what is done to it, and in which form Flux gets it.
#[derive(CustomResource, KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "source.flux.oddkin.co",
    version = "v1alpha1",
    kind = "ExternalSource",
    plural = "externalsources",
    shortname = "extsrc",
    category = "fluxcd",
    category = "fluxcd-sources",
    namespaced,
    status = "ExternalSourceStatus",
    derive = "PartialEq",
    annotation("kustomize.toolkit.fluxcd.io/substitute", "disabled"),
    doc = "Makes data of an HTTP server or an object store an artifact that Flux consumes: fetched, transformed, packaged and published as an ExternalArtifact of the same name.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "Whether the artifact for the current spec can be fetched"
    ),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        description = "Why it can, or cannot"
    ),
    printcolumn(
        name = "Revision",
        type_ = "string",
        json_path = ".status.artifact.revision",
        description = "Revision of the artifact that is served"
    ),
    printcolumn(
        name = "Suspended",
        type_ = "boolean",
        json_path = ".spec.suspend",
        description = "Whether the source is left alone"
    ),
    printcolumn(
        name = "URL",
        type_ = "string",
        json_path = ".spec.generator.http.url",
        description = "Where an HTTP source comes from",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Time since the source was created"
    )
)]
#[x_kube(validation = rules::ONE_FORM_OF_TRANSFORMS)]
#[x_kube(validation = rules::MANIFESTS_END_IN_YAML)]
#[x_kube(validation = rules::ARCHIVES_GO_INTO_A_FOLDER)]
#[serde(rename_all = "camelCase")]
pub struct ExternalSourceSpec {
    /// How often the source is asked for changes, such as 5m or 1h30m; at most 8760h. A shorter interval than 1m is
    /// admitted and counts as 1m, which the Ready condition then says.
    #[schemars(length(min = 2, max = 32))]
    #[x_kube(validation = Rule::new(rules::interval()).message(rules::INTERVAL))]
    pub interval: String,

    /// Leaves the source, and the artifact that is served, alone until this is false again. Deletion still cleans up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,

    /// Where the data comes from.
    pub generator: Generator,

    /// Commands that run before the request and after it, in the sidecar and only if its whitelist has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Hooks")]
    pub hooks: Option<Hooks>,

    /// Retries of hooks with retryPolicy retry, summed over all hooks of one run; 0 means none.
    #[serde(default = "three")]
    #[schemars(with = "i32", range(min = 0, max = 20))]
    pub max_retries: u32,

    /// Programs that change the data inside the operator, one after another, after the hooks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub transforms: Vec<Transform>,

    /// Older form of transforms with one CEL expression; still read. Either this or transforms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "LegacyTransform")]
    pub transform: Option<LegacyTransform>,

    /// Where the data lies inside the artifact: a relative path, or a folder when it ends with a slash. Absent or empty:
    /// a name that follows from the URL, the content type and output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 1024))]
    #[x_kube(validation = rules::RELATIVE)]
    #[x_kube(validation = rules::NO_WAY_UP)]
    #[x_kube(validation = rules::PLAIN_PATH)]
    pub destination_path: Option<String>,

    /// In which form Flux gets the data. Absent: as it came, in one file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Output")]
    pub output: Option<Output>,

    /// Pins the data as it came from the source, before hooks: sha256: and 64 hexadecimal digits. Other data is refused
    /// and never published. Absent: any data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 71))]
    #[x_kube(validation = rules::CHECKSUM)]
    pub checksum: Option<String>,
}

impl ExternalSourceSpec {
    /// The transforms in order, whichever form they are written in.
    pub fn all_transforms(&self) -> impl Iterator<Item = Transform> + '_ {
        let legacy = self.transform.iter().map(LegacyTransform::as_transform);
        legacy.chain(self.transforms.iter().cloned())
    }

    /// The hooks that run before the request, in order.
    #[must_use]
    pub fn pre_request(&self) -> &[Hook] {
        self.hooks.as_ref().map_or(&[], |hooks| &hooks.pre_request)
    }

    /// The hooks that run after the request, in order.
    #[must_use]
    pub fn post_request(&self) -> &[Hook] {
        self.hooks.as_ref().map_or(&[], |hooks| &hooks.post_request)
    }
}

impl Managed for ExternalSource {
    type Status = ExternalSourceStatus;

    const REQUESTED_AT: &'static str = REQUESTED_AT;

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
}

fn three() -> u32 {
    3
}
