//! `Revision`: the name of an artifact's content, `<id>@sha256:<hex>`; and where the artifact is stored.
//!
//! ```text
//!  latest@sha256:ab…        1.2.3@sha256:ab…  (id read from Chart.yaml)
//!  externalsource/<namespace>/<name>/<hex>.tar.gz
//! ```
//!
//! Invariants: exactly one `:` and one `@`, because the helm-controller takes what follows the `:` as build metadata of the
//! chart's version; the id is `latest` unless it is the version in `Chart.yaml`, because an id that reads as a version
//! must equal the chart's; the revision changes if and only if the tarball does.

use std::{fmt, str::FromStr, sync::LazyLock};

use regex::Regex;
use serde::Deserialize;
use thiserror::Error;
use trellis_core::{Digest, Refusal};

use crate::reason::Reason;

/// First folder of every path.
pub const ROOT: &str = "externalsource";
/// The id of what has no version.
const LATEST: &str = "latest";

/// `SemVer` 2.0 as its authors write it (semver.org), without a leading `v`.
static SEMVER: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(concat!(
        r"^(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)",
        r"(?:-(?:0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*))*)?",
        r"(?:\+[0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*)?$",
    ))
    .ok()
});

/// The readable part of a revision.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RevisionId(String);

impl RevisionId {
    /// The id of everything that is no chart.
    #[must_use]
    pub fn latest() -> Self {
        Self(LATEST.to_owned())
    }

    /// The version of a chart, from the text of the `Chart.yaml` that the artifact holds.
    ///
    /// # Errors
    /// `ConfigurationError`: no `Chart.yaml`, or its version is no `SemVer`; the helm-controller would refuse it.
    pub fn of_chart(chart: &str) -> Result<Self, Refusal> {
        #[derive(Deserialize)]
        struct Chart {
            version: String,
        }
        let refuse = |message: String| Reason::ConfigurationError.refuse(message);
        let chart: Chart = serde_saphyr::from_str(chart)
            .map_err(|_| refuse("Chart.yaml has no version that can be read".to_owned()))?;
        if is_semver(&chart.version) {
            Ok(Self(chart.version))
        } else {
            Err(refuse(format!(
                "the chart's version {:?} is no semantic version",
                chart.version
            ))
            .hint("the version in Chart.yaml has three numbers, such as 1.2.3"))
        }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_semver(text: &str) -> bool {
    text.len() <= 256 && SEMVER.as_ref().is_some_and(|semver| semver.is_match(text))
}

/// `<id>@sha256:<hex>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Revision {
    /// The readable part.
    pub id: RevisionId,
    /// Digest of the tarball.
    pub digest: Digest,
}

/// The text is no revision of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a revision of the form <id>@sha256:<64 hex digits>, with `latest` or a version as id")]
pub struct RevisionError;

impl fmt::Display for Revision {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}@{}", self.id.0, self.digest)
    }
}

impl FromStr for Revision {
    type Err = RevisionError;

    fn from_str(text: &str) -> Result<Self, RevisionError> {
        let (id, digest) = text.split_once('@').ok_or(RevisionError)?;
        if id != LATEST && !is_semver(id) {
            return Err(RevisionError);
        }
        Ok(Self {
            id: RevisionId(id.to_owned()),
            digest: digest.parse().map_err(|_| RevisionError)?,
        })
    }
}

/// Where an artifact is stored, relative to the storage's top and to the server's address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ArtifactPath {
    /// Namespace of the source.
    pub namespace: String,
    /// Name of the source.
    pub name: String,
    /// Digest of the tarball, so that one address never carries other bytes.
    pub digest: Digest,
}

/// The path is none that we store at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a path of the form externalsource/<namespace>/<name>/<64 hex digits>.tar.gz")]
pub struct ArtifactPathError;

impl ArtifactPath {
    /// The folder of everything that one source stores, without a trailing slash.
    #[must_use]
    pub fn folder(namespace: &str, name: &str) -> String {
        format!("{ROOT}/{namespace}/{name}")
    }
}

impl fmt::Display for ArtifactPath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{}/{}.tar.gz",
            Self::folder(&self.namespace, &self.name),
            self.digest.hex()
        )
    }
}

impl FromStr for ArtifactPath {
    type Err = ArtifactPathError;

