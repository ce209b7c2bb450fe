//! `Memory`: files in the process, for development and tests.
//!
//! ```text
//!  content ─▶ reserve bytes ─▶ hash ─▶ show            bound reached ─▶ NoSpace, nothing is evicted
//! ```
//!
//! Invariants: files and those on their way never hold more than the bound; nothing outlives the process, so that after
//! a start everything has to be stored again.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, PoisonError, RwLock},
    time::SystemTime,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use tokio::{
    io::AsyncReadExt as _,
    sync::{OwnedSemaphorePermit, Semaphore},
};
use trellis_core::digest::Hasher;

use crate::{
    content::{Content, PIECE},
    error::{Error, Result},
    key::{Key, Prefix},
    storage::{Entry, Opened, Put, Stat, Storage, clamp},
};

/// In what portions the bound is counted, in bytes. A file takes whole portions.
const PORTION: u64 = 4096;

/// A stored file, and its part of the bound.
#[derive(Debug, Clone)]
struct File {
    bytes: Bytes,
    modified: SystemTime,
    _room: Arc<OwnedSemaphorePermit>,
}

impl File {
    fn stat(&self) -> Stat {
        Stat {
            size: self.bytes.len() as u64,
            modified: self.modified,
        }
    }
}

/// Files in the process. Cheap to clone; clones share the files.
#[derive(Debug, Clone)]
pub struct Memory {
    files: Arc<RwLock<BTreeMap<Key, File>>>,
    room: Arc<Semaphore>,
    limit: u64,
}

/// The bound is used up.
#[derive(Debug, thiserror::Error)]
#[error("the memory storage is full: it holds at most {limit} bytes")]
struct Full {
    limit: u64,
}

impl Memory {
    /// An empty storage for that many bytes, counted in portions of 4 KiB for each file. Beyond, it refuses.
    #[must_use]
    pub fn bounded(limit: u64) -> Self {
        let portions = usize::try_from(limit / PORTION).unwrap_or(usize::MAX);
        Self {
            files: Arc::default(),
            room: Arc::new(Semaphore::new(portions.min(Semaphore::MAX_PERMITS))),
            limit,
        }
    }

    /// Room for that many bytes more.
    fn reserve(&self, key: &Key, size: u64) -> Result<OwnedSemaphorePermit> {
        self.fits(key, size)?;
        let full = || Error::NoSpace {
            subject: key.to_string(),
            source: Full { limit: self.limit }.into(),
        };
        let portions = u32::try_from(size.div_ceil(PORTION)).map_err(|_| full())?;
        Arc::clone(&self.room)
            .try_acquire_many_owned(portions)
            .map_err(|_| full())
    }

    /// As much more room as `wanted` bytes need.
    fn grow(&self, key: &Key, room: &mut OwnedSemaphorePermit, wanted: u64) -> Result<()> {
        self.fits(key, wanted)?;
        let held = room.num_permits() as u64 * PORTION;
        room.merge(self.reserve(key, wanted.saturating_sub(held))?);
        Ok(())
    }

    fn fits(&self, key: &Key, size: u64) -> Result<()> {
        if size > self.limit {
            return Err(Error::TooLarge {
                subject: key.to_string(),
                limit: self.limit,
            });
        }
        Ok(())
    }

    fn file(&self, key: &Key) -> Option<File> {
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        files.get(key).cloned()
    }
}

#[async_trait]
impl Storage for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    async fn put(&self, key: &Key, content: Content) -> Result<Put> {
        // What is here was hashed when it came, and nothing but a fault of the machine changes it.
        if self.file(key).is_some() {
            return Ok(Put::Unchanged);
        }
        let failed = |source| Error::Content {
            subject: key.to_string(),
            source,
        };
        let known = content.size().await.map_err(failed)?.unwrap_or(0);
        let mut room = self.reserve(key, known)?;
        let mut reserved = known;
        let mut reader = content.reader().await.map_err(failed)?;
        let mut hasher = Hasher::default();
        let mut bytes = Vec::with_capacity(usize::try_from(known).unwrap_or_default());
        let mut piece = vec![0; PIECE];
        loop {
            let read = reader.read(&mut piece).await.map_err(failed)?;
            let Some(read) = piece.get(..read).filter(|read| !read.is_empty()) else {
                break;
            };
            let size = (bytes.len() + read.len()) as u64;
            if size > reserved {
                // Doubled while there is room for that: what the buffer can hold is what is counted.
                let mut wanted = size.max((2 * reserved).min(self.limit));
                if self.grow(key, &mut room, wanted).is_err() {
                    wanted = size;
                    self.grow(key, &mut room, wanted)?;
                }
                reserved = wanted;
                bytes.reserve_exact(usize::try_from(wanted).unwrap_or_default().saturating_sub(bytes.len()));
            }
            hasher.update(read);
            bytes.extend_from_slice(read);
        }
        let found = hasher.finish();
        if found != key.digest() {
            return Err(Error::Mismatch {
                key: key.clone(),
                found,
            });
        }
        // The spare capacity goes, and its room with it.
        bytes.shrink_to_fit();
        let bytes = Bytes::from(bytes);
        let used = usize::try_from((bytes.len() as u64).div_ceil(PORTION)).unwrap_or_default();
        let spare = room.num_permits().saturating_sub(used);
        drop(room.split(spare));
        let file = File {
            bytes,
            modified: SystemTime::now(),
            _room: Arc::new(room),
        };
        self.files
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key.clone(), file);
        Ok(Put::Stored)
    }

    async fn open(&self, key: &Key, range: Option<Range<u64>>) -> Result<Opened> {
        let file = self.file(key).ok_or_else(|| Error::NotFound { key: key.clone() })?;
        let stat = file.stat();
        let range = clamp(key, range, stat.size)?;
        let position = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        let bytes = file.bytes.slice(position(range.start)..position(range.end));
        // The file goes along: while somebody reads it, it still takes its part of the bound.
        let body = stream::unfold((bytes, file), async |(mut rest, file)| {
            let piece = rest.split_to(rest.len().min(PIECE));
            (!piece.is_empty()).then_some((Ok(piece), (rest, file)))
        });
        Ok(Opened {
            stat,
            range,
            body: body.boxed(),
        })
    }

    async fn head(&self, key: &Key) -> Result<Option<Stat>> {
        Ok(self.file(key).map(|file| file.stat()))
    }

    fn list(&self, prefix: &Prefix) -> BoxStream<'static, Result<Entry>> {
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        let below = files.iter().filter(|(key, _)| key.is_below(prefix));
        let entries: Vec<_> = below
            .map(|(key, file)| {
                Ok(Entry {
                    key: key.clone(),
                    stat: file.stat(),
                })
            })
            .collect();
        stream::iter(entries).boxed()
    }

    async fn delete(&self, key: &Key) -> Result<bool> {
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        Ok(files.remove(key).is_some())
    }
}
