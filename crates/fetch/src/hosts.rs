//! `Hosts`: what all sources of one host share: how many may ask at once, how fast, and the wait that it asked for.
//!
//! ```text
//!  enter(host) ─▶ held? ─▶ Error::Held, at once (no worker sleeps on it)
//!             └─▶ place (semaphore) ─▶ pace (token bucket) ─▶ Permit, given back on drop
//!  429/503 with Retry-After ─▶ hold(host, party, wait): for those who ask with the same credentials, for the same tenant
//! ```
//!
//! Invariants: a future that is dropped leaves nothing behind; the table is bounded by the hosts that are in use, held or
//! paced, plus a constant; a hold is never made shorter by a later answer, and holds nobody but the party that it was said to.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep_until},
};
use trellis_core::digest::{Digest, Hasher};

use crate::{
    error::{Error, Hints, Result},
    settings::{Pace, Settings},
};

/// Entries above which those that say nothing are dropped.
const KEPT: usize = 1024;

/// Holds of one host that are kept; above it, the one that ends first goes.
const HOLDS: usize = 256;

/// Whom a host speaks to when it asks for patience: everyone who asks it in the same name. One tenant's limit is no other's, and
/// neither is that of another token; who asks without credentials, for the same tenant, shares one.
///
/// A digest: what it is made of cannot be read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Party(Digest);

impl Party {
    /// Whoever has all of these in common.
    pub fn of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut digest = Hasher::default();
        for part in parts {
            digest.update(&part.len().to_le_bytes());
            digest.update(part);
        }
        Self(digest.finish())
    }
}

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
    /// Until when.
    held: HashMap<Party, Instant>,
    /// When a full bucket would be full again (the theoretical arrival time of the generic cell rate algorithm).
    full: Option<Instant>,
}

impl Host {
    fn says_nothing(&self, places: usize, now: Instant) -> bool {
        Arc::strong_count(&self.places) == 1
            && self.places.available_permits() == places
            && self.held.values().all(|until| *until <= now)
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
    /// [`Error::Held`] at once if the host asked this party to leave it alone; also if it asked for that while we stood in line.
    /// Without a party nothing is held: somebody insists.
    pub async fn enter(&self, host: &str, party: Option<&Party>) -> Result<Permit> {
        self.check(host, party)?;
        let place = self
            .with(host, |host| host.places.clone())
            .acquire_owned()
            .await
            .map_err(|_| Error::Request {
                what: "the gate of its host is closed".to_owned(),
            })?;
        self.check(host, party)?;
        if let Some(turn) = self.turn(host) {
            sleep_until(turn).await;
        }
        Ok(Permit { _place: place })
    }

    /// Leave a host alone for a while, at most for the configured longest wait. What an answer's headers ask for is applied by
    /// the client; this is for what it cannot know.
    pub fn hold(&self, host: &str, party: Party, wait: Duration) {
        let now = Instant::now();
        let until = now + wait.min(self.longest);
        self.with(host, |host| {
            host.held.retain(|_, until| *until > now);
            let known = host.held.entry(party).or_insert(until);
            *known = until.max(*known);
            if host.held.len() > HOLDS
                && let Some(first) = host.held.iter().min_by_key(|(_, until)| **until)
            {
                let first = *first.0;
                host.held.remove(&first);
            }
        });
    }

    /// How long a host still wants to be left alone by a party.
    #[must_use]
    pub fn held(&self, host: &str, party: &Party) -> Option<Duration> {
        let now = Instant::now();
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = table.get(host)?.held.get(party)?.saturating_duration_since(now);
        (!wait.is_zero()).then_some(wait)
    }

    fn check(&self, host: &str, party: Option<&Party>) -> Result<()> {
        match party.and_then(|party| self.held(host, party)) {
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
            held: HashMap::new(),
            full: None,
        }))
    }
}

