//! Names: of policies, and of the objects that are made for them.

use std::fmt;

use kube::ResourceExt as _;
use serde::{Serialize, Serializer};
use trellis_api::ResiliencePolicy;

/// Longest name of an object that we make.
const LIMIT: usize = 63;

/// A policy, as `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyName {
    namespace: String,
    name: String,
}

impl PolicyName {
    /// A policy of this namespace and name.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The name of this policy.
    #[must_use]
    pub fn of(policy: &ResiliencePolicy) -> Self {
        Self {
            namespace: policy.namespace().unwrap_or_default(),
            name: policy.name_any(),
        }
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Its name in the namespace.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.namespace, self.name)
    }
}

impl Serialize for PolicyName {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// The name of an object made for an entry of a policy: `<policy>-<entry>`, and where that is longer than 63
/// characters, its beginning and a digest of the whole.
#[must_use]
pub fn joined(policy: &str, entry: &str) -> String {
    shortened(&format!("{policy}-{entry}"))
}

/// A name of at most 63 characters: itself, or its beginning and a digest of the whole.
#[must_use]
pub fn shortened(name: &str) -> String {
    if name.len() <= LIMIT {
        return name.into();
    }
    let digest = format!("{:010x}", fnv(name) & 0xff_ffff_ffff);
    let kept: String = name.chars().take(LIMIT - digest.len() - 1).collect();
    format!("{}-{digest}", kept.trim_end_matches(['-', '.']))
}

/// FNV-1a, 64 bits: the same on every machine, for ever.
fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_stay() {
        assert_eq!(joined("web", "search"), "web-search");
        let limit = "a".repeat(63);
        assert_eq!(shortened(&limit), limit);
    }

    #[test]
    fn long_names_are_cut_and_told_apart() {
        let long = "web.".repeat(40);
        let (one, other) = (joined(&long, "search"), joined(&long, "browse"));
        assert_ne!(one, other);
        assert_eq!(one, joined(&long, "search"));
        for name in [one, other] {
            assert!(
                name.len() <= 63 && !name.contains(".-") && !name.contains("--"),
                "{name}"
            );
        }
    }

    #[test]
    fn the_digest_is_fixed() {
        assert_eq!(fnv(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv("a"), 0xaf63_dc4c_8601_ec8c);
    }
}
