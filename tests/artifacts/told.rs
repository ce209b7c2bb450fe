//! What is told while it goes on: each condition only while it is true, and only of what takes long.

use std::{ops::Range, sync::Arc};

use futures::stream::BoxStream;
use serde_json::json;
use trellis_api::ExternalSource;
use trellis_store::{Content, Disk, Entry, Key, Opened, Prefix, Put, Result, Stat, Storage};
use trellis_testkit::Gate;

use crate::{
    archive::config_map,
    site::{Setup, Site, said},
};

/// A disk whose writes wait at a gate.
#[derive(Debug)]
struct Held {
    disk: Disk,
    gate: Gate,
}

#[async_trait::async_trait]
impl Storage for Held {
    fn name(&self) -> &'static str {
        self.disk.name()
    }

    async fn put(&self, key: &Key, content: Content) -> Result<Put> {
        self.gate.pass().await;
        self.disk.put(key, content).await
    }

    async fn open(&self, key: &Key, range: Option<Range<u64>>) -> Result<Opened> {
        self.disk.open(key, range).await
    }

    async fn head(&self, key: &Key) -> Result<Option<Stat>> {
        self.disk.head(key).await
    }

    fn list(&self, prefix: &Prefix) -> BoxStream<'static, Result<Entry>> {
        self.disk.list(prefix)
    }

    async fn delete(&self, key: &Key) -> Result<bool> {
        self.disk.delete(key).await
    }
}

const ALL: [&str; 3] = ["Fetching", "ExecutingHooks", "Storing"];

/// Waits until this is told and nothing else.
async fn told(site: &Site, condition: &str, message: &str) {
    let is = |source: &ExternalSource| {
        let others = ALL.iter().filter(|other| **other != condition);
        let (state, _, what) = said(source, condition);
        state == "True" && what.starts_with(message) && others.into_iter().all(|other| said(source, other).0.is_empty())
    };
    let found: ExternalSource = site.namespace.until("app", condition, is).await;
    assert_eq!(said(&found, "Reconciling"), said_of_progress(&found, condition));
    assert_eq!(said(&found, "Ready").0, "Unknown");
}

fn said_of_progress(source: &ExternalSource, condition: &str) -> (String, String, String) {
    let (_, _, message) = said(source, condition);
    ("True".to_owned(), "Progressing".to_owned(), message)
}

/// A slow upstream, then a slow storage: each is told while it lasts, and neither afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn fetching_and_storing_are_told_while_they_last() {
    let folder = tempfile::tempdir().unwrap();
    let (upstream, storage) = (Gate::new(), Gate::new());
    let held = Held {
        disk: Disk::open(folder.path()).await.unwrap(),
        gate: storage.clone(),
    };
    let setup = Setup {
        storage: Some(Arc::new(held)),
        ..Setup::default()
    };
    let site = Site::with("told", setup).await;
    site.upstream.serves("1", config_map("one", "number", "1"));
    site.upstream.waits_at(&upstream);
    site.source("app", "app.yaml?token=geheim", json!({})).await;
    told(
        &site,
        "Fetching",
        &format!("fetching {}", site.upstream.url("app.yaml")),
    )
    .await;
    upstream.open();
    told(&site, "Storing", "storing ").await;
    storage.open();
    let ready = site.ready("app", "True", "Succeeded").await;
    for condition in ALL {
        assert_eq!(said(&ready, condition).0, "", "{condition}");
    }
    assert!(!serde_json::to_string(&ready.status).unwrap().contains("geheim"));

    // What is quick is not told: no write but the echo of the request.
    let place = site.recording.place();
    site.request("app", "again").await;
    site.handled("app", "again").await;
    let written = site.recording.since(place).into_iter();
    let written: Vec<String> = written
        .filter(|call| call.info.verb.writes() && call.info.resource != "events")
        .map(|call| call.info.resource)
        .collect();
    assert_eq!(written, ["externalsources/status"]);
}
