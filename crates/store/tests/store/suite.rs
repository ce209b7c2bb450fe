//! What every backend does alike.

use std::{
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures::{future::join_all, stream};
use rstest::rstest;
use trellis_store::{Class, Content, Digest, Error, Key, Put, Storage, Verdict, garbage};

use crate::backend::{Backend, bytes, key, listed, names, prefix, read, spooled, streamed};

const MIB: usize = 1 << 20;

#[rstest]
#[case::disk(Backend::Disk)]
#[case::memory(Backend::Memory)]
#[case::s3(Backend::S3)]
#[tokio::test]
async fn what_is_put_is_read_whole_and_in_parts(
    #[case] backend: Backend,
    #[values(0, 1, 131_071, 131_073, 8 * MIB - 1, 8 * MIB, 8 * MIB + 1, 21 * MIB)] size: usize,
    #[values(false, true)] as_stream: bool,
) {
    let bench = backend.start().await;
    let storage = &*bench.storage;
    let bytes = bytes(size as u64, size);
    let key = key("kind/team/name", &bytes);
    let (_file, spooled) = spooled(&bytes);
    let content = if as_stream { streamed(bytes.clone()) } else { spooled };
    assert_eq!(storage.put(&key, content).await.unwrap(), Put::Stored);

    let opened = storage.open(&key, None).await.unwrap();
    assert_eq!((opened.stat.size, opened.range.clone()), (size as u64, 0..size as u64));
    assert!(read(opened).await == bytes);
    assert_eq!(
        storage.head(&key).await.unwrap().map(|stat| stat.size),
        Some(size as u64)
    );
    assert_eq!(storage.verify(&key).await.unwrap(), Verdict::Right);

    let end = size as u64;
    for range in [0..1, 0..end, end / 2..end / 2 + 77, end.saturating_sub(1)..end + 100] {
        let opened = storage.open(&key, Some(range.clone())).await;
        if size == 0 {
            assert!(matches!(opened, Err(Error::OutOfRange { .. })), "{opened:?}");
            continue;
        }
        let opened = opened.unwrap();
        let expected = range.start..range.end.min(end);
        assert_eq!((opened.range.clone(), opened.stat.size), (expected.clone(), end));
        let expected = usize::try_from(expected.start).unwrap()..usize::try_from(expected.end).unwrap();
        assert!(read(opened).await == bytes[expected]);
    }
    for range in [end..end + 1, end + 5..end + 6, 0..0] {
        let opened = storage.open(&key, Some(range)).await;
        assert!(matches!(opened, Err(Error::OutOfRange { .. })), "{opened:?}");
    }
}

#[rstest]
#[case::disk(Backend::Disk)]
#[case::memory(Backend::Memory)]
#[case::s3(Backend::S3)]
#[tokio::test]
async fn a_right_file_is_not_written_again(#[case] backend: Backend, #[values(1000, 9 * MIB)] size: usize) {
    let bench = backend.start().await;
    let bytes = bytes(1, size);
    let key = key("a/b", &bytes);
    let (_file, content) = spooled(&bytes);
    assert_eq!(bench.storage.put(&key, content).await.unwrap(), Put::Stored);
    let inode = || bench.root.as_ref().map(|root| inode(&root.join(key.as_str())));
    let (stat, before) = (bench.storage.head(&key).await.unwrap(), inode());

    let (_file, content) = spooled(&bytes);
    assert_eq!(bench.storage.put(&key, content).await.unwrap(), Put::Unchanged);
    assert_eq!(bench.storage.put(&key, streamed(bytes)).await.unwrap(), Put::Unchanged);
    assert_eq!((bench.storage.head(&key).await.unwrap(), inode()), (stat, before));
}

fn inode(path: &std::path::Path) -> (u64, SystemTime) {
    let metadata = std::fs::metadata(path).unwrap();
    (
        std::os::unix::fs::MetadataExt::ino(&metadata),
        metadata.modified().unwrap(),
    )
}

#[rstest]
#[case::disk(Backend::Disk)]
#[case::memory(Backend::Memory)]
#[case::s3(Backend::S3)]
#[tokio::test]
async fn bytes_of_another_digest_are_refused(
    #[case] backend: Backend,
    #[values(1000, 9 * MIB)] size: usize,
    #[values(false, true)] as_stream: bool,
) {
    let bench = backend.start().await;
    let other = bytes(2, size);
    let key = key("a/b", b"what was announced");
    let (_file, spooled) = spooled(&other);
    let content = if as_stream { streamed(other.clone()) } else { spooled };
    let error = bench.storage.put(&key, content).await.unwrap_err();
    assert!(
        matches!(&error, Error::Mismatch { found, .. } if *found == Digest::of(&other)),
        "{error:?}"
    );
    assert_eq!(error.class(), Class::Refused);
    assert_nothing(&*bench.storage, &key, bench.root.as_deref()).await;
}

#[rstest]
#[case::disk(Backend::Disk)]
#[case::memory(Backend::Memory)]
#[case::s3(Backend::S3)]
#[tokio::test]
async fn a_stream_that_breaks_leaves_nothing(#[case] backend: Backend, #[values(1000, 9 * MIB)] size: usize) {
    let bench = backend.start().await;
    let bytes = bytes(3, size);
    let key = key("a/b", &bytes);
    let pieces = stream::iter([Ok(bytes), Err(io::Error::from(io::ErrorKind::ConnectionReset))]);
    let broken = Content::stream(tokio_util::io::StreamReader::new(pieces));
    let error = bench.storage.put(&key, broken).await.unwrap_err();
    assert_eq!((error.reason(), error.class()), ("ContentUnreadable", Class::Transient));
    assert_nothing(&*bench.storage, &key, bench.root.as_deref()).await;

    let missing = bench
        .storage
        .put(&key, Content::file("/nonexistent/spool"))
        .await
        .unwrap_err();
    assert_eq!(missing.reason(), "ContentUnreadable");
}

#[rstest]
#[case::disk(Backend::Disk)]
#[case::memory(Backend::Memory)]
#[case::s3(Backend::S3)]
#[tokio::test]
async fn a_put_that_is_given_up_leaves_nothing(#[case] backend: Backend) {
    let bench = backend.start().await;
    let bytes = bytes(4, 3 * MIB);
    let key = key("a/b", &bytes);
    let (mut far, near) = tokio::io::duplex(64 * 1024);
    {
        let put = bench.storage.put(&key, Content::stream(near));
        let feed = tokio::io::AsyncWriteExt::write_all(&mut far, &bytes[..MIB]);
        tokio::select! {
            put = put => panic!("a stream that is open cannot be stored: {put:?}"),
            fed = feed => fed.unwrap(),
        }
    }
    // The next one waits for the lock of the key, which the thread that writes holds to its end.
    assert_eq!(
        bench.storage.put(&key, streamed(bytes.clone())).await.unwrap(),
        Put::Stored
    );
    assert!(read(bench.storage.open(&key, None).await.unwrap()).await == bytes);
    if let (Backend::Disk, Some(root)) = (backend, &bench.root) {
        assert_eq!(names(root).len(), 1);
    }
}

/// Nothing is visible, and on a disk nothing lies about.
async fn assert_nothing(storage: &dyn Storage, key: &Key, root: Option<&std::path::Path>) {
    assert_eq!(storage.head(key).await.unwrap(), None);
    assert_eq!(storage.verify(key).await.unwrap(), Verdict::Missing);
    let opened = storage.open(key, None).await;
    assert!(matches!(opened, Err(Error::NotFound { .. })), "{opened:?}");
    assert_eq!(listed(storage, "").await, []);
    if let Some(root) = root {
        assert_eq!(names(root), [""; 0]);
    }
}

#[rstest]
#[case::disk(Backend::Disk)]
#[case::memory(Backend::Memory)]
#[case::s3(Backend::S3)]
#[tokio::test]
async fn lists_end_at_segments_and_tell_sizes_and_times(#[case] backend: Backend) {
    let bench = backend.start().await;
    let storage = &*bench.storage;
    // A file system may keep whole seconds.
    let before = SystemTime::now() - Duration::from_secs(2);
    let mut keys = Vec::new();
    for (at, of) in ["k/a/x", "k/a/x", "k/a/xy", "k/b/x", "other/a/x"]
        .into_iter()
        .enumerate()
    {
        let bytes = bytes(at as u64, 100 + at);
        keys.push(key(of, &bytes));
        storage.put(&keys[at], streamed(bytes)).await.unwrap();
    }
    let below = async |prefix: &str| {
        let entries = listed(storage, prefix).await;
        entries.into_iter().map(|entry| entry.key).collect::<Vec<_>>()
    };
    let sorted = |at: &[usize]| {
        let mut keys: Vec<Key> = at.iter().map(|at| keys[*at].clone()).collect();
        keys.sort();
        keys
    };
    assert_eq!(below("").await, sorted(&[0, 1, 2, 3, 4]));
    assert_eq!(below("k").await, sorted(&[0, 1, 2, 3]));
    assert_eq!(below("k/a").await, sorted(&[0, 1, 2]));
    assert_eq!(below("k/a/x").await, sorted(&[0, 1]));
    assert_eq!(below("k/a/nobody").await, []);
    for entry in listed(storage, "").await {
        assert_eq!(
            storage.head(&entry.key).await.unwrap().map(|stat| stat.size),
            Some(entry.stat.size)
        );
        assert!(entry.stat.modified >= before && entry.stat.modified <= SystemTime::now() + Duration::from_secs(2));
    }

    assert_eq!(storage.delete_prefix(&prefix("k/a/x")).await.unwrap(), 2);
    assert_eq!(below("").await, sorted(&[2, 3, 4]));
    assert_eq!(storage.delete_prefix(&prefix("k/a/x")).await.unwrap(), 0);
    assert!(storage.delete(&keys[3]).await.unwrap());
    let again = storage.delete(&keys[3]).await.unwrap();
    assert_eq!(again, backend == Backend::S3, "S3 does not tell");
    assert_eq!(below("").await, sorted(&[2, 4]));
    assert_eq!(storage.verify(&keys[3]).await.unwrap(), Verdict::Missing);
}

#[rstest]
#[case::disk(Backend::Disk)]
#[case::s3(Backend::S3)]
#[tokio::test]
async fn a_corrupt_file_is_noticed_and_written_again(#[case] backend: Backend, #[values(false, true)] shorter: bool) {
    let bench = backend.start().await;
    let bytes = bytes(5, 300_000);
    let key = key("a/b", &bytes);
    bench.storage.put(&key, streamed(bytes.clone())).await.unwrap();
    let mut damaged = bytes.to_vec();
    damaged[150_000] ^= 1;
    damaged.truncate(if shorter { 200_000 } else { 300_000 });
    std::fs::write(bench.root.as_ref().unwrap().join(key.as_str()), &damaged).unwrap();

    let found = Digest::of(&damaged);
    assert_eq!(bench.storage.verify(&key).await.unwrap(), Verdict::Corrupt { found });

    // An object is believed by its metadata, unless its size tells: whoever finds it corrupt deletes it first.
    if backend == Backend::S3 && !shorter {
        bench.storage.delete(&key).await.unwrap();
    }
    let (_file, content) = spooled(&bytes);
    assert_eq!(bench.storage.put(&key, content).await.unwrap(), Put::Stored);
    assert_eq!(bench.storage.verify(&key).await.unwrap(), Verdict::Right);
}

#[rstest]
#[case::disk(Backend::Disk)]
#[case::memory(Backend::Memory)]
#[case::s3(Backend::S3)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_store_one_file_and_many(#[case] backend: Backend) {
    let bench = backend.start().await;
    let same = bytes(6, 200_000);
    let puts = (0..24).map(|at| {
        let storage = Arc::clone(&bench.storage);
        let bytes = if at < 8 { same.clone() } else { bytes(at, 50_000) };
        async move {
            let key = key("a/b", &bytes);
            storage.put(&key, streamed(bytes)).await.unwrap();
            let deleted = at % 3 == 2 && at >= 8;
            if deleted {
                storage.delete(&key).await.unwrap();
            }
            (key, deleted)
        }
    });
    for (key, deleted) in join_all(puts).await {
        let expected = if deleted { Verdict::Missing } else { Verdict::Right };
        assert_eq!(bench.storage.verify(&key).await.unwrap(), expected);
    }
}

