//! The controller while things fail: watches that end, calls that fail, answers that are late, a stop in the middle.

use k8s_openapi::api::core::v1::{ConfigMap, Service};
use serde_json::json;
use trellis_testkit::{Fault, Gate, Verb, WatchEnd, calls, eventually, fixtures::service};

use crate::{
    stage::{Stage, ready},
    widget::WidgetSpec,
};

fn red(map: &str) -> WidgetSpec {
    WidgetSpec {
        colour: "red".to_owned(),
        map: Some(map.to_owned()),
        ..WidgetSpec::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_that_end_resume() {
    let stage = Stage::up().await;
    for (round, end) in [WatchEnd::Expire, WatchEnd::Cut, WatchEnd::Close]
        .into_iter()
        .enumerate()
    {
        let name = format!("w-{round}");
        stage.create(&name, red(&name)).await;
        stage.ready(&name, "True", "Applied").await;
        // Widgets, maps and Services; those that ended before come back a little later.
        eventually("every watch is open", async || {
            match stage.script.open_watches(&calls()) {
                open if open >= 3 => Ok(()),
                open => Err(format!("{open} watches are open")),
            }
        })
        .await;
        assert!(stage.script.end_watches(&calls(), end) >= 3, "{end:?}");
        // Both happen while the watches are down, or just after.
        let drift = json!({ "data": { "colour": "blue" } });
        stage.isolated.merge::<ConfigMap>(&name, drift).await.unwrap();
        stage
            .isolated
            .until(&name, "red again", |map: &ConfigMap| {
                map.data.as_ref().is_some_and(|data| data["colour"] == "red")
            })
            .await;
        stage.change(&name, json!({ "colour": "green" })).await;
        stage.ready(&name, "True", "Applied").await;
        let map: ConfigMap = stage.isolated.get(&name).await.unwrap();
        assert_eq!(map.data.unwrap()["colour"], "green");
    }
}

/// Deletes the map `one` behind a gate, and waits for another one after it opened.
async fn made_again_once_open(stage: &Stage, gate: &Gate) {
    let before: ConfigMap = stage.isolated.get("one").await.unwrap();
    stage.isolated.delete::<ConfigMap>("one").await.unwrap();
    stage.isolated.gone::<ConfigMap>("one").await;
    gate.open();
    stage
        .isolated
        .until("one", "made again", |map: &ConfigMap| {
            map.metadata.uid != before.metadata.uid
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_went_while_a_watch_was_down_is_noticed() {
    let stage = Stage::up().await;
    stage.create("w", red("one")).await;
    stage.ready("w", "True", "Applied").await;
    // No list and no watch of the maps until the gate opens: the deletion leaves no event.
    let gate = Gate::new();
    for verb in [Verb::List, Verb::Watch] {
        stage
            .script
            .add(calls().verb(verb).resource("configmaps").then(Fault::hold(&gate)));
    }
    stage
        .script
        .end_watches(&calls().resource("configmaps"), WatchEnd::Expire);
    gate.reached(1).await;
    made_again_once_open(&stage, &gate).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_retried_and_told_from_the_second_on() {
    let stage = Stage::up().await;
    let told = async |name: &str, failures: u64| {
        let of = calls().verb(Verb::Patch).resource("configmaps").name(name);
        let failing = stage.script.add(of.first(failures).then(Fault::fail(503)));
        let versions = stage.isolated.versions::<crate::widget::Widget>(name).await;
        stage.create(name, red(name)).await;
        stage.ready(name, "True", "Applied").await;
        assert_eq!(failing.hits(), failures);
        let seen = versions.seen();
        seen.iter()
            .flatten()
            .any(|widget| ready(widget).is_some_and(|ready| ready == ("Unknown", "Failed")))
    };
    assert!(!told("once", 1).await, "one lost request is no news");
    assert!(told("thrice", 3).await, "three are");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_retry_after_is_respected() {
    let stage = Stage::up().await;
    let of = calls().verb(Verb::Patch).resource("configmaps");
    stage
        .script
        .add(of.clone().first(1).then(Fault::fail_retry_after(429, 4)));
    stage.create("w", red("one")).await;
    stage.ready("w", "True", "Applied").await;
    let tries = stage.recording.of(&of);
    let pause = tries[1].at.duration_since(tries[0].at);
    assert!(pause >= jiff::SignedDuration::from_secs(4), "{pause:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_goes_before_the_answer_to_its_write_is_not_remembered() {
    let stage = Stage::up().await;
    stage
        .isolated
        .create_object(service("web").port(80).build())
        .await
        .unwrap();
    let gate = Gate::new();
    let writes = calls().verb(Verb::Patch).resource("services");
    stage.script.add(writes.first(1).then(Fault::hold_answer(&gate)));
    let spec = WidgetSpec {
        colour: "red".to_owned(),
        service: Some("web".to_owned()),
        ..WidgetSpec::default()
    };
    stage.create("w", spec).await;
    gate.reached(1).await;
    stage.isolated.delete::<Service>("web").await.unwrap();
    stage.isolated.gone::<Service>("web").await;
    // A change that the controller hears on the same watch shows that it has heard of the end.
    stage
        .isolated
        .create_object(service("other").port(80).build())
        .await
        .unwrap();
    let other = WidgetSpec {
        service: Some("other".to_owned()),
        ..WidgetSpec::default()
    };
    stage.create("other", other).await;
    stage.ready("other", "True", "Applied").await;
    gate.open();
    stage.ready("w", "False", "ServiceNotFound").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_a_reconcile_finish_and_starts_none() {
    let stage = Stage::up().await;
    let gate = Gate::new();
    let writes = calls().verb(Verb::Patch).resource("configmaps");
    stage.script.add(writes.first(1).then(Fault::hold(&gate)));
    stage.create("w", red("one")).await;
    gate.reached(1).await;
    stage.stop.cancel();
    stage.create("late", red("two")).await;
    gate.open();
    stage.running.await.unwrap();
    let finished: crate::widget::Widget = stage.isolated.get("w").await.unwrap();
    assert_eq!(ready(&finished), Some(("True", "Applied")));
    let late: crate::widget::Widget = stage.isolated.get("late").await.unwrap();
    assert!(late.status.is_none() && late.metadata.finalizers.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_watch_never_showed_before_it_went_is_noticed() {
    let stage = Stage::up().await;
    let maps = || calls().verb(Verb::Watch).resource("configmaps");
    eventually("the maps are watched", async || {
        match stage.script.open_watches(&maps()) {
            0 => Err("not yet"),
            _ => Ok(()),
        }
    })
    .await;
    // The map is written and deleted while nobody watches; the next watch starts with a new list.
    let gate = Gate::new();
    stage.script.add(maps().first(1).then(Fault::hold(&gate)));
    stage.script.add(maps().first(1).then(Fault::expire_watch()));
    stage.script.end_watches(&maps(), WatchEnd::Close);
    gate.reached(1).await;
    stage.create("w", red("one")).await;
    stage.ready("w", "True", "Applied").await;
    made_again_once_open(&stage, &gate).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_for_an_object_that_was_replaced_meanwhile_is_taken_back() {
    let stage = Stage::up().await;
    let web = service("web").port(80).build();
    stage.isolated.create_object(web).await.unwrap();
    let gate = Gate::new();
    let statuses = calls().verb(Verb::Patch).resource("widgets/status").name("w");
    stage.script.add(statuses.nth(2).then(Fault::hold(&gate)));
    // The second is the first attempt to take back.
    let services = calls().verb(Verb::Patch).resource("services");
    let failing = stage.script.add(services.nth(2).then(Fault::fail(503)));
    let spec = WidgetSpec {
        service: Some("web".to_owned()),
        ..red("one")
    };
    stage.create("w", spec).await;
    gate.reached(1).await;
    let let_go = json!({ "metadata": { "finalizers": null } });
    stage
        .isolated
        .merge::<crate::widget::Widget>("w", let_go)
        .await
        .unwrap();
    stage.isolated.delete::<crate::widget::Widget>("w").await.unwrap();
    stage.isolated.gone::<crate::widget::Widget>("w").await;
    stage.create("w", WidgetSpec::default()).await;
    gate.open();
    stage
        .isolated
        .until("web", "free of it", |service: &Service| {
            service
                .metadata
                .annotations
                .as_ref()
                .is_none_or(|map| !map.contains_key(crate::widget::COLOUR))
        })
        .await;
    stage.isolated.gone::<ConfigMap>("one").await;
    stage.ready("w", "True", "Applied").await;
    assert_eq!(failing.hits(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_write_to_the_object_itself_is_tried_again() {
    let stage = Stage::up().await;
    for (name, resource, nth) in [("held", "widgets", 1), ("told", "widgets/status", 2)] {
        let of = calls().verb(Verb::Patch).resource(resource).name(name);
        let refused = stage.script.add(of.nth(nth).then(Fault::fail(422)));
        stage.create(name, red(name)).await;
        stage.ready(name, "True", "Applied").await;
        assert_eq!(refused.hits(), 1);
    }
    let of = calls().verb(Verb::Patch).resource("widgets").name("held");
    let refused = stage.script.add(of.first(1).then(Fault::fail(422)));
    stage.isolated.delete::<crate::widget::Widget>("held").await.unwrap();
    stage.isolated.gone::<crate::widget::Widget>("held").await;
    assert_eq!(refused.hits(), 1);
}
