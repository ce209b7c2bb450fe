//! What is written, and how often upstream is asked, while nothing changes: at the shortest interval, a minute.

use std::time::Duration;

use kube::ResourceExt as _;
use serde_json::json;
use trellis_api::ExternalSource;
use trellis_testkit::{eventually_within, plane::Versions};

use crate::{
    archive::config_map,
    site::{Setup, Site, said},
    upstream::{Answer, Upstream},
};

/// A few quick tries.
fn few(settings: &mut trellis_operator::external_source::Settings) {
    settings.backoff.base = Duration::from_millis(50);
    settings.backoff.attempts = 3;
}

fn setup() -> Setup {
    Setup {
        change: few,
        ..Setup::default()
    }
}

/// Waits for so many answers, over an interval.
async fn asked(upstream: &Upstream, times: usize) {
    let limit = Duration::from_mins(2);
    eventually_within(limit, &format!("asked {times} times"), async || {
        match upstream.told().len() {
            now if now >= times => Ok(()),
            now => Err(format!("{now} times")),
        }
    })
    .await;
}

/// The reasons of `Ready` in the order in which they were told.
fn reasons(versions: &Versions<ExternalSource>) -> Vec<String> {
    let seen = versions.seen();
    let mut reasons: Vec<String> = seen.iter().flatten().map(|source| said(source, "Ready").1).collect();
    reasons.dedup();
    reasons
}

/// Once the tries are used up each interval has one, in the next process too; and neither that nor a lasting failure is
/// written again.
#[tokio::test(flavor = "multi_thread")]
async fn a_failure_that_stays_is_tried_once_an_interval_and_written_once() {
    let mut site = Site::with("again", setup()).await;
    let (down, gone) = (Upstream::start().await, Upstream::start().await);
    down.fails(503);
    gone.fails(404);
    for (name, upstream) in [("down", &down), ("gone", &gone)] {
        let http = json!({ "url": upstream.url("app.yaml") });
        let spec = json!({ "interval": "1m", "generator": { "type": "http", "http": http } });
        site.source(name, "", spec).await;
    }
    let given_up = site.ready("down", "False", "MaxRetriesExceeded").await;
    assert_eq!(down.told().len(), 3);
    let lasting = site.ready("gone", "False", "PermanentError").await;
    assert_eq!(gone.told().len(), 1);
    for source in [&given_up, &lasting] {
        let status = source.status.as_ref().unwrap();
        assert_eq!(status.next_retry_time, None);
        assert!(said(source, "Ready").2.contains("asked again at the interval"));
    }
    assert_eq!(given_up.status.as_ref().unwrap().failures, 3);
    let versions = site.namespace.versions::<ExternalSource>("down").await;

    asked(&down, 4).await;
    asked(&gone, 2).await;
    // What runs comes to its end.
    site.stop().await;
    assert_eq!((down.told().len(), gone.told().len()), (4, 2));
    site.launch(setup()).await;
    asked(&down, 5).await;
    asked(&gone, 3).await;
    site.stop().await;
    assert_eq!((down.told().len(), gone.told().len()), (5, 3));
    assert_eq!(reasons(&versions), ["MaxRetriesExceeded"]);
    for before in [given_up, lasting] {
        let now: ExternalSource = site.namespace.get(&before.name_any()).await.unwrap();
        assert_eq!(now.resource_version(), before.resource_version(), "{:?}", now.status);
    }
}

/// The same data under another version is no news: nothing is written but the echo of the request, and the new version is
/// what is asked with.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_data_under_another_version_writes_nothing() {
    let site = Site::new("renamed").await;
    let manifest = config_map("one", "number", "1");
    site.upstream.serves("1", manifest.clone());
    site.source("app", "app.yaml", json!({})).await;
    let artifact = site.published("app", "").await;
    site.ready("app", "True", "Succeeded").await;
    let place = site.recording.place();
    for (number, modified) in ["Wed, 25 Nov 2026 10:00:00 GMT", "Wed, 25 Nov 2026 10:00:01 GMT"]
        .into_iter()
        .enumerate()
    {
        site.upstream.answers(Answer {
            status: 200,
            etag: Some(format!("\"again-{number}\"")),
            content_type: "application/yaml",
            headers: vec![("last-modified", modified.to_owned())],
            body: manifest.clone().into_bytes(),
        });
        let word = format!("again {number}");
        site.request("app", &word).await;
        let source = site.handled("app", &word).await;
        assert_eq!(source.status.unwrap().last_handled_etag.as_deref(), Some("\"1\""));
    }
    site.request("app", "once more").await;
    site.handled("app", "once more").await;
    assert_eq!(site.upstream.told(), [200, 200, 200, 304]);
    let written = site.recording.since(place).into_iter();
    let written: Vec<String> = written
        .filter(|call| call.info.verb.writes() && call.info.resource != "events")
        .map(|call| call.info.resource)
        .collect();
    assert_eq!(written, ["externalsources/status"; 3], "the echoes alone");
    assert_eq!(site.published("app", "").await, artifact);
}
