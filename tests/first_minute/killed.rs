//! `dev up` killed with SIGKILL at moments that nobody chose: while it starts, attached and detached.
//!
//! ```text
//!  one data folder ─▶ dev up ─▶ SIGKILL after 0 … 8 s ─▶ no process left ─▶ again … ─▶ dev up starts from what is there
//! ```
//!
//! `TRELLIS_PROVE=1` makes it 20 moments each; `TRELLIS_SEED` repeats a run.

use std::{env, process::Command, time::Duration};

use tokio::time::{Instant, interval};
use trellis_devplane::Signal;
use trellis_testkit::eventually;

use crate::{
    REAPED,
    chance::Chance,
    processes::{Family, none_naming},
    session::{Attached, Detached, trellis},
};

/// A start with everything built takes less on two cores; a later moment hits a plane that is up.
const START_MILLISECONDS: usize = 8000;
/// How often the family is looked at.
const LOOK: Duration = Duration::from_millis(20);

fn moments(few: usize) -> usize {
    if env::var_os("TRELLIS_PROVE").is_some() {
        20
    } else {
        few
    }
}

fn chance() -> Chance {
    let chance = Chance::new(env::var("TRELLIS_SEED").ok().map(|seed| seed.parse().unwrap()));
    println!("seed {}", chance.seed());
    chance
}

/// The family by the time that has passed.
async fn grown(ancestor: u32, time: Duration) -> Family {
    let (began, mut pace) = (Instant::now(), interval(LOOK));
    let mut family = Family::of(ancestor);
    while began.elapsed() < time {
        pace.tick().await;
        family.grow(ancestor);
    }
    family
}

fn kill(pid: u32) {
    let killed = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
    assert!(killed.unwrap().success());
}

async fn not_listed(pid: u32) {
    let listed = trellis(&["dev", "status", "--json"]).await;
    let records: Vec<serde_json::Value> = serde_json::from_str(&listed.stdout).unwrap();
    assert!(records.iter().all(|record| record["pid"] != pid), "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_killed_at_any_moment_leaves_no_process_and_good_data() {
    let mut chance = chance();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let durable = ["--examples", "none", "--data", data];
    for _ in 0..moments(3) {
        let moment = Duration::from_millis(chance.below(START_MILLISECONDS).try_into().unwrap());
        let up = Attached::spawn(&durable).await;
        let family = grown(up.pid(), moment).await;
        println!("SIGKILL after {moment:?}: {:?}", family.names());
        up.signal(Signal::Kill);
        family.gone(REAPED).await;
        none_naming(data, REAPED).await;
        not_listed(up.pid()).await;
    }
    let up = Attached::start(&durable).await;
    up.signal(Signal::Term);
    assert_eq!(up.exited().await.code(), Some(0), "{}", up.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_killed_at_any_moment_leaves_no_process_and_good_data() {
    let mut chance = chance();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let durable = ["--examples", "none", "--data", data];
    for _ in 0..moments(2) {
        let moment = Duration::from_millis(chance.below(START_MILLISECONDS).try_into().unwrap());
        let asked = Attached::spawn(&[&["--detach"], &durable[..]].concat()).await;
        let supervisor = supervisor(&asked).await;
        let family = grown(supervisor, moment).await;
        println!("SIGKILL of the supervisor after {moment:?}: {:?}", family.names());
        kill(supervisor);
        family.gone(REAPED).await;
        none_naming(data, REAPED).await;
        not_listed(supervisor).await;
        // Whoever waits for it hears of its end, or had heard that it was up.
        let heard = asked.exited().await.code();
        assert!(matches!(heard, Some(0 | 1)), "{heard:?}: {}", asked.said());
        assert!(
            heard == Some(0) || asked.said().contains("dev up ended"),
            "{}",
            asked.said()
        );
    }
    let up = Detached::up(&durable).await;
    let family = Family::of(up.pid());
    kill(up.pid());
    family.gone(REAPED).await;
    none_naming(data, REAPED).await;
    not_listed(up.pid()).await;
    Detached::up(&durable).await.down().await;
}

/// The process that `--detach` leaves behind: its only child.
async fn supervisor(asked: &Attached) -> u32 {
    eventually("the supervisor runs", async || {
        let family = Family::of(asked.pid());
        let children = family.children(asked.pid());
        children.first().copied().ok_or_else(|| format!("{:?}", family.names()))
    })
    .await
}
