//! `HostGlob`: a pattern over host names.

use std::{fmt, str::FromStr};

use trellis_core::Refusal;

use crate::reason::Reason;

/// A host name in which `*` stands for any run of characters, dots included: `*.example.com` is every name below
/// `example.com`, and not `example.com` itself. Case and a trailing dot do not matter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostGlob(String);

impl HostGlob {
    /// Whether a host matches as a whole.
    #[must_use]
    pub fn matches(&self, host: &str) -> bool {
        let host = plain(host);
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = host.strip_prefix(first) else {
            return false;
        };
        let mut parts: Vec<&str> = parts.collect();
        let Some(last) = parts.pop() else {
            return rest.is_empty();
        };
        // The leftmost place for each part leaves the most for those that follow.
        for part in parts {
            let Some((_, after)) = rest.split_once(part) else {
                return false;
            };
            rest = after;
        }
        rest.len() >= last.len() && rest.ends_with(last)
    }
}

fn plain(host: &str) -> String {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    bare.map_or_else(|| host.clone(), str::to_owned)
}

impl FromStr for HostGlob {
    type Err = Refusal;

    /// Reads a pattern.
    ///
    /// # Errors
    /// It is empty, or has a character that no host has, such as `/` or a blank: it would never match.
    fn from_str(text: &str) -> Result<Self, Refusal> {
        let glob = plain(text);
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '*' | '.' | '-' | '_' | ':');
        if glob.is_empty() || !glob.chars().all(fits) {
            return Err(Reason::ConfigurationError
                .refuse(format!("{text:?} is no pattern for a host"))
                .hint("write a host such as api.example.com or *.example.com, without scheme, port or path"));
        }
        Ok(Self(glob))
    }
}

impl fmt::Display for HostGlob {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex::Regex;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("example.com", "example.com", true)]
    #[case("Example.com.", "EXAMPLE.COM", true)]
    #[case("example.com", "example.com.", true)]
    #[case("example.com", "www.example.com", false)]
    #[case("example.com", "example.com.evil", false)]
    #[case("*.example.com", "a.b.example.com", true)]
    #[case("*.example.com", "example.com", false)]
    #[case("*.example.com", "evilexample.com", false)]
    #[case("*", "anything", true)]
    #[case("10.0.0.*", "10.0.0.7", true)]
    #[case("fd00:*", "fd00::1", true)]
    #[case("[::1]", "::1", true)]
    #[case("a*a", "a", false)]
    fn a_pattern(#[case] glob: &str, #[case] host: &str, #[case] matches: bool) {
        assert_eq!(glob.parse::<HostGlob>().unwrap().matches(host), matches);
    }

    #[rstest]
    #[case("")]
    #[case("https://example.com")]
    #[case("example.com/x")]
    #[case("a b")]
    fn a_pattern_that_never_matches_is_refused(#[case] glob: &str) {
        assert!(glob.parse::<HostGlob>().is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]

        #[test]
        fn matches_like_a_regular_expression(glob in "[ab.*]{1,8}", host in "[ab.]{1,10}") {
            if let Ok(glob) = glob.parse::<HostGlob>() {
                let regex = format!("^{}$", regex::escape(&glob.0).replace("\\*", ".*"));
                let regex = Regex::new(&regex).unwrap();
                prop_assert_eq!(glob.matches(&host), regex.is_match(&plain(&host)), "{} {}", glob, host);
            }
        }
    }
}