/// What a client reads of an answer by itself.
pub(crate) fn patience(status: u16, hints: &Hints) -> Option<Duration> {
    let value = hints.retry_after.as_deref().filter(|_| matches!(status, 429 | 503))?;
    retry_after(value, hints.date.as_deref())
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
        let (other, us) = (hosts.clone(), Party::of([b"us".as_slice()]));
        hosts.hold("a:443", us, Duration::from_secs(30));
        hosts.hold("a:443", us, Duration::from_secs(5));
        let held = other.enter("a:443", Some(&us)).await;
        assert!(matches!(held, Err(Error::Held { wait, .. }) if wait > Duration::from_secs(6)));
        assert!(other.enter("b:443", Some(&us)).await.is_ok());
        assert!(other.enter("a:443", None).await.is_ok(), "who insists is let through");
        let them = Party::of([b"them".as_slice()]);
        assert!(
            other.enter("a:443", Some(&them)).await.is_ok(),
            "it was not said to them"
        );
        hosts.hold("c:443", us, Duration::from_millis(20));
        while other.enter("c:443", Some(&us)).await.is_err() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_hold_has_a_bound() {
        let (hosts, us) = (hosts(2), Party::of([]));
        hosts.hold("a:443", us, Duration::from_secs(u64::MAX / 4));
        assert!(hosts.held("a:443", &us).unwrap() <= Settings::default().longest_hold);
    }

    #[test]
    fn parts_are_told_apart() {
        let parties = [
            Party::of([]),
            Party::of([b"ab".as_slice()]),
            Party::of([b"a".as_slice(), b"b"]),
            Party::of([b"".as_slice(), b"ab"]),
        ];
        let different: std::collections::HashSet<_> = parties.iter().collect();
        assert_eq!(different.len(), parties.len());
    }

    #[tokio::test]
    async fn holds_of_one_host_are_bounded() {
        let hosts = hosts(1);
        let last = Party::of([b"last".as_slice()]);
        for n in 0..4 * HOLDS {
            hosts.hold("a:443", Party::of([n.to_le_bytes().as_slice()]), Duration::from_secs(9));
        }
        hosts.hold("a:443", last, Duration::from_mins(1));
        assert!(hosts.table.lock().unwrap()["a:443"].held.len() <= HOLDS);
        assert!(hosts.held("a:443", &last).is_some());
    }

    #[tokio::test]
    async fn those_in_line_hear_of_a_hold() {
        let hosts = hosts(1);
        let us = Party::of([]);
        let first = hosts.enter("a:443", Some(&us)).await.unwrap();
        let line = tokio::spawn({
            let hosts = hosts.clone();
            async move { hosts.enter("a:443", Some(&us)).await }
        });
        tokio::task::yield_now().await;
        hosts.hold("a:443", us, Duration::from_secs(9));
        drop(first);
        assert!(matches!(line.await.unwrap(), Err(Error::Held { .. })));
    }

    #[tokio::test]
    async fn one_that_gives_up_in_line_leaves_its_place() {
        let hosts = hosts(1);
        let first = hosts.enter("a:443", None).await.unwrap();
        let line = tokio::spawn({
            let hosts = hosts.clone();
            async move { hosts.enter("a:443", None).await.map(drop) }
        });
        tokio::task::yield_now().await;
        line.abort();
        let _ = line.await;
        drop(first);
        assert!(hosts.enter("a:443", None).await.is_ok());
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
            let _ = hosts.enter("a:443", None).await.unwrap();
        }
        for _ in 0..4 {
            let _ = hosts.enter("a:443", None).await.unwrap();
        }
        // Seven at ten a second, three of them at once: none of the other four before its turn.
        assert!(start.elapsed() >= Duration::from_millis(390), "{:?}", start.elapsed());
    }

    #[tokio::test]
    async fn the_table_does_not_grow() {
        let hosts = hosts(1);
        for n in 0..10 * KEPT {
            let _ = hosts.enter(&format!("{n}:443"), None).await.unwrap();
        }
        assert!(hosts.table.lock().unwrap().len() <= KEPT);
    }
}