    /// Reads a path of ours; a server that serves only what this reads serves no temporary file and no folder.
    fn from_str(text: &str) -> Result<Self, ArtifactPathError> {
        let parts: Vec<&str> = text.split('/').collect();
        let [ROOT, namespace, name, file] = parts.as_slice() else {
            return Err(ArtifactPathError);
        };
        let hex = file.strip_suffix(".tar.gz").ok_or(ArtifactPathError)?;
        if !is_dns_name(namespace, 63, false) || !is_dns_name(name, 253, true) {
            return Err(ArtifactPathError);
        }
        Ok(Self {
            namespace: (*namespace).to_owned(),
            name: (*name).to_owned(),
            digest: Digest::from_hex(hex).map_err(|_| ArtifactPathError)?,
        })
    }
}

/// RFC 1123 as Kubernetes reads it: a label, or labels with dots between them.
pub(crate) fn is_dns_name(text: &str, longest: usize, dots: bool) -> bool {
    let label = |label: &str| {
        let inside = label
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        inside && !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')
    };
    text.len() <= longest && if dots { text.split('.').all(label) } else { label(text) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("version: 1.2.3", Ok("1.2.3"))]
    #[case("name: x\nversion: \"1.2.3-rc.1+build.7\"\n", Ok("1.2.3-rc.1+build.7"))]
    #[case("version: v1.2.3", Err("semantic"))]
    #[case("version: \"1.2\"", Err("semantic"))]
    #[case("version: 01.2.3", Err("semantic"))]
    #[case("version: 1.2.3:x", Err("semantic"))]
    #[case("version: 1.2.3@x", Err("semantic"))]
    #[case("name: x", Err("no version"))]
    #[case("[", Err("no version"))]
    fn a_chart_names_its_version(#[case] chart: &str, #[case] expected: Result<&str, &str>) {
        match (RevisionId::of_chart(chart), expected) {
            (Ok(id), Ok(text)) => assert_eq!(id.as_str(), text),
            (Err(refusal), Err(word)) => assert!(refusal.message.contains(word), "{refusal}"),
            (found, expected) => panic!("{found:?} instead of {expected:?}"),
        }
    }

    const HEX: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[rstest]
    #[case("latest@sha256:", true)]
    #[case("1.2.3@sha256:", true)]
    #[case("20251121@sha256:", false)]
    #[case("v3@sha256:", false)]
    #[case("@sha256:", false)]
    #[case("a@b@sha256:", false)]
    #[case("sha256:", false)]
    #[case("latest@sha512:", false)]
    #[case("2025-11-21T10:00:00@sha256:", false)]
    fn a_revision(#[case] before: &str, #[case] reads: bool) {
        let text = format!("{before}{HEX}");
        let found = text.parse::<Revision>();
        assert_eq!(found.is_ok(), reads);
        if let Ok(revision) = found {
            assert_eq!(revision.to_string(), text);
        }
    }

    #[rstest]
    #[case("externalsource/shop/web/", ".tar.gz", true)]
    #[case("externalsource/shop/web.v1/", ".tar.gz", true)]
    #[case("externalsource/shop/../", ".tar.gz", false)]
    #[case("externalsource/sh.op/web/", ".tar.gz", false)]
    #[case("externalsource//web/", ".tar.gz", false)]
    #[case("/externalsource/shop/web/", ".tar.gz", false)]
    #[case("gitrepository/shop/web/", ".tar.gz", false)]
    #[case("externalsource/shop/web/", ".tar.gz.lock", false)]
    #[case("externalsource/shop/web/", ".tar.gz.tmp", false)]
    #[case("externalsource/shop/web/x/", ".tar.gz", false)]
    #[case("externalsource/shop/web/A", ".tar.gz", false)]
    fn a_path(#[case] before: &str, #[case] after: &str, #[case] reads: bool) {
        let text = format!("{before}{HEX}{after}");
        let found = text.parse::<ArtifactPath>();
        assert_eq!(found.is_ok(), reads, "{text}");
        if let Ok(path) = found {
            assert_eq!(path.to_string(), text);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn one_colon_and_one_at(version in "[0-9]{1,2}\\.[0-9]\\.[0-9](-[a-z0-9.]{1,5})?(\\+[a-z0-9]{1,4})?", bytes in any::<[u8; 4]>()) {
            let id = RevisionId::of_chart(&format!("version: \"{version}\"")).unwrap_or_else(|_| RevisionId::latest());
            let revision = Revision { id, digest: Digest::of(&bytes) };
            let text = revision.to_string();
            prop_assert_eq!((text.matches(':').count(), text.matches('@').count()), (1, 1));
            prop_assert_eq!(text.parse(), Ok(revision));
        }
    }
}
