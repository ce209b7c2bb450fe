//! `Disk`: files below a directory, on a volume that outlives the process.
//!
//! ```text
//!  content ─▶ a/b/.tmp-XXXX ─▶ fsync ─▶ chmod 0600 ─▶ rename a/b/<hex>.tar.gz ─▶ fsync a/b
//!             (locked while it is written; swept at start when its writer is dead)
//! ```
//!
//! Not on `object_store::local::LocalFileSystem`: it syncs on request, but shows its files with the permissions of the
//! umask, overwrites a name at once whatever is there, leaves the staged file of a dead process for ever (its lists hide
//! them, so that nobody can delete them), and follows links out of its root.
//!
//! Invariants: a name that is no temporary one has all its bytes, durable; no link is followed in place of a file;
//! operations on different keys never wait for each other.

mod walk;
mod write;

use std::{
    fs::{self, File, OpenOptions},
    io,
    ops::Range,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use futures::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncSeekExt as _},
    sync::mpsc,
    task::spawn_blocking,
};
use tokio_util::io::ReaderStream;

use crate::{
    content::Content,
    error::{Error, Result},
    key::{Key, Prefix},
    locks::Locks,
    storage::{Entry, Opened, Put, Stat, Storage, clamp},
};

/// How much is read from the disk at once, in bytes, for each reader.
const READ: usize = 128 * 1024;

/// What temporary files start with. No segment of a key starts with a dot.
const TEMPORARY: &str = ".tmp-";

/// Files below a directory. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Disk {
    root: Arc<Path>,
    locks: Locks,
}

impl Disk {
    /// Opens the storage in an existing directory, and removes the temporary files of writers that died.
    ///
    /// Another process that writes there keeps its own: a temporary file is locked (`flock`) while it is written.
    ///
    /// # Errors
    /// [`Error::Settings`] when there is no such directory, else what the file system says.
    pub async fn open(root: impl Into<PathBuf>) -> Result<Self> {
        let root: PathBuf = root.into();
        let opened = spawn_blocking(move || {
            // Resolved once: the mount may be reached by a link, files below it may not.
            let root = fs::canonicalize(&root)?;
            fs::read_dir(&root)?;
            let swept = walk::sweep(&root)?;
            if swept > 0 {
                tracing::info!(swept, "removed the temporary files of writers that died");
            }
            Ok(root)
        });
        let root = joined(opened.await)?.map_err(|error: io::Error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Error::Settings {
                what: "the directory of the storage does not exist".to_owned(),
                source: Some(error.into()),
            },
            _ => Error::io("the storage", error),
        })?;
        Ok(Self {
            root: root.into(),
            locks: Locks::default(),
        })
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.root.join(key.as_str())
    }
}

#[async_trait]
impl Storage for Disk {
    fn name(&self) -> &'static str {
        "disk"
    }

    async fn put(&self, key: &Key, content: Content) -> Result<Put> {
        let held = self.locks.hold(key).await;
        let (feed, pump) = content.split();
        let (root, owned) = (Arc::clone(&self.root), key.clone());
        let writing = spawn_blocking(move || {
            // Held by the thread that writes, which goes on for a moment when the caller gives up.
            let _held = held;
            write::put(&root, &owned, feed)
        });
        let ((), written) = tokio::join!(pump.run(), writing);
        joined(written)?
    }

    async fn open(&self, key: &Key, range: Option<Range<u64>>) -> Result<Opened> {
        let path = self.path(key);
        let opened = spawn_blocking(move || open_file(&path));
        let (file, stat) = joined(opened.await)?.map_err(|error| Error::file(key, error))?;
        let range = clamp(key, range, stat.size)?;
        let mut file = tokio::fs::File::from_std(file);
        file.set_max_buf_size(READ);
        if range.start > 0 {
            let seek = file.seek(io::SeekFrom::Start(range.start)).await;
            seek.map_err(|error| Error::io(key, error))?;
        }
        let subject = key.clone();
        let body = ReaderStream::with_capacity(file.take(range.end - range.start), READ)
            .map_err(move |error| Error::io(&subject, error))
            .boxed();
        Ok(Opened { stat, range, body })
    }

    async fn head(&self, key: &Key) -> Result<Option<Stat>> {
        let path = self.path(key);
        match joined(spawn_blocking(move || fs::symlink_metadata(&path)?.try_stat()).await)? {
            Ok(stat) => Ok(Some(stat)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(key, error)),
        }
    }

    fn list(&self, prefix: &Prefix) -> BoxStream<'static, Result<Entry>> {
        let (sender, receiver) = mpsc::channel(64);
        let (root, prefix) = (Arc::clone(&self.root), prefix.clone());
        // Not awaited: it ends when the receiver is dropped, and whatever fails is sent.
        drop(spawn_blocking(move || walk::list(&root, &prefix, &sender)));
        stream::unfold(receiver, async |mut receiver| {
            receiver.recv().await.map(|entry| (entry, receiver))
        })
        .boxed()
    }

    async fn delete(&self, key: &Key) -> Result<bool> {
        let held = self.locks.hold(key).await;
        let (root, owned) = (Arc::clone(&self.root), key.clone());
        let deleted = spawn_blocking(move || {
            let _held = held;
            write::delete(&root, &owned)
        });
        joined(deleted.await)?.map_err(|error| Error::io(key, error))
    }
}

/// Opens the file for reading; a link or a directory of that name is no file of ours.
fn open_file(path: &Path) -> io::Result<(File, Stat)> {
    let no_follow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(no_follow).open(path);
    let is_link = |error: &io::Error| error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error());
    let file = file.map_err(|error| {
        if is_link(&error) {
            io::ErrorKind::NotFound.into()
        } else {
            error
        }
    })?;
    let stat = file.metadata()?.try_stat()?;
    Ok((file, stat))
}

/// What the file system knows of a regular file. Anything else of that name is not there for us.
trait TryStat {
    fn try_stat(&self) -> io::Result<Stat>;
}

impl TryStat for fs::Metadata {
    fn try_stat(&self) -> io::Result<Stat> {
        if !self.is_file() {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Stat {
            size: self.len(),
            modified: self.modified()?,
        })
    }
}

/// The outcome of work that blocks. Nothing cancels it, and none of it panics; the runtime may be shutting down.
fn joined<T>(outcome: Result<T, tokio::task::JoinError>) -> Result<T> {
    outcome.map_err(|error| Error::Io {
        subject: "the storage".to_owned(),
        source: io::Error::other(error),
    })
}
