//! `Builder`: from a pinned Go module to programs in the cache.
//!
//! ```text
//! key(peer, toolchain) ─▶ entry in the cache? ─▶ lease
//!                         no: claim ─▶ go build in a private folder ─▶ rename ─▶ lease
//! ```
//!
//! Invariants: two builders of one peer never build at once; a build that stops anywhere leaves no entry.

mod files;
mod key;
mod module;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::OnceCell;

use crate::cache::{self, CacheError, Entry, at};
use crate::process::{self, Process, ProcessError};
use crate::{Peer, Progress};

const GIB: u64 = 1 << 30;
/// How much built programs may take in the cache, in bytes, unless told otherwise.
const PEERS_LIMIT: u64 = 2 * GIB;
/// How much Go's build cache may take, in bytes, unless told otherwise: what was used last stays, which is what peers that
/// are built one after another share.
const GO_LIMIT: u64 = 2 * GIB;
/// How much Go's module cache may take: the modules of the peers that CI builds are 4.1 GiB; with those of further peers they are
/// fetched anew.
const MODULES_LIMIT: u64 = 9 * GIB / 2;
/// How often progress looks at what the compiler is doing.
const STEP: Duration = Duration::from_millis(300);

/// Why a peer could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// There is no Go.
    #[error("cannot build peers: `go` is not on the PATH\nhint: install Go 1.26 or newer")]
    NoGo,
    /// `go env` failed.
    #[error("`go env` failed: {0}")]
    Toolchain(
        /// What it said.
        String,
    ),
    /// The compiler failed. `tail` quotes the end of what it said.
    #[error("building {peer} failed ({status}); log: {}\n{tail}", log.display())]
    Compile {
        /// The peer.
        peer: String,
        /// How `go build` ended.
        status: ExitStatus,
        /// Everything it said.
        log: PathBuf,
        /// The last lines of that.
        tail: String,
    },
    /// The build did not produce, or the peer does not have, a program of that name.
    #[error("{peer} has no program {name}")]
    NoBinary {
        /// The peer.
        peer: String,
        /// The program.
        name: String,
    },
    /// A module that has a file the peer needs could not be fetched.
    #[error("cannot fetch {module} for {peer}: {said}")]
    Module {
        /// The peer.
        peer: String,
        /// The module.
        module: String,
        /// What Go said.
        said: String,
    },
    /// The peer has no file of that name.
    #[error("{peer} has no file {name}")]
    NoFile {
        /// The peer.
        peer: String,
        /// The file.
        name: String,
    },
    /// `go` could not be started.
    #[error("cannot run the Go tool")]
    Process(#[from] ProcessError),
    /// The cache could not be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// Built programs. While a value (or a clone) lives, eviction leaves them alone.
#[derive(Clone, Debug)]
pub struct Binaries {
    peer: String,
    paths: BTreeMap<String, PathBuf>,
    files: BTreeMap<String, PathBuf>,
    _lease: Arc<File>,
}

impl Binaries {
    /// The path of a program by its name.
    pub fn path(&self, name: &str) -> Result<&Path, BuildError> {
        self.paths
            .get(name)
            .map(PathBuf::as_path)
            .ok_or_else(|| BuildError::NoBinary {
                peer: self.peer.clone(),
                name: name.to_owned(),
            })
    }

    /// The path of a file of a module by its name, see [`Peer::file`].
    pub fn file(&self, name: &str) -> Result<&Path, BuildError> {
        self.files
            .get(name)
            .map(PathBuf::as_path)
            .ok_or_else(|| BuildError::NoFile {
                peer: self.peer.clone(),
                name: name.to_owned(),
            })
    }

    /// Every program with its path, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.paths.iter().map(|(name, path)| (name.as_str(), path.as_path()))
    }
}

