//! What becomes of an act while it is told of, and when something else is asked for.

use kube::ResourceExt as _;
use serde_json::json;
use trellis_testkit::{Fault, Gate, Verb, calls, eventually};

use super::{Errand, arrived, send, tells, up};

/// The generation that a condition speaks of.
fn generation_of(errand: &Errand, type_: &str) -> Option<i64> {
    let conditions = errand.status.iter().flat_map(|status| &status.common.conditions);
    conditions
        .into_iter()
        .find(|condition| condition.type_ == type_)
        .and_then(|condition| condition.observed_generation)
}

/// A write of progress that fails is no end of the act, and one that hangs does not hold it up.
#[tokio::test(flavor = "multi_thread")]
async fn an_act_goes_on_while_it_cannot_be_told() {
    let (stage, outside) = up("one").await;
    let gate = Gate::new();
    outside.0.lock().unwrap().gate = Some(gate.clone());
    let statuses = calls().verb(Verb::Patch).resource("errands/status");
    let failing = stage.script.add(statuses.clone().first(1).then(Fault::fail(403)));
    send(&stage).await;
    gate.reached(1).await;
    eventually("the write failed", async || match failing.hits() {
        1 => Ok(()),
        hits => Err(format!("{hits} times")),
    })
    .await;
    outside.0.lock().unwrap().gate = None;
    gate.open();
    arrived(&stage, "one").await;
    assert_eq!(outside.acts(), 1, "it was not dropped");
    let ready = |errand: &Errand| tells(errand, "Ready", "True");
    stage.isolated.until("e", "ready", ready).await;

    let (acting, writing) = (Gate::new(), Gate::new());
    outside.0.lock().unwrap().gate = Some(acting.clone());
    let held = stage.script.add(statuses.first(1).then(Fault::hold(&writing)));
    outside.says("two");
    acting.reached(1).await;
    writing.reached(1).await;
    acting.open();
    eventually("the act ended while the write waits", async || {
        match outside.0.lock().unwrap().brought.get("e") {
            Some(word) if word == "two" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(held.hits(), 1);
    writing.open();
    arrived(&stage, "two").await;
    let done = |errand: &Errand| tells(errand, "Ready", "True") && !tells(errand, "Fetching", "True");
    stage.isolated.until("e", "nothing goes on", done).await;
}

/// Progress says nothing of the new spec but that it is worked on, and nothing of a request that is not handled.
#[tokio::test(flavor = "multi_thread")]
async fn progress_does_not_speak_for_the_new_spec() {
    let (stage, outside) = up("one").await;
    send(&stage).await;
    arrived(&stage, "one").await;
    let ready = |errand: &Errand| tells(errand, "Ready", "True");
    let before: Errand = stage.isolated.until("e", "ready", ready).await;
    let gate = Gate::new();
    {
        let mut outside = outside.0.lock().unwrap();
        outside.gate = Some(gate.clone());
        outside.word = "two".to_owned();
    }
    gate.reached(1).await;
    let change = json!({
        "metadata": { "annotations": { trellis_api::REQUESTED_AT: "now" } },
        "spec": { "note": "another" },
    });
    stage.isolated.merge::<Errand>("e", change).await.unwrap();
    let taken_up = |errand: &Errand| generation_of(errand, "Fetching") == errand.metadata.generation;
    let told: Errand = stage.isolated.until("e", "the new spec is worked on", taken_up).await;
    assert!(tells(&told, "Ready", "True"));
    assert_eq!(generation_of(&told, "Ready"), before.metadata.generation);
    let common = told.status.unwrap().common;
    assert_eq!(common.observed_generation, before.metadata.generation);
    assert_eq!(common.last_handled_reconcile_at, None);
    gate.open();
    let handled = |errand: &Errand| {
        let common = errand.status.as_ref().map(|status| &status.common);
        generation_of(errand, "Ready") == errand.metadata.generation
            && common.is_some_and(|common| common.last_handled_reconcile_at.as_deref() == Some("now"))
    };
    stage.isolated.until("e", "handled", handled).await;
}

/// Another spec, a request, a suspension and a deletion do not wait for the end of an act.
#[tokio::test(flavor = "multi_thread")]
async fn an_act_is_dropped_when_something_else_is_asked_for() {
    let (stage, outside) = up("one").await;
    let gate = Gate::new();
    outside.0.lock().unwrap().gate = Some(gate.clone());
    send(&stage).await;
    gate.reached(1).await;
    let spec = |spec: serde_json::Value| json!({ "spec": spec });
    let request = |word: &str| json!({ "metadata": { "annotations": { trellis_api::REQUESTED_AT: word } } });
    let merge = async |patch| stage.isolated.merge::<Errand>("e", patch).await.unwrap();
    merge(spec(json!({ "note": "another" }))).await;
    gate.reached(2).await;
    merge(request("first")).await;
    gate.reached(3).await;
    // The next request waits for the answer to the first, which is on its way; a spec does not.
    merge(request("second")).await;
    merge(spec(json!({ "note": "third" }))).await;
    gate.reached(4).await;
    let fetching = |errand: &Errand| tells(errand, "Fetching", "True") && tells(errand, "Reconciling", "True");
    stage.isolated.until("e", "fetching", fetching).await;
    merge(spec(json!({ "suspend": true }))).await;
    let rests = |errand: &Errand| {
        !tells(errand, "Fetching", "True") && !tells(errand, "Reconciling", "True") && tells(errand, "Ready", "Unknown")
    };
    let rested: Errand = stage.isolated.until("e", "nothing goes on", rests).await;
    assert!(rested.annotations().contains_key(trellis_api::REQUESTED_AT));
    merge(spec(json!({ "suspend": false }))).await;
    gate.reached(5).await;
    stage.isolated.delete::<Errand>("e").await.unwrap();
    stage.isolated.gone::<Errand>("e").await;
    assert!(outside.0.lock().unwrap().brought.is_empty(), "no act came to its end");
}
