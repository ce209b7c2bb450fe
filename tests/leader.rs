//! Several replicas and one Lease: whatever happens to the leader, only the holder writes, and soon there is another.
//!
//! ```text
//!  load (policies change all the time) ─▶ replicas a b c ─▶ proxies ─▶ API server ─▶ audit log ─▶ verdict
//!  disturbances: SIGKILL, SIGSTOP/SIGCONT, cut, silence, ──┘
//!  wall clocks that are an hour off and jump
//! ```
//!
//! The verdict comes from the audit log alone: who wrote (each replica has an account of its own) and who held the Lease
//! when it arrived. Whatever stores something counts, Events as well; only the Lease itself is excepted.
//! `TRELLIS_PROVE=1` makes it long; `TRELLIS_CASES` says how many disturbances, `TRELLIS_SEED` repeats a run.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

#[path = "leader/chance.rs"]
mod chance;
#[path = "leader/clock.rs"]
mod clock;
#[path = "leader/load.rs"]
mod load;
#[path = "leader/replicas.rs"]
mod replicas;

use std::{
    env,
    time::{Duration, Instant},
};

use jiff::SignedDuration;
use trellis_testkit::{
    audit::{LeaseHistory, Mark, no_write_by_non_holder},
    calls, eventually,
    operator::Signal,
    plane::Shared,
};

use chance::Chance;
use load::Load;
use replicas::Replicas;

static PLANE: Shared = trellis_tests::operator_plane();

/// What the product promises.
const TAKEOVER: SignedDuration = SignedDuration::from_secs(15);

fn prove() -> bool {
    env::var_os("TRELLIS_PROVE").is_some()
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|text| text.parse().unwrap())
}

/// What happens to a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disturbance {
    /// SIGKILL of the leader; another one starts in its place.
    Kill,
    /// SIGSTOP of the leader until somebody else leads, then SIGCONT: it wakes up in the middle of its work.
    Freeze,
    /// SIGSTOP and SIGCONT of the leader at once: it may go on.
    Hiccup,
    /// The leader's connections break and new ones fail, until somebody else leads.
    Cut,
    /// The leader's requests are never answered, until somebody else leads.
    Silence,
    /// SIGKILL of a standby; another one starts in its place.
    KillStandby,
    /// SIGTERM of the leader: it gives the Lease back.
    Stop,
}

const DISTURBANCES: [Disturbance; 7] = [
    Disturbance::Kill,
    Disturbance::Freeze,
    Disturbance::Cut,
    Disturbance::Silence,
    Disturbance::Hiccup,
    Disturbance::KillStandby,
    Disturbance::Stop,
];

async fn disturb(replicas: &mut Replicas, disturbance: Disturbance, chance: &mut Chance) {
    let leader = replicas.leader().await;
    match disturbance {
        Disturbance::Kill => {
            replicas.kill(leader).await;
            replicas.replace(leader).await;
        }
        Disturbance::KillStandby => {
            let count = replicas.count();
            let standby = (leader + 1 + chance.below(count - 1)) % count;
            replicas.kill(standby).await;
            replicas.replace(standby).await;
        }
        Disturbance::Stop => {
            replicas.stop(leader).await;
            replicas.replace(leader).await;
        }
        Disturbance::Freeze => {
            replicas.at(leader).operator.pause().await;
            replicas.another_than(leader).await;
            replicas.at(leader).operator.resume().await;
        }
        Disturbance::Hiccup => {
            replicas.at(leader).operator.pause().await;
            replicas.at(leader).operator.resume().await;
        }
        Disturbance::Cut | Disturbance::Silence => {
            let lift = replicas.cut(leader, disturbance == Disturbance::Silence);
            replicas.another_than(leader).await;
            lift.lift();
        }
    }
}

/// What the audit log says about the Lease of these replicas.
struct Verdict {
    gaps: Vec<SignedDuration>,
    /// How far the holders' clocks were from the API server's, at most.
    off: SignedDuration,
    writes: usize,
    writers: usize,
}

/// Fails on a write by anybody but the holder, and on a takeover that took too long.
async fn judge(replicas: &Replicas, since: Mark) -> Verdict {
    let events = PLANE.get().await.unwrap().audit().since(since).unwrap();
    let history = LeaseHistory::of(&events, trellis_tests::NAMESPACE, replicas.lease());
    let work: Vec<_> = events
        .into_iter()
        .filter(|event| {
            let account = replicas.of_account(&event.user.username);
            // What a replica says of itself is what its account says.
            assert!(
                account.is_none() || account == event.identity(),
                "{event} {:?}",
                event.user
            );
            account.is_some()
        })
        .filter(|event| calls().writes().except("leases").matches(&event.info()))
        .collect();
    let violations: Vec<String> = no_write_by_non_holder(&work, &history)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(violations.is_empty(), "{}", violations.join("\n"));
    let takeovers = history.takeovers();
    for takeover in &takeovers {
        assert!(takeover.gap() < TAKEOVER, "{takeover:?}: {:?}", takeover.gap());
    }
    let mut writers: Vec<&str> = work.iter().filter_map(|event| event.identity()).collect();
    writers.sort_unstable();
    writers.dedup();
    let claims = history.claims().iter();
    let off = claims.filter_map(|claim| Some(claim.renewed?.duration_since(claim.received).abs()));
    Verdict {
        off: off.max().unwrap_or_default(),
        gaps: takeovers.iter().map(trellis_testkit::audit::Takeover::gap).collect(),
        writes: work.len(),
        writers: writers.len(),
    }
}

