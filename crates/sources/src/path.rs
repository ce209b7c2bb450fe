//! `EntryPath`: where a file lies inside an artifact.
//!
//! ```text
//!  "./manifests//app.yaml" ─▶ manifests/app.yaml        "../x", "/x", "a\x" ─▶ refused
//! ```
//!
//! Invariants: relative, `/` between segments, no segment is `.`, `..` or empty, no `\`, no control character; the order is
//! that of segments, so a folder's content follows it directly.

use std::{cmp::Ordering, fmt};

use thiserror::Error;

/// Longest path, in bytes.
pub const PATH_LIMIT: usize = 1024;
/// Longest segment, in bytes (`NAME_MAX`).
pub const SEGMENT_LIMIT: usize = 255;

/// A validated path inside an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EntryPath(String);

/// Why a text is no path inside an artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PathError {
    /// Nothing is left once `.` segments are dropped.
    #[error("the path names nothing")]
    Empty,
    /// It starts with `/`.
    #[error("the path is absolute")]
    Absolute,
    /// A segment is `..`.
    #[error("the path has a `..` segment")]
    Parent,
    /// A backslash, which other systems read as a separator.
    #[error("the path has a `\\`")]
    Backslash,
    /// NUL or another control character.
    #[error("the path has a control character")]
    Control,
    /// Longer than [`PATH_LIMIT`], or a segment longer than [`SEGMENT_LIMIT`].
    #[error("the path is too long")]
    TooLong,
    /// Not UTF-8.
    #[error("the path is not UTF-8")]
    NotUtf8,
}

impl EntryPath {
    /// Reads a path. `.` segments and doubled or trailing slashes mean nothing and are dropped.
    ///
    /// # Errors
    /// See [`PathError`].
    pub fn parse(text: &str) -> Result<Self, PathError> {
        if text.len() > PATH_LIMIT {
            return Err(PathError::TooLong);
        }
        if text.starts_with('/') {
            return Err(PathError::Absolute);
        }
        if text.contains('\\') {
            return Err(PathError::Backslash);
        }
        if text.chars().any(char::is_control) {
            return Err(PathError::Control);
        }
        let mut path = String::with_capacity(text.len());
        for segment in text.split('/').filter(|segment| !matches!(*segment, "" | ".")) {
            if segment == ".." {
                return Err(PathError::Parent);
            }
            if segment.len() > SEGMENT_LIMIT {
                return Err(PathError::TooLong);
            }
            if !path.is_empty() {
                path.push('/');
            }
            path.push_str(segment);
        }
        if path.is_empty() {
            return Err(PathError::Empty);
        }
        Ok(Self(path))
    }

    /// A path that is written in our own code, where it is plain to see that it is one.
    pub(crate) fn literal(path: &'static str) -> Self {
        Self(path.to_owned())
    }

    /// Reads a path as an archive spells it.
    ///
    /// # Errors
    /// See [`PathError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PathError> {
        Self::parse(std::str::from_utf8(bytes).map_err(|_| PathError::NotUtf8)?)
    }

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last segment.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// The segments, outermost first.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// The folders around it, outermost first: `a` and `a/b` of `a/b/c`.
    pub fn ancestors(&self) -> impl Iterator<Item = Self> + '_ {
        self.0
            .match_indices('/')
            .filter_map(|(at, _)| self.0.get(..at))
            .map(|folder| Self(folder.to_owned()))
    }

    /// Whether this is a folder around `other`.
    #[must_use]
    pub fn is_around(&self, other: &Self) -> bool {
        other.0.strip_prefix(&self.0).is_some_and(|rest| rest.starts_with('/'))
    }

    /// The path below this one, taken as a folder.
    ///
    /// # Errors
    /// The whole is longer than [`PATH_LIMIT`].
    pub fn join(&self, below: &Self) -> Result<Self, PathError> {
        let joined = format!("{self}/{below}");
        if joined.len() > PATH_LIMIT {
            return Err(PathError::TooLong);
        }
        Ok(Self(joined))
    }

    /// Whether the kustomize-controller reads the file as Kubernetes objects: `.yaml` or `.yml`, in exactly this case.
    #[must_use]
    pub fn is_manifest(&self) -> bool {
        matches!(self.name().rsplit_once('.'), Some((_, "yaml" | "yml")))
    }

    /// Whether the kustomize-controller reads the file as a kustomization.
    #[must_use]
    pub fn is_kustomization(&self) -> bool {
        matches!(
            self.name(),
            "kustomization.yaml" | "kustomization.yml" | "Kustomization"
        )
    }
}