#[rstest]
#[case::disk(Backend::Disk)]
#[case::memory(Backend::Memory)]
#[tokio::test]
async fn who_reads_reads_to_the_end_of_a_deleted_file(#[case] backend: Backend) {
    let bench = backend.start().await;
    let bytes = bytes(7, 4 * MIB);
    let key = key("a/b", &bytes);
    bench.storage.put(&key, streamed(bytes.clone())).await.unwrap();
    let opened = bench.storage.open(&key, None).await.unwrap();
    assert!(bench.storage.delete(&key).await.unwrap());
    assert!(read(opened).await == bytes);
    assert_eq!(listed(&*bench.storage, "").await, []);
}

#[rstest]
#[case::disk(Backend::Disk)]
#[case::memory(Backend::Memory)]
#[case::s3(Backend::S3)]
#[tokio::test]
async fn garbage_is_deleted_and_counted(#[case] backend: Backend) {
    let bench = backend.start().await;
    let files: Vec<Bytes> = (0..5).map(|at| bytes(at, 100)).collect();
    for file in &files[..4] {
        bench
            .storage
            .put(&key("a/b", file), streamed(file.clone()))
            .await
            .unwrap();
    }
    let collected = garbage::collect(&*bench.storage, files[1..].iter().map(|file| key("a/b", file))).await;
    let told = u64::from(backend != Backend::S3);
    assert_eq!(
        (collected.deleted, collected.absent, collected.failed),
        (4 - told, told, 0)
    );
    assert!(collected.is_complete());
    let left: Vec<Key> = listed(&*bench.storage, "")
        .await
        .into_iter()
        .map(|entry| entry.key)
        .collect();
    assert_eq!(left, [key("a/b", &files[0])]);
}
