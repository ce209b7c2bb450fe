//! The last files are served while the backend is away.

use std::sync::Arc;

use trellis_store::{Cached, Disk, Error, Limits, Put, S3, Storage, Verdict};

use crate::{
    backend::{bytes, key, read, spooled, streamed},
    proxy::Action,
    service::Service,
};

const LIMITS: Limits = Limits {
    total: 100_000,
    file: 60_000,
};

#[tokio::test]
async fn the_last_files_are_served_while_the_service_is_down() {
    let service = Service::start().await;
    let (proxy, endpoint) = service.endpoint.through_proxy().await;
    let mut settings = endpoint.settings();
    settings.retries = 0;
    let cached = Cached::new(Arc::new(S3::new(&settings).unwrap()), LIMITS);
    let (stored, fetched, large) = (bytes(2, 20_000), bytes(3, 30_000), bytes(4, 70_000));
    let (unread, deleted) = (bytes(5, 10), bytes(6, 10));
    for file in [&fetched, &large, &unread] {
        cached.put(&key("a/b", file), streamed(file.clone())).await.unwrap();
    }
    for file in [&stored, &deleted] {
        let (_spool, content) = spooled(file);
        assert_eq!(cached.put(&key("a/b", file), content).await.unwrap(), Put::Stored);
    }
    for file in [&fetched, &large] {
        assert!(read(cached.open(&key("a/b", file), None).await.unwrap()).await == *file);
    }
    cached.delete(&key("a/b", &deleted)).await.unwrap();
    // A part of a file is not kept.
    drop(cached.open(&key("a/b", &unread), Some(0..5)).await.unwrap());
    assert_eq!(cached.used(), 50_000);
    let gone = [&large, &unread, &deleted].map(|file| key("a/b", file));

    proxy.next("GET", Action::Down, usize::MAX);
    for file in [&stored, &fetched] {
        let key = key("a/b", file);
        assert!(read(cached.open(&key, None).await.unwrap()).await == *file);
        let part = cached.open(&key, Some(10..100)).await.unwrap();
        assert!(read(part).await == file[10..100]);
        let opened = cached.open(&key, Some(1 << 20..1 << 21)).await;
        assert!(matches!(opened, Err(Error::OutOfRange { .. })));
        // Reading a file over is about the backend.
        assert_eq!(cached.verify(&key).await.unwrap_err().reason(), "Unreachable");
    }
    for key in &gone {
        assert_eq!(cached.open(key, None).await.unwrap_err().reason(), "Unreachable");
    }

    proxy.next("HEAD", Action::Down, usize::MAX);
    for file in [&stored, &fetched] {
        let stat = cached.head(&key("a/b", file)).await.unwrap();
        assert_eq!(stat.map(|stat| stat.size), Some(file.len() as u64));
    }
    for key in &gone {
        assert_eq!(cached.head(key).await.unwrap_err().reason(), "Unreachable");
    }

    // What the service says of itself is believed.
    let key = key("a/b", &stored);
    proxy.next("GET", Action::Status(404), 1);
    let opened = cached.open(&key, None).await;
    assert!(matches!(opened, Err(Error::NotFound { .. })), "{opened:?}");
    assert_eq!(cached.verify(&key).await.unwrap(), Verdict::Right);
}

#[tokio::test]
async fn the_bound_holds_and_the_least_wanted_goes_first() {
    let root = tempfile::tempdir().unwrap();
    let cached = Cached::new(Arc::new(Disk::open(root.path()).await.unwrap()), LIMITS);
    let files: Vec<_> = (2..6).map(|at| bytes(at, 40_000)).collect();
    for file in &files {
        cached.put(&key("a/b", file), streamed(file.clone())).await.unwrap();
    }
    let open = async |at: usize| cached.open(&key("a/b", &files[at]), None).await.unwrap();

    // Two are being read: they take what there is, and a third is not kept. What is not read to its end is not either.
    let (one, two) = (open(0).await, open(1).await);
    assert!(read(open(2).await).await == files[2]);
    assert_eq!(cached.used(), 80_000);
    assert!(read(one).await == files[0]);
    drop(two);
    assert_eq!(cached.used(), 40_000);

    // Whoever is read again is wanted again: of the two, the other goes for the third.
    read(open(1).await).await;
    read(open(0).await).await;
    read(open(3).await).await;
    assert_eq!(cached.used(), 80_000);

    // The disk fails: a file is in the place of its directory.
    let away = root.path().join("a");
    std::fs::rename(&away, root.path().join("elsewhere")).unwrap();
    std::fs::write(&away, "no directory").unwrap();
    for (at, held) in [(0, true), (1, false), (2, false), (3, true)] {
        let opened = cached.open(&key("a/b", &files[at]), None).await;
        assert_eq!(opened.is_ok(), held, "{at}");
    }
    std::fs::remove_file(&away).unwrap();
    std::fs::rename(root.path().join("elsewhere"), &away).unwrap();

    // Corrupt bytes go by, as they would without a cache, and are not kept.
    cached.delete(&key("a/b", &files[3])).await.unwrap();
    assert_eq!(cached.used(), 40_000);
    std::fs::write(root.path().join(key("a/b", &files[2]).as_str()), &files[1]).unwrap();
    assert!(read(open(2).await).await == files[1]);
    assert_eq!(cached.used(), 40_000);
}

/// Of the same length, so that only reading it over tells; the service still says that it is right.
#[tokio::test]
async fn what_was_found_corrupt_is_not_there_until_it_is_stored_again() {
    let service = Service::start().await;
    let root = tempfile::tempdir().unwrap();
    let backends: [(Arc<dyn Storage>, _); 2] = [
        (
            Arc::new(S3::new(&service.endpoint.settings()).unwrap()),
            service.bucket_root(),
        ),
        (Arc::new(Disk::open(root.path()).await.unwrap()), root.path().to_owned()),
    ];
    for (backend, place) in backends {
        let cached = Cached::new(backend, LIMITS);
        let (right, wrong) = (bytes(2, 20_000), bytes(3, 20_000));
        let key = key("a/b", &right);
        let (_spool, content) = spooled(&right);
        cached.put(&key, content).await.unwrap();
        let file = std::fs::OpenOptions::new()
            .write(true)
            .open(place.join(key.as_str()))
            .unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &wrong, 0).unwrap();
        assert!(cached.head(&key).await.unwrap().is_some());
        assert!(matches!(cached.verify(&key).await.unwrap(), Verdict::Corrupt { .. }));
        assert_eq!(cached.head(&key).await.unwrap(), None);
        assert!(matches!(cached.open(&key, None).await, Err(Error::NotFound { .. })));
        let (_spool, content) = spooled(&right);
        assert_eq!(cached.put(&key, content).await.unwrap(), Put::Stored);
        assert_eq!(cached.verify(&key).await.unwrap(), Verdict::Right);
        assert!(read(cached.open(&key, None).await.unwrap()).await == right);
    }
}
