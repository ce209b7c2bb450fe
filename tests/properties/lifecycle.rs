//! All random stories at once, then one rest, then every law over what was stored and written.
//!
//! ```text
//!  seed ─▶ cases ─▶ stories, many at once ─▶ rest (no write by the operator) ─▶ statuses, ledger, audit log, versions
//! ```
//!
//! `TRELLIS_CASES` (per property; 20, with `TRELLIS_PROVE` 100), `TRELLIS_SEED` and `TRELLIS_CASE` (such as `P9/13`)
//! choose what runs; a failure prints the last two.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    panic::AssertUnwindSafe,
    pin::pin,
    time::{Duration, Instant},
};

use futures::{
    FutureExt as _, StreamExt as _,
    future::{Either, select},
    stream,
};
use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;
use trellis_testkit::{
    Verb,
    audit::{Event, Mark},
    plane::{Isolated, Plane},
    rest,
};

use crate::{
    audited::{is_work, work},
    chronicle::Chronicle,
    explained, laws,
    property::{Case, Plot, Property},
    routed,
    stand_in::{Linkerd, StandIn},
    steps::Step,
    story::{SOON, Story},
    verdict::{condition, manager, owned},
};

/// Stories at once.
const AT_ONCE: usize = 24;

/// How long Kubernetes may take to empty a namespace, kind after kind, when many go at once.
const EMPTY: Duration = Duration::from_mins(5);

/// How many of them a failure shows.
const LAST_WRITES: usize = 30;

/// Whether this is the long form.
pub(crate) fn proving() -> bool {
    env::var_os("TRELLIS_PROVE").is_some()
}

/// How long nothing may be written.
pub(crate) fn quiet() -> Duration {
    Duration::from_secs(if proving() { 30 } else { 10 })
}

/// How many stories per property.
pub(crate) fn count() -> u32 {
    let asked = env::var("TRELLIS_CASES").ok().map(|text| text.parse().unwrap());
    asked.unwrap_or(if proving() { 100 } else { 20 })
}

/// The seed of this run.
pub(crate) fn seed() -> u64 {
    let asked = env::var("TRELLIS_SEED").ok().map(|text| text.parse().unwrap());
    asked.unwrap_or_else(|| RandomState::new().build_hasher().finish())
}

/// The cases of these properties.
pub(crate) fn cases(properties: &[Property]) -> Vec<Case> {
    let (seed, only) = (seed(), env::var("TRELLIS_CASE").ok());
    let all = properties.iter().flat_map(|property| property.cases(count(), seed));
    all.filter(|case| only.as_ref().is_none_or(|only| case.name() == *only))
        .collect()
}

/// What became of one case.
pub(crate) struct Ran {
    pub(crate) case: Case,
    pub(crate) failure: Option<String>,
    /// Where it was told.
    pub(crate) namespaces: Vec<String>,
    /// Kept until the process ends, so that no clean-up disturbs the rest.
    _places: Vec<Isolated>,
    /// Speaks as long as the operator may ask.
    _linkerd: Option<StandIn>,
}

/// Tells the stories of the cases, each in its namespaces, and judges them. `meanwhile` is dropped when the last one is
/// told; then `after` is awaited before the rest.
pub(crate) async fn run(
    plane: &Plane,
    cases: Vec<Case>,
    places: Vec<Vec<Isolated>>,
    meanwhile: impl Future<Output = ()>,
    after: impl Future<Output = ()>,
) -> Vec<Ran> {
    let began = Instant::now();
    let client = plane.client().unwrap();
    let chronicle = Chronicle::start(&client).await;
    let linkerd = Linkerd::watch(&client, &[]);
    let mark = plane.audit().mark().unwrap();
    let total = cases.len();
    let stories = stream::iter(cases.into_iter().zip(places))
        .map(|(case, places)| one(case, places, &linkerd, &client, &chronicle))
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<Ran>>();
    let mut ran = match select(pin!(stories), pin!(meanwhile)).await {
        Either::Left((ran, _)) => ran,
        Either::Right(((), stories)) => stories.await,
    };
    after.await;
    let told = began.elapsed();
    let places: BTreeSet<String> = ran
        .iter()
        .filter(|ran| ran.failure.is_none())
        .flat_map(|ran| ran.namespaces.clone())
        .collect();
    let ours = |event: &Event| {
        is_work(event)
            && event
                .object_ref
                .as_ref()
                .is_some_and(|object| places.contains(&object.namespace))
    };
    rest(plane.audit(), quiet(), ours).await.unwrap();
    judge_all(plane, &mut ran, &chronicle, mark);
    let failed = |ran: &[Ran]| ran.iter().filter(|ran| ran.failure.is_some()).count();
    eprintln!(
        "{total} stories in {:.1} s, then {} s of rest; {} failed",
        told.as_secs_f32(),
        quiet().as_secs(),
        failed(&ran)
    );
    let asking = Instant::now();
    let questions = explained::all(plane, &mut ran, &chronicle).await;
    eprintln!(
        "explain asked {questions} times in {:.1} s; {} failed",
        asking.elapsed().as_secs_f32(),
        failed(&ran)
    );
    ran.sort_by_key(|ran| (ran.case.property, ran.case.number));
    ran
}

