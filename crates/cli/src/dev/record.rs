//! What a running `dev up` tells the other commands: a file that is locked as long as its process lives.
//!
//! Invariant: a record counts only while its lock is held, so that a process that was killed leaves nothing behind
//! that looks alive, and a process ID is never signalled that belongs to somebody else by now.

use std::{
    fs::{self, File, TryLockError},
    io::{Read as _, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

/// How long a `dev up` may take to end when asked.
const GRACE: Duration = Duration::from_secs(30);

/// One running `dev up`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    pub(crate) pid: u32,
    pub(crate) kubernetes: String,
    pub(crate) server: String,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) directory: PathBuf,
    /// Whether everything that was asked for is up.
    pub(crate) ready: bool,
}

/// The record of this process; it is gone when this is dropped.
pub(crate) struct Held {
    /// Locked for as long as the process lives.
    file: Mutex<File>,
    path: PathBuf,
}

impl Record {
    /// Every `dev up` of this user that runs now, oldest process ID first. Leftovers of killed ones are removed.
    pub(crate) fn running() -> anyhow::Result<Vec<Self>> {
        let mut records = Vec::new();
        for entry in fs::read_dir(folder()?)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                records.extend(alive(&path)?);
            }
        }
        records.sort_by_key(|record| record.pid);
        Ok(records)
    }

    /// Asks the process to end and waits until it has; kills it when it does not.
    pub(crate) fn stop(&self) -> anyhow::Result<()> {
        let path = path(self.pid)?;
        for signal in [Signal::TERM, Signal::KILL] {
            let Some(record) = alive(&path)? else { return Ok(()) };
            let pid = i32::try_from(record.pid)
                .ok()
                .and_then(Pid::from_raw)
                .context("a record without process ID")?;
            kill_process(pid, signal).with_context(|| format!("cannot signal process {}", record.pid))?;
            let asked = Instant::now();
            while asked.elapsed() < GRACE {
                if alive(&path)?.is_none() {
                    return Ok(());
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        bail!("process {} does not end", self.pid)
    }
}

impl Held {
    /// Publishes the record of this process.
    pub(crate) fn publish(record: &Record) -> anyhow::Result<Self> {
        let path = path(record.pid)?;
        Ok(Self {
            file: Mutex::new(place(&path, record)?),
            path,
        })
    }

    /// Publishes it anew.
    pub(crate) fn update(&self, record: &Record) -> anyhow::Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        *file = place(&self.path, record)?;
        Ok(())
    }
}

/// Puts a record in its place, whole and locked from the first moment in which others can see it.
fn place(path: &Path, record: &Record) -> anyhow::Result<File> {
    let write = || -> std::io::Result<File> {
        let new = path.with_extension("new");
        let mut file = File::create(&new)?;
        file.lock()?;
        file.write_all(&serde_json::to_vec(record)?)?;
        fs::rename(&new, path)?;
        Ok(file)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

impl Drop for Held {
    fn drop(&mut self) {
        // A record without its lock is dead anyway.
        let _ = fs::remove_file(&self.path);
    }
}

/// Where records are: in the cache, so that every checkout of a user sees them.
pub(crate) fn folder() -> anyhow::Result<PathBuf> {
    let folder = trellis_devplane::cache_directory()?.join("dev");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(folder)
}

fn path(pid: u32) -> anyhow::Result<PathBuf> {
    Ok(folder()?.join(format!("{pid}.json")))
}

/// The record if its process lives. One that does not is removed.
fn alive(path: &Path) -> anyhow::Result<Option<Record>> {
    let Ok(mut file) = File::open(path) else {
        return Ok(None);
    };
    match file.try_lock_shared() {
        Ok(()) => {
            // Between the opening and the locking it may have been published anew, under the same name.
            if fs::metadata(path).is_ok_and(|now| file.metadata().is_ok_and(|then| now.ino() != then.ino())) {
                return alive(path);
            }
            let _ = fs::remove_file(path);
            Ok(None)
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            serde_json::from_str(&text)
                .map(Some)
                .with_context(|| format!("{} is no record", path.display()))
        }
    }
}
