//! `LinkerdVersion`: a version of Linkerd that reads our annotations.
//!
//! Invariant: a value of this type is at least 2.16; an older one cannot be written.

use std::{fmt, str::FromStr};

use trellis_core::Refusal;

use crate::Reason;

/// Oldest release that reads retry and timeout annotations.
pub const OLDEST: (u32, u32) = (2, 16);

/// First edge month (year, month) that surely has all of a release: the month after the release's own, since edge
/// versions of the release's month came before and after it.
const EDGES: [((u32, u32), (u32, u32)); 5] = [
    ((26, 7), (2, 20)),
    ((25, 11), (2, 19)),
    ((25, 5), (2, 18)),
    ((24, 12), (2, 17)),
    ((24, 9), (2, 16)),
];

/// A version of Linkerd, at least [`OLDEST`]. Displays as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkerdVersion {
    text: String,
    release: (u32, u32),
    edge: bool,
}

impl LinkerdVersion {
    /// Stands for one that nobody knows, with every feature.
    pub(crate) fn unknown() -> Self {
        Self {
            text: "unknown".into(),
            release: (u32::MAX, u32::MAX),
            edge: false,
        }
    }

    /// Whether the features of release `major.minor` are there. An edge version in doubt has those of the release
    /// before.
    #[must_use]
    pub fn at_least(&self, major: u32, minor: u32) -> bool {
        self.release >= (major, minor)
    }

    /// Whether the features of release `major.minor` may be there: an edge version may have all that is in the release
    /// after the one that it surely has.
    #[must_use]
    pub fn may_be(&self, major: u32, minor: u32) -> bool {
        let (known, next) = self.release;
        self.at_least(major, minor) || (self.edge && (known, next + 1) >= (major, minor))
    }

    /// The release whose features are surely there.
    #[must_use]
    pub fn release(&self) -> (u32, u32) {
        self.release
    }
}

impl fmt::Display for LinkerdVersion {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

impl FromStr for LinkerdVersion {
    type Err = Refusal;

    /// Reads `2.18`, `2.18.1`, `stable-2.16.2`, `enterprise-2.19.1` and `edge-26.8.3`; a suffix such as `-1` or `-rc2`
    /// after the last number is allowed.
    ///
    /// Refuses with `LinkerdVersionUnknown` what is none of these and with `LinkerdTooOld` what is before 2.16.
    fn from_str(text: &str) -> Result<Self, Refusal> {
        let channels = ["stable-", "enterprise-"];
        let release = if let Some(edge) = text.strip_prefix("edge-") {
            numbers(edge).map(release_of_edge)
        } else {
            numbers(
                channels
                    .iter()
                    .find_map(|channel| text.strip_prefix(channel))
                    .unwrap_or(text),
            )
            .map(Some)
        };
        let Some(release) = release else {
            return Err(Reason::LinkerdVersionUnknown
                .refuse(format!("{text:?} is not a version of Linkerd"))
                .hint("write it like 2.18.1, stable-2.16.2, enterprise-2.19.1 or edge-26.8.3"));
        };
        match release.filter(|release| *release >= OLDEST) {
            Some(release) => Ok(Self {
                text: text.into(),
                release,
                edge: text.starts_with("edge-"),
            }),
            None => Err(Reason::LinkerdTooOld
                .refuse(format!("Linkerd {text} does not read retry and timeout annotations"))
                .hint("upgrade to Linkerd 2.16 or newer")),
        }
    }
}

fn release_of_edge(month: (u32, u32)) -> Option<(u32, u32)> {
    EDGES
        .iter()
        .find(|(since, _)| month >= *since)
        .map(|(_, release)| *release)
}

/// The first two of two or three numbers.
fn numbers(text: &str) -> Option<(u32, u32)> {
    let numeric = text.split_once('-').map_or(text, |(numeric, _)| numeric);
    let mut parts = numeric.split('.').map(|part| {
        let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| part.parse::<u32>().ok()).flatten()
    });
    let (major, minor) = (parts.next()??, parts.next()??);
    match (parts.next(), parts.next()) {
        (None | Some(Some(_)), None) => Some((major, minor)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("2.16", (2, 16))]
    #[case("2.18", (2, 18))]
    #[case("2.18.1", (2, 18))]
    #[case("stable-2.16.2", (2, 16))]
    #[case("enterprise-2.19.1", (2, 19))]
    #[case("enterprise-2.17.0-1", (2, 17))]
    #[case("2.20.0-rc2", (2, 20))]
    #[case("3.0", (3, 0))]
    #[case("edge-26.8.3", (2, 20))]
    #[case("edge-27.1.1", (2, 20))]
    #[case::in_doubt("edge-26.6.2", (2, 19))]
    #[case("edge-25.11.1", (2, 19))]
    #[case("edge-25.10.7", (2, 18))]
    #[case("edge-25.4.4", (2, 17))]
    #[case("edge-24.12.1", (2, 17))]
    #[case("edge-24.11.8", (2, 16))]
    #[case("edge-24.9.1", (2, 16))]
    fn a_version_has_the_features_of_a_release(#[case] text: &str, #[case] release: (u32, u32)) {
        let version: LinkerdVersion = text.parse().unwrap();
        assert_eq!(version.release(), release);
        assert_eq!(version.to_string(), text);
        assert!(version.at_least(release.0, release.1));
        assert!(version.at_least(2, 16));
        assert!(!version.at_least(release.0, release.1 + 1));
    }

    #[rstest]
    #[case("2.15")]
    #[case("stable-2.14.10")]
    #[case("1.99.0")]
    #[case("edge-24.8.2")]
    #[case("edge-20.1.1")]
    fn too_old_is_said(#[case] text: &str) {
        let refusal = text.parse::<LinkerdVersion>().unwrap_err();
        assert_eq!(refusal.reason, "LinkerdTooOld");
        assert!(refusal.message.contains(text));
    }

    #[rstest]
    #[case("")]
    #[case("2")]
    #[case("2.")]
    #[case("v2.18")]
    #[case("2.18.1.4")]
    #[case("2.x")]
    #[case("+2.18")]
    #[case("2.18.x")]
    #[case("edge-26")]
    #[case("dev-0f3e-root")]
    #[case("git-1a2b3c4d")]
    #[case("2.99999999999")]
    fn what_cannot_be_compared_is_refused(#[case] text: &str) {
        assert_eq!(
            text.parse::<LinkerdVersion>().unwrap_err().reason,
            "LinkerdVersionUnknown"
        );
    }
}
