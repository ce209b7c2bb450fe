//! `Reload`: a file that is read again whenever it changes, and whose last good text counts.
//!
//! ```text
//!  inotify on the directory ─▶ read (bounded) ─▶ parse ─▶ good: the new value │ broken: the last good one, and why
//! ```
//!
//! The directory is watched, not the file: a ConfigMap mount swaps the link `..data` beside it, an editor renames a new
//! file over it. Inotify through a library that is in the tree already; polling would cost wake-ups for ever, and a
//! crate around inotify brings nothing that is needed here.
//!
//! Invariant: a value once good stays until a good one replaces it; that the file is broken or gone is always told.

use std::{
    fmt, fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::{net::unix::pipe, sync::watch};
use tokio_util::{sync::CancellationToken, sync::DropGuard};

/// Changes of the directory that may change the file.
const CHANGES: WatchFlags = WatchFlags::CLOSE_WRITE
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF);
/// How soon a directory that is gone is looked for again.
const AGAIN: Duration = Duration::from_secs(1);

/// How the file stood when it was last read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Report {
    /// It is good, and its value is the one that counts.
    Good,
    /// It is not there.
    Missing,
    /// It cannot be used; the sentence says why.
    Broken(String),
}

/// The value that counts, and how the file stands.
#[derive(Debug)]
pub struct Kept<T> {
    /// The last good value; `None` when there never was one.
    pub good: Option<Arc<T>>,
    /// How the file stands. When it is not `Good`, the value is an older one.
    pub report: Report,
}

impl<T> Clone for Kept<T> {
    fn clone(&self) -> Self {
        Self {
            good: self.good.clone(),
            report: self.report.clone(),
        }
    }
}

/// The file cannot be watched.
#[derive(Debug, thiserror::Error)]
#[error("cannot watch {}", folder.display())]
pub struct ReloadError {
    /// Its directory.
    pub folder: PathBuf,
    /// The cause.
    pub source: io::Error,
}

/// A file that is read again whenever it changes. Watching ends when it is dropped.
#[derive(Debug)]
pub struct Reload<T> {
    kept: watch::Receiver<Kept<T>>,
    _guard: DropGuard,
}

impl<T: Send + Sync + 'static> Reload<T> {
    /// Reads the file now and from then on at each change; `parse` says why a text is broken. A file of more than
    /// `limit` bytes is broken. A file that is broken or missing now is no error: [`Kept::report`] says so.
    ///
    /// # Errors
    /// When its directory is not there or the kernel gives no watch.
    pub fn start<E>(
        file: impl Into<PathBuf>,
        limit: u64,
        parse: impl Fn(&str) -> Result<T, E> + Send + 'static,
    ) -> Result<Self, ReloadError>
    where
        E: fmt::Display,
    {
        let file = file.into();
        let folder = match file.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        let watched = || -> io::Result<pipe::Receiver> {
            let events = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
            inotify::add_watch(&events, &folder, CHANGES)?;
            // Readiness and reads of a pipe are those of an inotify descriptor; tokio has no other safe door for one.
            pipe::Receiver::from_owned_fd_unchecked(events)
        };
        let events = watched().map_err(|source| ReloadError {
            folder: folder.clone(),
            source,
        })?;
        // Watched before it is read, so that no change falls in between.
        let first = read(&file, limit);
        let kept = next(None, &first, &parse);
        told(&file, &kept.report);
        let (sender, receiver) = watch::channel(kept);
        let stop = CancellationToken::new();
        let guard = stop.clone().drop_guard();
        tokio::spawn(async move {
            let follow = follow(events, folder, file, limit, parse, first, sender);
            let _ = stop.run_until_cancelled(follow).await;
        });
        Ok(Self {
            kept: receiver,
            _guard: guard,
        })
    }

    /// What counts now.
    #[must_use]
    pub fn kept(&self) -> Kept<T> {
        self.kept.borrow().clone()
    }

    /// A receiver that is told of each change, also from good to broken and back.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Kept<T>> {
        self.kept.clone()
    }
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    Text(String),
    Missing,
    Unusable(String),
}

fn read(file: &Path, limit: u64) -> Found {
    let text = || -> io::Result<String> {
        let mut text = String::new();
        fs::File::open(file)?
            .take(limit.saturating_add(1))
            .read_to_string(&mut text)?;
        Ok(text)
    };
    match text() {
        Ok(text) if text.len() as u64 > limit => Found::Unusable(format!("it has more than {limit} bytes")),
        Ok(text) => Found::Text(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Found::Missing,
        Err(error) => Found::Unusable(error.to_string()),
    }
}

/// What counts after `found`, given the last good value.
fn next<T, E: fmt::Display>(good: Option<Arc<T>>, found: &Found, parse: &impl Fn(&str) -> Result<T, E>) -> Kept<T> {
    match found {
        Found::Text(text) => match parse(text) {
            Ok(value) => Kept {
                good: Some(Arc::new(value)),
                report: Report::Good,
            },
            Err(error) => Kept {
                good,
                report: Report::Broken(error.to_string()),
            },
        },
        Found::Missing => Kept {
            good,
            report: Report::Missing,
        },
        Found::Unusable(why) => Kept {
            good,
            report: Report::Broken(why.clone()),
        },
    }
}

async fn follow<T, E: fmt::Display>(
    events: pipe::Receiver,
    folder: PathBuf,
    file: PathBuf,
    limit: u64,
    parse: impl Fn(&str) -> Result<T, E>,
    first: Found,
    sender: watch::Sender<Kept<T>>,
) {
    let mut last = first;
    loop {
        // The same directory gives the same watch; a new one of this name gives a new one.
        let lost = inotify::add_watch(&events, &folder, CHANGES).is_err();
        let found = read(&file, limit);
        if found != last {
            let kept = next(sender.borrow().good.clone(), &found, &parse);
            told(&file, &kept.report);
            last = found;
            if sender.send(kept).is_err() {
                return;
            }
        }
        if lost {
            tokio::time::sleep(AGAIN).await;
        } else if !changed(&events).await {
            return;
        }
    }
}

/// Waits for events and takes them all; false when there can be none any more.
async fn changed(events: &pipe::Receiver) -> bool {
    if events.readable().await.is_err() {
        return false;
    }
    let mut buffer = [0; 4096];
    loop {
        match events.try_read(&mut buffer) {
            Ok(1..) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
            Ok(_) | Err(_) => return false,
        }
    }
}

fn told(file: &Path, report: &Report) {
    let file = file.display();
    match report {
        Report::Good => tracing::info!(%file, "read"),
        Report::Missing => tracing::warn!(%file, "missing; the last good one counts, if there was one"),
        Report::Broken(why) => tracing::warn!(%file, why, "broken; the last good one counts, if there was one"),
    }
}
