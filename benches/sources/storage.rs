//! Storage without a controller: large files and small ones, beside a copy of the file that is made durable.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::TryStreamExt as _;
use trellis_benches::{
    Error,
    figures::{Figure, at, median, milliseconds},
};
use trellis_core::Digest;
use trellis_devplane::peers::s3::{Product, Server};
use trellis_store::{Content, Disk, Key, S3, S3Credentials, S3Settings, Storage};

const ID: &str = "access";
const SECRET: &str = "a-secret-key";
const BUCKET: &str = "bench";

/// How many, and of how many bytes each.
#[derive(Clone, Copy)]
struct Files {
    count: usize,
    size: usize,
}

/// Files of one size on their way: how long each took.
#[derive(Default)]
struct Times {
    put: Vec<Duration>,
    get: Vec<Duration>,
}

/// Disk and S3.
pub(crate) async fn figures(quick: bool, runs: usize) -> Result<Vec<Figure>, Error> {
    let (large, small) = if quick {
        (
            Files {
                count: 2,
                size: 4 << 20,
            },
            Files {
                count: 20,
                size: 16 << 10,
            },
        )
    } else {
        (
            Files {
                count: 8,
                size: 32 << 20,
            },
            Files {
                count: 500,
                size: 16 << 10,
            },
        )
    };
    let server = Server::options(Product::Versitygw, ID, SECRET).start().await?;
    server.bucket(BUCKET)?;
    let mut settings = S3Settings::new(BUCKET);
    settings.endpoint = Some(format!("http://{}", server.address()));
    settings.credentials = S3Credentials::Static {
        access_key_id: ID.to_owned(),
        secret_access_key: SECRET.to_owned().into(),
        session_token: None,
    };
    let folder = tempfile::tempdir()?;
    let storages: [Arc<dyn Storage>; 2] = [
        Arc::new(Disk::open(folder.path()).await?),
        Arc::new(S3::new(&settings)?),
    ];
    let mut figures = Vec::new();
    for storage in storages {
        for (files, share, name) in [(large, 0.5, "throughput"), (small, 0.99, "p99")] {
            let (mut ours, mut raw) = (Times::default(), Times::default());
            for run in 0..runs {
                let scratch = tempfile::tempdir()?;
                let made = make(scratch.path(), files, run)?;
                copied(&made, scratch.path(), &mut raw)?;
                stored(&*storage, &made, &mut ours).await?;
            }
            for (way, ours, raw) in [("put", &ours.put, &raw.put), ("get", &ours.get, &raw.get)] {
                let (ours, raw) = (milliseconds(ours), milliseconds(raw));
                let title = format!("{}: {way} of {}, {name}, ÷ a copy", storage.name(), told(files.size));
                let value = |times: &[f64]| if share > 0.5 { at(times, share) } else { median(times) };
                let figure = Figure::new(title, value(&ours) / value(&raw), "");
                figures.push(figure.of("ms", &[value(&ours)]).of("copy ms", &[value(&raw)]));
            }
        }
    }
    Ok(figures)
}

fn told(size: usize) -> String {
    if size < 1 << 20 {
        format!("{} KiB", size >> 10)
    } else {
        format!("{} MiB", size >> 20)
    }
}

/// Files that differ from each other, and their keys.
fn make(folder: &Path, files: Files, run: usize) -> Result<Vec<(Key, PathBuf)>, Error> {
    let mut numbers = fastrand::Rng::with_seed((run as u64) << 32 | files.size as u64);
    let each = (0..files.count).map(|index| {
        let mut bytes = vec![0; files.size];
        numbers.fill(&mut bytes);
        let path = folder.join(format!("file-{index}"));
        fs::write(&path, &bytes)?;
        let key = format!("bench/source-{index}/{}.tar.gz", Digest::of(&bytes).hex());
        Ok((key.parse()?, path))
    });
    each.collect()
}

/// Copies each file and makes it durable, then reads it.
fn copied(files: &[(Key, PathBuf)], folder: &Path, times: &mut Times) -> Result<(), Error> {
    for (_, path) in files {
        let to = folder.join("copy");
        let began = Instant::now();
        let mut copy = File::create(&to)?;
        io::copy(&mut File::open(path)?, &mut copy)?;
        copy.flush()?;
        copy.sync_all()?;
        times.put.push(began.elapsed());
        let began = Instant::now();
        io::copy(&mut File::open(&to)?, &mut io::sink())?;
        times.get.push(began.elapsed());
    }
    Ok(())
}

async fn stored(storage: &dyn Storage, files: &[(Key, PathBuf)], times: &mut Times) -> Result<(), Error> {
    for (key, path) in files {
        let began = Instant::now();
        storage.put(key, Content::file(path)).await?;
        times.put.push(began.elapsed());
        let began = Instant::now();
        let mut body = storage.open(key, None).await?.body;
        while body.try_next().await?.is_some() {}
        times.get.push(began.elapsed());
        storage.delete(key).await?;
    }
    Ok(())
}
