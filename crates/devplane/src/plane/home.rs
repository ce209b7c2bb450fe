//! `Home`: the folder of one plane — state, logs, kubeconfigs — held by one owner at a time.
//!
//! A plane without a data directory lives in the cache under `planes/` and is removed with its owner; what a killed owner
//! left is removed by the next start. After a failure, or on request, the logs stay for a day.

use std::fs::{self, DirBuilder, File};
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use super::PlaneError;
use crate::cache::{self, CacheError, at};

/// How long kept logs stay.
const KEPT: Duration = Duration::from_hours(24);
/// Present in a folder whose logs are kept.
const KEEP: &str = ".keep";
const LOCK: &str = ".lock";
/// What remains in a folder whose logs are kept.
const LOGS: &[&str] = &["logs", "audit.log", KEEP, LOCK];

/// Distinguishes the planes of one process.
static NEXT: AtomicU32 = AtomicU32::new(0);

#[derive(Debug)]
pub(crate) struct Home {
    root: PathBuf,
    _lock: File,
    durable: bool,
    keep: AtomicBool,
}

impl Home {
    /// A folder that survives: made if needed, refused while another plane holds it.
    pub(crate) fn durable(root: &Path) -> Result<Self, PlaneError> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(root).map_err(at(root))?;
        let root = fs::canonicalize(root).map_err(at(root))?;
        let path = root.join(LOCK);
        let mut lock = cache::lock_file(&path)?;
        if !cache::taken(lock.try_lock(), &path)? {
            let owner = fs::read_to_string(&path).unwrap_or_default();
            return Err(PlaneError::InUse {
                data: root,
                owner: owner.trim().to_owned(),
            });
        }
        lock.set_len(0)
            .and_then(|()| write!(lock, "{}", std::process::id()))
            .map_err(at(&path))?;
        let home = Self {
            root,
            _lock: lock,
            durable: true,
            keep: AtomicBool::new(true),
        };
        home.logs()?;
        Ok(home)
    }

    /// A new folder under the cache. What dead owners left there is removed.
    pub(crate) fn passing(cache: &Path, keep: bool) -> Result<Self, CacheError> {
        let planes = cache.join("planes");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&planes)
            .map_err(at(&planes))?;
        // Held while a folder has been made but not locked, and while looking for abandoned ones.
        let path = planes.join(LOCK);
        let gate = cache::lock_file(&path)?;
        gate.lock().map_err(at(&path))?;
        sweep(&planes)?;
        let mut root;
        loop {
            root = planes.join(format!(
                "{}-{}",
                std::process::id(),
                NEXT.fetch_add(1, Ordering::Relaxed)
            ));
            if !root.exists() {
                break;
            }
        }
        DirBuilder::new().mode(0o700).create(&root).map_err(at(&root))?;
        let path = root.join(LOCK);
        let lock = cache::lock_file(&path)?;
        lock.lock().map_err(at(&path))?;
        let home = Self {
            root,
            _lock: lock,
            durable: false,
            keep: AtomicBool::new(keep),
        };
        home.logs()?;
        Ok(home)
    }

    fn logs(&self) -> Result<(), CacheError> {
        let logs = self.root.join("logs");
        fs::create_dir_all(&logs).map_err(at(&logs))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.root
    }

    pub(crate) fn log(&self, process: &str) -> PathBuf {
        self.root.join("logs").join(format!("{process}.log"))
    }

    /// Logs stay when this plane goes, because an error names them.
    pub(crate) fn keep_logs(&self) {
        self.keep.store(true, Ordering::Relaxed);
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if self.durable {
            return;
        }
        if !self.keep.load(Ordering::Relaxed) {
            // A failure leaves an unlocked folder, which the next start removes.
            let _ = fs::remove_dir_all(&self.root);
            return;
        }
        let _ = File::create(self.root.join(KEEP));
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            if LOGS.iter().any(|kept| entry.file_name() == *kept) {
                continue;
            }
            let path = entry.path();
            let _ = if path.is_dir() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
        }
    }
}

/// Removes abandoned folders, except logs kept for less than a day. Only under the gate.
fn sweep(planes: &Path) -> Result<(), CacheError> {
    for entry in fs::read_dir(planes).map_err(at(planes))? {
        let root = entry.map_err(at(planes))?.path();
        if !root.is_dir() {
            continue;
        }
        let path = root.join(LOCK);
        let lock = cache::lock_file(&path)?;
        if !cache::taken(lock.try_lock(), &path)? {
            continue;
        }
        let kept = fs::metadata(root.join(KEEP)).and_then(|meta| meta.modified());
        let young = kept.is_ok_and(|at| SystemTime::now().duration_since(at).unwrap_or_default() < KEPT);
        if !young {
            // Its processes may be dying just now; the next start tries again.
            let _ = fs::remove_dir_all(&root);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passing_home_goes_and_an_abandoned_one_is_swept() {
        let cache = tempfile::tempdir().unwrap();
        let home = Home::passing(cache.path(), false).unwrap();
        let root = home.path().to_owned();
        let abandoned = cache.path().join("planes/1-1");
        fs::create_dir(&abandoned).unwrap();
        let other = Home::passing(cache.path(), false).unwrap();
        assert!(root.exists() && !abandoned.exists() && root != other.path());
        drop(home);
        assert!(!root.exists());
    }

    #[test]
    fn kept_logs_stay_without_the_state() {
        let cache = tempfile::tempdir().unwrap();
        let home = Home::passing(cache.path(), false).unwrap();
        let root = home.path().to_owned();
        fs::write(home.log("etcd"), "text").unwrap();
        fs::create_dir(root.join("etcd")).unwrap();
        home.keep_logs();
        drop(home);
        drop(Home::passing(cache.path(), false).unwrap());
        assert!(root.join("logs/etcd.log").exists() && !root.join("etcd").exists());
    }

    #[test]
    fn a_data_directory_has_one_owner() {
        let root = tempfile::tempdir().unwrap();
        let home = Home::durable(root.path()).unwrap();
        let error = Home::durable(root.path()).unwrap_err().to_string();
        assert!(error.contains(&std::process::id().to_string()), "{error}");
        drop(home);
        assert!(Home::durable(root.path()).is_ok());
    }
}
