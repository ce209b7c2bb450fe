//! The cache outside the checkout: built programs by content, and Go's own caches.
//!
//! ```text
//! peers/<name>-<key>/            a finished entry (appears by one rename)
//! peers/<name>-<key>.lock        shared: in use · exclusive: being built or evicted
//! peers/<name>-<key>.partial-N/  a build under way, or the rest of an interrupted one
//! ```
//!
//! Invariants: an entry that exists is whole; whoever uses one holds its lock shared, so eviction cannot take it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How often a lock held by somebody else is tried again.
const LOCK_POLL: Duration = Duration::from_millis(25);
/// The file inside an entry whose modification time is the last use.
const USED: &str = ".used";

/// Why the cache could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// Nothing says where it is.
    #[error("no place for the cache: set TRELLIS_CACHE, XDG_CACHE_HOME or HOME")]
    Nowhere,
    /// A file operation failed.
    #[error("cannot use the cache at {}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The async runtime shut down meanwhile.
    #[error("file work in the cache was interrupted")]
    Interrupted(#[from] tokio::task::JoinError),
}

/// Attaches the path to an I/O error.
pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> CacheError {
    move |source| CacheError::Io {
        path: path.to_owned(),
        source,
    }
}

/// Where the cache is: `$TRELLIS_CACHE`, else `$XDG_CACHE_HOME/trellis`, else `$HOME/.cache/trellis`.
pub fn directory() -> Result<PathBuf, CacheError> {
    let set = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("TRELLIS_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|path| path.join("trellis")))
        .or_else(|| set("HOME").map(|path| path.join(".cache/trellis")))
        .ok_or(CacheError::Nowhere)
}

/// The cache that was named, or else [`directory`].
pub(crate) fn named(given: Option<&Path>) -> Result<PathBuf, CacheError> {
    given.map_or_else(directory, |given| Ok(given.to_owned()))
}

/// Opens (creating it) a file whose only purpose is to be locked.
pub(crate) fn lock_file(path: &Path) -> Result<File, CacheError> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
        .map_err(at(path))
}

/// Takes a lock if nobody holds it in the way: `Ok(false)` when somebody does.
pub(crate) fn taken(outcome: Result<(), TryLockError>, path: &Path) -> Result<bool, CacheError> {
    match outcome {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(source)) => Err(at(path)(source)),
    }
}

/// Waits for a lock without blocking the runtime; `waiting` is called once if somebody holds it.
pub(crate) async fn until_shared(path: &Path, waiting: impl FnOnce()) -> Result<File, CacheError> {
    let file = lock_file(path)?;
    let mut waiting = Some(waiting);
    while !taken(file.try_lock_shared(), path)? {
        if let Some(say) = waiting.take() {
            say();
        }
        tokio::time::sleep(LOCK_POLL).await;
    }
    Ok(file)
}

/// One built peer in the store.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    root: PathBuf,
    name: String,
}

impl Entry {
    pub(crate) fn new(root: &Path, name: String) -> Self {
        Self {
            root: root.to_owned(),
            name,
        }
    }

    /// Where the finished entry is.
    pub(crate) fn path(&self) -> PathBuf {
        self.root.join(&self.name)
    }

    pub(crate) fn lock_path(&self) -> PathBuf {
        self.root.join(format!("{}.lock", self.name))
    }

    pub(crate) fn complete(&self) -> bool {
        self.path().join(USED).exists()
    }

    /// Marks `folder` (a future entry, or this one) as used now.
    pub(crate) fn touch(folder: &Path) -> Result<(), CacheError> {
        let path = folder.join(USED);
        let file = lock_file(&path)?;
        file.set_modified(SystemTime::now()).map_err(at(&path))
    }

    /// The exclusive lock if nobody builds or uses the entry.
    pub(crate) fn claim(&self) -> Result<Option<File>, CacheError> {
        let path = self.lock_path();
        let file = lock_file(&path)?;
        Ok(taken(file.try_lock(), &path)?.then_some(file))
    }

    /// An empty folder for a build; what interrupted builds left is removed. Only under the claim.
    pub(crate) fn partial(&self) -> Result<PathBuf, CacheError> {
        self.sweep()?;
        let path = self.root.join(format!("{}.partial-{}", self.name, std::process::id()));
        fs::create_dir_all(&path).map_err(at(&path))?;
        Ok(path)
    }

    /// Publishes a finished build. Only under the claim.
    pub(crate) fn publish(&self, finished: &Path) -> Result<(), CacheError> {
        Self::touch(finished)?;
        for file in files(finished).map_err(at(finished))? {
            File::open(&file.path)
                .and_then(|file| file.sync_all())
                .map_err(at(&file.path))?;
        }
        // An entry without its mark was cut short while being evicted.
        let path = self.path();
        if path.exists() {
            fs::remove_dir_all(&path).map_err(at(&path))?;
        }
        fs::rename(finished, &path).map_err(at(&path))?;
        self.sweep()
    }

    /// Removes the folders of builds of this entry. Only under the claim.
    fn sweep(&self) -> Result<(), CacheError> {
        let prefix = format!("{}.partial-", self.name);
        for entry in fs::read_dir(&self.root).map_err(at(&self.root))? {
            let path = entry.map_err(at(&self.root))?.path();
            if path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(&prefix))
            {
                fs::remove_dir_all(&path).map_err(at(&path))?;
            }
        }
        Ok(())
    }
}

