//! `Hosts`: what all sources of one host share: how many may ask at once, how fast, and the wait that it asked for.
//!
//! ```text
//!  enter(host) ─▶ held? ─▶ Error::Held, at once (no worker sleeps on it)
//!             └─▶ place (semaphore) ─▶ pace (token bucket) ─▶ Permit, given back on drop
//!  429/503 with Retry-After ─▶ hold(host, wait)
//! ```
//!
//! Invariants: a future that is dropped leaves nothing behind; the table is bounded by the hosts that are in use, held or
//! paced, plus a constant; a hold is never made shorter by a later answer.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep_until},
};

use crate::{
    error::{Error, Result},
    settings::{Pace, Settings},
};

/// Entries above which those that say nothing are dropped.
const KEPT: usize = 1024;

/// What all sources of one host share. Clones are the same table.
#[derive(Debug, Clone)]
pub struct Hosts {
    table: Arc<Mutex<HashMap<String, Host>>>,
    places: usize,
    pace: Option<Pace>,
    longest: Duration,
}

#[derive(Debug)]
struct Host {
    places: Arc<Semaphore>,
    held: Option<Instant>,
    /// When a full bucket would be full again (the theoretical arrival time of the generic cell rate algorithm).
    full: Option<Instant>,
}

impl Host {
    fn says_nothing(&self, places: usize, now: Instant) -> bool {
        Arc::strong_count(&self.places) == 1
            && self.places.available_permits() == places
            && self.held.is_none_or(|until| until <= now)
            && self.full.is_none_or(|at| at <= now)
    }
}

/// A place at a host. Dropping it gives the place to the next in line.
#[derive(Debug)]
#[must_use = "the place is given back when this is dropped"]
pub struct Permit {
    _place: OwnedSemaphorePermit,
}

impl Hosts {
    /// A table with the limits of these settings.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Self {
            table: Arc::default(),
            places: usize::try_from(settings.max_connections_per_host.max(1)).unwrap_or(usize::MAX),
            pace: settings.pace,
            longest: settings.longest_hold,
        }
    }

    /// Wait for a place at `host:port`, first come first served.
    ///
    /// # Errors
    /// [`Error::Held`] at once if the host asked to be left alone; also if it asked for that while we stood in line.
    pub async fn enter(&self, host: &str) -> Result<Permit> {
        self.check(host)?;
        let place = self
            .with(host, |host| host.places.clone())
            .acquire_owned()
            .await
            .map_err(|_| Error::Request {
                what: "the gate of its host is closed".to_owned(),
            })?;
        self.check(host)?;
        if let Some(turn) = self.turn(host) {
            sleep_until(turn).await;
        }
        Ok(Permit { _place: place })
    }

    /// Leave a host alone for a while, at most for the configured longest wait. For what the client cannot know, such as a
    /// rate limit that an answer's body or `X-RateLimit-Reset` speaks of; `Retry-After` of 429 and 503 is applied by itself.
    pub fn hold(&self, host: &str, wait: Duration) {
        let until = Instant::now() + wait.min(self.longest);
        self.with(host, |host| host.held = host.held.max(Some(until)));
    }

    /// How long a host still wants to be left alone.
    #[must_use]
    pub fn held(&self, host: &str) -> Option<Duration> {
        let now = Instant::now();
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = table.get(host)?.held?.saturating_duration_since(now);
        (!wait.is_zero()).then_some(wait)
    }

    fn check(&self, host: &str) -> Result<()> {
        match self.held(host) {
            None => Ok(()),
            Some(wait) => Err(Error::Held {
                host: host.to_owned(),
                wait,
            }),
        }
    }

    /// Take a token; when it may be used, if not at once.
    fn turn(&self, host: &str) -> Option<Instant> {
        let pace = self.pace?;
        let each = Duration::from_mins(1) / pace.per_minute.get();
        let now = Instant::now();
        self.with(host, |host| {
            let full = host.full.unwrap_or(now).max(now) + each;
            host.full = Some(full);
            full.checked_sub(each * pace.burst.get()).filter(|turn| *turn > now)
        })
    }

    fn with<T>(&self, host: &str, act: impl FnOnce(&mut Host) -> T) -> T {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if table.len() >= KEPT && !table.contains_key(host) {
            let now = Instant::now();
            table.retain(|_, host| !host.says_nothing(self.places, now));
        }
        act(table.entry(host.to_owned()).or_insert_with(|| Host {
            places: Arc::new(Semaphore::new(self.places)),
            held: None,
            full: None,
        }))
    }
}

