//! S3 servers over a folder: Versity S3 Gateway and `MinIO`.
//!
//! ```text
//! Product ─▶ Peer ─▶ Options ─▶ Server: buckets/NAME/…, behind S3 on a port of loopback
//! ```
//!
//! Invariants: it listens on loopback only; a bucket is a folder; it ends with its owner and takes its folder along; what
//! differs between the products is how each is built and started.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::builder::blocking;
use crate::cache::at;
use crate::plane::home::Home;
use crate::progress::{Progress, Silent};
use crate::ready::{Deadline, answers, local};
use crate::{Binaries, Builder, Peer, PlaneError, Process, cache, port};

/// The pinned release of Versity S3 Gateway, stamped as its version. `MinIO` has no releases of its module.
const VERSITYGW: &str = "v1.8.0";
/// How long it may take to answer once built, unless told otherwise.
const DEADLINE: Duration = Duration::from_secs(30);
/// How often a start that lost its port to somebody else is made.
const ATTEMPTS: usize = 3;

/// Whose server it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Product {
    /// Versity S3 Gateway, the default: it is small.
    #[default]
    Versitygw,
    /// `MinIO`, which many run.
    Minio,
}

impl Product {
    /// Every product.
    pub const ALL: &'static [Self] = &[Self::Versitygw, Self::Minio];

    fn name(self) -> &'static str {
        match self {
            Self::Versitygw => "versitygw",
            Self::Minio => "minio",
        }
    }

    /// The path that answers with success once it serves.
    fn health(self) -> &'static str {
        match self {
            Self::Versitygw => "/health",
            Self::Minio => "/minio/health/cluster",
        }
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Not a server that is pinned here.
#[derive(Debug, thiserror::Error)]
#[error("no S3 server {0}; there are versitygw and minio")]
pub struct UnknownProduct(
    /// What was asked for.
    pub String,
);

impl FromStr for Product {
    type Err = UnknownProduct;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .iter()
            .copied()
            .find(|product| product.name() == text)
            .ok_or_else(|| UnknownProduct(text.to_owned()))
    }
}

/// The pinned server: one program, called as the product.
#[must_use]
pub fn peer(product: Product) -> Peer {
    match product {
        Product::Versitygw => Peer::new(
            product.name(),
            include_str!("../../../../devplane/versitygw/go.mod"),
            include_str!("../../../../devplane/versitygw/go.sum"),
        )
        .binary(product.name(), "github.com/versity/versitygw/cmd/versitygw")
        .stamp("main.Version", VERSITYGW),
        Product::Minio => Peer::new(
            product.name(),
            include_str!("../../../../devplane/minio/go.mod"),
            include_str!("../../../../devplane/minio/go.sum"),
        )
        .binary(product.name(), "github.com/minio/minio"),
    }
}

/// How to start a [`Server`]; made by [`Server::options`].
#[derive(Clone)]
#[must_use = "nothing runs before `start`"]
pub struct Options {
    product: Product,
    access: String,
    secret: String,
    cache: Option<PathBuf>,
    deadline: Duration,
    progress: Arc<dyn Progress>,
}

impl Options {
    /// The cache; default [`cache_directory`](crate::cache_directory).
    pub fn cache(mut self, directory: impl Into<PathBuf>) -> Self {
        self.cache = Some(directory.into());
        self
    }

    /// How long it may take to answer once built; default 30 s.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Who is told about the build and the start; default nobody.
    pub fn progress(mut self, progress: Arc<dyn Progress>) -> Self {
        self.progress = progress;
        self
    }

    /// Builds it if need be, starts it on a free port, and waits until it answers.
    ///
    /// # Errors
    /// A failed build; a server that ended or did not answer in time, with the end of its log.
    pub async fn start(self) -> Result<Server, PlaneError> {
        let cache = cache::named(self.cache.as_deref())?;
        let binaries = Builder::new(&cache, self.progress.clone())
            .build(&peer(self.product))
            .await?;
        let since = Instant::now();
        let what = format!("starting {}", self.product);
        self.progress.started(&what);
        let home = blocking(move || {
            let home = Home::passing(&cache, false)?;
            let path = buckets(&home);
            fs::create_dir(&path).map_err(at(&path))?;
            Ok(home)
        })
        .await?;
        let mut attempt = 1;
        loop {
            let port = port::free(None).map_err(PlaneError::Ports)?;
            match self.launch(&home, &binaries, port).await {
                Ok(process) => {
                    self.progress.finished(&what, since.elapsed());
                    return Ok(Server {
                        process,
                        home,
                        port,
                        _binaries: binaries,
                    });
                }
                Err(PlaneError::Process(error)) if error.port_taken() && attempt < ATTEMPTS => attempt += 1,
                Err(error) => {
                    home.keep_logs();
                    return Err(error);
                }
            }
        }
    }

