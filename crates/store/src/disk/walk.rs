//! Going through the directories: lists, and the sweep at the start.
//!
//! ```text
//!  root ─▶ directories with good names ─▶ files that are keys (list) | temporary ones that nobody writes (sweep)
//! ```
//!
//! Invariants: links are not followed; what vanishes on the way was deleted, and is no error.

use std::{
    fs::{self, DirEntry, File},
    io,
    path::Path,
};

use tokio::sync::mpsc::Sender;

use super::{TEMPORARY, TryStat as _};
use crate::{
    error::{Error, Result},
    key::{Key, Prefix},
    storage::Entry,
};

/// Sends every file below the prefix, and what failed at last. Ends early when nobody listens any more.
pub(super) fn list(root: &Path, prefix: &Prefix, sender: &Sender<Result<Entry>>) {
    let visited = visit(&root.join(prefix.as_str()), &mut |entry| {
        let path = entry.path();
        let relative = path.strip_prefix(root).ok().and_then(Path::to_str);
        let Some(key) = relative.and_then(|text| text.parse::<Key>().ok()) else {
            return Ok(true);
        };
        let stat = entry.metadata().and_then(|metadata| metadata.try_stat());
        Ok(match found(stat)? {
            Some(stat) => sender.blocking_send(Ok(Entry { key, stat })).is_ok(),
            None => true,
        })
    });
    if let Err(error) = visited {
        let _ = sender.blocking_send(Err(Error::io(&prefix.subject(), error)));
    }
}

/// Removes the temporary files that no living process writes. Returns how many.
pub(super) fn sweep(root: &Path) -> io::Result<usize> {
    let mut swept = 0;
    visit(root, &mut |entry| {
        if entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.starts_with(TEMPORARY))
        {
            swept += usize::from(found(remove_unlocked(&entry.path()))?.unwrap_or(false));
        }
        Ok(true)
    })?;
    Ok(swept)
}

/// Removes the file if nobody holds its lock.
fn remove_unlocked(path: &Path) -> io::Result<bool> {
    match File::open(path)?.try_lock() {
        Ok(()) => fs::remove_file(path).map(|()| true),
        Err(fs::TryLockError::WouldBlock) => Ok(false),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

/// Calls `each` with every file below the directory, until it returns false. Returns whether it never did.
fn visit(directory: &Path, each: &mut dyn FnMut(&DirEntry) -> io::Result<bool>) -> io::Result<bool> {
    let Some(entries) = found(fs::read_dir(directory))? else {
        return Ok(true);
    };
    for entry in entries {
        let Some(entry) = found(entry)? else { continue };
        let Some(kind) = found(entry.file_type())? else {
            continue;
        };
        let name = entry.file_name();
        let on = if kind.is_dir() {
            // `lost+found` and hidden directories are not ours, and may not be ours to read.
            let ours = name.to_str().is_some_and(|name| name.parse::<Prefix>().is_ok());
            !ours || visit(&entry.path(), each)?
        } else {
            each(&entry)?
        };
        if !on {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What is there, if it did not vanish meanwhile.
fn found<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