/// Builds peers and keeps the results.
///
/// # Guarantees
/// - The key of a result covers the module files, flags, packages, environment and toolchain.
/// - Several builders, in one process or many, may build the same peer at the same time: one builds, the others wait
///   and say so.
/// - Dropping the future of [`build`](Self::build), or killing the process, ends the compiler and leaves no entry.
pub struct Builder {
    cache: PathBuf,
    go: PathBuf,
    peers_limit: u64,
    go_limit: u64,
    progress: Arc<dyn Progress>,
    toolchain: OnceCell<String>,
}

impl Builder {
    /// A builder over a cache folder, usually [`cache_directory`](crate::cache_directory).
    #[must_use]
    pub fn new(cache: impl Into<PathBuf>, progress: Arc<dyn Progress>) -> Self {
        let cache = cache.into();
        Self {
            go: cache.join("go"),
            cache,
            peers_limit: PEERS_LIMIT,
            go_limit: GO_LIMIT,
            progress,
            toolchain: OnceCell::new(),
        }
    }

    /// Another folder for Go's own build and module caches; default `go` in the cache.
    #[must_use]
    pub fn go_caches(mut self, folder: impl Into<PathBuf>) -> Self {
        self.go = folder.into();
        self
    }

    /// How much built programs may take, in bytes; default 2 GiB. Enforced after each build.
    #[must_use]
    pub fn peers_limit(mut self, bytes: u64) -> Self {
        self.peers_limit = bytes;
        self
    }

    /// How much Go's build cache may take, in bytes; default 2 GiB. Enforced after each build.
    #[must_use]
    pub fn go_limit(mut self, bytes: u64) -> Self {
        self.go_limit = bytes;
        self
    }

