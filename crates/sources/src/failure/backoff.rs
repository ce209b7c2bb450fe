//! When something is tried again.

use std::time::Duration;

/// A number from 0 up to but not including 1, drawn by the caller.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Chance(f64);

impl Chance {
    /// A drawn number; what lies outside is taken as the nearest inside, and what is no number as one half.
    #[must_use]
    pub fn new(drawn: f64) -> Self {
        Self(if drawn.is_nan() {
            0.5
        } else {
            drawn.clamp(0.0, 1.0 - f64::EPSILON)
        })
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }

    /// A time that is up to `share` shorter or longer.
    #[must_use]
    pub fn around(self, time: Duration, share: f64) -> Duration {
        time.mul_f64((1.0 - share + 2.0 * share * self.0).max(0.0))
    }
}

/// The numbers of the backoff.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    /// Wait after the first failure (`RETRY_BASE_DELAY`). Doubles with each further one.
    pub base: Duration,
    /// Longest wait (`RETRY_MAX_DELAY`).
    pub max: Duration,
    /// How far a wait may be shorter or longer, as a share of it (`RETRY_JITTER_FACTOR`).
    pub jitter: f64,
    /// Longest wait that an upstream can ask for (`HTTP_LONGEST_HOLD`).
    pub patience: Duration,
    /// Failures in a row until it is left to the interval (`RETRY_MAX_ATTEMPTS`).
    pub attempts: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            base: Duration::from_secs(1),
            max: Duration::from_mins(5),
            jitter: 0.25,
            patience: Duration::from_mins(15),
            attempts: 10,
        }
    }
}

impl Backoff {
    /// The wait after so many failures in a row, at least one.
    #[must_use]
    pub fn delay(&self, failures: u32, chance: Chance) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let plain = self.base.saturating_mul(1_u32 << doublings).min(self.max);
        chance.around(plain, self.jitter.clamp(0.0, 1.0)).min(self.max)
    }
}

/// What follows a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Next {
    /// Another attempt after this time.
    In(Duration),
    /// Another attempt at the interval.
    AtInterval,
    /// Fast attempts are used up: `Stalled` with `MaxRetriesExceeded`, and another attempt at the interval.
    GivenUp,
    /// None until the spec, or an object that it names, changes.
    OnChange,
}
