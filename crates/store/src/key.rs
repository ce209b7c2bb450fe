//! `Key`: where a file lies, by whose it is and what is in it. `Prefix`: the files of one owner.
//!
//! ```text
//!  externalsource/team-a/prices/9f86…0a08.tar.gz
//!  └────────── Prefix ────────┘ └ Digest ┘
//! ```
//!
//! Invariants: a key names the digest of its bytes, so that one key never has two contents; no segment is empty, starts
//! with a dot or holds anything but letters, digits, `.`, `_` and `-`, so that a key can leave no directory, can name
//! no temporary file, and reads the same in a path, in a URL and in a bucket.

use std::{fmt, str::FromStr};

use trellis_core::Digest;

/// What every key ends with.
const SUFFIX: &str = ".tar.gz";

/// The longest segment, in bytes: what file systems take as a name.
const MAX_SEGMENT: usize = 253;

/// The longest prefix, in bytes. With the digest and the suffix a key stays under the 1024 bytes of S3.
const MAX_PREFIX: usize = 900;

/// A text is not a key or not a prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not the key of a file: {why}")]
pub struct InvalidKey {
    text: String,
    why: &'static str,
}

/// The key of one file: `<prefix>/<sha256>.tar.gz`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    text: String,
    digest: Digest,
}

impl Key {
    /// The key of the file with that digest among those of `prefix`.
    ///
    /// # Errors
    /// [`InvalidKey`] for the root prefix: every file is somebody's.
    pub fn new(prefix: &Prefix, digest: Digest) -> Result<Self, InvalidKey> {
        if prefix.0.is_empty() {
            return Err(InvalidKey {
                text: digest.hex(),
                why: "it has no prefix",
            });
        }
        let text = format!("{prefix}/{}{SUFFIX}", digest.hex());
        Ok(Self { text, digest })
    }

    /// The key as it stands in paths and URLs, without a leading slash.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The digest that the bytes have, if they are right.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Whether the file is one of that prefix.
    #[must_use]
    pub fn is_below(&self, prefix: &Prefix) -> bool {
        prefix.0.is_empty()
            || self
                .text
                .strip_prefix(&prefix.0)
                .is_some_and(|rest| rest.starts_with('/'))
    }
}

impl FromStr for Key {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = |why| InvalidKey {
            text: text.to_owned(),
            why,
        };
        let (prefix, name) = text.rsplit_once('/').ok_or_else(|| invalid("it has no prefix"))?;
        let hex = name
            .strip_suffix(SUFFIX)
            .ok_or_else(|| invalid("it does not end with .tar.gz"))?;
        let named = || invalid("it is not named by the SHA-256 of its bytes");
        let digest = Digest::from_hex(hex).map_err(|_| named())?;
        if prefix.is_empty() {
            return Err(invalid("it has no prefix"));
        }
        valid(prefix).map_err(invalid)?;
        Ok(Self {
            text: text.to_owned(),
            digest,
        })
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Everything below a directory: `a/b`, or everything there is. `a/b` is not a prefix of `a/bc/…`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Prefix(String);

impl Prefix {
    /// All files.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// The prefix without a trailing slash; empty for the root.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As messages name it.
    pub(crate) fn subject(&self) -> String {
        if self.0.is_empty() {
            "all files".to_owned()
        } else {
            format!("files of {}", self.0)
        }
    }
}

impl FromStr for Prefix {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if !text.is_empty() {
            valid(text).map_err(|why| InvalidKey {
                text: text.to_owned(),
                why,
            })?;
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether these are one or more good segments.
fn valid(text: &str) -> Result<(), &'static str> {
    if text.len() > MAX_PREFIX {
        return Err("it is longer than 900 bytes");
    }
    text.split('/').try_for_each(|segment| {
        if segment.is_empty() {
            Err("a segment is empty")
        } else if segment.len() > MAX_SEGMENT {
            Err("a segment is longer than 253 bytes")
        } else if segment.starts_with('.') {
            Err("a segment starts with a dot")
        } else if !segment
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        {
            Err("only letters, digits, `.`, `_` and `-` are taken")
        } else {
            Ok(())
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    const HEX: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[rstest]
    #[case::plain("externalsource/team-a/prices")]
    #[case::dots("a..b/c.d")]
    #[case::one("a")]
    fn good_keys(#[case] prefix: &str) {
        let text = format!("{prefix}/{HEX}.tar.gz");
        let key: Key = text.parse().unwrap();
        assert_eq!((key.as_str(), key.digest().hex().as_str()), (text.as_str(), HEX));
        assert_eq!(Key::new(&prefix.parse().unwrap(), key.digest()), Ok(key));
    }

    #[rstest]
    #[case::no_prefix("{}.tar.gz")]
    #[case::absolute("/{}.tar.gz")]
    #[case::absolute_deep("/a/{}.tar.gz")]
    #[case::up("../{}.tar.gz")]
    #[case::up_inside("a/../b/{}.tar.gz")]
    #[case::here("a/./{}.tar.gz")]
    #[case::doubled("a//{}.tar.gz")]
    #[case::hidden("a/.git/{}.tar.gz")]
    #[case::encoded("a/..%2f/{}.tar.gz")]
    #[case::backslash("a\\..\\b/{}.tar.gz")]
    #[case::nul("a\0/{}.tar.gz")]
    #[case::space("a b/{}.tar.gz")]
    #[case::lock("a/{}.tar.gz.lock")]
    #[case::temp("a/.tmp-1{}.tar.gz")]
    #[case::algorithm("a/sha256:{}.tar.gz")]
    #[case::not_a_digest("a/latest.tar.gz")]
    #[case::directory("a/{}.tar.gz/")]
    fn bad_keys(#[case] text: &str) {
        assert!(text.replace("{}", HEX).parse::<Key>().is_err());
    }

    #[test]
    fn a_prefix_ends_at_a_segment() {
        let key: Key = format!("a/bc/{HEX}.tar.gz").parse().unwrap();
        let below = |prefix: &str| key.is_below(&prefix.parse().unwrap());
        assert!(below("a/bc") && below("a") && below(""));
        assert!(!below("a/b") && !below("b"));
        assert!(Key::new(&Prefix::root(), key.digest()).is_err());
    }

    proptest! {
        /// Whatever is taken for a key stays below its directory and is no hidden file.
        #[test]
        fn no_key_leaves_its_directory(text in r"[a-c./\\%:_-]{0,12}") {
            let text = format!("{text}/{HEX}.tar.gz");
            if let Ok(key) = text.parse::<Key>() {
                let path = std::path::Path::new(key.as_str());
                prop_assert!(path.components().all(|part| matches!(part, std::path::Component::Normal(_))));
                prop_assert!(!key.as_str().split('/').any(|segment| segment.is_empty() || segment.starts_with('.')));
                prop_assert_eq!(key.to_string(), text);
            }
        }
    }
}
