//! What only S3 does: signatures, pages, parts, certificates, and a network that breaks.

use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use rstest::rstest;
use trellis_store::{Class, Error, Put, S3, S3Credentials, Storage as _, Verdict};

use crate::{
    backend::{bytes, key, listed, names, prefix, read, spooled, streamed},
    proxy::Action,
    service::{Service, certificate},
};

const MIB: usize = 1 << 20;

#[rstest]
#[case::secret("an-id", "another-secret")]
#[case::id("another-id", "a-secret")]
#[tokio::test]
async fn a_wrong_signature_is_refused(#[case] id: &str, #[case] secret: &str) {
    let service = Service::start().await;
    let mut settings = service.endpoint.settings();
    settings.credentials = S3Credentials::Static {
        access_key_id: id.to_owned(),
        secret_access_key: secret.to_owned().into(),
        session_token: None,
    };
    let storage = S3::new(&settings).unwrap();
    let bytes = bytes(1, 10);
    let key = key("a/b", &bytes);
    let errors = [
        storage.put(&key, streamed(bytes)).await.unwrap_err(),
        storage.open(&key, None).await.unwrap_err(),
        storage.head(&key).await.unwrap_err(),
        storage.delete(&key).await.unwrap_err(),
        storage.list(&prefix("")).try_collect::<Vec<_>>().await.unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, Error::Denied { .. }), "{error:?}");
        assert_eq!(error.class(), Class::Waiting);
        assert!(!error.chain().contains(secret), "{}", error.chain());
    }
    assert_eq!(names(&service.bucket_root()), [""; 0]);
}

#[tokio::test]
async fn requests_are_signed_and_the_secret_is_not_sent() {
    let service = Service::start().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut settings = service.endpoint.settings();
    settings.endpoint = Some(format!("http://{}", listener.local_addr().unwrap()));
    settings.retries = 0;
    let storage = S3::new(&settings).unwrap();
    let key = key("a/b", b"");
    let (asked, head) = tokio::join!(storage.head(&key), async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = vec![0; 4096];
        let read = tokio::io::AsyncReadExt::read(&mut stream, &mut head).await.unwrap();
        drop((stream, listener));
        String::from_utf8_lossy(&head[..read]).to_lowercase()
    });
    assert!(asked.is_err());
    assert!(head.starts_with(&format!("head /artifacts/{key} http/1.1")), "{head}");
    assert!(head.contains("aws4-hmac-sha256 credential=an-id/"), "{head}");
    assert!(head.contains("/us-east-1/s3/aws4_request"), "{head}");
    assert!(!head.contains("a-secret"), "{head}");
}

