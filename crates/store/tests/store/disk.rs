//! What only a disk does: permissions, temporary files, links, a full volume, and a process that is killed.

use std::{
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::Command,
};

use bytes::Bytes;
use rstest::rstest;
use trellis_store::{Class, Disk, Error, Put, Storage as _, Verdict, garbage};

use crate::{
    backend::{bytes, key, listed, names, read, streamed},
    child::{Process, unfinished},
};

#[tokio::test]
async fn files_are_for_their_owner_only() {
    let root = tempfile::tempdir().unwrap();
    let disk = Disk::open(root.path()).await.unwrap();
    let bytes = bytes(1, 10);
    let key = key("a/b", &bytes);
    disk.put(&key, streamed(bytes)).await.unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&root.path().join(key.as_str())), 0o600);
    assert_eq!(mode(&root.path().join("a")), 0o700);
    assert_eq!(mode(&root.path().join("a/b")), 0o700);
    disk.delete(&key).await.unwrap();
    assert!(!root.path().join("a").exists() && root.path().exists());
}

#[rstest]
#[case::nothing_yet(0)]
#[case::a_byte(1)]
#[case::less_than_a_piece(100_000)]
#[case::pieces(1_000_000)]
#[tokio::test]
async fn a_put_that_is_killed_leaves_no_visible_file(#[case] written: usize) {
    let root = tempfile::tempdir().unwrap();
    let mut process = Process::start("put-part", root.path(), written);
    process.said("written");
    let temporary = || {
        let names = names(root.path());
        names.iter().filter(|name| name.starts_with(".tmp-")).count()
    };
    while temporary() == 0 {
        tokio::task::yield_now().await;
    }

    // Another process that opens the storage leaves the first one its file, once that one has its lock.
    let locked = || {
        let name = names(root.path()).remove(0);
        let file = std::fs::File::open(root.path().join("a/b").join(name)).unwrap();
        matches!(file.try_lock(), Err(std::fs::TryLockError::WouldBlock))
    };
    while !locked() {
        tokio::task::yield_now().await;
    }
    let disk = Disk::open(root.path()).await.unwrap();
    assert_eq!(temporary(), 1);
    assert_eq!(disk.head(&unfinished()).await.unwrap(), None);
    assert_eq!(listed(&disk, "").await, []);

    process.kill();
    assert_eq!(temporary(), 1, "the process was killed before its file was renamed");
    assert_eq!(disk.head(&unfinished()).await.unwrap(), None);
    assert_eq!(listed(&disk, "").await, []);
    assert_eq!(disk.verify(&unfinished()).await.unwrap(), Verdict::Missing);

    let disk = Disk::open(root.path()).await.unwrap();
    assert_eq!(names(root.path()), [""; 0]);
    let bytes = Bytes::from_static(b"the end is missing");
    assert_eq!(disk.put(&unfinished(), streamed(bytes)).await.unwrap(), Put::Stored);
    assert_eq!(disk.verify(&unfinished()).await.unwrap(), Verdict::Right);
}

/// A small volume. Unmounted with the value.
struct Volume(tempfile::TempDir);

