//! A policy's whole life, once undisturbed, then again with one thing going wrong at each of its writes.
//!
//! ```text
//!  story (a user's steps) ─▶ undisturbed: W writes, a state after each step
//!                         └▶ for each k in 1..=W: crash, failure, conflict, lost answer ─▶ the same states
//! ```
//!
//! The operator is the real binary under its generated permissions; a step that a crash fell into is compared too,
//! once the operator runs again. `TRELLIS_PROVE=1` sweeps every write, in both orders of restart.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

#[path = "crash/state.rs"]
mod state;
#[path = "crash/story.rs"]
mod story;

use std::{env, ops::RangeInclusive};

use futures::{StreamExt, stream};
use serde_json::Value;
use trellis_testkit::{
    Call, Fault, Proxy, Script, WatchEnd, calls,
    operator::Operator,
    plane::{Credentials, Isolated, Shared},
};

use story::STEPS;

static PLANE: Shared = trellis_tests::operator_plane();

/// How many operators of a sweep run at once.
const AT_ONCE: usize = 4;

/// When the operator starts again after a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Restart {
    /// At once; the user waits for it.
    AtOnce,
    /// After the user has taken the next step.
    AfterNextStep,
}

/// What a story left behind.
struct Told {
    /// The state after each step; `None` where the user went on while the operator was down.
    states: Vec<Option<Value>>,
    /// The writes of the first operator.
    writes: Vec<Call>,
    /// The index of the first write of each step.
    begins: Vec<usize>,
    namespace: String,
    crashed: bool,
}

/// One operator and the way to it.
struct Running {
    operator: Operator,
    proxy: Proxy,
}

async fn start(isolated: &Isolated, account: &Credentials, script: &Script) -> Running {
    let proxy = isolated.plane().proxy(account, script).await.unwrap();
    let name = isolated.name();
    // A new process waits until the claim of the dead one has run out.
    let launch = trellis_tests::launch(proxy.kubeconfig(), name, &[name])
        .lease(trellis_tests::NAMESPACE, name)
        .lease_duration("2s");
    let operator = launch.start().await.unwrap();
    Running { operator, proxy }
}

/// Tells the story once. `watches` end so at the beginning of each step.
async fn tell(script: Script, restart: Restart, watches: Option<WatchEnd>) -> Told {
    let plane = PLANE.get().await.unwrap();
    let isolated = plane.isolated("crash").await.unwrap();
    let account = trellis_tests::account(plane).await.unwrap();
    let mut running = Some(start(&isolated, &account, &script).await);
    let recording = running.as_ref().unwrap().proxy.recording().clone();
    let (mut states, mut begins, mut crashed) = (Vec::new(), Vec::new(), false);
    for step in 0..STEPS {
        begins.push(recording.of(&calls().work()).len());
        if let Some(end) = watches {
            script.end_watches(&calls(), end);
        }
        story::act(&isolated, step).await;
        if running.is_none() {
            running = Some(start(&isolated, &account, &Script::new()).await);
        }
        tokio::select! {
            biased;
            () = script.crashed(), if !crashed => {
                crashed = true;
                // Kill first: what the dead process left in a socket must not pass late.
                let Running { operator, proxy } = running.take().unwrap();
                operator.kill9().await;
                drop((operator, proxy));
                if restart == Restart::AfterNextStep && step + 1 < STEPS {
                    states.push(None);
                    continue;
                }
                running = Some(start(&isolated, &account, &Script::new()).await);
                story::reached(&isolated, step).await;
            }
            () = story::reached(&isolated, step) => {}
        }
        states.push(Some(state::of(&isolated).await));
    }
    Told {
        states,
        writes: recording.of(&calls().work()),
        begins,
        namespace: isolated.name().to_owned(),
        crashed: crashed || script.is_crashed(),
    }
}

/// Compares with the undisturbed states; names the first step that differs.
fn compare(what: &str, undisturbed: &Told, told: &Told) {
    for (step, (expected, found)) in undisturbed.states.iter().zip(&told.states).enumerate() {
        let (Some(expected), Some(found)) = (expected, found) else {
            continue;
        };
        assert!(
            expected == found,
            "{what}: step {step} ({}) ended otherwise:\n{found:#}\nundisturbed:\n{expected:#}",
            story::NAMES[step],
        );
    }
    assert!(told.states.last().unwrap().is_some(), "{what}: the end was not seen");
}

fn prove() -> bool {
    env::var_os("TRELLIS_PROVE").is_some()
}

/// The writes of a step, counted from 1.
fn writes_of(told: &Told, step: usize) -> RangeInclusive<usize> {
    let end = told.begins.get(step + 1).copied().unwrap_or(told.writes.len());
    told.begins[step] + 1..=end
}

