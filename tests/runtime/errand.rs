//! A toy controller that acts: an `Errand` fetches a word from outside, again and again, and hands it on in the status of a
//! `Parcel` that is its own.

#[path = "interrupted.rs"]
mod interrupted;
#[path = "outside.rs"]
mod outside;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{StreamExt as _, stream, stream::BoxStream};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{CustomResource, CustomResourceExt, ResourceExt as _};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::watch;
use trellis_api::{CommonStatus, Managed};
use trellis_core::Refusal;
use trellis_runtime::{
    Error, Item, Kinds, Outcome, Permission, Plan, Reconcile, Reference, Reported, Result, Says, World,
};
use trellis_testkit::{Gate, Script, calls, eventually};

use crate::stage::{Stage, isolated};

#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(group = "testing.trellis.dev", version = "v1", kind = "Errand", namespaced)]
#[kube(status = "ErrandStatus", derive = "PartialEq")]
#[serde(rename_all = "camelCase")]
struct ErrandSpec {
    #[serde(default)]
    suspend: bool,
    #[serde(default)]
    note: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
struct ErrandStatus {
    #[serde(flatten)]
    common: CommonStatus,
}

#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(group = "testing.trellis.dev", version = "v1", kind = "Parcel", namespaced)]
#[kube(status = "ParcelStatus")]
struct ParcelSpec {
    from: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
struct ParcelStatus {
    word: String,
}

pub(crate) fn crds() -> [CustomResourceDefinition; 2] {
    [Errand::crd(), Parcel::crd()]
}

impl Managed for Errand {
    type Status = ErrandStatus;

    fn suspended(&self) -> bool {
        self.spec.suspend
    }

    fn status(&self) -> Option<&ErrandStatus> {
        self.status.as_ref()
    }

    fn common(status: &ErrandStatus) -> &CommonStatus {
        &status.common
    }

    fn common_mut(status: &mut ErrandStatus) -> &mut CommonStatus {
        &mut status.common
    }
}

/// The world outside, and what was brought from there.
#[derive(Clone, Default)]
struct Outside(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    word: String,
    /// By errand.
    brought: BTreeMap<String, String>,
    looks: u32,
    acts: u32,
    /// Where an act waits after it said what it does.
    gate: Option<Gate>,
    /// Whether what was brought cannot be forgotten.
    stuck: bool,
    /// Whether nobody asks by himself: who wants to know is told.
    told: bool,
    news: watch::Sender<()>,
}

struct Errands(Outside);

struct Seen {
    word: String,
    brought: Option<String>,
    told: bool,
}

impl Reconcile for Errands {
    const NAME: &'static str = "errand";
    const COUNTED: &'static str = "errands";
    const FINALIZER: &'static str = "testing.trellis.dev/errand";
    const NEEDS: &'static [Permission] = &[];
    const TELLS_SUSPENSION: bool = false;
    const PROGRESS: &'static [&'static str] = &["Fetching"];

    type Object = Errand;
    type Seen = Seen;
    type Act = String;

    fn kinds(kinds: Kinds) -> Kinds {
        kinds.owned::<Parcel>(Self::NAME)
    }

    fn refers(&self, _: &Errand) -> Vec<Reference> {
        Vec::new()
    }

    fn outside(&self) -> BoxStream<'static, ()> {
        let news = self.0.0.lock().unwrap().news.subscribe();
        let next = |mut news: watch::Receiver<()>| async move { news.changed().await.ok().map(|()| ((), news)) };
        stream::unfold(news, next).boxed()
    }

    fn concerned(&self, errand: &Errand) -> bool {
        errand.spec.note != "deaf"
    }

    async fn see(&self, _: &World, errand: &Errand) -> Result<Seen> {
        let mut outside = self.0.0.lock().unwrap();
        outside.looks += 1;
        Ok(Seen {
            word: outside.word.clone(),
            brought: outside.brought.get(&errand.name_any()).cloned(),
            told: outside.told,
        })
    }

