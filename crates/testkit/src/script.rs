//! `Script`: the one engine for faults, shared by the layer and the proxy.
//!
//! request ─▶ rules in order (delays add up, the first other fault decides) ─▶ server ─▶ crash point ─▶ answer
//!
//! Invariants: a rule counts the calls that match it, whether an earlier rule took them or not; after the crash point
//! no answer leaves and no request enters until [`Script::revive`].

mod calls;
mod fault;

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::{oneshot, watch};

pub(crate) use self::fault::Kind;
pub use self::{
    calls::{Calls, Chosen, calls},
    fault::{Fault, Gate, WatchEnd},
};
use crate::{lock, request::RequestInfo};

/// Some calls and the fault that they meet: `calls().verb(Verb::Patch).resource("services").first(2).then(Fault::fail(500))`.
#[derive(Clone, Debug)]
pub struct Rule {
    chosen: Chosen,
    fault: Fault,
}

/// Ordered rules, and at most one crash point. Clones share everything.
#[derive(Clone, Debug, Default)]
pub struct Script {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    rules: Mutex<Vec<Arc<Active>>>,
    crash: Mutex<Crash>,
    crashed: watch::Sender<bool>,
    watches: Mutex<Vec<OpenWatch>>,
}

#[derive(Debug, Default)]
struct Crash {
    point: Option<(u64, Calls)>,
    written: u64,
}

#[derive(Debug)]
struct OpenWatch {
    info: RequestInfo,
    end: oneshot::Sender<WatchEnd>,
}

#[derive(Debug)]
struct Active {
    rule: Rule,
    seen: AtomicU64,
    hits: AtomicU64,
}

/// A rule in force: how often it was hit, and the way to take it back.
#[derive(Clone, Debug)]
pub struct InForce {
    active: Arc<Active>,
    script: Script,
}

impl InForce {
    /// How many calls have met the fault.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.active.hits.load(Ordering::SeqCst)
    }

    /// Takes the rule out of its script.
    pub fn lift(&self) {
        lock(&self.script.inner.rules).retain(|active| !Arc::ptr_eq(active, &self.active));
    }
}

/// What the rules say about one request.
#[derive(Debug, Default)]
pub(crate) struct Decision {
    pub(crate) delays: Vec<Kind>,
    pub(crate) fault: Option<Kind>,
}

impl Script {
    /// A script without rules: everything passes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a rule after the others.
    #[must_use]
    pub fn with(self, rule: Rule) -> Self {
        self.add(rule);
        self
    }