/// The writes that are swept: all of them, or in CI those of creation, retarget and deletion.
fn swept(undisturbed: &Told) -> Vec<u64> {
    let steps: Vec<usize> = if prove() {
        (0..STEPS).collect()
    } else {
        vec![story::CREATE, story::RETARGET, story::DELETE]
    };
    steps
        .into_iter()
        .flat_map(|step| writes_of(undisturbed, step))
        .map(|write| u64::try_from(write).unwrap())
        .collect()
}

async fn sweep<T: std::fmt::Debug>(
    undisturbed: &Told,
    cases: impl IntoIterator<Item = T>,
    script: impl Fn(&T) -> (Script, Restart, Option<WatchEnd>),
) -> usize {
    stream::iter(cases)
        .map(|case| {
            let (script, restart, watches) = script(&case);
            async move {
                let told = tell(script, restart, watches).await;
                compare(&format!("{case:?}"), undisturbed, &told);
                told
            }
        })
        .buffer_unordered(AT_ONCE)
        .count()
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn crash_sweep_over_every_write() {
    let undisturbed = tell(Script::new(), Restart::AtOnce, None).await;
    let orders: &[Restart] = if prove() {
        &[Restart::AtOnce, Restart::AfterNextStep]
    } else {
        &[Restart::AtOnce]
    };
    let cases: Vec<(Restart, u64)> = orders
        .iter()
        .flat_map(|order| swept(&undisturbed).into_iter().map(|write| (*order, write)))
        .collect();
    let all = cases.len();
    let done = stream::iter(cases)
        .map(|(restart, write)| {
            let undisturbed = &undisturbed;
            async move {
                let told = tell(Script::new().crash_after_write(write), restart, None).await;
                assert!(told.crashed, "write {write} never came");
                compare(
                    &format!("crash after write {write}, restart {restart:?}"),
                    undisturbed,
                    &told,
                );
            }
        })
        .buffer_unordered(AT_ONCE)
        .count()
        .await;
    assert_eq!(done, all);
    println!("{done} crashes, {} writes in the whole story", undisturbed.writes.len());
}

/// What may happen to one write without a crash.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    Failure,
    Conflict,
    AnswerLost,
}

#[tokio::test(flavor = "multi_thread")]
async fn crash_sweep_without_a_crash_failures_conflicts_lost_answers() {
    let undisturbed = tell(Script::new(), Restart::AtOnce, None).await;
    let troubles = [Trouble::Failure, Trouble::Conflict, Trouble::AnswerLost];
    let writes = swept(&undisturbed);
    // In CI each write meets one trouble, in turn; the deletion's meet each.
    let deletion = writes_of(&undisturbed, story::DELETE);
    let cases: Vec<(Trouble, u64)> = writes
        .iter()
        .flat_map(|write| troubles.iter().map(|trouble| (*trouble, *write)))
        .enumerate()
        .filter(|(index, (_, write))| prove() || deletion.contains(&usize::try_from(*write).unwrap()) || index % 4 == 0)
        .map(|(_, case)| case)
        .collect();
    let done = sweep(&undisturbed, cases, |(trouble, write)| {
        let fault = match trouble {
            Trouble::Failure => Fault::fail(500),
            Trouble::Conflict => Fault::conflict(),
            Trouble::AnswerLost => Fault::cut_after(),
        };
        let script = Script::new().with(calls().work().nth(*write).then(fault));
        (script, Restart::AtOnce, None)
    })
    .await;
    println!("{done} troubled writes");
}

#[tokio::test(flavor = "multi_thread")]
async fn crash_sweep_without_a_crash_watches_that_end() {
    let undisturbed = tell(Script::new(), Restart::AtOnce, None).await;
    let ends = [WatchEnd::Expire, WatchEnd::Cut, WatchEnd::Close];
    sweep(&undisturbed, ends, |end| (Script::new(), Restart::AtOnce, Some(*end))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_costs_four_writes_until_it_is_ready() {
    let told = tell(Script::new(), Restart::AtOnce, None).await;
    let creation: Vec<String> = writes_of(&told, story::CREATE)
        .map(|write| told.writes[write - 1].info.resource.clone())
        .collect();
    println!("writes from creation to Ready: {}, {creation:?}", creation.len());
    let status = "resiliencepolicies/status";
    assert_eq!(creation, ["resiliencepolicies", status, "services", status]);
    let conversation = trellis_testkit::Conversation::of(told.writes).naming(&told.namespace, "<ns>");
    insta::assert_snapshot!("writes_of_a_policys_life", conversation.to_string());
}
