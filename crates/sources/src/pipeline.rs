//! `Pipeline`: everything beside upstream's body that makes the artifact what it is; and whether anything is to be done.
//!
//! ```text
//!  spec, whitelist, Secrets ─▶ PipelineHash ─┐
//!  recorded hash, validators, file, EA ──────┼─▶ ask(): conditional or not
//! ```
//!
//! Invariants: 304 alone never means that nothing is to be done; a change of the spec, of a Secret or of the whitelist is a
//! change, and so is a lost file or an edited `ExternalArtifact`; what an edit does not change in the artifact (interval,
//! suspend, retries) does not count.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde_json::Value;
use trellis_core::digest::{Digest, DigestError};

use crate::canonical::{self, Nulls};

/// What is hashed changes with this number, so that an upgrade that shapes differently rebuilds.
const VERSION: &str = "trellis/pipeline/1";

/// Fields of the spec that change nothing in the artifact.
const NEUTRAL: &[&str] = &["interval", "suspend", "maxRetries"];

/// What makes the artifact, beside upstream's body.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Pipeline<'a> {
    /// The spec, as JSON.
    pub spec: Option<&'a Value>,
    /// Version of the whitelist; none when no hook runs, so that its changes do not matter then.
    pub whitelist: Option<&'a str>,
    /// UID and `resourceVersion`, or digest of the content, of each object that the spec names, by `kind/name`.
    pub resolved: BTreeMap<String, String>,
}

/// The hash of a [`Pipeline`], kept in the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PipelineHash(Digest);

impl Pipeline<'_> {
    /// The hash. Equal for specs that differ only in the order of their fields, in fields that are null, or in those that
    /// change nothing in the artifact.
    #[must_use]
    pub fn hash(&self) -> PipelineHash {
        let mut spec = self.spec.cloned().unwrap_or_default();
        if let Some(fields) = spec.as_object_mut() {
            for field in NEUTRAL {
                fields.remove(*field);
            }
            if let Some(http) = fields
                .get_mut("generator")
                .and_then(|generator| generator.get_mut("http"))
                .and_then(Value::as_object_mut)
            {
                http.remove("timeout");
            }
        }
        let whole = serde_json::json!([VERSION, spec, self.whitelist, self.resolved]);
        PipelineHash(Digest::of(canonical::text(&whole, Nulls::Drop).as_bytes()))
    }
}

impl fmt::Display for PipelineHash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl FromStr for PipelineHash {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        text.parse().map(Self)
    }
}

/// What upstream said about the version of its body.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Validators {
    /// `ETag`, weak or strong, as it came.
    pub etag: Option<String>,
    /// `Last-Modified`, as it came.
    pub last_modified: Option<String>,
}

impl Validators {
    /// Whether there is anything to ask with.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.etag.is_none() && self.last_modified.is_none()
    }
}

/// The stored file, looked at now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stored {
    /// It is there, and its digest is the recorded one.
    Verified,
    /// It is not there.
    Missing,
    /// It has another digest.
    Corrupted,
}

/// Everything that the decision may know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen<'a> {
    /// The hash of the pipeline as it is now.
    pub pipeline: PipelineHash,
    /// The hash that the last artifact was made with; none: there is no artifact.
    pub recorded: Option<PipelineHash>,
    /// What upstream said with the last artifact.
    pub validators: &'a Validators,
    /// The stored file.
    pub stored: Stored,
    /// The user asks to fetch whatever the validators say (`reconcile.fluxcd.io/forceAt`).
    pub forced: bool,
}

/// Why something is to be done. The first that applies, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Drift {
    /// There is no artifact yet.
    NotReady,
    /// The user asks for it.
    Forced,
    /// The spec, the whitelist, or an object that the spec names has changed.
    PipelineChanged,
    /// The stored file is lost.
    ArtifactMissing,
    /// The stored file is damaged.
    ArtifactCorrupted,
    /// Upstream has another body, or cannot say.
    UpstreamChanged,
}

/// How to ask upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ask {
    /// With the validators: if upstream has nothing new, no body is needed.
    IfChanged,
    /// Without them: the body is needed, for this reason.
    Always(Drift),
}

impl Seen<'_> {
    /// Why the body is needed whatever upstream says; none: it is not.
    fn needs_body(&self) -> Option<Drift> {
        match (self.recorded, self.stored) {
            (None, _) => Some(Drift::NotReady),
            _ if self.forced => Some(Drift::Forced),
            (Some(recorded), _) if recorded != self.pipeline => Some(Drift::PipelineChanged),
            (_, Stored::Missing) => Some(Drift::ArtifactMissing),
            (_, Stored::Corrupted) => Some(Drift::ArtifactCorrupted),
            (_, Stored::Verified) => None,
        }
    }

    /// How to ask upstream. The recorded hash covers the URL, so validators are only used for the URL that they came from.
    #[must_use]
    pub fn ask(&self) -> Ask {
        match self.needs_body() {
            Some(drift) => Ask::Always(drift),
            None if self.validators.is_empty() => Ask::Always(Drift::UpstreamChanged),
            None => Ask::IfChanged,
        }
    }
}

#[cfg(test)]
mod tests;