/// Removes the least recently used entries until all together are within `limit` bytes, never one in use, and what
/// interrupted builds left. Returns the names removed.
pub(crate) fn evict(root: &Path, limit: u64) -> Result<Vec<String>, CacheError> {
    let mut entries = Vec::new();
    let mut total = 0;
    for entry in fs::read_dir(root).map_err(at(root))? {
        let path = entry.map_err(at(root))?.path();
        let Some(name) = path.file_name().map(|name| name.to_string_lossy().into_owned()) else {
            continue;
        };
        if !path.is_dir() {
            continue;
        }
        if let Some((name, _)) = name.split_once(".partial-") {
            let entry = Entry::new(root, name.to_owned());
            if let Some(_claim) = entry.claim()? {
                entry.sweep()?;
            }
            continue;
        }
        let size: u64 = files(&path).map_err(at(&path))?.iter().map(|file| file.size).sum();
        let used = fs::metadata(path.join(USED))
            .and_then(|meta| meta.modified())
            .unwrap_or(SystemTime::UNIX_EPOCH);
        total += size;
        entries.push((used, size, name));
    }
    entries.sort();
    let mut removed = Vec::new();
    for (_, size, name) in entries {
        if total <= limit {
            break;
        }
        let entry = Entry::new(root, name.clone());
        if let Some(_claim) = entry.claim()? {
            let path = entry.path();
            let mark = path.join(USED);
            // The mark first: a removal cut short leaves an entry that counts as absent.
            let _ = fs::remove_file(&mark);
            fs::remove_dir_all(&path).map_err(at(&path))?;
            total = total.saturating_sub(size);
            removed.push(name);
        }
    }
    Ok(removed)
}

/// Removes the longest unused files of a Go build cache larger than `limit` bytes, down to three quarters of it.
/// Go treats a missing file as not built yet. Returns how many bytes went.
pub(crate) fn trim_go(root: &Path, limit: u64) -> Result<u64, CacheError> {
    let mut all = files(root).map_err(at(root))?;
    let mut total: u64 = all.iter().map(|file| file.size).sum();
    let before = total;
    if total <= limit {
        return Ok(0);
    }
    all.sort_by_key(|file| file.modified);
    for file in all {
        if total <= limit / 4 * 3 {
            break;
        }
        if fs::remove_file(&file.path).is_ok() {
            total = total.saturating_sub(file.size);
        }
    }
    Ok(before - total)
}

/// Removes a Go module cache larger than `limit` bytes, whole: a module that lacks a file is broken, one that lacks
/// altogether is fetched again. Returns how many bytes went.
pub(crate) fn drop_modules(root: &Path, limit: u64) -> Result<u64, CacheError> {
    let total: u64 = files(root).map_err(at(root))?.iter().map(|file| file.size).sum();
    if total <= limit {
        return Ok(0);
    }
    fs::remove_dir_all(root).map_err(at(root))?;
    Ok(total)
}

struct Found {
    path: PathBuf,
    size: u64,
    modified: SystemTime,
}

/// Every file below `root`; a file or folder that vanishes meanwhile is left out.
fn files(root: &Path) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let listing = match fs::read_dir(&folder) {
            Ok(listing) => listing,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in listing {
            let entry = entry?;
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                folders.push(entry.path());
            } else {
                found.push(Found {
                    path: entry.path(),
                    size: meta.len(),
                    modified: meta.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                });
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(root: &Path, name: &str, size: usize, age: u64) -> Entry {
        let entry = Entry::new(root, name.to_owned());
        let folder = root.join(format!("{name}-new"));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("program"), vec![0; size]).unwrap();
        entry.publish(&folder).unwrap();
        let used = File::options().write(true).open(entry.path().join(USED)).unwrap();
        used.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        entry
    }

    #[tokio::test]
    async fn eviction_takes_the_oldest_that_nobody_uses() {
        let root = tempfile::tempdir().unwrap();
        let [oldest, old, new] =
            [("a", 30), ("b", 20), ("c", 10)].map(|(name, age)| entry(root.path(), name, 1000, age));
        let in_use = until_shared(&oldest.lock_path(), || {}).await.unwrap();

        assert_eq!(evict(root.path(), 2500).unwrap(), ["b"]);
        assert!(oldest.complete() && !old.complete() && new.complete());

        drop(in_use);
        assert_eq!(evict(root.path(), 1500).unwrap(), ["a"]);
        assert_eq!(evict(root.path(), 1500).unwrap(), [""; 0]);
    }

    #[test]
    fn what_an_interrupted_build_left_is_removed_unless_it_is_under_way() {
        let root = tempfile::tempdir().unwrap();
        let entry = Entry::new(root.path(), "a".to_owned());
        let partial = entry.partial().unwrap();
        let claim = entry.claim().unwrap().unwrap();
        evict(root.path(), 0).unwrap();
        assert!(partial.exists());
        drop(claim);
        evict(root.path(), 0).unwrap();
        assert!(!partial.exists());
    }

    #[test]
    fn a_module_cache_is_kept_or_goes_whole() {
        let folder = tempfile::tempdir().unwrap();
        let modules = folder.path().join("mod");
        fs::create_dir_all(modules.join("a@v1")).unwrap();
        fs::write(modules.join("a@v1/x.go"), [0; 100]).unwrap();
        assert_eq!(drop_modules(&modules, 100).unwrap(), 0);
        assert!(modules.exists());
        assert_eq!(drop_modules(&modules, 99).unwrap(), 100);
        assert!(!modules.exists());
        assert_eq!(drop_modules(&modules, 99).unwrap(), 0);
    }

    #[test]
    fn the_go_cache_loses_its_oldest_files() {
        let root = tempfile::tempdir().unwrap();
        for age in 0..10 {
            let path = root.path().join(format!("{age}"));
            fs::write(&path, [0; 100]).unwrap();
            let file = File::options().write(true).open(path).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        }
        assert_eq!(trim_go(root.path(), 1000).unwrap(), 0);
        assert_eq!(trim_go(root.path(), 800).unwrap(), 400);
        assert!(root.path().join("5").exists() && !root.path().join("6").exists());
    }
}
