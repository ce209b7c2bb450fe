//! A storage without room.

use std::{path::PathBuf, process::Command, sync::Arc};

use serde_json::json;
use tempfile::TempDir;
use trellis_api::ExternalSource;
use trellis_store::{Cached, Disk, Limits, Memory};

use super::served;
use crate::{
    site::{Setup, Site, said},
    upstream::Answer,
};

/// A file system of its own, of so many KiB; gone when dropped.
struct Volume {
    folder: TempDir,
}

impl Volume {
    /// None when this user may not mount.
    fn mount(kibibytes: u32) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let volume = Self { folder };
        volume
            .run("mount", &["-t", "tmpfs", "-o", &format!("size={kibibytes}k"), "tmpfs"])
            .then_some(volume)
    }

    fn grow(&self, kibibytes: u32) {
        assert!(self.run("mount", &["-o", &format!("remount,size={kibibytes}k")]));
    }

    fn path(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    fn run(&self, program: &str, words: &[&str]) -> bool {
        let done = Command::new(program).args(words).arg(self.folder.path()).status();
        done.is_ok_and(|status| status.success())
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        self.run("umount", &["--lazy"]);
    }
}

/// Text that does not get smaller when it is compressed.
fn incompressible(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.max(1);
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        u8::try_from(33 + state % 90).unwrap()
    };
    std::iter::repeat_with(next).take(size).collect()
}

/// Text of so many bytes from now on.
fn serves(site: &Site, etag: &str, size: usize) {
    site.upstream.answers(Answer {
        status: 200,
        etag: Some(format!("\"{etag}\"")),
        content_type: "text/plain",
        headers: Vec::new(),
        body: incompressible(size, size as u64),
    });
}

/// Upstream grows beyond what there is room for, until there is some.
async fn is_told_and_got_over(site: &Site, make_room: impl AsyncFnOnce()) {
    serves(site, "1", 10_000);
    site.source("app", "app.txt", json!({})).await;
    let first = site.published("app", "").await;
    site.ready("app", "True", "Succeeded").await;
    serves(site, "2", 600_000);
    site.request("app", "larger").await;
    let full = site.ready("app", "False", "StorageOperationFailed").await;
    let (_, _, message) = said(&full, "Ready");
    let begin = format!("no space is left for externalsource/{}/app/", site.namespace.name());
    let end = format!(
        "; revision {} of {} is still served",
        first.revision, first.last_update_time.0
    );
    assert!(message.starts_with(&begin) && message.ends_with(&end), "{message}");
    assert!(message.contains("; tried again at "), "{message}");
    served(&first).await;
    make_room().await;
    let second = site.published("app", &first.revision).await;
    site.ready("app", "True", "Succeeded").await;
    served(&second).await;
}

/// A full disk is told as that, what is on it is served, and when there is room work goes on by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_and_got_over() {
    let Some(volume) = Volume::mount(256) else {
        eprintln!("NOT PROVEN HERE: a full disk needs root, to mount a small file system");
        return;
    };
    let disk = Disk::open(&volume.path()).await.unwrap();
    let setup = Setup {
        storage: Some(Arc::new(Cached::new(Arc::new(disk), Limits::default()))),
        ..Setup::default()
    };
    let site = Site::with("full-disk", setup).await;
    is_told_and_got_over(&site, async || volume.grow(8192)).await;
}

/// The same with the bound of a memory: another source goes, and there is room.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_memory_is_told_and_got_over() {
    let setup = Setup {
        storage: Some(Arc::new(Memory::bounded(1 << 20))),
        ..Setup::default()
    };
    let site = Site::with("full-memory", setup).await;
    serves(&site, "0", 900_000);
    site.source("large", "large.txt", json!({})).await;
    site.ready("large", "True", "Succeeded").await;
    let make_room = async || {
        site.namespace.delete::<ExternalSource>("large").await.unwrap();
        site.namespace.gone::<ExternalSource>("large").await;
    };
    is_told_and_got_over(&site, make_room).await;
}
