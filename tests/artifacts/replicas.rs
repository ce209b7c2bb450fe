//! Two replicas of the shipped program on one bucket: one works, both serve, and the other goes on when the first dies.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use trellis_testkit::{
    operator::{Launch, Operator},
    plane::Credentials,
};

use crate::{
    PLANE,
    archive::{config_map, sha256},
    site::Site,
    storage::{Kind, Place},
    taken::download,
};

/// What a Service is for consumers: one address, behind it whoever answers.
struct Service {
    address: SocketAddr,
    replicas: Arc<Mutex<Vec<SocketAddr>>>,
}

impl Service {
    /// It ends with the test's runtime.
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let replicas: Arc<Mutex<Vec<SocketAddr>>> = Arc::default();
        let behind = Arc::clone(&replicas);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let replicas = behind.lock().unwrap().clone();
                tokio::spawn(async move {
                    for replica in replicas {
                        if let Ok(mut far) = TcpStream::connect(replica).await {
                            let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                            return;
                        }
                    }
                });
            }
        });
        Self { address, replicas }
    }
}

/// A replica, and where it serves files.
struct Replica {
    operator: Operator,
    files: SocketAddr,
    /// Its file is read again when the connection is.
    _account: Credentials,
}

impl Replica {
    async fn start(identity: &str, site: &Site, place: &Place, service: &Service) -> Self {
        let account = trellis_tests::account(PLANE.get().await.unwrap()).await.unwrap();
        let files = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let launch: Launch = trellis_tests::launch(account.path(), identity, &[site.namespace.name()])
            .controllers("external-source")
            .lease(trellis_tests::NAMESPACE, site.namespace.name())
            .lease_duration("2s")
            .flag("storage-backend", "s3")
            .flag("storage-addr", &files.to_string())
            .flag("storage-adv-addr", &service.address.to_string())
            .flag("egress-allow-cidr", "127.0.0.0/8");
        let launch = place
            .environment()
            .into_iter()
            .fold(launch, |launch, (name, value)| launch.environment(name, value));
        let operator = launch.start().await.unwrap();
        service.replicas.lock().unwrap().push(files);
        Self {
            operator,
            files,
            _account: account,
        }
    }
}

/// With shared storage every replica serves; the death of the one that works is got over by the other, which publishes what
/// is new, under the same address, without fetching again what is there.
#[tokio::test(flavor = "multi_thread")]
async fn another_replica_goes_on_with_the_same_bucket() {
    let place = Place::new(Kind::S3).await;
    let mut site = Site::new("replicas").await;
    site.stop().await;
    trellis_tests::install(PLANE.get().await.unwrap().clone())
        .await
        .unwrap();
    let service = Service::start().await;
    site.upstream.serves("1", config_map("one", "number", "1"));
    let first = Replica::start("first", &site, &place, &service).await;
    site.source("app", "app.yaml", json!({})).await;
    let one = site.published("app", "").await;
    site.ready("app", "True", "Succeeded").await;
    assert!(
        one.url.starts_with(&format!("http://{}/", service.address)),
        "{}",
        one.url
    );

    let second = Replica::start("second", &site, &place, &service).await;
    for address in [first.files, second.files] {
        let url = one.url.replace(&service.address.to_string(), &address.to_string());
        trellis_testkit::eventually("the replica serves", async || {
            TcpStream::connect(address)
                .await
                .map(drop)
                .map_err(|error| error.to_string())
        })
        .await;
        assert_eq!(format!("sha256:{}", sha256(&download(&url).await)), one.digest);
    }
    assert_eq!(site.upstream.told(), [200], "one of them works");

    first.operator.kill9().await;
    site.upstream.asked(2).await;
    assert_eq!(site.upstream.told(), [200, 304], "the next one checks");
    assert_eq!(site.published("app", "").await, one);
    download(&one.url).await;
    site.upstream.serves("2", config_map("one", "number", "2"));
    site.request("app", "changed").await;
    let two = site.published("app", &one.revision).await;
    assert_eq!(format!("sha256:{}", sha256(&download(&two.url).await)), two.digest);
    site.ready("app", "True", "Succeeded").await;
    assert_eq!(
        place.files().await.len(),
        2,
        "the one before stays for those who are about to take it"
    );
}
