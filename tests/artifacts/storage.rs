//! The controller over each storage: what survives a restart, what is lost, what is away or full.
//!
//! ```text
//!  Place: a folder │ the process │ a bucket behind a Gate ─ opened anew for every start ─▶ Site
//! ```

#[path = "storage/place.rs"]
mod place;
#[path = "storage/room.rs"]
mod room;

use rstest::rstest;
use serde_json::json;
use trellis_api::ExternalSource;
use trellis_bindings::flux::{Artifact, ExternalArtifact};

use crate::{
    archive::{config_map, sha256},
    site::{Site, said},
    taken::download,
};
pub(crate) use place::{Kind, Place};

fn artifact(found: &ExternalArtifact) -> Option<&Artifact> {
    found.status.as_ref()?.artifact.as_ref()
}

/// The file is there, and the one that is published.
async fn served(artifact: &Artifact) {
    let digest = format!("sha256:{}", sha256(&download(&artifact.url).await));
    assert_eq!(digest, artifact.digest);
}

/// After a restart the same revision is served again: from a storage that lasts after nothing but a check, from one that
/// does not after the artifact was taken back, so that consumers notice that it is another file.
#[rstest]
#[case::disk(Kind::Disk)]
#[case::memory(Kind::Memory)]
#[case::s3(Kind::S3)]
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_serves_the_same_revision_again(#[case] kind: Kind) {
    let place = Place::new(kind).await;
    let mut site = Site::with("restart", place.setup().await).await;
    site.upstream.serves("1", config_map("one", "number", "1"));
    site.source("app", "app.yaml", json!({})).await;
    let first = site.published("app", "").await;
    site.ready("app", "True", "Succeeded").await;
    served(&first).await;

    let versions = site.namespace.versions::<ExternalArtifact>("app").await;
    site.stop().await;
    site.launch(place.setup().await).await;
    let moved = |found: &ExternalArtifact| artifact(found).is_some_and(|found| found.url != first.url);
    let again = site
        .namespace
        .until("app", "published by the next process", moved)
        .await;
    let again = artifact(&again).unwrap();
    assert_eq!((&again.revision, &again.digest), (&first.revision, &first.digest));
    served(again).await;
    let ready = site.ready("app", "True", "Succeeded").await;
    assert_eq!(ready.status.unwrap().history.len(), 1);

    let lasts = !matches!(kind, Kind::Memory);
    site.upstream.asked(2).await;
    assert_eq!(site.upstream.told(), if lasts { [200, 304] } else { [200, 200] });
    let taken_back =
        |version: &Option<ExternalArtifact>| version.as_ref().is_some_and(|found| artifact(found).is_none());
    assert_eq!(versions.seen().iter().any(taken_back), !lasts);
}

/// A consumer that looked while the file was lost notices that it is there again, although the revision is the same: it
/// was taken back meanwhile. By itself that consumer would look again in an hour.
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_missed_the_file_notices_that_it_is_back() {
    let place = Place::new(Kind::Memory).await;
    let mut site = Site::with("missed", place.setup().await).await;
    site.upstream.serves("1", config_map("one", "number", "1"));
    site.source("app", "app.yaml", json!({})).await;
    let first = site.published("app", "").await;
    site.ready("app", "True", "Succeeded").await;
    site.stop().await;
    let kustomizations = site.flux("kustomize", "v1", "Kustomization");
    let manifest = json!({
        "apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization", "metadata": { "name": "app" },
        "spec": {
            "interval": "1h", "retryInterval": "1h", "path": "./", "prune": true,
            "targetNamespace": site.namespace.name(), "sourceRef": { "kind": "ExternalArtifact", "name": "app" },
        },
    });
    site.namespace.apply(manifest).await.unwrap();
    trellis_testkit::eventually("the consumer misses the file", async || {
        let found = kustomizations.get("app").await.unwrap();
        let conditions = found.data["status"]["conditions"].to_string();
        if conditions.contains("ArtifactFailed") {
            Ok(())
        } else {
            Err(conditions)
        }
    })
    .await;
    site.launch(place.setup().await).await;
    let applied = |status: &serde_json::Value| status["lastAppliedRevision"] == first.revision.as_str();
    site.consumed(&kustomizations, "app", applied).await;
    site.finish(&kustomizations, "app").await;
}

/// A file that goes or is cut while the controller runs is found at the next check, taken back, fetched and served again.
#[rstest]
#[case::disk(Kind::Disk)]
#[case::s3(Kind::S3)]
#[tokio::test(flavor = "multi_thread")]
async fn what_is_lost_or_cut_while_it_runs_is_made_again(#[case] kind: Kind) {
    let place = Place::new(kind).await;
    let site = Site::with("lost", place.setup().await).await;
    site.upstream.serves("1", config_map("one", "number", "1"));
    site.source("app", "app.yaml", json!({})).await;
    let first = site.published("app", "").await;
    site.ready("app", "True", "Succeeded").await;
    for (word, harm) in [("lost", Harm::Lost), ("cut", Harm::Cut)] {
        let versions = site.namespace.versions::<ExternalArtifact>("app").await;
        match harm {
            Harm::Lost => place.lose(&first.path).await,
            Harm::Cut => place.cut(&first.path).await,
        }
        site.request("app", word).await;
        site.handled("app", word).await;
        site.ready("app", "True", "Succeeded").await;
        let again = site.published("app", "").await;
        assert_eq!(again.revision, first.revision);
        served(&again).await;
        let taken_back = versions
            .seen()
            .into_iter()
            .flatten()
            .any(|found| artifact(&found).is_none());
        assert!(taken_back, "{word}");
    }
    assert_eq!(site.upstream.told(), [200, 200, 200]);
}

