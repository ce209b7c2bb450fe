//! `Interval`: how often upstream is asked (`spec.interval`).
//!
//! Invariant: never shorter than [`MINIMUM`]; a shorter one is raised, and the note says so.

use std::time::Duration;

use trellis_core::Refusal;

use crate::{failure::Chance, reason::Reason};

/// The shortest interval. Manifests with shorter ones exist, so they are raised rather than refused.
pub const MINIMUM: Duration = Duration::from_mins(1);
/// The longest that is read; longer ones overflow what schedules them.
pub const MAXIMUM: Duration = Duration::from_hours(24 * 366);
/// How far a round may be early or late, so that sources do not march in step (Flux's `--interval-jitter-percentage`).
pub const JITTER: f64 = 0.05;

/// How often upstream is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interval {
    every: Duration,
    raised: bool,
}

impl Interval {
    /// Reads the field: Go's durations without signs, as the CRD's pattern admits, such as `10m` or `1h30m`.
    ///
    /// # Errors
    /// `ConfigurationError`: not such a duration, or longer than a year.
    pub fn parse(field: &str, text: &str) -> Result<Self, Refusal> {
        let refuse = |message: String| Reason::ConfigurationError.refuse(message).field(field);
        let asked = duration(text).ok_or_else(|| {
            refuse(format!("{text:?} is no duration")).hint("write a number and a unit of ms, s, m or h, such as 10m")
        })?;
        if asked > MAXIMUM {
            return Err(refuse(format!("{text} is longer than a year")));
        }
        Ok(Self {
            every: asked.max(MINIMUM),
            raised: asked < MINIMUM,
        })
    }

    /// The time between two rounds.
    #[must_use]
    pub fn every(self) -> Duration {
        self.every
    }

    /// What the `Ready` message adds when the interval is not the one that was asked for.
    #[must_use]
    pub fn note(self) -> Option<&'static str> {
        self.raised.then_some("the interval is raised to 1m, the shortest")
    }

    /// The time until the next round: the interval, up to [`JITTER`] earlier or later, never below [`MINIMUM`].
    #[must_use]
    pub fn next(self, chance: Chance) -> Duration {
        chance.around(self.every, JITTER).max(MINIMUM)
    }
}

/// Go's durations of the units ms, s, m and h, without signs. None: not one.
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut sum = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, unit) = rest.split_at(end);
        let whole = number.split('.').all(|part| !part.is_empty()) && number.matches('.').count() <= 1;
        let number: f64 = number.parse().ok().filter(|_| whole)?;
        let (seconds, length) = match unit.as_bytes() {
            [b'm', b's', ..] => (0.001, 2),
            [b's', ..] => (1.0, 1),
            [b'm', ..] => (60.0, 1),
            [b'h', ..] => (3600.0, 1),
            _ => return None,
        };
        sum = sum.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
        rest = unit.get(length..)?;
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("1m", Some(60_000))]
    #[case("1h30m", Some(5_400_000))]
    #[case("1.5h", Some(5_400_000))]
    #[case("90s", Some(90_000))]
    #[case("500ms", Some(500))]
    #[case("1m1ms", Some(60_001))]
    #[case("0s", Some(0))]
    #[case("", None)]
    #[case("5", None)]
    #[case("m", None)]
    #[case(".5m", None)]
    #[case("5.m", None)]
    #[case("1.2.3s", None)]
    #[case("-5m", None)]
    #[case("5 m", None)]
    #[case("1d", None)]
    #[case("1m5", None)]
    fn gos_durations(#[case] text: &str, #[case] milliseconds: Option<u64>) {
        assert_eq!(duration(text), milliseconds.map(Duration::from_millis));
    }

    #[rstest]
    #[case("30s", 60, true)]
    #[case("0s", 60, true)]
    #[case("1m", 60, false)]
    #[case("10m", 600, false)]
    fn short_intervals_are_raised_and_say_so(#[case] text: &str, #[case] seconds: u64, #[case] noted: bool) {
        let interval = Interval::parse("spec.interval", text).unwrap();
        assert_eq!(
            (interval.every().as_secs(), interval.note().is_some()),
            (seconds, noted)
        );
    }

    #[rstest]
    #[case("soon")]
    #[case("99999999999999999999999h")]
    #[case("9000h")]
    fn others_are_refused(#[case] text: &str) {
        assert!(Interval::parse("spec.interval", text).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn the_next_round_is_near(minutes in 1_u64..10_000, chance in 0.0_f64..1.0) {
            let interval = Interval::parse("f", &format!("{minutes}m")).unwrap();
            let next = interval.next(Chance::new(chance));
            let share = next.as_secs_f64() / interval.every().as_secs_f64();
            prop_assert!(next >= MINIMUM && (0.95 - 1e-9..=1.05 + 1e-9).contains(&share), "{}", share);
        }
    }
}