fn judge_all(plane: &Plane, ran: &mut [Ran], chronicle: &Chronicle, mark: Mark) {
    let events = plane.audit().since(mark).unwrap();
    for ran in ran.iter_mut() {
        if let Some(failure) = &mut ran.failure {
            failure.push_str(&written(&events, &ran.namespaces));
        }
    }
    let deletions: Vec<Event> = events
        .iter()
        .filter(|event| event.info().verb == Verb::Delete)
        .cloned()
        .collect();
    let work = work(events);
    for ran in ran.iter_mut().filter(|ran| ran.failure.is_none()) {
        ran.failure = laws::hold(ran, chronicle, &work, &deletions).err().map(|broken| {
            let ours = ran.namespaces.iter().filter_map(|namespace| work.get(namespace));
            let all: Vec<Event> = ours.flatten().chain(&deletions).cloned().collect();
            broken + &written(&all, &ran.namespaces)
        });
    }
}

/// The last writes in a namespace, whoever wrote them.
fn written(events: &[Event], namespaces: &[String]) -> String {
    let info = |event: &&Event| {
        let info = event.info();
        info.verb.writes() && info.namespace.is_some_and(|namespace| namespaces.contains(&namespace))
    };
    let mut lines: Vec<String> = events.iter().filter(info).map(|event| format!("\n  {event}")).collect();
    lines.sort();
    lines.split_off(lines.len().saturating_sub(LAST_WRITES)).concat()
}

async fn one(case: Case, places: Vec<Isolated>, linkerd: &Linkerd, client: &Client, chronicle: &Chronicle) -> Ran {
    let namespaces = places.iter().map(|place| place.name().to_owned()).collect();
    let told = AssertUnwindSafe(tell(&case, &places, linkerd, client, chronicle))
        .catch_unwind()
        .await;
    let (linkerd, failure) = match told {
        Ok(linkerd) => (linkerd, None),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
            (None, Some(text.unwrap_or_default()))
        }
    };
    Ran {
        case,
        failure,
        namespaces,
        _places: places,
        _linkerd: linkerd,
    }
}

/// The steps, then what the property asks at their end.
async fn tell(
    case: &Case,
    places: &[Isolated],
    linkerd: &Linkerd,
    client: &Client,
    chronicle: &Chronicle,
) -> Option<StandIn> {
    match &case.plot {
        Plot::Whole(steps) => whole(case, steps, places, client, chronicle).await,
        Plot::Routed(steps) => return Some(routed::tell(case, steps, places, linkerd, client, chronicle).await),
    }
    None
}

/// The same, of policies for whole Services.
async fn whole(case: &Case, steps: &[Step], places: &[Isolated], client: &Client, chronicle: &Chronicle) {
    let isolated = &places[0];
    let mut story = Story::new(isolated, client, chronicle);
    for step in steps {
        story.take(step).await;
    }
    // A deletion does not wait for what goes on.
    if case.property == Property::P2 {
        return all_is_taken_back(&mut story, case.number, client, chronicle).await;
    }
    let now = story.settle().await;
    story.check_ledger(&now);
    match case.property {
        Property::P1 => again_and_elsewhere(&mut story, case.number, client, chronicle, isolated).await,
        Property::P9 => everything_off(&mut story).await,
        _ => {}
    }
}

