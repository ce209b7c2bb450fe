//! A source's whole life with the real binary: once undisturbed, then again with a crash after each of its writes; and what
//! replicas serve while their leader comes and goes.
//!
//! ```text
//!  story (a user's steps) ─▶ undisturbed: W writes, a state after each step, applied by the real kustomize-controller
//!                         └▶ for each k in 1..=W: SIGKILL after write k, restart ─▶ the same states, applied as well
//! ```
//!
//! The operator runs under its generated permissions, and stores on a disk that outlives it.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

#[path = "lives/site.rs"]
mod site;
#[path = "lives/state.rs"]
mod state;
#[path = "lives/story.rs"]
mod story;
#[path = "lives/terms.rs"]
mod terms;
#[path = "artifacts/upstream.rs"]
#[expect(dead_code, reason = "some of it only the tests of artifacts need")]
mod upstream;

use std::sync::Arc;

use futures::{StreamExt as _, stream};
use serde_json::Value;
use tokio::sync::OnceCell;
use trellis_devplane::{
    peers::flux::{Controller, Flux},
    progress::Lines,
};
use trellis_testkit::{Call, Script, calls, plane::Shared};

use site::Site;

static PLANE: Shared = trellis_tests::operator_plane();
/// The consumer on [`PLANE`]; it brings the kind of artifacts.
static FLUX: OnceCell<Flux> = OnceCell::const_new();

/// How many operators of a sweep run at once.
const AT_ONCE: usize = 4;

/// The consumer; the first test that asks starts it, the others wait.
async fn flux() -> &'static Flux {
    let start = || async {
        let plane = PLANE.get().await.unwrap();
        let options = Flux::options(plane.control().kubeconfig()).progress(Arc::new(Lines));
        options.controller(Controller::Kustomize).start().await.unwrap()
    };
    FLUX.get_or_init(start).await
}

/// What a story left behind.
struct Told {
    /// The state after each step.
    states: Vec<Value>,
    /// The writes of the first operator.
    writes: Vec<Call>,
    crashed: bool,
}

/// Tells the story once.
async fn tell(script: Script) -> Told {
    flux().await;
    let mut site = Site::new("lives").await;
    site.start(&script).await;
    let recording = site.recording();
    let (mut states, mut crashed) = (Vec::new(), false);
    for step in 0..story::STEPS {
        story::act(&site, step).await;
        tokio::select! {
            biased;
            () = script.crashed(), if !crashed => {
                crashed = true;
                site.kill9().await;
                site.start(&Script::new()).await;
                story::reached(&site, step).await;
            }
            () = story::reached(&site, step) => {}
        }
        states.push(state::of(&site).await);
    }
    Told {
        states,
        writes: recording.of(&calls().work()),
        crashed: crashed || script.is_crashed(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_after_any_write_changes_nothing_of_what_becomes_of_a_source() {
    let undisturbed = tell(Script::new()).await;
    let all = u64::try_from(undisturbed.writes.len()).unwrap();
    let done = stream::iter(1..=all)
        .map(|write| {
            let undisturbed = &undisturbed;
            async move {
                let told = tell(Script::new().crash_after_write(write)).await;
                assert!(told.crashed, "write {write} never came");
                for (step, (expected, found)) in undisturbed.states.iter().zip(&told.states).enumerate() {
                    assert!(
                        expected == found,
                        "crash after write {write}: step {} ended otherwise:\n{found:#}\nundisturbed:\n{expected:#}",
                        story::NAMES[step],
                    );
                }
            }
        })
        .buffer_unordered(AT_ONCE)
        .count()
        .await;
    assert_eq!(u64::try_from(done).unwrap(), all);
    println!("{done} crashes, one after each write of the story");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_costs_five_writes_until_it_is_ready() {
    flux().await;
    let mut site = Site::new("lives").await;
    site.start(&Script::new()).await;
    let recording = site.recording();
    story::act(&site, story::CREATE).await;
    story::reached(&site, story::CREATE).await;
    let writes: Vec<String> = recording
        .of(&calls().work())
        .iter()
        .map(|call| call.info.resource.clone())
        .collect();
    println!("writes from creation to Ready: {}, {writes:?}", writes.len());
    let (artifact, source) = ("externalartifacts", "externalsources");
    let status = |of: &str| format!("{of}/status");
    assert_eq!(
        writes,
        [
            source.to_owned(),
            status(source),
            artifact.to_owned(),
            status(artifact),
            status(source)
        ]
    );
}
