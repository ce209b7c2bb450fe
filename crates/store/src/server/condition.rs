//! Whether a request's conditions hold: RFC 9110, section 13.
//!
//! ```text
//!  If-Match, else If-Unmodified-Since ─ no ─▶ 412
//!  If-None-Match, else If-Modified-Since ─ no ─▶ 304
//!  If-Range ─ no ─▶ the range is ignored
//! ```
//!
//! Invariants: the order is that of section 13.2.2; tags are compared strongly but for `If-None-Match`; a date that
//! cannot be read counts as none.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{
    HeaderMap,
    header::{HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE},
};

/// What the conditions come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Proceed,
    NotModified,
    Failed,
}

/// What the file is compared by.
#[derive(Debug, Clone)]
pub(super) struct Validators {
    /// The strong entity tag, with its quotes.
    pub(super) tag: String,
    /// In whole seconds, as HTTP has them.
    pub(super) modified: SystemTime,
}

impl Validators {
    /// The tag of a file, and its time without the part of the second that HTTP cannot say.
    pub(super) fn new(tag: String, modified: SystemTime) -> Self {
        let whole = modified.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self {
            tag,
            modified: UNIX_EPOCH + Duration::from_secs(whole),
        }
    }

    /// Whether a GET or HEAD goes on.
    pub(super) fn evaluate(&self, headers: &HeaderMap) -> Outcome {
        if headers.contains_key(IF_MATCH) {
            if !self.is_listed(headers, &IF_MATCH, false) {
                return Outcome::Failed;
            }
        } else if date(headers, &IF_UNMODIFIED_SINCE).is_some_and(|date| self.modified > date) {
            return Outcome::Failed;
        }
        let unchanged = if headers.contains_key(IF_NONE_MATCH) {
            self.is_listed(headers, &IF_NONE_MATCH, true)
        } else {
            date(headers, &IF_MODIFIED_SINCE).is_some_and(|date| self.modified <= date)
        };
        if unchanged {
            Outcome::NotModified
        } else {
            Outcome::Proceed
        }
    }

    /// Whether a range may be taken: `If-Range` names this very file, or there is none.
    pub(super) fn range_holds(&self, headers: &HeaderMap) -> bool {
        let Some(value) = headers.get(IF_RANGE) else {
            return true;
        };
        value.as_bytes() == self.tag.as_bytes() || date(headers, &IF_RANGE).is_some_and(|date| date == self.modified)
    }

    fn is_listed(&self, headers: &HeaderMap, name: &HeaderName, weakly: bool) -> bool {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.trim() == "*" || tags(value).any(|(weak, tag)| tag == self.tag && (weakly || !weak)))
    }
}

/// The tags of a list, each with its quotes and whether it is weak. What follows something that is no tag is not read.
fn tags(list: &str) -> impl Iterator<Item = (bool, &str)> {
    let mut rest = list;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let weak = rest.starts_with("W/");
        let opaque = rest.strip_prefix("W/").unwrap_or(rest);
        let end = opaque.strip_prefix('"')?.find('"')? + 2;
        let (tag, after) = opaque.split_at_checked(end)?;
        rest = after;
        Some((weak, tag))
    })
}

fn date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    // More than one is no date (section 13.1.3).
    let mut values = headers.get_all(name).iter();
    let value = values.next().filter(|_| values.next().is_none())?;
    httpdate::parse_http_date(value.to_str().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use rstest::rstest;

    use super::*;

    const AT: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn validators() -> Validators {
        let modified = httpdate::parse_http_date(AT).unwrap() + Duration::from_millis(700);
        Validators::new("\"a,b\"".to_owned(), modified)
    }

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_static(value)))
            .collect()
    }

    #[rstest]
    #[case::none(&[], Outcome::Proceed)]
    #[case::match_this(&[(IF_MATCH, "\"a,b\"")], Outcome::Proceed)]
    #[case::match_any(&[(IF_MATCH, "*")], Outcome::Proceed)]
    #[case::match_among(&[(IF_MATCH, "\"x\", \"a,b\"")], Outcome::Proceed)]
    #[case::match_weak(&[(IF_MATCH, "W/\"a,b\"")], Outcome::Failed)]
    #[case::match_other(&[(IF_MATCH, "\"a\"")], Outcome::Failed)]
    #[case::match_beats_date(&[(IF_MATCH, "*"), (IF_UNMODIFIED_SINCE, BEFORE)], Outcome::Proceed)]
    #[case::unmodified(&[(IF_UNMODIFIED_SINCE, AT)], Outcome::Proceed)]
    #[case::modified(&[(IF_UNMODIFIED_SINCE, BEFORE)], Outcome::Failed)]
    #[case::none_match(&[(IF_NONE_MATCH, "\"a,b\"")], Outcome::NotModified)]
    #[case::none_match_weak(&[(IF_NONE_MATCH, "\"x\",W/\"a,b\"")], Outcome::NotModified)]
    #[case::none_match_any(&[(IF_NONE_MATCH, "*")], Outcome::NotModified)]
    #[case::none_match_other(&[(IF_NONE_MATCH, "\"b\"")], Outcome::Proceed)]
    #[case::none_match_garbage(&[(IF_NONE_MATCH, "a,b")], Outcome::Proceed)]
    #[case::none_match_beats_date(&[(IF_NONE_MATCH, "\"b\""), (IF_MODIFIED_SINCE, AFTER)], Outcome::Proceed)]
    #[case::since_then(&[(IF_MODIFIED_SINCE, AT)], Outcome::NotModified)]
    #[case::since_later(&[(IF_MODIFIED_SINCE, AFTER)], Outcome::NotModified)]
    #[case::since_before(&[(IF_MODIFIED_SINCE, BEFORE)], Outcome::Proceed)]
    #[case::since_obsolete_form(&[(IF_MODIFIED_SINCE, "Sunday, 06-Nov-94 08:49:37 GMT")], Outcome::NotModified)]
    #[case::since_garbage(&[(IF_MODIFIED_SINCE, "yesterday")], Outcome::Proceed)]
    #[case::failed_first(&[(IF_MATCH, "\"x\""), (IF_NONE_MATCH, "\"a,b\"")], Outcome::Failed)]
    fn conditions(#[case] pairs: &[(HeaderName, &'static str)], #[case] expected: Outcome) {
        assert_eq!(validators().evaluate(&headers(pairs)), expected);
    }

    #[rstest]
    #[case::none(None, true)]
    #[case::tag(Some("\"a,b\""), true)]
    #[case::weak(Some("W/\"a,b\""), false)]
    #[case::other(Some("\"b\""), false)]
    #[case::date(Some(AT), true)]
    #[case::later_is_another(Some(AFTER), false)]
    fn ranges_of_this_file(#[case] value: Option<&'static str>, #[case] expected: bool) {
        let pairs: Vec<_> = value.into_iter().map(|value| (IF_RANGE, value)).collect();
        assert_eq!(validators().range_holds(&headers(&pairs)), expected);
    }
}
