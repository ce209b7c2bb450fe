//! How fast each backend stores and serves, beside a raw copy of the same bytes, synced.
//!
//! ```text
//!  cargo run --release -p trellis-store --example throughput [files] [KiB per file] [directory]
//! ```
//!
//! Every line says MiB/s, the 99th percentile of one file, and the ratio to the raw copy (or read) of the same run.
//! S3 is the service of the tests in this process: it and its MD5 share the machine, so that its line is a floor.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement ends at the first surprise"
)]

use std::{
    fs::File,
    io::{Read as _, Write as _},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::TryStreamExt as _;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use trellis_store::{Content, Digest, Disk, Key, Memory, Put, S3, S3Credentials, S3Settings, Storage};

/// How long each of the files took.
struct Taken(Vec<Duration>);

impl Taken {
    fn seconds(&self) -> f64 {
        self.0.iter().sum::<Duration>().as_secs_f64()
    }

    fn p99(&mut self) -> Duration {
        self.0.sort();
        let at = (self.0.len() * 99).div_ceil(100).saturating_sub(1);
        self.0.get(at).copied().unwrap_or_default()
    }

    fn print(&mut self, what: &str, mib: f64, raw: f64) {
        let seconds = self.seconds();
        let (rate, p99) = (mib / seconds, self.p99());
        println!(
            "{what:<12} {rate:>8.1} MiB/s   p99 {p99:>10.1?}   {:>5.2} of raw",
            raw / seconds
        );
    }
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let files: u64 = arguments.next().map_or(32, |text| text.parse().unwrap());
    let size: u64 = arguments.next().map_or(4096, |text| text.parse::<u64>().unwrap()) * 1024;
    let root = arguments.next().map_or_else(std::env::temp_dir, Into::into);
    let root = tempfile::tempdir_in(root).unwrap();
    let mib = f64::from(u32::try_from(files * size / 1024).unwrap()) / 1024.0;
    println!("{files} files of {} KiB, one after the other", size / 1024);

    let spool = root.path().join("spool");
    std::fs::create_dir(&spool).unwrap();
    let keys: Vec<_> = (1..=files).map(|at| spooled(&spool, at, size)).collect();
    let directory = |name: &str| {
        let path = root.path().join(name);
        std::fs::create_dir(&path).unwrap();
        path
    };

    let target = directory("raw");
    let (mut puts, mut gets) = (Taken(Vec::new()), Taken(Vec::new()));
    for (key, source) in &keys {
        let path = target.join(key.digest().hex());
        puts.0.push(timed(|| {
            std::fs::copy(source, &path).unwrap();
            File::open(&path).unwrap().sync_all().unwrap();
            File::open(&target).unwrap().sync_all().unwrap();
        }));
        gets.0.push(timed(|| read(&path)));
    }
    let (raw_put, raw_get) = (puts.seconds(), gets.seconds());
    puts.print("raw put", mib, raw_put);
    gets.print("raw get", mib, raw_get);

    let disk: Arc<dyn Storage> = Arc::new(Disk::open(directory("disk")).await.unwrap());
    let memory: Arc<dyn Storage> = Arc::new(Memory::bounded(files * (size + 4096)));
    let bucket = directory("s3");
    let s3: Arc<dyn Storage> = Arc::new(service(&bucket).await);
    for storage in [disk, memory, s3] {
        let (mut puts, mut gets) = (Taken(Vec::new()), Taken(Vec::new()));
        for (key, source) in &keys {
            let started = Instant::now();
            let put = storage.put(key, Content::file(source)).await.unwrap();
            puts.0.push(started.elapsed());
            assert_eq!(put, Put::Stored);
            let started = Instant::now();
            let mut body = storage.open(key, None).await.unwrap().body;
            while body.try_next().await.unwrap().is_some() {}
            gets.0.push(started.elapsed());
        }
        puts.print(&format!("{} put", storage.name()), mib, raw_put);
        gets.print(&format!("{} get", storage.name()), mib, raw_get);
    }
}

/// Reads the file in pieces as large as the disk's.
fn read(path: &Path) {
    let mut file = File::open(path).unwrap();
    let mut piece = vec![0; 128 * 1024];
    while file.read(&mut piece).unwrap() > 0 {}
}

fn timed(work: impl FnOnce()) -> Duration {
    let started = Instant::now();
    work();
    started.elapsed()
}

/// A file of incompressible bytes, and its key.
fn spooled(directory: &Path, seed: u64, size: u64) -> (Key, std::path::PathBuf) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut bytes = vec![0; usize::try_from(size).unwrap()];
    for word in bytes.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes());
    }
    let path = directory.join(seed.to_string());
    let mut file = File::create(&path).unwrap();
    file.write_all(&bytes).unwrap();
    file.sync_all().unwrap();
    (
        Key::new(&"bench/files".parse().unwrap(), Digest::of(&bytes)).unwrap(),
        path,
    )
}

/// An S3 service in this process.
async fn service(root: &Path) -> S3 {
    std::fs::create_dir(root.join("artifacts")).unwrap();
    let mut builder = s3s::service::S3ServiceBuilder::new(s3s_fs::FileSystem::new(root).unwrap());
    builder.set_auth(s3s::auth::SimpleAuth::from_single("id", "secret"));
    let service = builder.build();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut settings = S3Settings::new("artifacts");
    settings.endpoint = Some(format!("http://{}", listener.local_addr().unwrap()));
    settings.credentials = S3Credentials::Static {
        access_key_id: "id".to_owned(),
        secret_access_key: "secret".into(),
        session_token: None,
    };
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service.clone();
            tokio::spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                drop(server.serve_connection(TokioIo::new(stream), service).await);
            });
        }
    });
    S3::new(&settings).unwrap()
}
