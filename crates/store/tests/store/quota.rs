//! A limit of all files together.

use std::sync::Arc;

use futures::future::join_all;
use trellis_store::{Class, Disk, Error, Put, Quota, Storage as _};

use crate::backend::{bytes, key, listed, spooled, streamed};

const LIMIT: u64 = 1000;

#[tokio::test]
async fn files_together_do_not_exceed_the_limit() {
    let root = tempfile::tempdir().unwrap();
    let disk = Arc::new(Disk::open(root.path()).await.unwrap());
    let quota = Quota::new(disk, LIMIT);
    let (one, two, small) = (bytes(1, 600), bytes(2, 600), bytes(3, 400));
    for (file, stored) in [(&one, Put::Stored), (&one, Put::Unchanged), (&small, Put::Stored)] {
        let (_spool, content) = spooled(file);
        assert_eq!(quota.put(&key("a/b", file), content).await.unwrap(), stored);
    }
    let error = quota.put(&key("c/d", &two), streamed(two.clone())).await.unwrap_err();
    assert!(matches!(error, Error::NoSpace { .. }), "{error:?}");
    let (_spool, content) = spooled(&two);
    let error = quota.put(&key("c/d", &two), content).await.unwrap_err();
    assert_eq!(error.class(), Class::Waiting);
    assert!(
        error
            .told()
            .ends_with("all files together may take 1000 bytes (--storage-max-bytes)"),
        "{}",
        error.told()
    );
    // What goes gives its room back, whoever removed it.
    std::fs::remove_file(root.path().join(key("a/b", &one).as_str())).unwrap();
    let (_spool, content) = spooled(&two);
    assert_eq!(quota.put(&key("c/d", &two), content).await.unwrap(), Put::Stored);
}

/// Many at once count what each other brings.
#[tokio::test]
async fn what_is_on_its_way_counts() {
    let root = tempfile::tempdir().unwrap();
    let quota = Quota::new(Arc::new(Disk::open(root.path()).await.unwrap()), LIMIT);
    let files: Vec<_> = (0..20).map(|seed| bytes(seed, 300)).collect();
    let put = files.iter().map(async |file| {
        let (_spool, content) = spooled(file);
        quota.put(&key("a/b", file), content).await.is_ok()
    });
    let stored = join_all(put).await.into_iter().filter(|stored| *stored).count();
    assert!((1..=3).contains(&stored), "{stored}");
    assert_eq!(listed(&quota, "").await.len(), stored);
}
