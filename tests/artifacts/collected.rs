//! Stored files that nobody needs any more: they go, also those of a process before, and that they do not is no fault of the
//! source.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::stream::BoxStream;
use serde_json::json;
use trellis_store::{Content, Disk, Entry, Error, Key, Opened, Prefix, Put, Result, Stat, Storage};
use trellis_testkit::eventually;

use crate::{
    archive::config_map,
    site::{Setup, Site},
    upstream::Upstream,
};

/// A disk from which nothing can be removed.
#[derive(Debug)]
struct Stuck {
    disk: Disk,
    tries: Arc<AtomicUsize>,
}

#[async_trait::async_trait]
impl Storage for Stuck {
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
        self.disk.head(key).await
    }

    fn list(&self, prefix: &Prefix) -> BoxStream<'static, Result<Entry>> {
        self.disk.list(prefix)
    }

    async fn delete(&self, key: &Key) -> Result<bool> {
        self.tries.fetch_add(1, Ordering::SeqCst);
        Err(Error::Denied {
            subject: key.to_string(),
            source: std::io::Error::from(std::io::ErrorKind::PermissionDenied).into(),
        })
    }
}

fn keep_one(settings: &mut trellis_operator::external_source::Settings) {
    settings.retention.records = 1;
}

/// The source stays ready, its news is told, and the rest of its life goes on.
#[tokio::test(flavor = "multi_thread")]
async fn files_that_cannot_be_removed_are_no_fault_of_the_source() {
    let folder = tempfile::tempdir().unwrap();
    let tries = Arc::new(AtomicUsize::new(0));
    let stuck = Stuck {
        disk: Disk::open(folder.path()).await.unwrap(),
        tries: Arc::clone(&tries),
    };
    let receiver = Upstream::start().await;
    receiver.fails(202);
    let setup = Setup {
        events: Some(receiver.url("").parse().unwrap()),
        storage: Some(Arc::new(stuck)),
        change: keep_one,
        ..Setup::default()
    };
    let site = Site::with("stuck", setup).await;
    site.upstream.serves("1", config_map("one", "number", "1"));
    site.source("app", "app.yaml", json!({})).await;
    let first = site.published("app", "").await;
    site.ready("app", "True", "Succeeded").await;
    site.upstream.serves("2", config_map("one", "number", "2"));
    site.request("app", "now").await;
    let second = site.published("app", &first.revision).await;
    eventually("the news is told", async || {
        let told = receiver.bodies();
        let found = told.iter().any(|body| body.contains(&second.revision));
        if found { Ok(()) } else { Err(format!("{told:?}")) }
    })
    .await;
    assert!(tries.load(Ordering::SeqCst) >= 1, "it was tried");
    site.handled("app", "now").await;
    let ready = site.ready("app", "True", "Succeeded").await;
    assert_eq!(ready.status.unwrap().artifact.unwrap().revision, second.revision);
}

/// What one process published and replaced, the next one removes when its time is over.
#[tokio::test(flavor = "multi_thread")]
async fn replaced_files_go_also_after_a_restart() {
    let mut site = Site::new("replaced").await;
    site.upstream.serves("1", config_map("one", "number", "1"));
    site.source("app", "app.yaml", json!({})).await;
    let first = site.published("app", "").await;
    site.ready("app", "True", "Succeeded").await;
    site.upstream.serves("2", config_map("one", "number", "2"));
    site.request("app", "now").await;
    let second = site.published("app", &first.revision).await;
    site.handled("app", "now").await;
    site.stop().await;
    assert_eq!(site.stored("app").len(), 2);
    let change = |settings: &mut trellis_operator::external_source::Settings| {
        settings.retention.ttl = Duration::from_secs(1);
    };
    site.launch(Setup {
        change,
        ..Setup::default()
    })
    .await;
    eventually("the replaced file is gone", async || match site.stored("app") {
        stored if stored.len() == 1 => Ok(()),
        stored => Err(format!("{stored:?}")),
    })
    .await;
    assert!(second.path.ends_with(&site.stored("app")[0]));
}
