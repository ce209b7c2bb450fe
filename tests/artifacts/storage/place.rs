//! `Place`: where artifacts of one test are kept, and what harms it. `Gate`: the way to a server, which a test closes.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use futures::TryStreamExt as _;
use object_store::{
    ObjectStore as _, ObjectStoreExt as _, PutOptions,
    aws::{AmazonS3, AmazonS3Builder},
};
use tempfile::TempDir;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OnceCell, watch},
};
use trellis_devplane::{peers::s3::Server, progress::Lines};
use trellis_store::{Cached, Disk, Limits, Memory, Prefix, S3, S3Credentials, S3Settings, Storage};

use crate::site::Setup;

/// The secret key of the bucket.
pub(crate) const SECRET: &str = "a-secret-key";

/// Kinds of storage.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Disk,
    Memory,
    S3,
}

/// Where artifacts of one test are kept.
pub(crate) enum Place {
    Disk(TempDir),
    /// The last one that was opened.
    Memory(std::sync::Mutex<Memory>),
    S3 {
        bucket: String,
        gate: Gate,
    },
}

/// The S3 server; the first test that asks starts it.
async fn server() -> &'static Server {
    static SERVER: OnceCell<Server> = OnceCell::const_new();
    let start = || async {
        let product = trellis_tests::S3.parse().unwrap();
        let server = Server::options(product, "access", SECRET).progress(Arc::new(Lines));
        server.start().await.unwrap()
    };
    SERVER.get_or_init(start).await
}

impl Place {
    pub(crate) async fn new(kind: Kind) -> Self {
        static BUCKETS: AtomicU32 = AtomicU32::new(0);
        match kind {
            Kind::Disk => Self::Disk(tempfile::tempdir().unwrap()),
            Kind::Memory => Self::Memory(std::sync::Mutex::new(Memory::bounded(1 << 20))),
            Kind::S3 => {
                let bucket = format!("artifacts-{}", BUCKETS.fetch_add(1, Ordering::SeqCst));
                server().await.bucket(&bucket).unwrap();
                let gate = Gate::before(server().await.address().parse().unwrap()).await;
                Self::S3 { bucket, gate }
            }
        }
    }

    /// The way to the bucket.
    pub(crate) fn gate(&self) -> &Gate {
        let gate = match self {
            Self::S3 { gate, .. } => Some(gate),
            _ => None,
        };
        gate.unwrap()
    }

    /// What a program is told of the bucket.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        let Self::S3 { bucket, gate } = self else {
            return Vec::new();
        };
        vec![
            ("S3_ENDPOINT", format!("http://{}", gate.address)),
            ("S3_BUCKET", bucket.clone()),
            ("S3_ACCESS_KEY_ID", "access".to_owned()),
            ("S3_SECRET_ACCESS_KEY", SECRET.to_owned()),
        ]
    }

    fn bucket(bucket: &str, at: SocketAddr) -> S3 {
        let mut settings = S3Settings::new(bucket);
        settings.endpoint = Some(format!("http://{at}"));
        settings.retries = 1;
        settings.credentials = S3Credentials::Static {
            access_key_id: "access".to_owned(),
            secret_access_key: SECRET.to_owned().into(),
            session_token: None,
        };
        S3::new(&settings).unwrap()
    }

    /// The storage as a process has it that starts now, and the controller on it.
    pub(crate) async fn setup(&self) -> Setup {
        let storage: Arc<dyn Storage> = match self {
            Self::Disk(folder) => Arc::new(Cached::new(
                Arc::new(Disk::open(folder.path()).await.unwrap()),
                Limits::default(),
            )),
            Self::Memory(last) => {
                let memory = Memory::bounded(1 << 20);
                *last.lock().unwrap() = memory.clone();
                Arc::new(memory)
            }
            Self::S3 { bucket, gate } => {
                let backend = Arc::new(Self::bucket(bucket, gate.address));
                Arc::new(Cached::new(backend, Limits::default()))
            }
        };
        Setup {
            storage: Some(storage),
            ..Setup::default()
        }
    }

    /// The paths of all files, as the storage itself has them.
    pub(crate) async fn files(&self) -> Vec<String> {
        let storage: Arc<dyn Storage> = match self {
            Self::Disk(folder) => Arc::new(Disk::open(folder.path()).await.unwrap()),
            Self::Memory(last) => Arc::new(last.lock().unwrap().clone()),
            Self::S3 { bucket, .. } => Arc::new(Self::bucket(bucket, server().await.address().parse().unwrap())),
        };
        let all: Prefix = "".parse().unwrap();
        let entries: Vec<_> = storage.list(&all).try_collect().await.unwrap();
        let mut paths: Vec<_> = entries.into_iter().map(|entry| entry.key.to_string()).collect();
        paths.sort();
        paths
    }

    /// The bucket as any program has it, past the gate and past what writes artifacts.
    async fn bare(bucket: &str) -> AmazonS3 {
        AmazonS3Builder::new()
            .with_endpoint(format!("http://{}", server().await.address()))
            .with_allow_http(true)
            .with_bucket_name(bucket)
            .with_region("us-east-1")
            .with_access_key_id("access")
            .with_secret_access_key(SECRET)
            .build()
            .unwrap()
    }

    /// Removes a file and its folders, as a lost disk does.
    pub(crate) async fn lose(&self, path: &str) {
        match self {
            Self::Disk(folder) => std::fs::remove_dir_all(folder.path().join(path).parent().unwrap()).unwrap(),
            Self::S3 { bucket, .. } => Self::bare(bucket).await.delete(&path.into()).await.unwrap(),
            Self::Memory(_) => unreachable!("nothing but the process reaches it"),
        }
    }

    /// Puts other bytes in the place of a file's, as many; what is recorded beside them stays.
    pub(crate) async fn corrupt(&self, path: &str) {
        self.harm(path, |whole| vec![0; whole.len()]).await;
    }

    /// Cuts a file in the middle; what is recorded beside it stays.
    pub(crate) async fn cut(&self, path: &str) {
        self.harm(path, |whole| whole[..whole.len() / 2].to_vec()).await;
    }

    async fn harm(&self, path: &str, harmed: impl Fn(&[u8]) -> Vec<u8>) {
        match self {
            Self::Disk(folder) => {
                let path = folder.path().join(path);
                let harmed = harmed(&std::fs::read(&path).unwrap());
                std::fs::write(path, harmed).unwrap();
            }
            Self::S3 { bucket, .. } => {
                let bucket = Self::bare(bucket).await;
                let whole = bucket.get(&path.into()).await.unwrap();
                let beside = PutOptions::from(whole.attributes.clone());
                let harmed = harmed(&whole.bytes().await.unwrap());
                bucket.put_opts(&path.into(), harmed.into(), beside).await.unwrap();
            }
            Self::Memory(_) => unreachable!("nothing but the process reaches it"),
        }
    }
}

/// The way to a server. While it is closed connections break, new ones at once.
pub(crate) struct Gate {
    address: SocketAddr,
    open: watch::Sender<bool>,
}

impl Gate {
    /// An open one. It ends with the test's runtime.
    async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (open, opened) = watch::channel(true);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut opened = opened.clone();
                tokio::spawn(async move {
                    if !*opened.borrow_and_update() {
                        return;
                    }
                    let Ok(mut far) = TcpStream::connect(server).await else {
                        return;
                    };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = opened.wait_for(|open| !open) => {}
                    }
                });
            }
        });
        Self { address, open }
    }

    /// Where it is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn close(&self) {
        self.open.send_replace(false);
    }

    pub(crate) fn open(&self) {
        self.open.send_replace(true);
    }
}