    async fn launch(&self, home: &Home, binaries: &Binaries, port: u16) -> Result<Process, PlaneError> {
        let name = self.product.name();
        let command = self.command(home, binaries.path(name)?, port);
        let process = Process::spawn(name, &command, &home.log(name))?;
        let client = local(port)?;
        let deadline = Deadline::of(self.deadline);
        let look = || answers(&client, self.product.health());
        deadline.until(std::slice::from_ref(&process), 0, look).await?;
        Ok(process)
    }

    /// The credentials are not on the command line, which everybody on the machine can read.
    fn command(&self, home: &Home, program: &Path, port: u16) -> Command {
        let mut command = Command::new(program);
        command.current_dir(home.path());
        match self.product {
            Product::Versitygw => command
                .env("ROOT_ACCESS_KEY", &self.access)
                .env("ROOT_SECRET_KEY", &self.secret)
                .arg(format!("--port=127.0.0.1:{port}"))
                .arg(format!("--health={}", self.product.health()))
                .arg("posix"),
            // It has no console, asks nobody for updates and finds no certificates of the user's.
            Product::Minio => command
                .env("MINIO_ROOT_USER", &self.access)
                .env("MINIO_ROOT_PASSWORD", &self.secret)
                .env("MINIO_BROWSER", "off")
                .env("MINIO_UPDATE", "off")
                .env("HOME", home.path())
                .arg("server")
                .arg(format!("--address=127.0.0.1:{port}")),
        };
        command.arg(buckets(home));
        command
    }
}

/// The folder whose folders are the buckets.
fn buckets(home: &Home) -> PathBuf {
    home.path().join("buckets")
}

/// A running S3 server with an empty store.
///
/// # Guarantees
/// - When [`Options::start`] returns it, it answers.
/// - Dropping it kills the server and removes what it stored; when the owning process dies, the server dies too.
#[derive(Debug)]
pub struct Server {
    /// First field: the process is gone before the folder goes.
    process: Process,
    home: Home,
    port: u16,
    /// Lease: the cache keeps a running program.
    _binaries: Binaries,
}

impl Server {
    /// A server whose only account has this access key (3 characters or more) and secret key (8 or more); chain what
    /// differs and call [`Options::start`].
    pub fn options(product: Product, access: impl Into<String>, secret: impl Into<String>) -> Options {
        Options {
            product,
            access: access.into(),
            secret: secret.into(),
            cache: None,
            deadline: DEADLINE,
            progress: Arc::new(Silent),
        }
    }

    /// `127.0.0.1:PORT`. It speaks plain HTTP, in region `us-east-1`, with buckets in the path.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Makes an empty bucket if need be. What is in it is seen and changed through S3 only: both products keep more of an
    /// object than its bytes.
    ///
    /// # Errors
    /// When its folder cannot be made.
    pub fn bucket(&self, name: &str) -> Result<(), PlaneError> {
        let path = buckets(&self.home).join(name);
        Ok(fs::create_dir_all(&path).map_err(at(&path))?)
    }

    /// The process, to stop it or read its log.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Its folder, with the log in `logs/`; it goes with the server.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.home.path()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stamp_is_the_pinned_version() {
        let pinned = format!("github.com/versity/versitygw {VERSITYGW}\n");
        assert!(peer(Product::Versitygw).go_mod.contains(&pinned));
    }

    #[test]
    fn products_are_called_as_they_are_written() {
        for product in Product::ALL {
            assert_eq!(product.to_string().parse::<Product>().unwrap(), *product);
        }
        assert!("s3".parse::<Product>().is_err());
    }
}