    fn plan(errand: &Errand, seen: &Seen) -> Result<Plan<String>, Refusal> {
        let mut plan = Plan::nothing();
        if !seen.told {
            plan = plan.again(Duration::from_millis(200));
        }
        if let Some(word) = &seen.brought {
            let mut parcel = Parcel::new(
                &errand.name_any(),
                ParcelSpec {
                    from: errand.name_any(),
                },
            );
            parcel.metadata.namespace = errand.namespace();
            parcel.status = Some(ParcelStatus { word: word.clone() });
            let parcel = Item::own_with_status(&parcel);
            plan = plan.and(parcel.map_err(|error| Refusal::new("Unserialisable", error.to_string()))?);
        }
        if seen.brought.as_ref() != Some(&seen.word) {
            plan = plan.act(seen.word.clone());
        }
        Ok(plan)
    }

    async fn act(&self, errand: &Errand, act: &String, says: &Says) -> Result<()> {
        let gate = {
            let mut outside = self.0.0.lock().unwrap();
            outside.acts += 1;
            outside.gate.clone()
        };
        if let Some(gate) = gate {
            says.now("Fetching", "Progressing", "on the way");
            gate.pass().await;
        }
        let mut outside = self.0.0.lock().unwrap();
        outside.brought.insert(errand.name_any(), act.clone());
        Ok(())
    }

    async fn forget(&self, errand: &Errand) -> Result<()> {
        let mut outside = self.0.0.lock().unwrap();
        if outside.stuck {
            return Err(Error::Refused(Refusal::new("Stuck", "it does not go")));
        }
        outside.brought.remove(&errand.name_any());
        Ok(())
    }

    fn report(_: &Errand, _: &Seen, outcome: &Outcome) -> Reported<ErrandStatus> {
        Reported {
            status: ErrandStatus::default(),
            ready: outcome.ready("Brought", "as asked"),
            conditions: Vec::new(),
        }
    }
}

impl Outside {
    fn says(&self, word: &str) {
        word.clone_into(&mut self.0.lock().unwrap().word);
    }

    fn looks(&self) -> u32 {
        self.0.lock().unwrap().looks
    }

    fn acts(&self) -> u32 {
        self.0.lock().unwrap().acts
    }
}

/// A running controller, with one errand.
async fn up(word: &str) -> (Stage, Outside) {
    let outside = Outside::default();
    outside.says(word);
    let stage = Stage::of(Errands(outside.clone()), isolated().await, &[], Script::new());
    (stage, outside)
}

async fn send(stage: &Stage) {
    let errand = Errand::new("e", ErrandSpec::default());
    stage.isolated.create_object(errand).await.unwrap();
}

async fn arrived(stage: &Stage, word: &str) -> Parcel {
    let has = |parcel: &Parcel| parcel.status.as_ref().is_some_and(|status| status.word == word);
    stage.isolated.until("e", word, has).await
}