    /// The programs of `peer`, built if the cache does not have them.
    pub async fn build(&self, peer: &Peer) -> Result<Binaries, BuildError> {
        let root = self.cache.join("peers");
        fs::create_dir_all(&root).map_err(at(&root))?;
        let entry = Entry::new(
            &root,
            format!("{}-{}", peer.name, key::of(peer, self.toolchain().await?)),
        );
        let mut built = false;
        loop {
            let waiting = || {
                self.progress
                    .note(&format!("another process is building {}; waiting for it", peer.title()));
            };
            let lease = cache::until_shared(&entry.lock_path(), waiting).await?;
            if entry.complete() {
                Entry::touch(&entry.path())?;
                if built {
                    self.bound(root).await?;
                }
                return Self::binaries(peer, &entry, lease);
            }
            drop(lease);
            match entry.claim()? {
                // Somebody may have finished between the two locks.
                Some(_claim) if entry.complete() => {}
                Some(claim) => {
                    self.compile(peer, &entry, claim).await?;
                    built = true;
                }
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }

    fn binaries(peer: &Peer, entry: &Entry, lease: File) -> Result<Binaries, BuildError> {
        let mut paths = BTreeMap::new();
        for binary in &peer.binaries {
            let path = entry.path().join(&binary.name);
            if !path.exists() {
                return Err(BuildError::NoBinary {
                    peer: peer.name.clone(),
                    name: binary.name.clone(),
                });
            }
            paths.insert(binary.name.clone(), path);
        }
        Ok(Binaries {
            peer: peer.name.clone(),
            paths,
            files: files::of(peer, &entry.path()),
            _lease: Arc::new(lease),
        })
    }

    /// Compiles into a private folder and publishes it, under the entry's claim.
    async fn compile(&self, peer: &Peer, entry: &Entry, claim: File) -> Result<(), BuildError> {
        let since = Instant::now();
        let what = format!("building {}", peer.title());
        self.progress.started(&what);
        let partial = entry.partial()?;
        let (source, output, log) = (partial.join("src"), partial.join("out"), partial.join("build.log"));
        fs::create_dir(&output).map_err(at(&output))?;
        module::write(peer, &source)?;
        fs::create_dir_all(&self.go).map_err(at(&self.go))?;
        let _in_use = cache::until_shared(&self.go.join(".lock"), || {}).await?;
        for arguments in module::outputs(peer, &output) {
            let mut command = Command::new("go");
            command
                .arg("build")
                .arg("-v")
                .args(peer.flags())
                .args(arguments)
                .current_dir(&source);
            self.environment(&mut command);
            command.envs(peer.env.iter().map(|(key, value)| (key, value)));
            let go = Process::spawn("go build", &command, &log)?;
            let status = self.watch(&what, &go).await;
            if !status.success() {
                let tail = process::quote(&log, 0, is_message).unwrap_or_default();
                return Err(BuildError::Compile {
                    peer: peer.title(),
                    status,
                    log,
                    tail,
                });
            }
        }
        for binary in &peer.binaries {
            if !output.join(&binary.name).exists() {
                return Err(BuildError::NoBinary {
                    peer: peer.name.clone(),
                    name: binary.name.clone(),
                });
            }
        }
        self.copy_files(peer, &source, &output).await?;
        let published = entry.clone();
        // The claim goes along: publishing runs to its end even when nobody waits for it any more.
        blocking(move || {
            let _claim = claim;
            published.publish(&output)
        })
        .await?;
        self.progress.finished(&what, since.elapsed());
        Ok(())
    }

    /// Waits for the compiler and reports the package that it is at.
    async fn watch(&self, what: &str, go: &Process) -> ExitStatus {
        let mut last = String::new();
        loop {
            if let Ok(status) = tokio::time::timeout(STEP, go.exited()).await {
                return status;
            }
            if let Some(line) = go.tail().lines().last().filter(|line| *line != last) {
                self.progress.step(what, line);
                line.clone_into(&mut last);
            }
        }
    }

    /// Keeps both caches within their limits.
    async fn bound(&self, peers: PathBuf) -> Result<(), BuildError> {
        let (go, go_limit, peers_limit) = (self.go.clone(), self.go_limit, self.peers_limit);
        let (evicted, trimmed) = blocking(move || {
            let evicted = cache::evict(&peers, peers_limit)?;
            let lock = go.join(".lock");
            let file = cache::lock_file(&lock)?;
            // Somebody is compiling: they will look after it.
            let free = cache::taken(file.try_lock(), &lock)?;
            Ok((
                evicted,
                if free {
                    cache::trim_go(&go.join("build"), go_limit)? + cache::drop_modules(&go.join("mod"), MODULES_LIMIT)?
                } else {
                    0
                },
            ))
        })
        .await?;
        for name in evicted {
            self.progress
                .note(&format!("removed {name} from the cache to keep it within its limit"));
        }
        if trimmed > 0 {
            self.progress.note(&format!(
                "removed {} MiB of Go's caches to keep them within their limits",
                trimmed >> 20
            ));
        }
        Ok(())
    }

    fn environment(&self, command: &mut Command) {
        command
            .env("GOCACHE", self.go.join("build"))
            .env("GOMODCACHE", self.go.join("mod"))
            .env("GOFLAGS", "-modcacherw -mod=readonly -buildvcs=false")
            .env("GOWORK", "off");
    }

    /// What of the toolchain goes into the key, asked once.
    async fn toolchain(&self) -> Result<&str, BuildError> {
        let ask = || async {
            let mut command = Command::new("go");
            command
                .args(["env", "GOVERSION", "GOOS", "GOARCH", "CGO_ENABLED"])
                .current_dir(&self.cache);
            self.environment(&mut command);
            match tokio::process::Command::from(command).kill_on_drop(true).output().await {
                Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
                Ok(output) => Err(BuildError::Toolchain(
                    String::from_utf8_lossy(&output.stderr).trim().to_owned(),
                )),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Err(BuildError::NoGo),
                Err(source) => Err(ProcessError::Spawn {
                    name: "go env".to_owned(),
                    source,
                }
                .into()),
            }
        };
        self.toolchain.get_or_try_init(ask).await.map(String::as_str)
    }
}

/// Lines of `go build -v` that are neither a package's name nor a download.
fn is_message(line: &str) -> bool {
    line.contains(' ') && !line.starts_with("go: downloading ")
}

/// Runs file work off the runtime's threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CacheError> + Send + 'static,
) -> Result<T, CacheError> {
    tokio::task::spawn_blocking(work).await?
}