impl fmt::Display for EntryPath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl Ord for EntryPath {
    fn cmp(&self, other: &Self) -> Ordering {
        self.segments().cmp(other.segments())
    }
}

impl PartialOrd for EntryPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("a", Ok("a"))]
    #[case("a..b.yaml", Ok("a..b.yaml"))]
    #[case("...", Ok("..."))]
    #[case("./a", Ok("a"))]
    #[case("a//b/./c/", Ok("a/b/c"))]
    #[case("ä/日本.yaml", Ok("ä/日本.yaml"))]
    #[case("", Err(PathError::Empty))]
    #[case("./", Err(PathError::Empty))]
    #[case("/a", Err(PathError::Absolute))]
    #[case("//a", Err(PathError::Absolute))]
    #[case("..", Err(PathError::Parent))]
    #[case("a/../b", Err(PathError::Parent))]
    #[case("a/..", Err(PathError::Parent))]
    #[case("a\\b", Err(PathError::Backslash))]
    #[case("..\\b", Err(PathError::Backslash))]
    #[case("a\0b", Err(PathError::Control))]
    #[case("a\nb", Err(PathError::Control))]
    fn a_path_inside_an_artifact(#[case] text: &str, #[case] expected: Result<&str, PathError>) {
        assert_eq!(
            EntryPath::parse(text).as_ref().map(EntryPath::as_str),
            expected.as_ref().copied()
        );
    }

    #[test]
    fn lengths_are_bounded() {
        assert!(EntryPath::parse(&"n".repeat(255)).is_ok());
        assert_eq!(EntryPath::parse(&"n".repeat(256)), Err(PathError::TooLong));
        assert!(EntryPath::parse(&"n/".repeat(512)).is_ok());
        assert_eq!(EntryPath::parse(&"n/".repeat(513)), Err(PathError::TooLong));
        assert_eq!(EntryPath::from_bytes(b"\xff"), Err(PathError::NotUtf8));
    }

    #[test]
    fn a_folder_is_followed_by_its_content() {
        let mut paths: Vec<_> = ["a.b", "a/c", "a", "a-b/x", "a/b/c", "a/b"]
            .map(|p| EntryPath::parse(p).unwrap())
            .into();
        paths.sort();
        let texts: Vec<_> = paths.iter().map(EntryPath::as_str).collect();
        assert_eq!(texts, ["a", "a/b", "a/b/c", "a/c", "a-b/x", "a.b"]);
        assert!(paths[0].is_around(&paths[2]) && !paths[0].is_around(&paths[5]));
        assert_eq!(paths[2].ancestors().map(|p| p.0).collect::<Vec<_>>(), ["a", "a/b"]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// Whatever is accepted stays below the folder that it is joined to, and reads back as itself.
        #[test]
        fn what_is_accepted_stays_inside(text in "[a-b./\\\\\0-]{0,12}") {
            if let Ok(path) = EntryPath::parse(&text) {
                prop_assert_eq!(&EntryPath::parse(path.as_str()).unwrap(), &path);
                let mut depth = 0_i32;
                for component in std::path::Path::new(path.as_str()).components() {
                    prop_assert!(matches!(component, std::path::Component::Normal(_)));
                    depth += 1;
                }
                prop_assert!(depth > 0);
            }
        }
    }
}