impl Volume {
    fn of(size: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size},mode=0700"), "tmpfs"])
            .arg(root.path())
            .status()
            .unwrap();
        assert!(mounted.success(), "this test mounts a small tmpfs and needs root");
        Self(root)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_told_apart_and_leaves_nothing() {
    let volume = Volume::of("1m");
    let root = volume.0.path();
    let disk = Disk::open(root).await.unwrap();
    let (small, large) = (bytes(1, 100_000), bytes(2, 4 << 20));
    disk.put(&key("a/b", &small), streamed(small.clone())).await.unwrap();
    for _ in 0..3 {
        let error = disk
            .put(&key("a/c", &large), streamed(large.clone()))
            .await
            .unwrap_err();
        assert!(matches!(error, Error::NoSpace { .. }), "{error:?}");
        assert_eq!(error.class(), Class::Waiting);
    }
    assert_eq!(names(root).len(), 1);
    assert_eq!(disk.verify(&key("a/b", &small)).await.unwrap(), Verdict::Right);
    let other = bytes(3, 500_000);
    disk.put(&key("a/c", &other), streamed(other.clone())).await.unwrap();
    assert_eq!(disk.verify(&key("a/c", &other)).await.unwrap(), Verdict::Right);
}

#[tokio::test]
async fn a_volume_that_is_read_only_denies() {
    let volume = Volume::of("1m");
    let root = volume.0.path();
    let disk = Disk::open(root).await.unwrap();
    let remounted = Command::new("mount").args(["-o", "remount,ro"]).arg(root).status();
    assert!(
        remounted.unwrap().success(),
        "this test mounts a small tmpfs and needs root"
    );
    let bytes = bytes(1, 10);
    let error = disk.put(&key("a/b", &bytes), streamed(bytes)).await.unwrap_err();
    assert!(matches!(error, Error::Denied { .. }), "{error:?}");
    assert!(
        !error.chain().contains(&root.display().to_string()),
        "{}",
        error.chain()
    );
}

#[tokio::test]
async fn links_lead_nowhere_and_what_is_not_ours_stays() {
    let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bytes = bytes(1, 10);
    let by_file = key("a/b", &bytes);
    std::fs::create_dir_all(root.path().join("a/b")).unwrap();
    std::fs::create_dir_all(root.path().join("lost+found")).unwrap();
    std::fs::write(root.path().join("a/b/README"), "mine").unwrap();
    std::fs::write(root.path().join("a/b/.tmp-dead"), "half").unwrap();
    let secret = outside.path().join("secret");
    std::fs::write(&secret, &bytes).unwrap();
    symlink(&secret, root.path().join(by_file.as_str())).unwrap();
    symlink(outside.path(), root.path().join("c")).unwrap();

    let disk = Disk::open(root.path()).await.unwrap();
    assert!(!root.path().join("a/b/.tmp-dead").exists());
    assert_eq!(listed(&disk, "").await, []);
    assert_eq!(disk.head(&by_file).await.unwrap(), None);
    let opened = disk.open(&by_file, None).await;
    assert!(matches!(opened, Err(Error::NotFound { .. })));

    // The link is replaced by a file, and what it led to stays.
    assert_eq!(disk.put(&by_file, streamed(bytes.clone())).await.unwrap(), Put::Stored);
    let stored = root.path().join(by_file.as_str());
    assert!(stored.symlink_metadata().unwrap().is_file());
    assert!(disk.delete(&by_file).await.unwrap());
    assert!(secret.exists() && root.path().join("a/b/README").exists());
}

#[rstest]
#[case::missing("missing")]
#[case::file("file")]
#[tokio::test]
async fn a_storage_needs_its_directory(#[case] name: &str) {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("file"), "").unwrap();
    let error = Disk::open(root.path().join(name)).await.unwrap_err();
    assert_eq!((error.reason(), error.class()), ("SettingsInvalid", Class::Refused));
}

#[tokio::test]
async fn garbage_goes_on_after_a_failure() {
    let root = tempfile::tempdir().unwrap();
    let disk = Disk::open(root.path()).await.unwrap();
    let files: Vec<_> = (0..14).map(|at| bytes(at, 10)).collect();
    let keys: Vec<_> = files.iter().map(|file| key("a/b", file)).collect();
    for (at, file) in files.iter().enumerate() {
        if at < 12 {
            // A directory in place of the file cannot be deleted as one, not even by root.
            std::fs::create_dir_all(root.path().join(keys[at].as_str())).unwrap();
        } else {
            disk.put(&keys[at], streamed(file.clone())).await.unwrap();
        }
    }
    let collected = garbage::collect(&disk, keys.clone()).await;
    assert_eq!((collected.deleted, collected.absent, collected.failed), (2, 0, 12));
    assert_eq!((collected.failures.len(), &collected.failures[0].0), (10, &keys[0]));
    assert!(!collected.is_complete());
    assert_eq!(listed(&disk, "").await, []);
}

/// Deletions take away empty directories while others store files in them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_goes_meanwhile_is_made_again() {
    let root = tempfile::tempdir().unwrap();
    let disk = Disk::open(root.path()).await.unwrap();
    let turns = (0..8u64).map(|of| {
        let disk = disk.clone();
        tokio::spawn(async move {
            for turn in 0..40 {
                let bytes = bytes(of * 1000 + turn, 100);
                let key = key("a/b/c", &bytes);
                disk.put(&key, streamed(bytes.clone())).await.unwrap();
                assert!(read(disk.open(&key, None).await.unwrap()).await == bytes);
                assert!(disk.delete(&key).await.unwrap());
            }
        })
    });
    for turn in futures::future::join_all(turns).await {
        turn.unwrap();
    }
    assert!(!root.path().join("a").exists());
}