/// `Retry-After` as a wait from now: seconds, or a date seen against the answer's own `Date` if it has one, so that a
/// wrong clock here or there does not matter (RFC 9110, 10.2.3).
pub(crate) fn retry_after(value: &str, date: Option<&str>) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let then = httpdate::parse_http_date(value).ok()?;
    let now = date
        .and_then(|date| httpdate::parse_http_date(date).ok())
        .unwrap_or_else(std::time::SystemTime::now);
    Some(then.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn hosts(places: u32) -> Hosts {
        Hosts::new(&Settings {
            max_connections_per_host: places,
            ..Settings::default()
        })
    }

    #[rstest]
    #[case::seconds("120", None, Some(120))]
    #[case::spaces(" 7 ", None, Some(7))]
    #[case::date("Fri, 31 Dec 1999 23:59:59 GMT", Some("Fri, 31 Dec 1999 23:59:00 GMT"), Some(59))]
    #[case::past("Fri, 31 Dec 1999 23:59:59 GMT", Some("Sat, 01 Jan 2000 00:00:00 GMT"), Some(0))]
    #[case::past_by_our_clock("Fri, 31 Dec 1999 23:59:59 GMT", None, Some(0))]
    #[case::negative("-5", None, None)]
    #[case::words("soon", None, None)]
    #[case::empty("", None, None)]
    fn reads_retry_after(#[case] value: &str, #[case] date: Option<&str>, #[case] seconds: Option<u64>) {
        assert_eq!(retry_after(value, date), seconds.map(Duration::from_secs));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn any_retry_after_is_read_without_a_panic(value in "\\PC{0,40}", date in proptest::option::of("\\PC{0,40}")) {
            let _ = retry_after(&value, date.as_deref());
        }
    }

    #[tokio::test]
    async fn a_hold_is_shared_and_ends() {
        let hosts = hosts(2);
        let other = hosts.clone();
        hosts.hold("a:443", Duration::from_secs(30));
        hosts.hold("a:443", Duration::from_secs(5));
        assert!(matches!(other.enter("a:443").await, Err(Error::Held { wait, .. }) if wait > Duration::from_secs(6)));
        assert!(other.enter("b:443").await.is_ok());
        hosts.hold("c:443", Duration::from_millis(20));
        while other.enter("c:443").await.is_err() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_hold_has_a_bound() {
        let hosts = hosts(2);
        hosts.hold("a:443", Duration::from_secs(u64::MAX / 4));
        assert!(hosts.held("a:443").unwrap() <= Duration::from_hours(1));
    }

    #[tokio::test]
    async fn those_in_line_hear_of_a_hold() {
        let hosts = hosts(1);
        let first = hosts.enter("a:443").await.unwrap();
        let line = tokio::spawn({
            let hosts = hosts.clone();
            async move { hosts.enter("a:443").await }
        });
        tokio::task::yield_now().await;
        hosts.hold("a:443", Duration::from_secs(9));
        drop(first);
        assert!(matches!(line.await.unwrap(), Err(Error::Held { .. })));
    }

    #[tokio::test]
    async fn one_that_gives_up_in_line_leaves_its_place() {
        let hosts = hosts(1);
        let first = hosts.enter("a:443").await.unwrap();
        let line = tokio::spawn({
            let hosts = hosts.clone();
            async move { hosts.enter("a:443").await.map(drop) }
        });
        tokio::task::yield_now().await;
        line.abort();
        let _ = line.await;
        drop(first);
        assert!(hosts.enter("a:443").await.is_ok());
    }

    #[tokio::test]
    async fn the_bucket_lets_a_burst_through_and_then_one_at_a_time() {
        let hosts = Hosts::new(&Settings {
            pace: Some(Pace {
                per_minute: 600.try_into().unwrap(),
                burst: 3.try_into().unwrap(),
            }),
            ..Settings::default()
        });
        let start = Instant::now();
        for _ in 0..3 {
            let _ = hosts.enter("a:443").await.unwrap();
        }
        for _ in 0..4 {
            let _ = hosts.enter("a:443").await.unwrap();
        }
        // Seven at ten a second, three of them at once: none of the other four before its turn.
        assert!(start.elapsed() >= Duration::from_millis(390), "{:?}", start.elapsed());
    }

    #[tokio::test]
    async fn the_table_does_not_grow() {
        let hosts = hosts(1);
        for n in 0..10 * KEPT {
            let _ = hosts.enter(&format!("{n}:443")).await.unwrap();
        }
        assert!(hosts.table.lock().unwrap().len() <= KEPT);
    }
}
