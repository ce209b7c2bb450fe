//! `Storage`: what every backend can do.
//!
//! ```text
//!  put ─▶ (hash, compare, make durable, show) ─▶ open · head · verify · list ─▶ delete
//! ```
//!
//! Guarantees of every backend: a file is visible as a whole or not at all; its bytes had the digest of its key when
//! they were stored; storing a file that is there and right writes nothing; whoever has a file open reads it to its
//! end, even if it is deleted meanwhile (S3: as far as the service does so).
//!
//! Assumptions: one process writes at a time. Two do no harm, as a key has one content only; one may delete what the
//! other has just found to be there.

use std::{fmt, ops::Range, time::SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{TryStreamExt as _, stream::BoxStream};
use trellis_core::digest::{Digest, Hasher};

use crate::{
    content::Content,
    error::{Error, Result},
    key::{Key, Prefix},
};

/// The bytes of a file, in pieces. After an error nothing more comes.
pub type Body = BoxStream<'static, Result<Bytes>>;

/// What is known of a file without reading it. Its digest is that of its key; [`Storage::verify`] tells whether its
/// bytes still agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// In bytes.
    pub size: u64,
    /// When it was stored, by the backend's clock.
    pub modified: SystemTime,
}

/// One file of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Which.
    pub key: Key,
    /// What is known of it.
    pub stat: Stat,
}

/// A file that is being read.
pub struct Opened {
    /// What is known of the whole file.
    pub stat: Stat,
    /// Which bytes come: all, or those asked for as far as they exist.
    pub range: Range<u64>,
    /// The bytes.
    pub body: Body,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened")
            .field("stat", &self.stat)
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}

/// What storing a file came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It was written: it was not there, or not right.
    Stored,
    /// It was there and right; nothing was written.
    Unchanged,
}

/// What reading a file over came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The bytes have the digest of the key.
    Right,
    /// There is no such file.
    Missing,
    /// The bytes have another digest.
    Corrupt {
        /// Theirs.
        found: Digest,
    },
}

/// A place for files.
#[async_trait]
pub trait Storage: fmt::Debug + Send + Sync {
    /// A word for logs and metrics: `disk`, `memory`, `s3`.
    fn name(&self) -> &'static str;

    /// Stores the file. The content is read as far as needed; it stays where it is.
    ///
    /// # Errors
    /// [`Error::Mismatch`] when the content has not the digest of the key, [`Error::Content`] when it cannot be read,
    /// [`Error::NoSpace`] and [`Error::TooLarge`] when it does not fit: then there is nothing, or what was there.
    async fn put(&self, key: &Key, content: Content) -> Result<Put>;

    /// Opens the file, or a part of it: the end of the range is cut to that of the file.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::OutOfRange`] when the range is empty or starts at or behind the end.
    async fn open(&self, key: &Key, range: Option<Range<u64>>) -> Result<Opened>;

    /// What is known of the file, if it is there.
    async fn head(&self, key: &Key) -> Result<Option<Stat>>;

    /// The files below the prefix, in no particular order, as they are read. What is no file of ours is passed over.
    fn list(&self, prefix: &Prefix) -> BoxStream<'static, Result<Entry>>;

    /// Deletes the file. Returns whether it was there, as far as the backend tells: S3 does not, and says so always.
    async fn delete(&self, key: &Key) -> Result<bool>;

    /// Reads the file over and compares its digest with that of its key.
    async fn verify(&self, key: &Key) -> Result<Verdict> {
        let opened = match self.open(key, None).await {
            Ok(opened) => opened,
            Err(Error::NotFound { .. }) => return Ok(Verdict::Missing),
            Err(error) => return Err(error),
        };
        let mut hasher = Hasher::default();
        let mut body = opened.body;
        while let Some(bytes) = body.try_next().await? {
            hasher.update(&bytes);
        }
        let found = hasher.finish();
        Ok(if found == key.digest() {
            Verdict::Right
        } else {
            Verdict::Corrupt { found }
        })
    }

    /// Deletes every file below the prefix, and returns how many. Stops at the first that cannot be deleted;
    /// [`garbage::collect`](crate::garbage::collect) goes on.
    async fn delete_prefix(&self, prefix: &Prefix) -> Result<u64> {
        let mut entries = self.list(prefix);
        let mut deleted = 0;
        while let Some(entry) = entries.try_next().await? {
            deleted += u64::from(self.delete(&entry.key).await?);
        }
        Ok(deleted)
    }

    /// A URL at which anybody can get the file from the backend itself for that long, if it has such. The URL is a
    /// secret for as long: it must not be logged.
    async fn presigned(&self, _key: &Key, _valid: std::time::Duration) -> Result<Option<String>> {
        Ok(None)
    }
}

/// The part of a file of that size which is meant by the range.
pub(crate) fn clamp(key: &Key, range: Option<Range<u64>>, size: u64) -> Result<Range<u64>> {
    match range {
        None => Ok(0..size),
        Some(range) if range.start < size && range.start < range.end => Ok(range.start..range.end.min(size)),
        Some(_) => Err(Error::OutOfRange { key: key.clone() }),
    }
}
