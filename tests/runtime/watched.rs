//! What is watched, and what is not: Secrets by name, kinds that come and go, objects that do not parse, namespaces.

use k8s_openapi::{
    api::core::v1::{ConfigMap, Secret},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{Api, CustomResourceExt, api::DeleteParams};
use serde_json::json;
use trellis_testkit::{Fault, Script, Verb, calls, eventually};

use crate::{
    stage::{Stage, isolated},
    widget::{Gadget, GadgetSpec, Widget, WidgetSpec},
};

fn secret(word: &str) -> Secret {
    serde_json::from_value(json!({ "metadata": { "name": "key" }, "stringData": { "word": word } })).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_referenced_secret_is_watched_by_its_name_and_only_while_it_is_referenced() {
    let stage = Stage::up().await;
    let other: Secret = serde_json::from_value(json!({ "metadata": { "name": "other" } })).unwrap();
    stage.isolated.create_object(other).await.unwrap();
    let spec = WidgetSpec {
        secret: Some("key".to_owned()),
        ..WidgetSpec::default()
    };
    stage.create("w", spec).await;
    stage.ready("w", "False", "SecretNotFound").await;
    stage.isolated.create_object(secret("one")).await.unwrap();
    let says = |word: &'static str| {
        move |widget: &Widget| {
            widget
                .status
                .as_ref()
                .is_some_and(|status| status.secret.as_deref() == Some(word))
        }
    };
    stage.isolated.until("w", "told the first word", says("one")).await;
    stage
        .isolated
        .merge::<Secret>("key", json!({ "stringData": { "word": "two" } }))
        .await
        .unwrap();
    stage.isolated.until("w", "told the second word", says("two")).await;

    stage.change("w", json!({ "secret": null })).await;
    stage.ready("w", "True", "Applied").await;
    let secrets = calls().resource("secrets");
    eventually("nobody watches the Secret", async || {
        match stage.script.open_watches(&secrets) {
            0 => Ok(()),
            open => Err(format!("{open} watches are open")),
        }
    })
    .await;
    let asked = stage.recording.of(&secrets);
    assert!(!asked.is_empty());
    for call in asked {
        assert!(matches!(call.info.verb, Verb::List | Verb::Watch), "{call:?}");
        assert_eq!(
            call.info.parameter("fieldSelector").as_deref(),
            Some("metadata.name=key"),
            "{call:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_optional_kind_comes_and_goes() {
    let stage = Stage::up().await;
    stage.create("w", WidgetSpec::default()).await;
    stage.ready("w", "True", "Applied").await;
    let has =
        |gadget: bool| move |widget: &Widget| widget.status.as_ref().is_some_and(|status| status.gadget == gadget);
    for _ in 0..2 {
        stage.isolated.plane().apply(&[Gadget::crd()]).await.unwrap();
        let gadget = serde_json::to_value(Gadget::new("w", GadgetSpec {})).unwrap();
        stage.isolated.apply(gadget).await.unwrap();
        stage.isolated.until("w", "with its Gadget", has(true)).await;
        let crds: Api<CustomResourceDefinition> = Api::all(stage.isolated.client().clone());
        let name = Gadget::crd_name();
        crds.delete(name, &DeleteParams::default()).await.unwrap();
        stage.isolated.until("w", "without its Gadget", has(false)).await;
        eventually("the CRD is gone", async || match crds.get_opt(name).await {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err("it is there".to_owned()),
            Err(error) => Err(error.to_string()),
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_object_never_stops_the_watch() {
    let isolated = isolated().await;
    let bad = |name: &str| {
        json!({ "apiVersion": "testing.trellis.dev/v1", "kind": "Widget", "metadata": { "name": name },
                "spec": { "colour": { "not": "a string" } } })
    };
    // One is there before the first list, one comes later.
    isolated.apply(bad("early")).await.unwrap();
    let stage = Stage::serving(isolated, &[]);
    stage.create("before", WidgetSpec::default()).await;
    stage.ready("before", "True", "Applied").await;
    stage.isolated.apply(bad("late")).await.unwrap();
    stage.create("after", WidgetSpec::default()).await;
    stage.ready("after", "True", "Applied").await;
    for name in ["early", "late"] {
        stage.change(name, json!({ "colour": "red", "map": name })).await;
        stage.ready(name, "True", "Applied").await;
    }
    // One that was fine and turns bad keeps what it has.
    stage.isolated.apply(bad("early")).await.unwrap();
    stage.change("before", json!({ "colour": "blue" })).await;
    stage.ready("before", "True", "Applied").await;
    stage.isolated.get::<ConfigMap>("early").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_cannot_be_listed_stops_no_other() {
    let (open, closed) = (isolated().await, isolated().await);
    let script = Script::new();
    let refused = script.add(calls().verb(Verb::List).namespace(closed.name()).then(Fault::fail(403)));
    let stage = Stage::disturbed(open, &[closed.name()], script);
    let widget = json!({ "apiVersion": "testing.trellis.dev/v1", "kind": "Widget", "metadata": { "name": "w" },
                         "spec": { "colour": "red", "map": "one" } });
    closed.apply(widget).await.unwrap();
    stage.create("w", WidgetSpec::default()).await;
    stage.ready("w", "True", "Applied").await;
    let untouched: Widget = closed.get("w").await.unwrap();
    assert!(untouched.status.is_none());
    refused.lift();
    closed
        .until("w", "Ready", |widget: &Widget| {
            crate::stage::ready(widget) == Some(("True", "Applied"))
        })
        .await;
    stage.stop.cancel();
    stage.running.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_also_what_was_never_listed() {
    let script = Script::new().with(calls().verb(Verb::List).resource("widgets").then(Fault::fail(403)));
    let stage = Stage::disturbed(isolated().await, &[], script);
    eventually("lists were tried", async || {
        match stage.recording.of(&calls().verb(Verb::List).resource("widgets")).len() {
            0 => Err("none was"),
            _ => Ok(()),
        }
    })
    .await;
    stage.stop.cancel();
    stage.running.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_served_namespaces_are_looked_at() {
    let (one, two, stranger) = (isolated().await, isolated().await, isolated().await);
    let widget = json!({ "apiVersion": "testing.trellis.dev/v1", "kind": "Widget", "metadata": { "name": "w" },
                         "spec": { "colour": "red", "map": "one" } });
    for namespace in [&one, &two, &stranger] {
        namespace.apply(widget.clone()).await.unwrap();
    }
    let stage = Stage::serving(one, &[two.name()]);
    stage.ready("w", "True", "Applied").await;
    two.until("w", "Ready", |widget: &Widget| widget.status.is_some()).await;
    let untouched: Widget = stranger.get("w").await.unwrap();
    assert!(untouched.status.is_none() && untouched.metadata.finalizers.is_none());
    let served = [Some(stage.isolated.name()), Some(two.name())];
    for call in stage.recording.calls() {
        let cluster_wide = call.info.resource == "customresourcedefinitions";
        assert!(
            cluster_wide || served.contains(&call.info.namespace.as_deref()),
            "{call:?}"
        );
    }
}