    /// Adds a rule after the others, also while calls run.
    #[expect(
        clippy::must_use_candidate,
        reason = "the rule is in force whether or not it will be lifted"
    )]
    pub fn add(&self, rule: Rule) -> InForce {
        let active = Arc::new(Active {
            rule,
            seen: AtomicU64::new(0),
            hits: AtomicU64::new(0),
        });
        lock(&self.inner.rules).push(Arc::clone(&active));
        InForce {
            active,
            script: self.clone(),
        }
    }

    /// Takes every rule out; the crash point stays.
    pub fn clear(&self) {
        lock(&self.inner.rules).clear();
    }

    /// Crash once the server has answered the `k`-th successful write of the operator's work ([`Calls::work`]: no
    /// Leases, no Events). The answer is withheld and [`crashed`](Self::crashed) resolves; nothing later passes.
    #[must_use]
    pub fn crash_after_write(self, k: u64) -> Self {
        self.crash_after(k, calls().work())
    }

    /// [`crash_after_write`](Self::crash_after_write) that counts the successful ones of `counted`.
    #[must_use]
    pub fn crash_after(self, k: u64, counted: Calls) -> Self {
        *lock(&self.inner.crash) = Crash {
            point: Some((k, counted)),
            written: 0,
        };
        self
    }

    /// How many counted writes the server has answered since the crash point was set.
    #[must_use]
    pub fn written(&self) -> u64 {
        lock(&self.inner.crash).written
    }

    /// Whether the crash point has been passed.
    #[must_use]
    pub fn is_crashed(&self) -> bool {
        *self.inner.crashed.borrow()
    }

    /// Waits for the crash point. In a test of the binary, kill the process here.
    pub async fn crashed(&self) {
        // The sender is ours, so the wait cannot end by its loss.
        let _ = self.inner.crashed.subscribe().wait_for(|crashed| *crashed).await;
    }

    /// Calls pass again, for the task that starts after a crash. The crash point is used up.
    ///
    /// A binary that starts again gets a new proxy with a new script instead: then nothing that the dead process left in
    /// a socket can pass late.
    pub fn revive(&self) {
        lock(&self.inner.crash).point = None;
        self.inner.crashed.send_replace(false);
    }

    /// Ends every open watch among `which`; returns how many there were.
    #[expect(
        clippy::must_use_candidate,
        reason = "the watches end whether or not they are counted"
    )]
    pub fn end_watches(&self, which: &Calls, end: WatchEnd) -> usize {
        let mut watches = lock(&self.inner.watches);
        let (ended, open): (Vec<_>, Vec<_>) = std::mem::take(&mut *watches)
            .into_iter()
            .partition(|watch| which.matches(&watch.info));
        *watches = open;
        // A stream that has just ended on its own no longer listens; it is not counted.
        ended.into_iter().filter_map(|watch| watch.end.send(end).ok()).count()
    }

    /// How many watches among `which` are open.
    #[must_use]
    pub fn open_watches(&self, which: &Calls) -> usize {
        let watches = lock(&self.inner.watches);
        watches
            .iter()
            .filter(|watch| !watch.end.is_closed() && which.matches(&watch.info))
            .count()
    }

    pub(crate) fn decide(&self, info: &RequestInfo) -> Decision {
        let mut decision = Decision::default();
        for active in lock(&self.inner.rules)
            .iter()
            .filter(|active| active.rule.chosen.calls.matches(info))
        {
            let seen = active.seen.fetch_add(1, Ordering::SeqCst) + 1;
            if decision.fault.is_some() || !active.rule.chosen.which.takes(seen) {
                continue;
            }
            active.hits.fetch_add(1, Ordering::SeqCst);
            match active.rule.fault.0.clone() {
                delay @ (Kind::Delay(_) | Kind::Hold(_)) => decision.delays.push(delay),
                fault => decision.fault = Some(fault),
            }
        }
        decision
    }

    /// Notes that the server has answered. True when the answer must not leave.
    pub(crate) fn answered(&self, info: &RequestInfo, success: bool) -> bool {
        let mut crash = lock(&self.inner.crash);
        if self.is_crashed() {
            return true;
        }
        let Some((k, counted)) = &crash.point else { return false };
        if !success || !counted.matches(info) {
            return false;
        }
        let last = crash.written + 1 >= *k;
        crash.written += 1;
        if last {
            self.inner.crashed.send_replace(true);
            drop(crash);
            self.end_watches(&calls(), WatchEnd::Cut);
        }
        last
    }

    /// Registers an open watch; the receiver tells it to end.
    pub(crate) fn opened(&self, info: &RequestInfo) -> oneshot::Receiver<WatchEnd> {
        let (end, ended) = oneshot::channel();
        let mut watches = lock(&self.inner.watches);
        watches.retain(|watch| !watch.end.is_closed());
        watches.push(OpenWatch {
            info: info.clone(),
            end,
        });
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Verb;
    use http::Method;

    fn patch(resource: &str) -> RequestInfo {
        RequestInfo::of(
            &Method::PATCH,
            &format!("/api/v1/namespaces/a/{resource}/web").parse().unwrap(),
            &[],
        )
    }

    fn hits(rule: Rule) -> Vec<bool> {
        let script = Script::new().with(rule);
        (0..6)
            .map(|_| script.decide(&patch("services")).fault.is_some())
            .collect()
    }

    #[test]
    fn chooses_by_order_of_arrival() {
        let services = || calls().verb(Verb::Patch).resource("services");
        assert_eq!(
            hits(services().nth(2).then(Fault::conflict())),
            [false, true, false, false, false, false]
        );
        assert_eq!(
            hits(services().first(2).then(Fault::conflict())),
            [true, true, false, false, false, false]
        );
        assert_eq!(
            hits(services().every(3).then(Fault::conflict())),
            [false, false, true, false, false, true]
        );
        assert_eq!(hits(services().then(Fault::hang())), [true; 6]);
        assert_eq!(hits(calls().verb(Verb::Get).then(Fault::hang())), [false; 6]);
        assert_eq!(hits(services().name("other").then(Fault::hang())), [false; 6]);
    }

    #[test]
    fn the_first_fault_decides_and_delays_add_up() {
        let script = Script::new()
            .with(calls().then(Fault::hold(&Gate::new())))
            .with(calls().first(1).then(Fault::fail(500)))
            .with(calls().then(Fault::cut_before()));
        let first = script.decide(&patch("services"));
        assert!(matches!(first.fault, Some(Kind::Fail { code: 500, .. })));
        assert_eq!(first.delays.len(), 1);
        assert!(matches!(script.decide(&patch("services")).fault, Some(Kind::CutBefore)));
    }

    #[test]
    fn a_rule_can_be_lifted() {
        let script = Script::new();
        let cut = script.add(calls().then(Fault::cut_before()));
        assert!(script.decide(&patch("services")).fault.is_some());
        cut.lift();
        assert!(script.decide(&patch("services")).fault.is_none());
        assert_eq!(cut.hits(), 1);
    }

    #[test]
    fn the_crash_counts_successful_work_only() {
        let script = Script::new().crash_after_write(2);
        assert!(!script.answered(&patch("services"), true));
        assert!(!script.answered(&patch("services"), false));
        assert!(!script.answered(&patch("leases"), true));
        assert!(!script.answered(&patch("events"), true));
        assert!(script.answered(&patch("services/status"), true));
        assert!(script.is_crashed());
        assert!(
            script.answered(&patch("leases"), true),
            "nothing passes after the crash"
        );
        assert_eq!(script.written(), 2);
        script.revive();
        assert!(!script.answered(&patch("services"), true));
    }
}