/// Whether the errand carries a condition.
fn tells(errand: &Errand, type_: &str, state: &str) -> bool {
    let conditions = errand.status.iter().flat_map(|status| &status.common.conditions);
    conditions
        .into_iter()
        .any(|condition| condition.type_ == type_ && condition.status == state)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_act_leaves_behind_is_seen_at_once_and_the_outside_is_asked_again() {
    let (stage, outside) = up("one").await;
    send(&stage).await;
    arrived(&stage, "one").await;
    outside.says("two");
    // Nothing in the cluster changed: only the time did.
    arrived(&stage, "two").await;
    assert_eq!(outside.acts(), 2);
    stage
        .isolated
        .until("e", "ready", |errand: &Errand| tells(errand, "Ready", "True"))
        .await;

    // At rest it is asked, and nothing is written.
    let (place, looks) = (stage.recording.place(), outside.looks());
    eventually("asked five times more", async || match outside.looks() {
        now if now >= looks + 5 => Ok(()),
        now => Err(format!("{now} times")),
    })
    .await;
    let written: Vec<_> = stage
        .recording
        .since(place)
        .into_iter()
        .filter(|call| call.info.verb.writes())
        .collect();
    assert!(written.is_empty(), "{written:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_of_an_own_object_is_one_write_and_is_repaired() {
    let (stage, _) = up("one").await;
    send(&stage).await;
    let parcel = arrived(&stage, "one").await;
    let statuses = calls().resource("parcels/status");
    assert_eq!(stage.recording.of(&statuses).len(), 1);
    let foreign = json!({ "status": { "word": "other" } });
    let parcels = stage.isolated.api::<Parcel>();
    let by = kube::api::PatchParams::default();
    parcels
        .patch_status("e", &by, &kube::api::Patch::Merge(foreign))
        .await
        .unwrap();
    let repaired = arrived(&stage, "one").await;
    assert_eq!(parcel.uid(), repaired.uid());
    stage.isolated.delete::<Parcel>("e").await.unwrap();
    let again =
        |now: &Parcel| now.uid() != parcel.uid() && now.status.as_ref().is_some_and(|status| status.word == "one");
    stage.isolated.until("e", "made again, with its status", again).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_act_says_what_it_is_at_and_no_longer_when_it_ended() {
    let (stage, outside) = up("one").await;
    let gate = Gate::new();
    outside.0.lock().unwrap().gate = Some(gate.clone());
    send(&stage).await;
    gate.reached(1).await;
    let at_it = |errand: &Errand| {
        tells(errand, "Fetching", "True") && tells(errand, "Reconciling", "True") && tells(errand, "Ready", "Unknown")
    };
    stage.isolated.until("e", "fetching", at_it).await;
    outside.0.lock().unwrap().gate = None;
    gate.open();
    let done = |errand: &Errand| {
        tells(errand, "Ready", "True") && !tells(errand, "Fetching", "True") && !tells(errand, "Reconciling", "True")
    };
    stage.isolated.until("e", "done", done).await;

    // What is in place stays ready while more is fetched.
    let gate = Gate::new();
    outside.0.lock().unwrap().gate = Some(gate.clone());
    outside.says("two");
    gate.reached(1).await;
    let both = |errand: &Errand| tells(errand, "Fetching", "True") && tells(errand, "Ready", "True");
    stage.isolated.until("e", "ready, and fetching", both).await;
    gate.open();
    arrived(&stage, "two").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_acts_made_goes_before_the_object_does() {
    let (stage, outside) = up("one").await;
    send(&stage).await;
    arrived(&stage, "one").await;
    outside.0.lock().unwrap().stuck = true;
    stage.isolated.delete::<Errand>("e").await.unwrap();
    stage.isolated.gone::<Parcel>("e").await;
    let stuck = |errand: &Errand| {
        let conditions = errand.status.iter().flat_map(|status| &status.common.conditions);
        conditions.into_iter().any(|condition| condition.reason == "Stuck")
    };
    stage.isolated.until("e", "held, and says why", stuck).await;
    outside.0.lock().unwrap().stuck = false;
    let patch = json!({ "metadata": { "annotations": { trellis_api::REQUESTED_AT: "now" } } });
    stage.isolated.merge::<Errand>("e", patch).await.unwrap();
    stage.isolated.gone::<Errand>("e").await;
    assert!(outside.0.lock().unwrap().brought.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_tells_nothing_of_its_suspension_stays_as_it_is() {
    let (stage, outside) = up("one").await;
    send(&stage).await;
    arrived(&stage, "one").await;
    stage
        .isolated
        .until("e", "ready", |errand: &Errand| tells(errand, "Ready", "True"))
        .await;
    let suspended: Errand = stage
        .isolated
        .merge("e", json!({ "spec": { "suspend": true } }))
        .await
        .unwrap();
    outside.says("two");
    let looks = outside.looks();
    // Another one is served meanwhile, and asked five times.
    stage
        .isolated
        .create_object(Errand::new("other", ErrandSpec::default()))
        .await
        .unwrap();
    let has = |parcel: &Parcel| parcel.status.as_ref().is_some_and(|status| status.word == "two");
    stage.isolated.until("other", "two", has).await;
    eventually("asked for the other", async || match outside.looks() {
        now if now >= looks + 5 => Ok(()),
        now => Err(format!("{now} times")),
    })
    .await;
    let now: Errand = stage.isolated.get("e").await.unwrap();
    assert_eq!(now.status, suspended.status);
    stage
        .isolated
        .merge::<Errand>("e", json!({ "spec": { "suspend": false } }))
        .await
        .unwrap();
    arrived(&stage, "two").await;
}
