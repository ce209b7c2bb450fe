//! What is published of a source, and what becomes of it while upstream, storage and cluster change.

use std::{fs, sync::Arc};

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use serde_json::json;
use trellis_api::ExternalSource;
use trellis_bindings::flux::ExternalArtifact;
use trellis_operator::external_source::Policy;
use trellis_testkit::{Verb, calls};

use crate::{
    archive::{config_map, sha256},
    site::{Site, said},
    taken::{download, unpacked},
    upstream::Answer,
};

/// The digest is that of the bytes that are served, the archive holds the data, and a check that finds nothing new writes
/// nothing but the echo of the request.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_can_be_downloaded_and_a_check_without_news_writes_nothing() {
    let site = Site::new("published").await;
    let manifest = config_map("one", "number", "1");
    site.upstream.serves("1", manifest.clone());
    site.source("app", "app.yaml?token=geheim", json!({})).await;
    let source = site.ready("app", "True", "Succeeded").await;
    let artifact = site.published("app", "").await;
    let bytes = download(&artifact.url).await;
    assert_eq!(artifact.size, i64::try_from(bytes.len()).ok());
    assert_eq!(artifact.digest, format!("sha256:{}", sha256(&bytes)));
    assert_eq!(artifact.revision, format!("latest@{}", artifact.digest));
    assert!(artifact.url.ends_with(&artifact.path), "{artifact:?}");
    assert_eq!(unpacked(&bytes), [("app.yaml".to_owned(), manifest)]);
    assert_eq!(artifact.metadata.unwrap()["org.opencontainers.image.revision"], "\"1\"");
    let status = source.status.as_ref().unwrap();
    let told = status.artifact.as_ref().unwrap();
    assert_eq!((&told.revision, &told.url), (&artifact.revision, &artifact.url));
    assert_eq!(status.last_handled_etag.as_deref(), Some("\"1\""));
    assert_eq!(status.history.len(), 1);
    assert!(!serde_json::to_string(&source.status).unwrap().contains("geheim"));

    let published: ExternalArtifact = site.namespace.get("app").await.unwrap();
    assert_eq!(published.owner_references()[0].uid, source.uid().unwrap());
    let reference = published.spec.source_ref.as_ref().unwrap();
    assert_eq!(
        (reference.kind.as_str(), reference.name.as_str()),
        ("ExternalSource", "app")
    );
    assert_eq!(published.status.as_ref().unwrap().conditions[0].status, "True");
    // The artifact is there before anything says so.
    let written = site.recording.of(&calls().verb(Verb::Patch));
    let written: Vec<&str> = written.iter().map(|call| call.info.resource.as_str()).collect();
    let first = |resource: &str| written.iter().position(|one| *one == resource).unwrap();
    assert!(first("externalartifacts") < first("externalartifacts/status"));

    let place = site.recording.place();
    site.request("app", "again").await;
    site.handled("app", "again").await;
    assert_eq!(site.upstream.told(), [200, 304]);
    let written: Vec<_> = site
        .recording
        .since(place)
        .into_iter()
        .filter(|call| call.info.verb.writes() && call.info.resource != "events")
        .collect();
    let resources: Vec<&str> = written.iter().map(|call| call.info.resource.as_str()).collect();
    assert_eq!(resources, ["externalsources/status"], "the echo alone");
    let after: ExternalArtifact = site.namespace.get("app").await.unwrap();
    assert_eq!(after.resource_version(), published.resource_version());
}