/// P2: policies and Services go in any order, or the whole namespace does; nothing of ours is left.
async fn all_is_taken_back(story: &mut Story<'_>, number: u32, client: &Client, chronicle: &Chronicle) {
    let namespace = story.namespace.clone();
    if number % 5 == 4 {
        let namespaces: Api<Namespace> = Api::all(client.clone());
        namespaces.delete(&namespace, &DeleteParams::default()).await.unwrap();
    } else {
        if number % 5 == 3 {
            story.take(&Step::DeleteService("web")).await;
        }
        for name in ["one", "two"] {
            story.delete_policy(name).await;
        }
    }
    let gone = |now: &crate::chronicle::Now| {
        let left = now.policies.keys().next();
        left.map_or(Ok(()), |name| Err(format!("policy {name} is still there")))
    };
    let limit = if number % 5 == 4 { EMPTY } else { SOON };
    chronicle.until(&namespace, limit, gone).await;
    let now = story.settle().await;
    story.check_ledger(&now);
}

/// P1: asked again and again, nothing changes; and the last manifests alone lead to the same end in another namespace,
/// in whatever order they come.
async fn again_and_elsewhere(
    story: &mut Story<'_>,
    number: u32,
    client: &Client,
    chronicle: &Chronicle,
    isolated: &Isolated,
) {
    let before = chronicle.now(&story.namespace);
    let versions = |services: &BTreeMap<String, Service>| -> Vec<_> {
        services
            .values()
            .map(|service| (service.uid(), service.resource_version()))
            .collect()
    };
    let Some(policy) = before.policies.get("one").cloned() else {
        return;
    };
    for time in ["first", "second"] {
        story.request("one", time).await;
    }
    assert_eq!(
        versions(&before.services),
        versions(&chronicle.now(&story.namespace).services),
        "asked again, something was written"
    );
    let touch = json!({ "metadata": { "labels": { "touched": "yes" } } });
    let services: Api<Service> = Api::namespaced(client.clone(), &story.namespace);
    for name in before.services.keys() {
        services
            .patch(name, &PatchParams::default(), &Patch::Merge(&touch))
            .await
            .unwrap();
    }
    let now = story.settle().await;
    let annotations = |service: &Service| service.annotations().clone();
    assert_eq!(
        before.services.values().map(annotations).collect::<Vec<_>>(),
        now.services.values().map(annotations).collect::<Vec<_>>(),
    );
    if condition(&policy, "Ready").is_none_or(|ready| ready.status != "True") {
        return; // What was applied before stays while a policy is refused: the end depends on the way.
    }
    let twin = isolated.plane().isolated("twin").await.unwrap();
    let mut elsewhere = Story::new(&twin, client, chronicle);
    let ours = manager(&story.namespace, "one");
    let spec = serde_json::to_value(&policy.spec).unwrap();
    if number.is_multiple_of(2) {
        elsewhere.policy("one", &spec).await;
    }
    for (name, service) in &now.services {
        let others = owned(&service.metadata, |by| by != ours);
        let annotations: BTreeMap<_, _> = service
            .annotations()
            .iter()
            .filter(|(key, _)| others.contains(*key))
            .collect();
        let ports = service
            .spec
            .as_ref()
            .and_then(|spec| spec.ports.clone())
            .unwrap_or_default();
        let ports: Vec<_> = ports
            .iter()
            .map(|port| json!({ "name": port.name, "port": port.port, "appProtocol": port.app_protocol }))
            .collect();
        elsewhere.apply_service(name, &[], &json!(annotations), &ports).await;
    }
    elsewhere.policy("one", &spec).await;
    let there = elsewhere.settle().await;
    for (name, service) in &now.services {
        assert_eq!(
            service.annotations(),
            there.services[name].annotations(),
            "{name} in {}",
            twin.name()
        );
    }
    std::mem::forget(twin); // Its clean-up would disturb the rest.
}

/// P9: with every section off, none of our keys is ours any more; what others own with us stays.
async fn everything_off(story: &mut Story<'_>) {
    for section in crate::steps::SECTIONS {
        let there = story.settle().await.policies.get("one").is_some_and(|policy| {
            let spec = serde_json::to_value(&policy.spec).unwrap();
            spec.get(section).is_some()
        });
        if there {
            story
                .edit("one", json!({ "spec": { *section: { "enabled": false } } }))
                .await;
        }
    }
    let now = story.settle().await;
    story.check_ledger(&now);
    let Some(policy) = now.policies.get("one") else { return };
    if condition(policy, "Ready").is_some_and(|ready| ready.status == "True") {
        for (name, service) in &now.services {
            let left = owned(&service.metadata, |by| by.starts_with("trellis-"));
            assert!(left.is_empty(), "{name} keeps {left:?}");
        }
    }
}
