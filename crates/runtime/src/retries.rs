//! When an object that failed is tried again: 1 s to 5 min, exponential with jitter, as its server asks at least.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use backon::BackoffBuilder as _;

use crate::index::Key;

const FIRST: Duration = Duration::from_secs(1);
const LAST: Duration = Duration::from_mins(5);

/// The failures in a row of each object.
#[derive(Debug, Default)]
pub(crate) struct Retries {
    of: Mutex<HashMap<Key, Failing>>,
}

/// An object whose last try failed.
#[derive(Debug)]
struct Failing {
    delays: backon::ExponentialBackoff,
    until: Instant,
    /// The version that the last try ended with; none when something else that matters has changed since.
    version: Option<String>,
}

impl Retries {
    /// The delay before the next try. `version` is what the try left the object in, `asked` what the server wants to
    /// have waited.
    pub(crate) fn failed(&self, key: &Key, version: Option<String>, asked: Option<Duration>) -> Duration {
        let mut failing = self.lock();
        let failing = failing.entry(key.clone()).or_insert_with(|| Failing {
            delays: delays(),
            until: Instant::now(),
            version: None,
        });
        let delay = failing.delays.next().unwrap_or(LAST);
        let delay = asked.map_or(delay, |asked| delay.max(asked)).min(LAST);
        failing.until = Instant::now() + delay;
        failing.version = version;
        delay
    }

    /// Something that the object depends on has changed: its next try need not wait.
    pub(crate) fn hurry(&self, key: &Key) {
        if let Some(failing) = self.lock().get_mut(key) {
            failing.version = None;
        }
    }

    /// How long an object that has failed still rests, if this version of it is what the last try left behind: the
    /// watch shows us our own writes, and they are no reason to try earlier.
    pub(crate) fn rests(&self, key: &Key, version: Option<&str>) -> Option<Duration> {
        let failing = self.lock();
        let failing = failing.get(key)?;
        let same = version.is_some() && failing.version.as_deref() == version;
        let left = failing.until.saturating_duration_since(Instant::now());
        (same && !left.is_zero()).then_some(left)
    }

    /// The object succeeded, or is gone.
    pub(crate) fn forget(&self, key: &Key) {
        self.lock().remove(key);
    }

    /// Whether the last try failed.
    pub(crate) fn has_failed(&self, key: &Key) -> bool {
        self.lock().contains_key(key)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Failing>> {
        self.of.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn delays() -> backon::ExponentialBackoff {
    backon::ExponentialBuilder::default()
        .with_min_delay(FIRST)
        .with_max_delay(LAST)
        .with_jitter()
        .without_max_times()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_within_their_bounds_and_start_anew_after_success() {
        let retries = Retries::default();
        let key = Key {
            namespace: None,
            name: "x".into(),
        };
        assert!(!retries.has_failed(&key));
        let delays: Vec<_> = (0..40).map(|_| retries.failed(&key, None, None)).collect();
        assert!(delays.iter().all(|delay| (FIRST..=LAST).contains(delay)), "{delays:?}");
        assert!(delays[0] < Duration::from_secs(3));
        assert_eq!(delays.last(), Some(&LAST));
        retries.forget(&key);
        assert!(!retries.has_failed(&key));
        assert!(retries.failed(&key, None, None) < Duration::from_secs(3));
    }

    #[test]
    fn an_object_rests_until_it_or_what_it_depends_on_is_another() {
        let retries = Retries::default();
        let key = Key {
            namespace: None,
            name: "x".into(),
        };
        let delay = retries.failed(&key, Some("2".into()), None);
        assert!(retries.rests(&key, Some("2")).is_some_and(|left| left <= delay));
        assert_eq!(retries.rests(&key, Some("3")), None);
        retries.hurry(&key);
        assert_eq!(retries.rests(&key, Some("2")), None);
        retries.failed(&key, Some("3".into()), None);
        assert!(retries.rests(&key, Some("3")).is_some());
        retries.forget(&key);
        assert_eq!(retries.rests(&key, Some("3")), None);
    }

    #[test]
    fn what_the_server_asks_for_counts_up_to_the_longest_delay() {
        let retries = Retries::default();
        let key = Key {
            namespace: None,
            name: "x".into(),
        };
        assert_eq!(
            retries.failed(&key, None, Some(Duration::from_secs(30))),
            Duration::from_secs(30)
        );
        assert_eq!(retries.failed(&key, None, Some(Duration::from_hours(1))), LAST);
    }
}