#[tokio::test]
async fn a_missing_bucket_is_a_matter_of_settings() {
    let service = Service::start().await;
    let (proxy, endpoint) = service.endpoint.through_proxy().await;
    let mut settings = endpoint.settings();
    settings.bucket = "nobodys".to_owned();
    let storage = S3::new(&settings).unwrap();
    // The service of the test makes a bucket that is written to; real ones answer 404.
    proxy.next("PUT", Action::Status(404), 1);
    let bytes = bytes(1, 10);
    let error = storage.put(&key("a/b", &bytes), streamed(bytes)).await.unwrap_err();
    let told = (error.reason(), error.class());
    assert_eq!(told, ("SettingsInvalid", Class::Refused), "{}", error.chain());
    let error = storage.list(&prefix("")).try_collect::<Vec<_>>().await.unwrap_err();
    assert_eq!(error.reason(), "SettingsInvalid");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_have_more_than_one_page() {
    let service = Service::start().await;
    let (proxy, endpoint) = service.endpoint.through_proxy().await;
    let storage = S3::new(&endpoint.settings()).unwrap();
    let files: Vec<_> = (0..1_050).map(|at| bytes(at, 8)).collect();
    let puts = stream::iter(files.clone()).map(|file| {
        let storage = storage.clone();
        async move { storage.put(&key("a/b", &file), streamed(file)).await.unwrap() }
    });
    puts.buffer_unordered(8).map(drop).collect::<()>().await;
    let before = proxy.requests();
    let found = listed(&storage, "a").await;
    assert_eq!(proxy.requests() - before, 2);
    let mut expected: Vec<_> = files.iter().map(|file| key("a/b", file)).collect();
    expected.sort();
    let found: Vec<_> = found.into_iter().map(|entry| entry.key).collect();
    assert_eq!(found, expected);
    assert_eq!(storage.delete_prefix(&prefix("a")).await.unwrap(), 1_050);
    assert_eq!(listed(&storage, "").await, []);
}

/// Faults that go away are not seen by the caller; the bytes are right all the same.
#[rstest]
#[case::unavailable("HEAD", Action::Status(503), 2)]
#[case::throttled("HEAD", Action::Status(429), 1)]
#[case::put_unavailable("PUT", Action::Status(503), 2)]
#[case::put_failed("PUT", Action::Status(500), 1)]
#[case::upload_cut("PUT", Action::CutUpload(300_000), 2)]
#[case::start_of_parts_unavailable("POST", Action::Status(503), 1)]
#[tokio::test]
async fn a_put_gets_over_faults(
    #[case] method: &'static str,
    #[case] action: Action,
    #[case] times: usize,
    #[values(500_000, 9 * MIB)] size: usize,
) {
    let service = Service::start().await;
    let (proxy, endpoint) = service.endpoint.through_proxy().await;
    let storage = S3::new(&endpoint.settings()).unwrap();
    let bytes = bytes(1, size);
    let key = key("a/b", &bytes);
    proxy.next(method, action, times);
    let (_file, content) = spooled(&bytes);
    assert_eq!(storage.put(&key, content).await.unwrap(), Put::Stored);
    let has_no_parts = size < 8 * MIB && method == "POST";
    assert_eq!(proxy.taken(), if has_no_parts { 0 } else { times });
    assert_eq!(storage.verify(&key).await.unwrap(), Verdict::Right);
}

#[rstest]
#[case::unavailable(Action::Status(503), 2)]
#[case::cut_once(Action::CutDownload(1_000_000), 1)]
#[case::cut_again(Action::CutDownload(1_000_000), 2)]
#[case::slow(Action::Slow, 1)]
#[tokio::test]
async fn a_read_gets_over_faults(#[case] action: Action, #[case] times: usize) {
    let service = Service::start().await;
    let (proxy, endpoint) = service.endpoint.through_proxy().await;
    let storage = S3::new(&endpoint.settings()).unwrap();
    let bytes = bytes(1, 4 * MIB);
    let key = key("a/b", &bytes);
    storage.put(&key, streamed(bytes.clone())).await.unwrap();
    proxy.next("GET", action, times);
    let opened = storage.open(&key, None).await.unwrap();
    assert!(read(opened).await == bytes);
    assert_eq!(proxy.taken(), times);
}

/// Faults that stay are told, and nothing of the file is visible.
#[rstest]
#[case::unavailable("PUT", Action::Status(503), "Unreachable", Class::Transient)]
#[case::cut("PUT", Action::CutUpload(300_000), "Unreachable", Class::Transient)]
#[case::down("HEAD", Action::Down, "Unreachable", Class::Transient)]
#[case::full("PUT", Action::Status(507), "NoSpace", Class::Waiting)]
#[case::denied("PUT", Action::Status(403), "Denied", Class::Waiting)]
#[case::elsewhere("HEAD", Action::Status(301), "SettingsInvalid", Class::Refused)]
#[case::malformed("PUT", Action::Status(400), "SettingsInvalid", Class::Refused)]
#[tokio::test]
async fn a_fault_that_stays_is_told(
    #[case] method: &'static str,
    #[case] action: Action,
    #[case] reason: &str,
    #[case] class: Class,
    #[values(500_000, 9 * MIB)] size: usize,
) {
    let service = Service::start().await;
    let (proxy, endpoint) = service.endpoint.through_proxy().await;
    let storage = S3::new(&endpoint.settings()).unwrap();
    let bytes = bytes(1, size);
    let key = key("a/b", &bytes);
    proxy.next(method, action, usize::MAX);
    let error = storage.put(&key, streamed(bytes.clone())).await.unwrap_err();
    assert_eq!((error.reason(), error.class()), (reason, class), "{}", error.chain());
    assert!(proxy.taken() > 0);
    let again = storage.put(&key, streamed(bytes)).await.unwrap_err();
    assert_eq!(error.told(), again.told(), "the same failure in the same words");
    assert!(
        !error.told().contains(['\n', '\r']) && !error.told().contains("127.0.0.1"),
        "{}",
        error.told()
    );

    let direct = S3::new(&service.endpoint.settings()).unwrap();
    assert_eq!(direct.verify(&key).await.unwrap(), Verdict::Missing);
    assert_eq!(listed(&direct, "").await, []);
}

#[tokio::test]
async fn a_service_that_hangs_is_given_up() {
    let service = Service::start().await;
    let (proxy, endpoint) = service.endpoint.through_proxy().await;
    let mut settings = endpoint.settings();
    settings.request_timeout = Duration::from_millis(200);
    settings.retries = 1;
    let storage = S3::new(&settings).unwrap();
    let key = key("a/b", b"");
    proxy.next("HEAD", Action::Hang, usize::MAX);
    assert_eq!(storage.head(&key).await.unwrap_err().reason(), "Unreachable");
    assert_eq!(proxy.taken(), 2);
    proxy.next("GET", Action::Hang, usize::MAX);
    assert_eq!(storage.open(&key, None).await.unwrap_err().reason(), "Unreachable");
    let listed = storage.list(&prefix("")).try_collect::<Vec<_>>().await;
    assert_eq!(listed.unwrap_err().reason(), "Unreachable");
}

#[tokio::test]
async fn only_trusted_certificates_are_taken() {
    let (acceptor, authority) = certificate();
    let service = Service::with_tls(Some(acceptor)).await;
    let bytes = bytes(1, 100_000);
    let key = key("a/b", &bytes);

    let mut settings = service.endpoint.settings();
    settings.retries = 0;
    let untrusting = S3::new(&settings).unwrap();
    let error = untrusting.put(&key, streamed(bytes.clone())).await.unwrap_err();
    assert_eq!(error.reason(), "Unreachable", "{}", error.chain());

    // Without a scheme, as `S3_USE_SSL` has it.
    settings.endpoint = Some(service.endpoint.url.trim_start_matches("https://").to_owned());
    settings.ca_bundle = Some(authority);
    let trusting = S3::new(&settings).unwrap();
    trusting.put(&key, streamed(bytes.clone())).await.unwrap();
    assert!(read(trusting.open(&key, None).await.unwrap()).await == bytes);
}

#[tokio::test]
async fn an_object_of_somebody_else_is_not_believed() {
    let service = Service::start().await;
    let storage = S3::new(&service.endpoint.settings()).unwrap();
    let bytes = bytes(1, 100);
    let key = key("a/b", &bytes);
    // Without the metadata.
    let path = service.bucket_root().join(key.as_str());
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, &bytes).unwrap();
    let put = storage.put(&key, streamed(bytes.clone())).await;
    assert_eq!(put.unwrap(), Put::Stored);
    assert_eq!(storage.put(&key, streamed(bytes)).await.unwrap(), Put::Unchanged);
}
