//! Objects that are owned, names that are taken, plans that wait, objects that are suspended.

use k8s_openapi::api::core::v1::{ConfigMap, Service};
use serde_json::json;
use trellis_testkit::{Verb, calls, fixtures::service};

use crate::{
    stage::{Stage, isolated, ready},
    widget::{COLOUR, DEFECT, Widget, WidgetSpec},
};

fn red(map: &str) -> WidgetSpec {
    WidgetSpec {
        colour: "red".to_owned(),
        map: Some(map.to_owned()),
        ..WidgetSpec::default()
    }
}

fn colour(map: &ConfigMap) -> Option<&str> {
    map.data.as_ref()?.get("colour").map(String::as_str)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owned_object_is_created_marked_repaired_pruned_and_deleted_with_its_owner() {
    let stage = Stage::up().await;
    stage.create("w", red("one")).await;
    let widget = stage.ready("w", "True", "Applied").await;
    let map: ConfigMap = stage.isolated.get("one").await.unwrap();
    assert_eq!(colour(&map), Some("red"));
    assert_eq!(
        map.metadata.labels.as_ref().unwrap()["trellis.dev/controller"],
        "widget"
    );
    let owner = format!("{}/w", stage.isolated.name());
    assert_eq!(map.metadata.annotations.as_ref().unwrap()["trellis.dev/owner"], owner);
    assert_eq!(
        map.metadata.owner_references.as_ref().unwrap()[0].uid,
        widget.metadata.uid.unwrap()
    );
    let order: Vec<String> = stage
        .recording
        .of(&calls().work())
        .into_iter()
        .map(|call| call.info.resource)
        .collect();
    // The inventory is stored before what it records.
    assert_eq!(order, ["widgets", "widgets/status", "configmaps", "widgets/status"]);

    let drift = json!({ "data": { "colour": "blue", "theirs": "kept" } });
    stage.isolated.merge::<ConfigMap>("one", drift).await.unwrap();
    let repaired = stage
        .isolated
        .until("one", "red again", |map: &ConfigMap| colour(map) == Some("red"))
        .await;
    assert_eq!(repaired.data.unwrap()["theirs"], "kept", "fields of others stay");
    stage.isolated.delete::<ConfigMap>("one").await.unwrap();
    let uid = map.metadata.uid;
    stage
        .isolated
        .until("one", "made again", |map: &ConfigMap| {
            map.metadata.uid != uid && colour(map).is_some()
        })
        .await;

    stage.change("w", json!({ "map": "two" })).await;
    let widget = stage.ready("w", "True", "Applied").await;
    stage.isolated.gone::<ConfigMap>("one").await;
    assert_eq!(colour(&stage.isolated.get("two").await.unwrap()), Some("red"));
    let inventory: Vec<String> = widget
        .status
        .unwrap()
        .common
        .inventory
        .into_iter()
        .map(|entry| entry.name)
        .collect();
    assert_eq!(inventory, ["two"]);

    stage.isolated.delete::<Widget>("w").await.unwrap();
    stage.isolated.gone::<Widget>("w").await;
    stage.isolated.gone::<ConfigMap>("two").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_name_is_never_taken_over() {
    let isolated = isolated().await;
    let theirs: ConfigMap =
        serde_json::from_value(json!({ "metadata": { "name": "one" }, "data": { "a": "b" } })).unwrap();
    let theirs = isolated.create_object(theirs).await.unwrap();
    let stage = Stage::serving(isolated, &[]);
    stage.create("w", red("one")).await;
    stage.ready("w", "False", "NameTaken").await;
    // Nor is what another Widget owns.
    stage.create("first", red("two")).await;
    stage.ready("first", "True", "Applied").await;
    stage.create("second", red("two")).await;
    stage.ready("second", "False", "NameTaken").await;
    for name in ["w", "second"] {
        stage.isolated.delete::<Widget>(name).await.unwrap();
        stage.isolated.gone::<Widget>(name).await;
    }
    let now: ConfigMap = stage.isolated.get("one").await.unwrap();
    assert_eq!(now, theirs);
    assert_eq!(colour(&stage.isolated.get("two").await.unwrap()), Some("red"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_plan_never_prunes() {
    let stage = Stage::up().await;
    stage.create("w", red("one")).await;
    stage.ready("w", "True", "Applied").await;
    stage.change("w", json!({ "map": "two", "waits": true })).await;
    let widget = stage.ready("w", "False", "Asked").await;
    let status = widget.status.unwrap().common;
    assert_eq!(status.inventory.len(), 2, "{status:?}");
    assert!(
        status
            .conditions
            .iter()
            .any(|condition| condition.type_ == "Reconciling"),
        "{status:?}"
    );
    assert_eq!(colour(&stage.isolated.get("one").await.unwrap()), Some("red"));
    assert_eq!(colour(&stage.isolated.get("two").await.unwrap()), Some("red"));
    stage.change("w", json!({ "waits": false })).await;
    stage.ready("w", "True", "Applied").await;
    stage.isolated.gone::<ConfigMap>("one").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_plan_leaves_what_runs() {
    let stage = Stage::up().await;
    stage.create("w", red("one")).await;
    stage.ready("w", "True", "Applied").await;
    stage.change("w", json!({ "map": "two", "secret": "missing" })).await;
    let widget = stage.ready("w", "False", "SecretNotFound").await;
    let conditions = widget.status.unwrap().common.conditions;
    assert!(
        conditions.iter().any(|condition| condition.type_ == "Stalled"),
        "{conditions:?}"
    );
    assert_eq!(colour(&stage.isolated.get("one").await.unwrap()), Some("red"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_object_is_left_alone_until_it_is_deleted() {
    let stage = Stage::up().await;
    stage.create("w", red("one")).await;
    stage.ready("w", "True", "Applied").await;
    stage.change("w", json!({ "suspend": true })).await;
    stage.ready("w", "Unknown", "Suspended").await;
    stage.ready("w", "Unknown", "Suspended").await;
    let place = stage.recording.place();
    let drift = json!({ "data": { "colour": "blue" } });
    stage.isolated.merge::<ConfigMap>("one", drift).await.unwrap();
    // Another Widget that goes its whole way shows that the drift has been seen by now.
    stage.create("other", red("two")).await;
    stage.ready("other", "True", "Applied").await;
    let writes = stage.recording.since(place).into_iter();
    let of_w: Vec<_> = writes
        .filter(|call| calls().work().matches(&call.info))
        .filter(|call| matches!(call.info.name.as_deref(), Some("w" | "one")))
        .collect();
    assert!(of_w.is_empty(), "{of_w:?}");
    assert_eq!(colour(&stage.isolated.get("one").await.unwrap()), Some("blue"));
    stage.isolated.delete::<Widget>("w").await.unwrap();
    stage.isolated.gone::<Widget>("w").await;
    stage.isolated.gone::<ConfigMap>("one").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_is_contributed_never_forced_and_taken_back() {
    let stage = Stage::up().await;
    let theirs = service("web").port(80).annotation(COLOUR, "blue");
    stage.isolated.create_object(theirs.build()).await.unwrap();
    let spec = WidgetSpec {
        colour: "red".to_owned(),
        service: Some("web".to_owned()),
        ..WidgetSpec::default()
    };
    stage.create("w", spec).await;
    let refused = stage.ready("w", "False", "ForeignOwner").await;
    let message = &refused.status.as_ref().unwrap().common.conditions[0].message;
    assert!(message.contains(COLOUR.rsplit('/').next().unwrap()), "{message}");
    let found = |colour: Option<&'static str>| {
        move |service: &Service| {
            let annotations = service.metadata.annotations.as_ref();
            annotations.and_then(|map| map.get(COLOUR)).map(String::as_str) == colour
        }
    };
    // The others give it up.
    let free = json!({ "metadata": { "annotations": { COLOUR: null } } });
    stage.isolated.merge::<Service>("web", free).await.unwrap();
    stage.isolated.until("web", "annotated", found(Some("red"))).await;
    stage.ready("w", "True", "Applied").await;
    stage.change("w", json!({ "service": null })).await;
    stage.isolated.until("web", "free of it", found(None)).await;
    let touched = stage.recording.of(&calls().work().resource("services"));
    assert!(
        touched
            .iter()
            .all(|call| call.info.verb == Verb::Patch
                && call.info.parameter("force").is_none_or(|force| force != "true"))
    );
    assert!(ready(&stage.ready("w", "True", "Applied").await).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owned_object_without_its_marks_is_still_owned() {
    let stage = Stage::up().await;
    stage.create("w", red("one")).await;
    stage.ready("w", "True", "Applied").await;
    let marks = json!({ "metadata": { "annotations": { "trellis.dev/owner": null },
                                      "labels": { "trellis.dev/controller": null } } });
    stage.isolated.merge::<ConfigMap>("one", marks).await.unwrap();
    let marked = |map: &ConfigMap| {
        let annotations = map.metadata.annotations.as_ref();
        let labels = map.metadata.labels.as_ref();
        annotations.is_some_and(|map| map.contains_key("trellis.dev/owner"))
            && labels.is_some_and(|map| map.contains_key("trellis.dev/controller"))
    };
    stage.isolated.until("one", "marked again", marked).await;
    stage.change("w", json!({ "map": null })).await;
    stage.isolated.gone::<ConfigMap>("one").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_defect_costs_the_object_that_meets_it_and_no_other() {
    let stage = Stage::up().await;
    stage.create("w", red("one")).await;
    stage.ready("w", "True", "Applied").await;
    stage.change("w", json!({ "colour": DEFECT })).await;
    let told = stage.ready("w", "Unknown", "InternalError").await;
    let message = &told.status.unwrap().common.conditions[0].message;
    assert!(message.contains("panicked"), "{message}");
    stage.create("other", red("two")).await;
    stage.ready("other", "True", "Applied").await;
    stage.change("w", json!({ "colour": "green" })).await;
    stage.ready("w", "True", "Applied").await;
}
