//! When a consumer looks: at a new revision, and at an artifact where there was none while it waited. At nothing else.

use std::time::Instant;

use http::StatusCode;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use trellis_testkit::eventually;

use crate::{
    archive::{archive, config_map},
    site::{Artifact, Kind, Site, condition},
};

fn numbered(number: &str) -> Vec<u8> {
    archive(&[("one.yaml", &config_map("one", "number", number))])
}

/// Another digest and URL under the same revision are not seen by a consumer that is Ready at it: not when they change,
/// and not when the artifact was taken away in between. A request to reconcile makes it look.
#[tokio::test(flavor = "multi_thread")]
async fn an_equal_revision_is_nothing_new() {
    let site = Site::new("equal").await;
    for name in ["app", "fence"] {
        site.artifact(name).await;
    }
    let first = site.serve("first.tar.gz", numbered("1"));
    site.publish("app", Some(&first)).await;
    site.kustomization("app", json!({})).await;
    site.ready_at(Kind::Kustomization, "app", &first.revision).await;

    let other = Artifact {
        revision: first.revision.clone(),
        ..site.serve("other.tar.gz", numbered("2"))
    };
    for artifact in [Some(&other), None, Some(&other)] {
        site.publish("app", artifact).await;
    }
    // What happened after it has been seen by the same controller, so this has been as well.
    let fence = site.serve(
        "fence.tar.gz",
        archive(&[("f.yaml", &config_map("fence", "number", "1"))]),
    );
    site.publish("fence", Some(&fence)).await;
    site.kustomization("fence", json!({})).await;
    site.ready_at(Kind::Kustomization, "fence", &fence.revision).await;
    assert_eq!(site.files.asked("other.tar.gz"), [StatusCode::OK; 0]);
    site.data("one", "number", "1").await;

    let request = json!({ "metadata": { "annotations": { "reconcile.fluxcd.io/requestedAt": "now" } } });
    let kustomizations = site.api(Kind::Kustomization);
    kustomizations
        .patch("app", &PatchParams::default(), &Patch::Merge(request))
        .await
        .unwrap();
    site.data("one", "number", "2").await;
    for name in ["app", "fence"] {
        site.finish(Kind::Kustomization, name).await;
    }
}

/// A consumer that is there before the artifact says so, and applies it once it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_waits_for_the_first_artifact() {
    let site = Site::new("first").await;
    site.artifact("app").await;
    site.kustomization("app", json!({})).await;
    let waits = |status: &Value| condition(status, "Ready").2.contains("artifact not found");
    site.status(Kind::Kustomization, "app", "waits", waits).await;

    let artifact = site.serve("first.tar.gz", numbered("1"));
    let began = Instant::now();
    site.publish("app", Some(&artifact)).await;
    site.ready_at(Kind::Kustomization, "app", &artifact.revision).await;
    println!("Ready {:?} after the status had an artifact", began.elapsed());
    site.finish(Kind::Kustomization, "app").await;
}

/// A file that is not there yet is asked for again after the time of `--requeue-dependency`: whoever publishes first and
/// stores afterwards delays everybody.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_file_is_asked_for_again() {
    let site = Site::new("missing").await;
    site.artifact("app").await;
    let bytes = numbered("1");
    let artifact = Artifact {
        path: "late.tar.gz",
        ..site.serve("early.tar.gz", bytes.clone())
    };
    site.publish("app", Some(&artifact)).await;
    site.kustomization("app", json!({})).await;
    eventually("it is asked for twice", async || {
        match site.files.asked("late.tar.gz").len() {
            0 | 1 => Err("asked for at most once"),
            _ => Ok(()),
        }
    })
    .await;
    site.files.put("late.tar.gz", bytes);
    site.ready_at(Kind::Kustomization, "app", &artifact.revision).await;
    site.data("one", "number", "1").await;
    site.finish(Kind::Kustomization, "app").await;
}
