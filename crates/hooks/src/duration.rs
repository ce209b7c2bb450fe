//! Durations as the wire format has them: Go's, such as `30s`, `1m30s` or `1.5h`.
//!
//! Follows `time.ParseDuration` for positive durations; a sign is refused, since nothing can take less than no time.

use std::time::Duration;

/// Text that is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a duration; write for example 30s, 1m30s or 500ms")]
pub struct BadDuration(pub String);

/// Units, a longer name before one that it starts with.
const UNITS: &[(&str, f64)] = &[
    ("ns", 1e-9),
    ("us", 1e-6),
    ("µs", 1e-6),
    ("μs", 1e-6),
    ("ms", 1e-3),
    ("s", 1.0),
    ("m", 60.0),
    ("h", 3600.0),
];

/// Reads a duration.
pub fn parse(text: &str) -> Result<Duration, BadDuration> {
    let bad = || BadDuration(text.chars().take(64).collect());
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let (mut rest, mut total) = (text, Duration::ZERO);
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let (number, after) = rest.split_at(digits);
        let number: f64 = number.parse().map_err(|_| bad())?;
        let (unit, seconds) = UNITS.iter().find(|(unit, _)| after.starts_with(unit)).ok_or_else(bad)?;
        let part = Duration::try_from_secs_f64(number * seconds).map_err(|_| bad())?;
        total = total.checked_add(part).ok_or_else(bad)?;
        rest = after.strip_prefix(unit).ok_or_else(bad)?;
    }
    Ok(total)
}

/// A duration as people write it: `30s`, `1m30s`, `500ms`.
#[must_use]
pub fn text(duration: Duration) -> String {
    let (seconds, millis) = (duration.as_secs(), duration.subsec_millis());
    if millis > 0 {
        return if seconds == 0 {
            format!("{millis}ms")
        } else {
            format!("{seconds}.{millis:03}s")
        };
    }
    match (seconds / 60, seconds % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, 0) => format!("{minutes}m"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("30s", 30_000)]
    #[case("1m30s", 90_000)]
    #[case("1.5h", 5_400_000)]
    #[case("500ms", 500)]
    #[case("1500us", 1)]
    #[case("0", 0)]
    #[case("0s", 0)]
    fn durations_are_read_as_go_reads_them(#[case] text: &str, #[case] millis: u128) {
        assert_eq!(parse(text).unwrap().as_millis(), millis);
    }

    #[rstest]
    #[case("")]
    #[case("30")]
    #[case("s")]
    #[case("-1s")]
    #[case("1 s")]
    #[case("1..5s")]
    #[case("1d")]
    #[case("99999999999999999999999h")]
    fn other_text_is_refused(#[case] text: &str) {
        assert_eq!(parse(text), Err(BadDuration(text.to_owned())));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn what_is_shown_is_read_back(millis in 0_u64..10_000_000) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse(&text(duration)).unwrap(), duration);
        }
    }
}
