//! A storage that does not answer now and then.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use futures::stream::BoxStream;
use serde_json::json;
use trellis_api::ExternalSource;
use trellis_store::{Content, Disk, Entry, Error, Key, Opened, Prefix, Put, Result, Stat, Storage};

use crate::{
    archive::config_map,
    site::{Setup, Site, said},
};

/// A disk that does not say what is there, so often.
#[derive(Debug)]
struct Silent {
    disk: Disk,
    times: Arc<AtomicU32>,
}

#[async_trait::async_trait]
impl Storage for Silent {
    fn name(&self) -> &'static str {
        self.disk.name()
    }

    async fn put(&self, key: &Key, content: Content) -> Result<Put> {
        self.disk.put(key, content).await
    }

    async fn open(&self, key: &Key, range: Option<Range<u64>>) -> Result<Opened> {
        self.disk.open(key, range).await
    }

    async fn head(&self, key: &Key) -> Result<Option<Stat>> {
        let fewer = |times: u32| times.checked_sub(1);
        if self
            .times
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, fewer)
            .is_ok()
        {
            return Err(Error::Unreachable {
                subject: key.to_string(),
                source: std::io::Error::from(std::io::ErrorKind::TimedOut).into(),
            });
        }
        self.disk.head(key).await
    }

    fn list(&self, prefix: &Prefix) -> BoxStream<'static, Result<Entry>> {
        self.disk.list(prefix)
    }

    async fn delete(&self, key: &Key) -> Result<bool> {
        self.disk.delete(key).await
    }
}

/// One answer that is lost is no news; two are told, and what is published stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_storage_that_misses_one_answer_is_no_news() {
    let folder = tempfile::tempdir().unwrap();
    let times = Arc::new(AtomicU32::new(0));
    let silent = Silent {
        disk: Disk::open(folder.path()).await.unwrap(),
        times: Arc::clone(&times),
    };
    let setup = Setup {
        storage: Some(Arc::new(silent)),
        ..Setup::default()
    };
    let site = Site::with("silent", setup).await;
    site.upstream.serves("1", config_map("one", "number", "1"));
    site.source("app", "app.yaml", json!({})).await;
    let artifact = site.published("app", "").await;
    site.ready("app", "True", "Succeeded").await;
    let versions = site.namespace.versions::<ExternalSource>("app").await;
    times.store(1, Ordering::SeqCst);
    site.request("app", "once").await;
    site.handled("app", "once").await;
    assert_eq!(times.load(Ordering::SeqCst), 0);
    let seen = versions.seen();
    assert!(
        seen.iter().flatten().all(|source| said(source, "Ready").0 == "True"),
        "{seen:?}"
    );
    times.store(2, Ordering::SeqCst);
    site.request("app", "twice").await;
    let away = site.ready("app", "False", "StorageOperationFailed").await;
    assert!(said(&away, "Ready").2.contains("still published"));
    site.request("app", "back").await;
    site.ready("app", "True", "Succeeded").await;
    assert_eq!(site.published("app", "").await, artifact);
}
