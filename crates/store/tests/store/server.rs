//! The file server, asked over real connections.

mod bounds;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use rstest::rstest;
use tokio::{net::TcpStream, sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use trellis_store::{Cached, Delivery, Digest, Disk, Key, Limits, S3, Server, ServerError, ServerSettings, Storage};

use crate::{
    backend::{Backend, bytes, key, names, streamed},
    child::Process,
    client::{Connection, ask},
    proxy::Action,
    service::Service,
};

const MIB: usize = 1 << 20;

/// A server that runs.
struct Running {
    address: SocketAddr,
    leading: watch::Sender<bool>,
    serving: watch::Receiver<Option<SocketAddr>>,
    stop: CancellationToken,
    ended: JoinHandle<Result<(), ServerError>>,
}

fn settings() -> ServerSettings {
    ServerSettings::new("127.0.0.1:0".parse().unwrap())
}

async fn serve(storage: Arc<dyn Storage>, settings: ServerSettings) -> Running {
    let server = Server::new(storage, settings);
    let mut serving = server.serving();
    let (leading, leads) = watch::channel(true);
    let stop = CancellationToken::new();
    let ended = tokio::spawn(server.run(leads, stop.clone()));
    let address = serving.wait_for(Option::is_some).await.unwrap().unwrap();
    Running {
        address,
        leading,
        serving,
        stop,
        ended,
    }
}

async fn stored(storage: &dyn Storage, bytes: &Bytes) -> Key {
    let key = key("kind/team/name", bytes);
    storage.put(&key, streamed(bytes.clone())).await.unwrap();
    key
}

/// What a request is answered, for a file of 1000 bytes that is not changed in between.
#[rstest]
#[case::whole("GET", &[], 200, 0..1000)]
#[case::head("HEAD", &[], 200, 0..0)]
#[case::part("GET", &["range: bytes=10-19"], 206, 10..20)]
#[case::open_part("GET", &["range: bytes=990-"], 206, 990..1000)]
#[case::last("GET", &["range: bytes=-10"], 206, 990..1000)]
#[case::beyond("GET", &["range: bytes=990-5000"], 206, 990..1000)]
#[case::several("GET", &["range: bytes=0-1,5-6"], 200, 0..1000)]
#[case::two_ranges("GET", &["range: bytes=0-1", "range: bytes=5-6"], 200, 0..1000)]
#[case::other_unit("GET", &["range: lines=0-1"], 200, 0..1000)]
#[case::faulty("GET", &["range: bytes=9-1"], 200, 0..1000)]
#[case::head_of_a_part("HEAD", &["range: bytes=10-19"], 200, 0..0)]
#[case::unsatisfiable("GET", &["range: bytes=1000-"], 416, 0..0)]
#[case::none_match("GET", &["if-none-match: ETAG"], 304, 0..0)]
#[case::none_match_head("HEAD", &["if-none-match: ETAG"], 304, 0..0)]
#[case::none_match_weak("GET", &["if-none-match: \"x\", W/ETAG"], 304, 0..0)]
#[case::none_match_other("GET", &["if-none-match: \"x\""], 200, 0..1000)]
#[case::none_match_before_range("GET", &["if-none-match: ETAG", "range: bytes=5000-"], 304, 0..0)]
#[case::matches("GET", &["if-match: ETAG"], 200, 0..1000)]
#[case::matches_any("GET", &["if-match: *"], 200, 0..1000)]
#[case::matches_not("GET", &["if-match: \"x\""], 412, 0..0)]
#[case::matches_weak("GET", &["if-match: W/ETAG"], 412, 0..0)]
#[case::modified_since("GET", &["if-modified-since: Sun, 06 Nov 1994 08:49:37 GMT"], 200, 0..1000)]
#[case::not_modified_since("GET", &["if-modified-since: MODIFIED"], 304, 0..0)]
#[case::tag_beats_date("GET", &["if-none-match: \"x\"", "if-modified-since: MODIFIED"], 200, 0..1000)]
#[case::unmodified_since("GET", &["if-unmodified-since: MODIFIED"], 200, 0..1000)]
#[case::not_unmodified_since("GET", &["if-unmodified-since: Sun, 06 Nov 1994 08:49:37 GMT"], 412, 0..0)]
#[case::range_of_this("GET", &["if-range: ETAG", "range: bytes=0-9"], 206, 0..10)]
#[case::range_of_this_time("GET", &["if-range: MODIFIED", "range: bytes=0-9"], 206, 0..10)]
#[case::range_of_another("GET", &["if-range: \"x\"", "range: bytes=0-9"], 200, 0..1000)]
#[tokio::test]
async fn requests_for_a_file(
    #[case] method: &str,
    #[case] headers: &[&str],
    #[case] status: u16,
    #[case] expected: std::ops::Range<usize>,
    #[values(Backend::Disk, Backend::S3)] backend: Backend,
) {
    let bench = backend.start().await;
    let file = bytes(1, 1000);
    let key = stored(&*bench.storage, &file).await;
    let path = format!("/{key}");
    let running = serve(Arc::clone(&bench.storage), settings()).await;
    let (plain, _) = ask(running.address, "HEAD", &path, &[]).await;
    let etag = format!("\"sha256:{}\"", Digest::of(&file).hex());
    let modified = plain.header("last-modified").unwrap();
    let headers: Vec<String> = headers
        .iter()
        .map(|line| line.replace("ETAG", &etag).replace("MODIFIED", modified))
        .collect();
    let headers: Vec<&str> = headers.iter().map(String::as_str).collect();

    let (head, body) = ask(running.address, method, &path, &headers).await;
    assert_eq!(head.status, status, "{head:?}");
    let fails = status >= 400;
    if !fails {
        assert!(body == file[expected.clone()], "{head:?}");
        assert_eq!(head.header("etag"), Some(etag.as_str()));
        assert_eq!(head.header("last-modified"), Some(modified));
        assert_eq!(head.header("accept-ranges"), Some("bytes"));
    }
    let range = match status {
        206 => Some(format!("bytes {}-{}/1000", expected.start, expected.end - 1)),
        416 => Some("bytes */1000".to_owned()),
        _ => None,
    };
    assert_eq!(head.header("content-range"), range.as_deref());
    if matches!(status, 200 | 206) {
        assert_eq!(head.header("content-type"), Some("application/gzip"));
        let length = if method == "HEAD" { 1000 } else { expected.len() };
        assert_eq!(head.length(), length);
    }
}

#[rstest]
#[case::root("GET", "/", 404)]
#[case::directory("GET", "/kind/team/name", 404)]
#[case::directory_slash("GET", "/kind/team/name/", 404)]
#[case::unknown(
    "GET",
    "/kind/team/name/ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad.tar.gz",
    404
)]
#[case::temporary("GET", "/kind/team/name/.tmp-x", 404)]
#[case::lock("GET", "/KEY.lock", 404)]
#[case::up("GET", "/kind/team/../team/FILE", 404)]
#[case::up_encoded("GET", "/kind/team/..%2fteam/FILE", 404)]
#[case::up_encoded_twice("GET", "/kind/team/..%252fteam/FILE", 404)]
#[case::dots_encoded("GET", "/kind/team/%2e%2e/team/FILE", 404)]
#[case::outside("GET", "/../../etc/passwd", 404)]
#[case::outside_encoded("GET", "/..%2f..%2fetc%2fpasswd", 404)]
#[case::absolute("GET", "//KEY", 404)]
#[case::nul("GET", "/kind/team/name%00/FILE", 404)]
#[case::encoded("GET", "/kind/team/n%61me/FILE", 404)]
#[case::query("GET", "/KEY?x=../y", 200)]
#[case::post("POST", "/KEY", 405)]
#[case::put("PUT", "/KEY", 405)]
#[case::delete("DELETE", "/KEY", 405)]
#[case::options("OPTIONS", "/KEY", 405)]
#[case::unknown_method("BREW", "/KEY", 405)]
#[case::post_unknown("POST", "/nothing", 405)]
#[case::ready("GET", "/readyz", 200)]
#[tokio::test]
async fn requests_for_something_else(#[case] method: &str, #[case] path: &str, #[case] status: u16) {
    let root = tempfile::tempdir().unwrap();
    let disk = Arc::new(Disk::open(root.path()).await.unwrap());
    let key = stored(&*disk, &bytes(1, 1000)).await;
    std::fs::write(root.path().join("kind/team/name/.tmp-x"), "half").unwrap();
    std::fs::write(root.path().join(format!("{key}.lock")), "lock").unwrap();
    let file = key.as_str().rsplit('/').next().unwrap();
    let path = path.replace("KEY", key.as_str()).replace("FILE", file);
    let before = names(root.path());
    let running = serve(disk, settings()).await;
    let (head, body) = ask(running.address, method, &path, &[]).await;
    assert_eq!(head.status, status, "{head:?}");
    assert_eq!(head.header("allow"), (status == 405).then_some("GET, HEAD"));
    assert!(
        status == 200 || !String::from_utf8_lossy(&body).contains(file),
        "an error is no listing"
    );
    assert_eq!(names(root.path()), before);
}

