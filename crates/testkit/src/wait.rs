//! Waiting for a condition, never for a time: `eventually`, and `rest` for the absence of writes.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

use tokio::time::{MissedTickBehavior, interval};

use crate::audit::{Audit, AuditError, Event};

/// How long [`eventually`] waits before it gives up.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// How often a condition without a watch is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Looks until `check` is `Ok`, and returns what it found. `Err` says what the state is now.
///
/// # Panics
/// After [`PATIENCE`], with `what` and the last state.
pub async fn eventually<T, E: Display>(what: &str, check: impl AsyncFnMut() -> Result<T, E>) -> T {
    eventually_within(PATIENCE, what, check).await
}

/// [`eventually`] with its own limit.
///
/// # Panics
/// After `limit`, with `what` and the last state.
#[expect(clippy::panic, reason = "a test's assertion")]
pub async fn eventually_within<T, E: Display>(
    limit: Duration,
    what: &str,
    mut check: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let began = Instant::now();
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = String::from("the first look did not end");
    loop {
        look.tick().await;
        // A look that hangs must not outlive the limit.
        let left = limit.saturating_sub(began.elapsed());
        let Ok(found) = tokio::time::timeout(left, check()).await else {
            panic!("{what}: not within {limit:?}; last state: {last}");
        };
        match found {
            Ok(found) => return found,
            Err(state) => last = state.to_string(),
        }
    }
}

/// Waits until the API server has seen no event that `counts` for `quiet` on end.
///
/// # Panics
/// When there is no such rest within `quiet` + [`PATIENCE`], with the last events that count.
pub async fn rest(audit: &Audit, quiet: Duration, counts: impl Fn(&Event) -> bool) -> Result<(), AuditError> {
    let mut tail = audit.tail(audit.mark()?);
    let began = Instant::now();
    let mut since = began;
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last: Vec<String> = Vec::new();
    loop {
        look.tick().await;
        let busy: Vec<String> = tail
            .read()?
            .iter()
            .filter(|event| counts(event))
            .map(ToString::to_string)
            .collect();
        if !busy.is_empty() {
            since = Instant::now();
            last = busy;
        } else if since.elapsed() >= quiet {
            return Ok(());
        }
        assert!(
            began.elapsed() <= quiet + PATIENCE,
            "no rest of {quiet:?} within {:?}; last: {}",
            began.elapsed(),
            last.join("; ")
        );
    }
}
