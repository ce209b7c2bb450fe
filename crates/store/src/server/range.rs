//! Which part of a file a request wants: `Range` of RFC 9110, section 14.
//!
//! ```text
//!  bytes=0-99 ─▶ Part(0..100)    bytes=-5 ─▶ the last five    bytes=9999- ─▶ Unsatisfiable    else ─▶ Whole
//! ```
//!
//! Invariants: what is not understood is ignored, as section 14.2 allows: other units, faulty ranges, and more than
//! one, for which the whole file is as good an answer.

use std::ops::Range;

/// What of the file is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    Whole,
    Part(Range<u64>),
    Unsatisfiable,
}

/// Reads the value of a `Range` header for a file of that size.
pub(super) fn wanted(header: &str, size: u64) -> Wanted {
    let Some((unit, set)) = header.split_once('=') else {
        return Wanted::Whole;
    };
    if !unit.trim().eq_ignore_ascii_case("bytes") || set.contains(',') {
        return Wanted::Whole;
    }
    let Some((first, last)) = set.trim().split_once('-') else {
        return Wanted::Whole;
    };
    let (range, understood) = match (position(first), position(last)) {
        (Some(first), Some(last)) => (first..last.saturating_add(1).min(size), first <= last),
        (Some(first), None) => (first..size, last.is_empty()),
        (None, Some(length)) => (size.saturating_sub(length)..size, first.is_empty()),
        (None, None) => (0..0, false),
    };
    if !understood {
        Wanted::Whole
    } else if range.is_empty() {
        Wanted::Unsatisfiable
    } else {
        Wanted::Part(range)
    }
}

/// A number of digits only. One that is too large is as good as the largest: no file reaches it.
fn position(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("bytes=0-99", Wanted::Part(0..100))]
    #[case("Bytes=0-0", Wanted::Part(0..1))]
    #[case("bytes=990-", Wanted::Part(990..1000))]
    #[case("bytes=990-5000", Wanted::Part(990..1000))]
    #[case("bytes=-5", Wanted::Part(995..1000))]
    #[case("bytes=-5000", Wanted::Part(0..1000))]
    #[case("bytes=0-99999999999999999999999", Wanted::Part(0..1000))]
    #[case("bytes=1000-", Wanted::Unsatisfiable)]
    #[case("bytes=1000-1001", Wanted::Unsatisfiable)]
    #[case("bytes=99999999999999999999999-", Wanted::Unsatisfiable)]
    #[case("bytes=-0", Wanted::Unsatisfiable)]
    #[case("bytes=0-1,5-6", Wanted::Whole)]
    #[case("bytes=5-1", Wanted::Whole)]
    #[case("bytes=-", Wanted::Whole)]
    #[case("bytes=a-b", Wanted::Whole)]
    #[case("bytes=+1-2", Wanted::Whole)]
    #[case("bytes=5", Wanted::Whole)]
    #[case("bytes 0-1", Wanted::Whole)]
    #[case("lines=0-1", Wanted::Whole)]
    fn ranges(#[case] header: &str, #[case] expected: Wanted) {
        assert_eq!(wanted(header, 1000), expected);
    }

    proptest! {
        #[test]
        fn a_part_is_inside_the_file(header in "(bytes=)?[0-9]{0,22}-?[0-9]{0,22}", size in 0u64..1 << 40) {
            if let Wanted::Part(range) = wanted(&header, size) {
                prop_assert!(range.start < range.end && range.end <= size);
            }
        }
    }
}
