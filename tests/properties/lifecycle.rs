//! All random stories at once, then one rest, then every law over what was stored and written.
//!
//! ```text
//!  seed ─▶ cases ─▶ stories, many at once ─▶ rest (no write by the operator) ─▶ statuses, ledger, audit log, versions
//! ```
//!
//! `TRELLIS_CASES` (per property; 20, with `TRELLIS_PROVE` 100), `TRELLIS_SEED` and `TRELLIS_CASE` (such as `P9/13`)
//! choose what runs; a failure prints the last two.

use std::{
    collections::BTreeMap,
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
use trellis_api::ResiliencePolicy;
use trellis_testkit::{
    audit::{Event, Mark},
    plane::{Isolated, Plane},
    rest,
};

use crate::{
    audited::{is_work, lawful, work},
    chronicle::{Chronicle, Place},
    property::{Case, Property},
    story::{SACRED, SOON, Story, at_rest},
    verdict::{condition, manager, owned},
};

/// Stories at once.
const AT_ONCE: usize = 24;

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
    let all = properties
        .iter()
        .flat_map(|property| (0..count()).map(|number| property.case(number, seed)));
    all.filter(|case| only.as_ref().is_none_or(|only| case.name() == *only))
        .collect()
}

/// What became of one case.
pub(crate) struct Ran {
    pub(crate) case: Case,
    pub(crate) failure: Option<String>,
    namespace: String,
    /// Kept until the process ends, so that no clean-up disturbs the rest.
    _isolated: Option<Isolated>,
}

/// Tells the stories of the cases, each in its namespace, and judges them. `meanwhile` is dropped when the last one is
/// told; then `after` is awaited before the rest.
pub(crate) async fn run(
    plane: &Plane,
    cases: Vec<Case>,
    namespaces: Vec<Isolated>,
    meanwhile: impl Future<Output = ()>,
    after: impl Future<Output = ()>,
) -> Vec<Ran> {
    let began = Instant::now();
    let client = plane.client().unwrap();
    let chronicle = Chronicle::start(&client).await;
    let mark = plane.audit().mark().unwrap();
    let total = cases.len();
    let stories = stream::iter(cases.into_iter().zip(namespaces))
        .map(|(case, isolated)| one(case, isolated, &client, &chronicle))
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<Ran>>();
    let mut ran = match select(pin!(stories), pin!(meanwhile)).await {
        Either::Left((ran, _)) => ran,
        Either::Right(((), stories)) => stories.await,
    };
    after.await;
    let told = began.elapsed();
    let places: Vec<String> = ran
        .iter()
        .filter(|ran| ran.failure.is_none())
        .map(|ran| ran.namespace.clone())
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
    ran.sort_by_key(|ran| (ran.case.property, ran.case.number));
    let failed = ran.iter().filter(|ran| ran.failure.is_some()).count();
    eprintln!(
        "{total} stories in {:.1} s, then {} s of rest; {failed} failed",
        told.as_secs_f32(),
        quiet().as_secs()
    );
    ran
}

fn judge_all(plane: &Plane, ran: &mut [Ran], chronicle: &Chronicle, mark: Mark) {
    let events = plane.audit().since(mark).unwrap();
    for ran in ran.iter_mut() {
        if let Some(failure) = &mut ran.failure {
            failure.push_str(&written(&events, &ran.namespace));
        }
    }
    let work = work(events);
    for ran in ran.iter_mut().filter(|ran| ran.failure.is_none()) {
        let place = chronicle.place(&ran.namespace);
        let verdict = at_rest(&ran.namespace, &chronicle.now(&ran.namespace))
            .and_then(|()| {
                lawful(
                    &ran.namespace,
                    work.get(&ran.namespace).map(Vec::as_slice).unwrap_or_default(),
                )
            })
            .and_then(|()| sacred(&place))
            .and_then(|()| transitions(&place));
        ran.failure = verdict.err();
    }
}

/// The last writes in a namespace, whoever wrote them.
fn written(events: &[Event], namespace: &str) -> String {
    let info = |event: &&Event| event.info().verb.writes() && event.info().namespace.as_deref() == Some(namespace);
    let mut lines: Vec<String> = events.iter().filter(info).map(|event| format!("\n  {event}")).collect();
    lines.sort();
    lines.split_off(lines.len().saturating_sub(LAST_WRITES)).concat()
}

/// No version of any Service lacks what its author wrote.
fn sacred(place: &Place) -> Result<(), String> {
    for (name, versions) in &place.services {
        for version in versions.iter().flatten() {
            let lost = SACRED
                .iter()
                .find(|(key, value)| version.annotations().get(*key).is_none_or(|found| found != value));
            if let Some((key, _)) = lost {
                return Err(format!(
                    "Service {name} lost {key} in version {:?}",
                    version.resource_version()
                ));
            }
        }
    }
    Ok(())
}

/// The transition time of a condition moves on a flip only, the time of the last update on a change only.
fn transitions(place: &Place) -> Result<(), String> {
    for (name, versions) in &place.policies {
        let living: Vec<&ResiliencePolicy> = versions.iter().flatten().collect();
        for (old, new) in living
            .iter()
            .zip(living.iter().skip(1))
            .filter(|(old, new)| old.uid() == new.uid())
        {
            let (Some(before), Some(after)) = (&old.status, &new.status) else {
                continue;
            };
            for condition_after in &after.common.conditions {
                let Some(condition_before) = condition(old, &condition_after.type_) else {
                    continue;
                };
                let flipped = condition_before.status != condition_after.status;
                let moved = condition_before.last_transition_time != condition_after.last_transition_time;
                if moved && !flipped || condition_after.last_transition_time < condition_before.last_transition_time {
                    return Err(format!("{name}: {condition_before:?} became {condition_after:?}"));
                }
            }
            let mut same = after.clone();
            same.last_update_time.clone_from(&before.last_update_time);
            if (same == *before) != (after.last_update_time == before.last_update_time) {
                return Err(format!(
                    "{name}: lastUpdateTime {:?} → {:?}",
                    before.last_update_time, after.last_update_time
                ));
            }
        }
    }
    Ok(())
}

async fn one(case: Case, isolated: Isolated, client: &Client, chronicle: &Chronicle) -> Ran {
    let namespace = isolated.name().to_owned();
    let told = AssertUnwindSafe(tell(&case, &isolated, client, chronicle))
        .catch_unwind()
        .await;
    let failure = told.err().map(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()))
            .unwrap_or_default()
    });
    Ran {
        case,
        failure,
        namespace,
        _isolated: Some(isolated),
    }
}

/// The steps, then what the property asks at their end.
async fn tell(case: &Case, isolated: &Isolated, client: &Client, chronicle: &Chronicle) {
    let mut story = Story::new(isolated, client, chronicle);
    for step in &case.steps {
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
            story.take(&crate::steps::Step::DeleteService("web")).await;
        }
        for name in ["one", "two"] {
            story.delete_policy(name).await;
        }
    }
    let gone = |now: &crate::chronicle::Now| {
        let left = now.policies.keys().next();
        left.map_or(Ok(()), |name| Err(format!("policy {name} is still there")))
    };
    chronicle.until(&namespace, SOON, gone).await;
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