#[tokio::test]
async fn files_are_served_only_while_leading() {
    let root = tempfile::tempdir().unwrap();
    let disk = Arc::new(Disk::open(root.path()).await.unwrap());
    let file = bytes(1, 20 * MIB);
    let path = format!("/{}", stored(&*disk, &file).await);
    let server = Server::new(disk, settings());
    let mut serving = server.serving();
    let (leading, leads) = watch::channel(false);
    let stop = CancellationToken::new();
    let ended = tokio::spawn(server.run(leads, stop.clone()));
    tokio::task::yield_now().await;
    assert_eq!(*serving.borrow(), None);

    for _ in 0..2 {
        leading.send_replace(true);
        let address = serving.wait_for(Option::is_some).await.unwrap().unwrap();
        assert_eq!(ask(address, "GET", "/readyz", &[]).await.0.status, 200);

        // What is being read ends well; the port is closed before, and idle connections with it.
        let mut idle = Connection::to(address).await;
        let mut reading = Connection::to(address).await;
        reading.ask("GET", &path, &[]).await;
        let head = reading.head().await.unwrap();
        leading.send_replace(false);
        serving.wait_for(Option::is_none).await.unwrap();
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        assert_eq!(reading.digest(head.length()).await, Digest::of(&file));
        assert_eq!(reading.rest().await, [0; 0]);
        assert!(idle.head().await.is_none());
    }
    stop.cancel();
    ended.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_address_in_use_is_an_error_and_nobody_to_lead_an_end() {
    let root = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Storage> = Arc::new(Disk::open(root.path()).await.unwrap());
    let running = serve(Arc::clone(&disk), settings()).await;
    let second = Server::new(disk, ServerSettings::new(running.address));
    let (_leading, leads) = watch::channel(true);
    let error = second.run(leads, CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.to_string(), format!("cannot serve files on {}", running.address));
    assert!(running.serving.borrow().is_some() && !running.stop.is_cancelled());
    drop(running.leading);
    running.ended.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_read_at_once() {
    let root = tempfile::tempdir().unwrap();
    let disk = Arc::new(Disk::open(root.path()).await.unwrap());
    let file = bytes(1, 4 * MIB);
    let path = format!("/{}", stored(&*disk, &file).await);
    let running = serve(disk, settings()).await;
    let digest = Digest::of(&file);
    let readers = (0..64).map(|_| {
        let (address, path) = (running.address, path.clone());
        tokio::spawn(async move {
            let mut connection = Connection::to(address).await;
            connection.ask("GET", &path, &[]).await;
            let head = connection.head().await.unwrap();
            connection.digest(head.length()).await
        })
    });
    for read in futures::future::join_all(readers).await {
        assert_eq!(read.unwrap(), digest);
    }
}

/// In a process of its own, so that nothing but storing and serving is measured.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_files_are_stored_and_served_in_constant_memory() {
    const SIZE: usize = 100 * MIB;
    let root = tempfile::tempdir().unwrap();
    let file = bytes(1, SIZE);
    let digest = Digest::of(&file);
    std::fs::write(root.path().join("spool"), &file).unwrap();
    std::fs::write(root.path().join("digest"), digest.to_string()).unwrap();
    let mut process = Process::start("put-and-serve", root.path(), SIZE);
    let address: SocketAddr = process.said("serving").parse().unwrap();
    let stored = process.peak();
    let path = format!("/a/b/{}.tar.gz", digest.hex());

    let (from, to) = (SIZE / 3, SIZE - 17);
    let part = Digest::of(&file[from..=to]);
    let range = format!("range: bytes={from}-{to}");
    let mut connection = Connection::to(address).await;
    connection.ask("GET", &path, &[&range]).await;
    let head = connection.head().await.unwrap();
    assert_eq!((head.status, head.length()), (206, to - from + 1));
    assert_eq!(connection.digest(head.length()).await, part);

    let readers = (0..8).map(|_| {
        let path = path.clone();
        tokio::spawn(async move {
            let mut connection = Connection::to(address).await;
            connection.ask("GET", &path, &[]).await;
            let head = connection.head().await.unwrap();
            connection.digest(head.length()).await
        })
    });
    for read in futures::future::join_all(readers).await {
        assert_eq!(read.unwrap(), digest);
    }
    let peak = process.peak();
    println!(
        "peak after storing: {} KiB; after nine readers: {} KiB",
        stored / 1024,
        peak / 1024
    );
    assert!(peak < 32 * MIB as u64, "{peak} bytes were resident");
}

#[tokio::test]
async fn a_redirect_leads_to_the_bytes() {
    let service = Service::start().await;
    let storage = Arc::new(S3::new(&service.endpoint.settings()).unwrap());
    let file = bytes(1, 100_000);
    let key = stored(&*storage, &file).await;
    let path = format!("/{key}");
    let delivery = Delivery::Redirect {
        valid: Duration::from_mins(5),
    };
    let running = serve(storage, ServerSettings { delivery, ..settings() }).await;

    let (head, _) = ask(running.address, "GET", &path, &[]).await;
    assert_eq!((head.status, head.header("cache-control")), (302, Some("no-store")));
    let location = head.header("location").unwrap();
    assert!(
        location.contains("X-Amz-Expires=300") && !location.contains("a-secret"),
        "{location}"
    );
    let (host, rest) = location.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut connection = Connection::to(host.parse().unwrap()).await;
    connection
        .send(&format!("GET /{rest} HTTP/1.1\r\nhost: {host}\r\n\r\n"))
        .await;
    let followed = connection.head().await.unwrap();
    assert_eq!(followed.status, 200, "{followed:?}");
    assert!(connection.take(followed.length()).await == file);

    // What can be said without the bytes is said here.
    let (head, _) = ask(running.address, "HEAD", &path, &[]).await;
    assert_eq!((head.status, head.length()), (200, 100_000));
    let tag = format!("if-none-match: \"{}\"", key.digest());
    assert_eq!(ask(running.address, "GET", &path, &[&tag]).await.0.status, 304);
    let unknown = format!("/{}", crate::backend::key("a/b", b"unknown"));
    assert_eq!(ask(running.address, "GET", &unknown, &[]).await.0.status, 404);
}

#[tokio::test]
async fn storage_that_is_down_is_said_and_held_files_are_served() {
    let service = Service::start().await;
    let (proxy, endpoint) = service.endpoint.through_proxy().await;
    let mut s3 = endpoint.settings();
    s3.retries = 0;
    let cached = Arc::new(Cached::new(Arc::new(S3::new(&s3).unwrap()), Limits::default()));
    let (held, large) = (bytes(1, 1000), bytes(2, 5 * MIB));
    let held_path = format!("/{}", stored(&*cached, &held).await);
    let large_path = format!("/{}", stored(&*cached, &large).await);
    let running = serve(cached, settings()).await;
    for (path, file) in [(&held_path, &held), (&large_path, &large)] {
        assert!(ask(running.address, "GET", path, &[]).await.1 == *file);
    }

    proxy.next("GET", Action::Down, usize::MAX);
    let (head, body) = ask(running.address, "GET", &held_path, &[]).await;
    assert_eq!((head.status, body), (200, held.to_vec()));
    let (head, body) = ask(running.address, "GET", &large_path, &[]).await;
    assert_eq!((head.status, head.header("retry-after")), (503, Some("5")));
    assert_eq!(body, b"the storage is not available\n");

    // An answer that breaks is seen to be broken.
    proxy.next("GET", Action::CutDownload(100_000), usize::MAX);
    let (head, body) = ask(running.address, "GET", &large_path, &[]).await;
    assert_eq!((head.status, head.length()), (200, large.len()));
    assert!(body.len() < large.len() && body == large[..body.len()]);
}
