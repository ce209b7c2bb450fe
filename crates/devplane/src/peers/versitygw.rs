//! Versity S3 Gateway: an S3 server over a folder.
//!
//! Invariants: it listens on loopback only; a bucket is a folder; it ends with its owner and takes its folder along.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::builder::blocking;
use crate::cache::at;
use crate::plane::home::Home;
use crate::progress::{Progress, Silent};
use crate::ready::{Deadline, answers, local};
use crate::{Binaries, Builder, Peer, PlaneError, Process, cache, port};

/// The pinned release, stamped as the version.
const RELEASE: &str = "v1.8.0";
/// The path that answers once it serves.
const HEALTH: &str = "/health";
/// How long it may take to answer once built, unless told otherwise.
const DEADLINE: Duration = Duration::from_secs(30);
/// How often a start that lost its port to somebody else is made.
const ATTEMPTS: usize = 3;

/// The pinned server: one program, `versitygw`.
#[must_use]
pub fn peer() -> Peer {
    Peer::new(
        "versitygw",
        include_str!("../../../../devplane/versitygw/go.mod"),
        include_str!("../../../../devplane/versitygw/go.sum"),
    )
    .binary("versitygw", "github.com/versity/versitygw/cmd/versitygw")
    .stamp("main.Version", RELEASE)
}

/// How to start a [`Versitygw`]; made by [`Versitygw::options`].
#[derive(Clone)]
#[must_use = "nothing runs before `start`"]
pub struct Options {
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
    pub async fn start(self) -> Result<Versitygw, PlaneError> {
        let cache = cache::named(self.cache.as_deref())?;
        let binaries = Builder::new(&cache, self.progress.clone()).build(&peer()).await?;
        let since = Instant::now();
        self.progress.started("starting versitygw");
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
                    self.progress.finished("starting versitygw", since.elapsed());
                    return Ok(Versitygw {
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
        let mut command = Command::new(binaries.path("versitygw")?);
        // The credentials are not on the command line, which everybody on the machine can read.
        command
            .env("ROOT_ACCESS_KEY", &self.access)
            .env("ROOT_SECRET_KEY", &self.secret)
            .current_dir(home.path())
            .arg(format!("--port=127.0.0.1:{port}"))
            .arg(format!("--health={HEALTH}"))
            .arg("posix")
            .arg(buckets(home));
        let process = Process::spawn("versitygw", &command, &home.log("versitygw"))?;
        let client = local(port)?;
        let deadline = Deadline::of(self.deadline);
        let look = || answers(&client, HEALTH);
        deadline.until(std::slice::from_ref(&process), 0, look).await?;
        Ok(process)
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
pub struct Versitygw {
    /// First field: the process is gone before the folder goes.
    process: Process,
    home: Home,
    port: u16,
    /// Lease: the cache keeps a running program.
    _binaries: Binaries,
}

impl Versitygw {
    /// A server whose only account has this access key and secret key; chain what differs and call [`Options::start`].
    pub fn options(access: impl Into<String>, secret: impl Into<String>) -> Options {
        Options {
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

    /// The folder of a bucket, made empty if need be. Objects are put there through S3 only: the server keeps an `ETag`
    /// beside each, and serves no file without one.
    pub fn bucket(&self, name: &str) -> Result<PathBuf, PlaneError> {
        let path = buckets(&self.home).join(name);
        fs::create_dir_all(&path).map_err(at(&path))?;
        Ok(path)
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
        assert!(
            peer()
                .go_mod
                .contains(&format!("github.com/versity/versitygw {RELEASE}\n"))
        );
    }
}
