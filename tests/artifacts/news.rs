//! What users of an artifact are told: Events on the `ExternalArtifact`, and the same to Flux's notification-controller.

use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt as _;
use serde_json::{Value, json};
use trellis_api::ExternalSource;
use trellis_bindings::flux::ExternalArtifact;
use trellis_testkit::{Gate, eventually};

use crate::{
    archive::config_map,
    site::{Setup, Site},
    upstream::{Answer, Upstream},
};

/// What the notification-controller was told, once it is so much.
async fn told(receiver: &Upstream, number: usize) -> Vec<Value> {
    eventually(&format!("told {number} times"), async || {
        match receiver.bodies().len() {
            now if now >= number => Ok(()),
            now => Err(format!("{now} times")),
        }
    })
    .await;
    let bodies = receiver.bodies().into_iter();
    bodies.map(|body| serde_json::from_str(&body).unwrap()).collect()
}

/// A new artifact, a failure, which is told once however often it is tried, and its end: nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn news_are_told_of_the_artifact_and_checks_without_news_are_not() {
    let receiver = Upstream::start().await;
    receiver.answers(Answer {
        status: 202,
        ..Answer::default()
    });
    let setup = Setup {
        events: Some(receiver.url("").parse().unwrap()),
        ..Setup::default()
    };
    let site = Site::with("news", setup).await;
    site.upstream.serves("1", config_map("one", "number", "1"));
    let gate = Gate::new();
    site.upstream.waits_at(&gate);
    site.source("app", "app.yaml?token=geheim", json!({})).await;
    let marked = json!({ "metadata": { "annotations": { "event.toolkit.fluxcd.io/team": "a", "other": "b" } } });
    site.namespace.merge::<ExternalSource>("app", marked).await.unwrap();
    gate.open();
    let artifact = site.published("app", "").await;
    let published: ExternalArtifact = site.namespace.get("app").await.unwrap();
    let first = told(&receiver, 1).await.remove(0);
    let about = &first["involvedObject"];
    assert_eq!(about["kind"], "ExternalArtifact");
    assert_eq!(about["apiVersion"], "source.toolkit.fluxcd.io/v1");
    assert_eq!(about["namespace"], site.namespace.name());
    assert_eq!(
        (about["name"].as_str(), about["uid"].as_str()),
        (Some("app"), published.uid().as_deref())
    );
    assert_eq!(
        (&first["severity"], &first["reason"]),
        (&json!("info"), &json!("NewArtifact"))
    );
    assert!(
        first["message"].as_str().unwrap().contains(&artifact.revision),
        "{first}"
    );
    assert!(first["timestamp"].as_str().unwrap().ends_with('Z'), "{first}");
    assert_eq!(
        first["metadata"],
        json!({
            "source.toolkit.fluxcd.io/revision": artifact.revision,
            "source.toolkit.fluxcd.io/digest": artifact.digest,
            "source.toolkit.fluxcd.io/originRevision": "\"1\"",
            "event.toolkit.fluxcd.io/team": "a",
        })
    );
    assert_eq!(first["reportingController"], "trellis-external-source");

    // A check that finds nothing is no news; nor is the same failure again.
    site.request("app", "again").await;
    site.handled("app", "again").await;
    site.upstream.fails(503);
    site.request("app", "while down").await;
    let more = |source: &ExternalSource| source.status.as_ref().is_some_and(|status| status.failures >= 2);
    site.namespace.until("app", "tried again", more).await;
    let second = told(&receiver, 2).await.remove(1);
    assert_eq!(
        (&second["severity"], &second["reason"]),
        (&json!("error"), &json!("FetchFailed"))
    );
    assert_eq!(
        second["metadata"]["source.toolkit.fluxcd.io/revision"],
        artifact.revision
    );
    site.upstream.serves("1", config_map("one", "number", "1"));
    site.request("app", "again there").await;
    let all = told(&receiver, 3).await;
    assert_eq!(
        (&all[2]["severity"], &all[2]["reason"]),
        (&json!("info"), &json!("Succeeded"))
    );
    assert_eq!(all.len(), 3);
    assert!(!format!("{all:?}").contains("geheim"));

    eventually("the same are Events of the artifact", async || {
        let found = site
            .namespace
            .api::<Event>()
            .list(&kube::api::ListParams::default())
            .await;
        let found = found.map_err(|error| error.to_string())?;
        let of = |event: &Event| {
            event
                .regarding
                .as_ref()
                .is_some_and(|about| about.kind.as_deref() == Some("ExternalArtifact"))
        };
        let mut reasons: Vec<String> = found.into_iter().filter(of).filter_map(|event| event.reason).collect();
        reasons.sort();
        if reasons == ["FetchFailed", "NewArtifact", "Succeeded"] {
            Ok(())
        } else {
            Err(format!("{reasons:?}"))
        }
    })
    .await;
}