fn distribution(gaps: &[SignedDuration]) -> String {
    let mut seconds: Vec<f64> = gaps.iter().map(SignedDuration::as_secs_f64).collect();
    seconds.sort_by(f64::total_cmp);
    let at = |part: usize| seconds.get((seconds.len() * part / 100).min(seconds.len().saturating_sub(1)));
    let shown = |value: Option<&f64>| value.map_or("none".to_owned(), |value| format!("{value:.2} s"));
    format!(
        "{} takeovers: least {}, median {}, 95 % {}, most {}",
        seconds.len(),
        shown(seconds.first()),
        shown(at(50)),
        shown(at(95)),
        shown(seconds.last())
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn p10_only_the_holder_writes_whatever_happens_to_the_replicas() {
    let cases = number("TRELLIS_CASES").unwrap_or(if prove() { 150 } else { 20 });
    let mut chance = Chance::new(number("TRELLIS_SEED"));
    let plane = PLANE.get().await.unwrap();
    let since = plane.audit().mark().unwrap();
    let isolated = plane.isolated("leader").await.unwrap();
    let mut replicas = Replicas::out_of_step(&isolated, 2, 2, chance.fork()).await;
    let load = Load::start(&isolated, chance.fork()).await;
    // Each kind once, in an order by chance; then any.
    let mut left: Vec<Disturbance> = Vec::new();
    for case in 0..cases {
        if left.is_empty() {
            left = DISTURBANCES.to_vec();
        }
        let disturbance = left.swap_remove(chance.below(left.len()));
        println!("{case}: {disturbance:?} (seed {})", chance.seed());
        load.progress().await;
        disturb(&mut replicas, disturbance, &mut chance).await;
        // From two replicas to five.
        if case + 1 < cases && (case + 1) * 4 / cases > case * 4 / cases {
            replicas.grow().await;
        }
    }
    let changes = load.settle().await;
    let verdict = judge(&replicas, since).await;
    assert!(verdict.writers > 1, "one replica did everything");
    assert!(
        verdict.off > SignedDuration::from_mins(1),
        "the clocks were right: {:?}",
        verdict.off
    );
    println!(
        "P10: {cases} disturbances of 2 to {} replicas, {changes} changes by users, {} writes by {} replicas, none by a non-holder; 2 s Lease, clocks up to {:#} off, {}",
        replicas.count(),
        verdict.writes,
        verdict.writers,
        verdict.off,
        distribution(&verdict.gaps)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_or_frozen_leader_is_replaced_within_fifteen_seconds_as_shipped() {
    let cases = if prove() { 5 } else { 1 };
    let plane = PLANE.get().await.unwrap();
    let since = plane.audit().mark().unwrap();
    let isolated = plane.isolated("shipped").await.unwrap();
    let mut replicas = Replicas::start(&isolated, 3, 10).await;
    let load = Load::start(&isolated, Chance::new(None)).await;
    load.progress().await;
    for _ in 0..cases {
        let leader = replicas.leader().await;
        replicas.kill(leader).await;
        replicas.replace(leader).await;
        load.progress().await;
    }
    let frozen = usize::from(prove());
    for _ in 0..frozen {
        disturb(&mut replicas, Disturbance::Freeze, &mut Chance::new(None)).await;
        load.progress().await;
    }
    load.settle().await;
    let verdict = judge(&replicas, since).await;
    println!(
        "10 s Lease, {cases} SIGKILL, {frozen} SIGSTOP and SIGCONT, {}",
        distribution(&verdict.gaps)
    );
    assert_eq!(verdict.gaps.len(), cases + frozen);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_asked_to_stop_hands_over_at_once() {
    let plane = PLANE.get().await.unwrap();
    let since = plane.audit().mark().unwrap();
    let isolated = plane.isolated("handover").await.unwrap();
    let replicas = Replicas::start(&isolated, 2, 10).await;
    let load = Load::start(&isolated, Chance::new(None)).await;
    load.progress().await;
    let leader = replicas.leader().await;
    let asked = Instant::now();
    let status = replicas.at(leader).operator.stop(Signal::Term).await;
    let stopped = asked.elapsed();
    assert_eq!(status.code(), Some(0), "a stop is no failure");
    replicas.another_than(leader).await;
    let led = asked.elapsed();
    load.progress().await;
    load.settle().await;
    let verdict = judge(&replicas, since).await;
    println!(
        "10 s Lease, SIGTERM: stopped after {stopped:.2?}, another leads after {led:.2?}, {}",
        distribution(&verdict.gaps)
    );
    assert!(led < Duration::from_secs(5), "not handed over: {led:?}");
    assert!(verdict.gaps[0] < SignedDuration::from_secs(5), "{:?}", verdict.gaps);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_silence_of_the_whole_network_somebody_leads_soon() {
    let plane = PLANE.get().await.unwrap();
    let since = plane.audit().mark().unwrap();
    let isolated = plane.isolated("silence").await.unwrap();
    let replicas = Replicas::start(&isolated, 3, 2).await;
    let load = Load::start(&isolated, Chance::new(None)).await;
    load.progress().await;
    let leader = replicas.leader().await;
    let silenced: Vec<_> = (0..3).map(|index| replicas.cut(index, true)).collect();
    eventually("the leader knows that it is none", async || {
        let log = replicas.at(leader).operator.log().unwrap();
        if log.contains("not leading any more") {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await;
    let heard = Instant::now();
    for silence in silenced {
        silence.lift();
    }
    // What was asked in the silence is never answered: nobody may wait for that.
    load.progress().await;
    let led = heard.elapsed();
    println!("2 s Lease, the network silent: work goes on {led:.2?} after its end");
    assert!(led < Duration::from_secs(15), "{led:?}");
    load.settle().await;
    judge(&replicas, since).await;
}