/// What other bytes took the place of, as many, is found by the next process: it is taken back, stays so while upstream
/// says nothing, and is served again with the right bytes once it does.
#[rstest]
#[case::disk(Kind::Disk)]
#[case::s3(Kind::S3)]
#[tokio::test(flavor = "multi_thread")]
async fn what_is_corrupt_at_its_old_length_is_not_served(#[case] kind: Kind) {
    let place = Place::new(kind).await;
    let mut site = Site::with("corrupt", place.setup().await).await;
    site.upstream.serves("1", config_map("one", "number", "1"));
    site.source("app", "app.yaml", json!({})).await;
    let first = site.published("app", "").await;
    site.ready("app", "True", "Succeeded").await;
    site.stop().await;
    place.corrupt(&first.path).await;
    site.upstream.fails(404);
    site.launch(place.setup().await).await;
    site.ready("app", "False", "PermanentError").await;
    site.request("app", "look").await;
    site.handled("app", "look").await;
    let published: ExternalArtifact = site.namespace.get("app").await.unwrap();
    assert!(artifact(&published).is_none(), "{published:?}");

    site.upstream.serves("1", config_map("one", "number", "1"));
    site.request("app", "again").await;
    let again = site.published("app", "").await;
    site.ready("app", "True", "Succeeded").await;
    assert_eq!(again.revision, first.revision);
    served(&again).await;
}

#[derive(Clone, Copy)]
enum Harm {
    Lost,
    Cut,
}

/// Two sources of the same data have a file each: what becomes of one is nothing to the other. With a source go its
/// artifact and its files.
#[rstest]
#[case::disk(Kind::Disk)]
#[case::memory(Kind::Memory)]
#[case::s3(Kind::S3)]
#[tokio::test(flavor = "multi_thread")]
async fn sources_of_the_same_data_do_not_share_their_end(#[case] kind: Kind) {
    let place = Place::new(kind).await;
    let site = Site::with("twins", place.setup().await).await;
    site.upstream.serves("1", config_map("one", "number", "1"));
    for name in ["one", "two"] {
        site.source(name, "app.yaml", json!({})).await;
    }
    let (one, two) = (site.published("one", "").await, site.published("two", "").await);
    assert_eq!((&one.revision, one.url == two.url), (&two.revision, false));
    assert_eq!(place.files().await.len(), 2);
    site.namespace.delete::<ExternalSource>("one").await.unwrap();
    site.namespace.gone::<ExternalSource>("one").await;
    site.namespace.gone::<ExternalArtifact>("one").await;
    assert_eq!(place.files().await, [two.path.as_str()]);
    served(&two).await;
    site.namespace.delete::<ExternalSource>("two").await.unwrap();
    site.namespace.gone::<ExternalSource>("two").await;
    assert_eq!(place.files().await, [""; 0]);
}

/// While S3 is away what was stored last is served on and the status says what is wrong; when it is back, work goes on by
/// itself. A restart meanwhile takes nothing back, and what is deleted meanwhile goes afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn while_s3_is_away_the_last_artifact_is_served() {
    let place = Place::new(Kind::S3).await;
    let mut site = Site::with("away", place.setup().await).await;
    site.upstream.serves("1", config_map("one", "number", "1"));
    site.source("app", "app.yaml", json!({})).await;
    let first = site.published("app", "").await;
    site.ready("app", "True", "Succeeded").await;

    place.gate().close();
    site.upstream.serves("2", config_map("one", "number", "2"));
    site.request("app", "away").await;
    let failed = site.ready("app", "False", "StorageOperationFailed").await;
    let (_, _, message) = said(&failed, "Ready");
    let address = place.gate().address().to_string();
    let served_still = format!(
        "; revision {} of {} is still served",
        first.revision, first.last_update_time.0
    );
    assert!(
        message.starts_with(&format!(
            "the storage cannot be reached for externalsource/{}/app/",
            site.namespace.name()
        )) && message.contains("; tried again at ")
            && message.ends_with(&served_still),
        "{message}"
    );
    assert!(
        !message.contains(place::SECRET) && !message.contains(&address),
        "{message}"
    );
    assert_eq!(said(&failed, "Reconciling").0, "True");
    served(&first).await;
    place.gate().open();
    let second = site.published("app", &first.revision).await;
    site.ready("app", "True", "Succeeded").await;
    served(&second).await;

    place.gate().close();
    site.stop().await;
    site.launch(place.setup().await).await;
    let away = site.ready("app", "False", "StorageOperationFailed").await;
    let (_, _, message) = said(&away, "Ready");
    assert!(
        message.contains("the storage cannot be reached") && !message.contains(&address),
        "{message}"
    );
    let published: ExternalArtifact = site.namespace.get("app").await.unwrap();
    assert_eq!(artifact(&published).unwrap().revision, second.revision);
    place.gate().open();
    site.ready("app", "True", "Succeeded").await;

    place.gate().close();
    site.namespace.delete::<ExternalSource>("app").await.unwrap();
    let away = |source: &ExternalSource| {
        let (_, reason, message) = said(source, "Ready");
        let deleted = source.metadata.deletion_timestamp.is_some();
        deleted && reason == "StorageOperationFailed" && message.contains("the storage cannot be reached")
    };
    site.namespace.until("app", "waits for the storage", away).await;
    place.gate().open();
    site.namespace.gone::<ExternalSource>("app").await;
    assert_eq!(place.files().await, [""; 0]);
}