/// Through failures the last artifact is served, the status says what is wrong and what is served, and success clears it.
#[tokio::test(flavor = "multi_thread")]
async fn a_failing_upstream_is_told_and_the_last_artifact_is_served() {
    let site = Site::new("failing").await;
    site.upstream.serves("1", config_map("one", "number", "1"));
    site.source("app", "app.yaml", json!({})).await;
    let artifact = site.published("app", "").await;
    site.ready("app", "True", "Succeeded").await;

    site.upstream.fails(503);
    site.request("app", "while down").await;
    let failing = site.ready("app", "False", "FetchFailed").await;
    let (_, _, message) = said(&failing, "Ready");
    assert!(
        message.contains("503") && message.contains(&artifact.revision),
        "{message}"
    );
    assert_eq!(said(&failing, "Reconciling").0, "True");
    let status = failing.status.as_ref().unwrap();
    assert!(status.failures >= 1 && status.next_retry_time.is_some(), "{status:?}");
    assert_eq!(status.artifact.as_ref().unwrap().revision, artifact.revision);
    download(&artifact.url).await;
    // It is tried again by itself.
    let more = |source: &ExternalSource| source.status.as_ref().is_some_and(|status| status.failures >= 2);
    site.namespace.until("app", "tried again", more).await;

    site.upstream.fails(404);
    site.request("app", "while gone").await;
    let gone = site.ready("app", "False", "PermanentError").await;
    assert_eq!(gone.status.as_ref().unwrap().failures, 1, "a request starts anew");

    site.upstream.answers(Answer {
        status: 429,
        headers: vec![("retry-after", "600".to_owned())],
        ..Answer::default()
    });
    site.request("app", "while throttled").await;
    let limited = site.ready("app", "False", "RateLimited").await;
    let next = limited.status.as_ref().unwrap().next_retry_time.as_ref().unwrap().0;
    let wait = next.duration_since(k8s_openapi::jiff::Timestamp::now()).as_secs();
    assert!((550..=750).contains(&wait), "{wait} s");
}

