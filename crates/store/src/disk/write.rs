//! How a file comes to be on the disk, and how it goes.
//!
//! ```text
//!  right already? ─▶ nothing      else: temporary ─▶ hash ─▶ fsync ─▶ chmod ─▶ rename ─▶ fsync of the directory
//! ```
//!
//! Invariants: whatever fails, what was there stays and the temporary file goes; each new directory is durable before
//! a file in it is.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::Path,
};

use tempfile::NamedTempFile;

use super::{TEMPORARY, open_file};
use trellis_core::digest::{Digest, Hasher};

use crate::{
    content::{Feed, PIECE},
    error::{Error, Result},
    key::Key,
    storage::Put,
};

/// How often a directory is made again that a deletion took away meanwhile.
const TRIES: usize = 16;

/// Stores the file.
pub(super) fn put(root: &Path, key: &Key, feed: Feed) -> Result<Put> {
    let path = root.join(key.as_str());
    if is_right(&path, key, &feed)? {
        return Ok(Put::Unchanged);
    }
    let failed = |error| Error::io(key, error);
    let directory = path.parent().unwrap_or(root);
    let mut temporary = temporary(root, directory).map_err(failed)?;
    // Tells the sweep of another process that this one is alive. Where the file system has no such locks, that process
    // must not be started while this one writes.
    let _ = temporary.as_file().lock();
    let mut hasher = Hasher::default();
    let written = feed.each(|bytes| {
        hasher.update(bytes);
        temporary.write_all(bytes)
    });
    written
        .map_err(|source| Error::Content {
            subject: key.to_string(),
            source,
        })?
        .map_err(failed)?;
    let found = hasher.finish();
    if found != key.digest() {
        return Err(Error::Mismatch {
            key: key.clone(),
            found,
        });
    }
    show(temporary, &path, directory).map_err(failed)?;
    Ok(Put::Stored)
}

/// Makes the written file durable, then visible, then its name durable.
fn show(temporary: NamedTempFile, path: &Path, directory: &Path) -> io::Result<()> {
    // Whatever the umask is.
    temporary.as_file().set_permissions(Permissions::from_mode(0o600))?;
    temporary.as_file().sync_all()?;
    temporary.persist(path).map_err(|error| error.error)?;
    File::open(directory)?.sync_all()
}

/// Whether the file is there with the bytes of its key. One that is not is written again.
fn is_right(path: &Path, key: &Key, feed: &Feed) -> Result<bool> {
    let (file, stat) = match open_file(path) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(Error::io(key, error)),
    };
    // The size tells at once when it cannot be; only the digest tells that it is.
    if let Feed::File(offered) = feed
        && fs::metadata(offered).is_ok_and(|offered| offered.len() != stat.size)
    {
        return Ok(false);
    }
    let found = digest(file).map_err(|error| Error::io(key, error))?;
    if found != key.digest() {
        tracing::warn!(%key, %found, "a stored file was corrupt; it is written again");
    }
    Ok(found == key.digest())
}

fn digest(mut file: File) -> io::Result<Digest> {
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; PIECE];
    loop {
        match io::Read::read(&mut file, &mut buffer)? {
            0 => return Ok(hasher.finish()),
            read => hasher.update(buffer.get(..read).unwrap_or_default()),
        }
    }
}

/// A temporary file in the directory, which is made if need be.
fn temporary(root: &Path, directory: &Path) -> io::Result<NamedTempFile> {
    let mut tries = 0;
    loop {
        make(root, directory)?;
        match tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(directory) {
            // The last file of the directory was deleted between the two lines, and the directory with it.
            Err(error) if error.kind() == io::ErrorKind::NotFound && tries < TRIES => tries += 1,
            made => return made,
        }
    }
}

/// Makes the directory and those above it, down from the root, each durable.
fn make(root: &Path, directory: &Path) -> io::Result<()> {
    if directory == root || directory.is_dir() {
        return Ok(());
    }
    let mut tries = 0;
    loop {
        let above = directory.parent().unwrap_or(root);
        make(root, above)?;
        match DirBuilder::new().mode(0o700).create(directory) {
            Ok(()) => return File::open(above)?.sync_all(),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound && tries < TRIES => tries += 1,
            Err(error) => return Err(error),
        }
    }
}

/// Deletes the file, and the directories that it leaves empty. Returns whether it was there.
pub(super) fn delete(root: &Path, key: &Key) -> io::Result<bool> {
    let path = root.join(key.as_str());
    let deleted = match fs::remove_file(&path) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(error),
    };
    let mut directory = path.parent().unwrap_or(root);
    while directory != root && fs::remove_dir(directory).is_ok() {
        directory = directory.parent().unwrap_or(root);
    }
    match File::open(directory) {
        Ok(directory) => directory.sync_all()?,
        // Another deletion took it away, and syncs the one above.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(deleted)
}