/// A Secret that is missing is waited for, and its headers are sent; another content is another request.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_secret_is_waited_for() {
    let site = Site::new("secret").await;
    site.upstream.serves("1", config_map("one", "number", "1"));
    let http = json!({ "url": site.upstream.url("app.yaml"), "headersSecretRef": { "name": "headers" } });
    site.source("app", "", json!({ "generator": { "type": "http", "http": http } }))
        .await;
    let waiting = site.ready("app", "False", "ConfigurationError").await;
    assert!(
        said(&waiting, "Ready").2.contains("there is no Secret headers"),
        "{:?}",
        said(&waiting, "Ready")
    );
    assert_eq!(said(&waiting, "Stalled").0, "True");
    assert!(site.upstream.told().is_empty());
    let secret = |value: &str| -> Secret {
        let manifest =
            json!({ "metadata": { "name": "headers" }, "stringData": { "X-API-Key": format!("{value}\n") } });
        serde_json::from_value(manifest).unwrap()
    };
    site.namespace.create_object(secret("one")).await.unwrap();
    let ready = site.ready("app", "True", "Succeeded").await;
    assert_eq!(site.upstream.last()["x-api-key"], "one");
    assert!(!serde_json::to_string(&ready.status).unwrap().contains("X-API-Key"));
    let rotated = json!({ "stringData": { "X-API-Key": "two" } });
    site.namespace.merge::<Secret>("headers", rotated).await.unwrap();
    trellis_testkit::eventually("asked with the new value", async || {
        match site
            .upstream
            .last()
            .get("x-api-key")
            .map(|value| value.to_str().unwrap().to_owned())
        {
            Some(value) if value == "two" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

/// Another spec makes another artifact, whatever upstream says of its data; the older file goes when its time is over.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_spec_makes_a_new_artifact() {
    let site = Site::new("spec").await;
    site.upstream.serves("1", "{\"number\": 1}");
    site.source("app", "numbers", json!({})).await;
    let first = site.published("app", "").await;
    site.ready("app", "True", "Succeeded").await;
    let output = json!({ "as": "ConfigMap", "object": { "name": "numbers", "key": "numbers.json" } });
    site.source(
        "app",
        "numbers",
        json!({ "output": output, "destinationPath": "maps/" }),
    )
    .await;
    let second = site.published("app", &first.revision).await;
    let files = unpacked(&download(&second.url).await);
    let (name, manifest) = files.last().unwrap();
    assert!(name.starts_with("maps/") && name.contains(".yaml"), "{name}");
    assert!(
        manifest.contains("ConfigMap") && manifest.contains("numbers.json"),
        "{manifest}"
    );
    assert_eq!(site.upstream.told(), [200, 200]);
    assert!(site.stored("app").len() <= 2, "{:?}", site.stored("app"));
}

/// What is lost or changed in the cluster or on the disk is made again; what goes takes everything along.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_lost_is_made_again_and_what_goes_takes_its_files_along() {
    let mut site = Site::new("lost").await;
    site.upstream.serves("1", config_map("one", "number", "1"));
    site.source("app", "app.yaml", json!({})).await;
    let artifact = site.published("app", "").await;
    site.ready("app", "True", "Succeeded").await;
    let before: ExternalArtifact = site.namespace.get("app").await.unwrap();
    site.namespace.delete::<ExternalArtifact>("app").await.unwrap();
    let again = |found: &ExternalArtifact| {
        found.uid() != before.uid() && found.status.as_ref().is_some_and(|status| status.artifact.is_some())
    };
    site.namespace.until("app", "published again", again).await;

    // A restart believes its storage when it is right …
    let asked = site.upstream.told().len();
    site.stop().await;
    site.start(Arc::new(crate::site::Anywhere)).await;
    trellis_testkit::eventually("asked by the next process", async || match site.upstream.told().len() {
        now if now > asked => Ok(()),
        now => Err(format!("{now} times")),
    })
    .await;
    assert_eq!(site.upstream.told().last(), Some(&304));
    // … and not when it is damaged.
    site.stop().await;
    let folder = site
        .storage
        .path()
        .join(format!("externalsource/{}/app", site.namespace.name()));
    let file = folder.join(&site.stored("app")[0]);
    fs::write(&file, b"damaged").unwrap();
    site.start(Arc::new(crate::site::Anywhere)).await;
    let url = |found: &ExternalArtifact| {
        found
            .status
            .as_ref()?
            .artifact
            .as_ref()
            .map(|artifact| artifact.url.clone())
    };
    trellis_testkit::eventually("the file is right again", async || {
        let found: ExternalArtifact = site.namespace.get("app").await.unwrap();
        let right = fs::read(&file).is_ok_and(|bytes| format!("sha256:{}", sha256(&bytes)) == artifact.digest);
        match url(&found) {
            Some(url) if right && download(&url).await.len() > 10 => Ok(()),
            found => Err(format!("{found:?}, {right}")),
        }
    })
    .await;
    site.ready("app", "True", "Succeeded").await;

    site.namespace.delete::<ExternalSource>("app").await.unwrap();
    site.namespace.gone::<ExternalSource>("app").await;
    site.namespace.gone::<ExternalArtifact>("app").await;
    assert!(site.stored("app").is_empty());
}

/// By default nobody reaches the machine itself, by address or by redirect.
#[tokio::test(flavor = "multi_thread")]
async fn the_machine_itself_is_not_reached_by_default() {
    let mut site = Site::new("egress").await;
    site.stop().await;
    site.start(Arc::new(Policy::default())).await;
    site.upstream.serves("1", config_map("one", "number", "1"));
    site.source("app", "app.yaml", json!({})).await;
    let refused = site.ready("app", "False", "AccessDenied").await;
    let (_, _, message) = said(&refused, "Ready");
    assert!(
        message.contains("loopback") && message.contains("--egress-"),
        "{message}"
    );
    assert_eq!(said(&refused, "Stalled").0, "True");
    assert!(site.upstream.told().is_empty());
}

/// A pinned checksum is kept to: other data is not published, and what was published before stays.
#[tokio::test(flavor = "multi_thread")]
async fn data_without_the_pinned_checksum_is_not_published() {
    let site = Site::new("pinned").await;
    let manifest = config_map("one", "number", "1");
    let digest = format!("sha256:{}", sha256(manifest.as_bytes()));
    site.upstream.serves("1", manifest);
    site.source("app", "app.yaml", json!({ "checksum": digest })).await;
    let first = site.published("app", "").await;
    let ready = site.ready("app", "True", "Succeeded").await;
    assert_eq!(said(&ready, "SourceVerified").0, "True");
    site.upstream.serves("2", config_map("one", "number", "2"));
    site.request("app", "now").await;
    let refused = site.ready("app", "False", "VerificationFailed").await;
    assert_eq!(said(&refused, "SourceVerified").0, "False");
    assert_eq!(refused.status.unwrap().artifact.unwrap().revision, first.revision);
}
