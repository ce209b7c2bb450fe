//! `Cached`: a storage that still serves the last files while its backend is away.
//!
//! ```text
//!  put, open ─▶ backend ─▶ bytes ─▶ caller           backend away ─▶ open, head ─▶ the same bytes, if they are held
//!                            └─ hash agrees ─▶ held
//! ```
//!
//! It holds small files that were stored from a local file or read as a whole, the least recently used going first. It
//! does not: take new files while the backend is away, list, verify, hold files above its limit, fill itself at start,
//! outlive the process, or make anything faster. A backend that answers 'not there' or 'denied' is believed.
//!
//! What [`Storage::verify`] finds corrupt counts as not there until it is stored again, and is deleted before that: the
//! bytes must not be served, and a backend that tells what is right by what it noted once (S3) would keep them.
//!
//! Invariants: held bytes and those being collected never exceed the bound; only bytes with the digest of their key are
//! held.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use trellis_core::digest::Digest;

use crate::{
    content::Content,
    error::{Error, Result},
    key::{Key, Prefix},
    storage::{Body, Entry, Opened, Put, Stat, Storage, Verdict, clamp},
};

/// How much is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// All files together, in bytes; default 16 MiB.
    pub total: u64,
    /// The largest file that is held, in bytes; default 4 MiB.
    pub file: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            total: 16 * 1024 * 1024,
            file: 4 * 1024 * 1024,
        }
    }
}

/// A storage with the last files of another one. Cheap to clone; clones share what is held.
#[derive(Debug, Clone)]
pub struct Cached {
    backend: Arc<dyn Storage>,
    shelf: Shelf,
    /// What was found corrupt, and is not stored again yet.
    corrupt: Arc<Mutex<HashSet<Key>>>,
}

impl Cached {
    /// Nothing is held yet.
    #[must_use]
    pub fn new(backend: Arc<dyn Storage>, limits: Limits) -> Self {
        Self {
            backend,
            shelf: Shelf {
                limits,
                state: Arc::default(),
            },
            corrupt: Arc::default(),
        }
    }

    fn corrupt(&self) -> MutexGuard<'_, HashSet<Key>> {
        self.corrupt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many bytes are held or being collected.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.shelf.state().used
    }

    /// Holds a file that was just stored.
    async fn keep(&self, key: &Key, file: &std::path::Path) {
        let Ok(metadata) = tokio::fs::metadata(file).await else {
            return;
        };
        let Some(room) = self.shelf.reserve(key, metadata.len()) else {
            return;
        };
        let stat = match self.backend.head(key).await {
            Ok(Some(stat)) if stat.size == metadata.len() => stat,
            _ => return,
        };
        // Never more than was reserved, even if the file grows meanwhile.
        let Ok(file) = tokio::fs::File::open(file).await else {
            return;
        };
        let mut bytes = Vec::with_capacity(usize::try_from(stat.size).unwrap_or_default());
        let mut file = tokio::io::AsyncReadExt::take(file, stat.size);
        if tokio::io::AsyncReadExt::read_to_end(&mut file, &mut bytes)
            .await
            .is_ok()
        {
            room.fill(bytes.into(), stat);
        }
    }
}

#[async_trait]
impl Storage for Cached {
    fn name(&self) -> &'static str {
        self.backend.name()
    }

    async fn put(&self, key: &Key, content: Content) -> Result<Put> {
        let file = match &content {
            Content::File(path) => Some(path.clone()),
            Content::Stream(_) => None,
        };
        let corrupt = self.corrupt().contains(key);
        if corrupt {
            self.backend.delete(key).await?;
        }
        let put = self.backend.put(key, content).await?;
        if corrupt {
            self.corrupt().remove(key);
        }
        if let Some(file) = file {
            self.keep(key, &file).await;
        }
        Ok(put)
    }

    async fn open(&self, key: &Key, range: Option<Range<u64>>) -> Result<Opened> {
        if self.corrupt().contains(key) {
            return Err(Error::NotFound { key: key.clone() });
        }
        match self.backend.open(key, range.clone()).await {
            Ok(opened) => Ok(self.shelf.collecting(key, opened)),
            Err(error) if error.is_outage() => {
                let Some(held) = self.shelf.take(key) else {
                    return Err(error);
                };
                let range = clamp(key, range, held.stat.size)?;
                let position = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
                let bytes = held.bytes.slice(position(range.start)..position(range.end));
                tracing::debug!(%key, error = error.chain(), "served from memory: the storage is away");
                Ok(Opened {
                    stat: held.stat,
                    range,
                    body: stream::iter([Ok(bytes)]).boxed(),
                })
            }
            Err(error) => Err(error),
        }
    }

    async fn head(&self, key: &Key) -> Result<Option<Stat>> {
        if self.corrupt().contains(key) {
            return Ok(None);
        }
        match self.backend.head(key).await {
            Err(error) if error.is_outage() => match self.shelf.take(key) {
                Some(held) => Ok(Some(held.stat)),
                None => Err(error),
            },
            answered => answered,
        }
    }

    fn list(&self, prefix: &Prefix) -> BoxStream<'static, Result<Entry>> {
        self.backend.list(prefix)
    }

    async fn delete(&self, key: &Key) -> Result<bool> {
        // First, so that what is garbage is not served even if the backend is away.
        self.shelf.forget(key);
        let deleted = self.backend.delete(key).await?;
        self.corrupt().remove(key);
        Ok(deleted)
    }

    async fn verify(&self, key: &Key) -> Result<Verdict> {
        let verdict = self.backend.verify(key).await?;
        if matches!(verdict, Verdict::Corrupt { .. }) {
            self.shelf.forget(key);
            self.corrupt().insert(key.clone());
        } else {
            self.corrupt().remove(key);
        }
        Ok(verdict)
    }

    async fn presigned(&self, key: &Key, valid: Duration) -> Result<Option<String>> {
        self.backend.presigned(key, valid).await
    }
}

#[derive(Debug, Clone)]
struct Held {
    bytes: Bytes,
    stat: Stat,
    /// When it was wanted last, on a clock that counts.
    wanted: u64,
}

#[derive(Debug, Default)]
struct State {
    held: HashMap<Key, Held>,
    collecting: HashSet<Key>,
    used: u64,
    clock: u64,
}

impl State {
    fn forget(&mut self, key: &Key) {
        if let Some(held) = self.held.remove(key) {
            self.used -= held.stat.size;
        }
    }

    /// Drops the least recently wanted until that much more fits. Returns false when what is being collected alone
    /// takes too much.
    fn make_room(&mut self, size: u64, total: u64) -> bool {
        while self.used + size > total {
            let oldest = self.held.iter().min_by_key(|(_, held)| held.wanted);
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else {
                return false;
            };
            self.forget(&oldest);
        }
        true
    }
}

#[derive(Debug, Clone)]
struct Shelf {
    limits: Limits,
    state: Arc<Mutex<State>>,
}

impl Shelf {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, key: &Key) -> Option<Held> {
        let mut state = self.state();
        state.clock += 1;
        let clock = state.clock;
        let held = state.held.get_mut(key)?;
        held.wanted = clock;
        Some(held.clone())
    }

    fn forget(&self, key: &Key) {
        let mut state = self.state();
        state.forget(key);
        state.collecting.remove(key);
    }

    /// Room for a file that is not held yet and that nobody else collects.
    fn reserve(&self, key: &Key, size: u64) -> Option<Room> {
        if size > self.limits.file || self.take(key).is_some() {
            return None;
        }
        let mut state = self.state();
        if state.collecting.contains(key) || !state.make_room(size, self.limits.total) {
            return None;
        }
        state.used += size;
        state.collecting.insert(key.clone());
        Some(Room {
            shelf: self.clone(),
            key: key.clone(),
            size,
        })
    }

    /// The same file, held when all of it went by and was right.
    fn collecting(&self, key: &Key, opened: Opened) -> Opened {
        let size = opened.stat.size;
        if opened.range != (0..size) {
            return opened;
        }
        let Some(room) = self.reserve(key, size) else {
            return opened;
        };
        let bytes = BytesMut::with_capacity(usize::try_from(size).unwrap_or_default());
        Opened {
            body: collect(opened.body, room, opened.stat, bytes),
            ..opened
        }
    }
}

/// Hands the body on and keeps a copy.
fn collect(body: Body, room: Room, stat: Stat, bytes: BytesMut) -> Body {
    stream::unfold((body, Some((room, bytes))), move |(mut body, mut copy)| async move {
        let piece = body.next().await;
        match &piece {
            Some(Ok(piece)) => {
                copy = copy.filter(|(room, bytes)| (bytes.len() + piece.len()) as u64 <= room.size);
                if let Some((_, bytes)) = &mut copy {
                    bytes.extend_from_slice(piece);
                }
            }
            Some(Err(_)) => copy = None,
            None => {}
        }
        // With the last piece, not after it: who has all bytes need not ask for more.
        if let Some((room, bytes)) = copy.take_if(|(room, bytes)| bytes.len() as u64 == room.size) {
            room.fill(bytes.freeze(), stat);
        }
        Some((piece?, (body, copy)))
    })
    .boxed()
}

/// A part of the bound for one file. Given back when it is dropped.
struct Room {
    shelf: Shelf,
    key: Key,
    size: u64,
}

impl Room {
    /// Holds the bytes, if they are those of the key.
    fn fill(mut self, bytes: Bytes, stat: Stat) {
        if bytes.len() as u64 != self.size || stat.size != self.size || Digest::of(&bytes) != self.key.digest() {
            return;
        }
        // What it takes of the bound is that of the file from now on.
        self.size = 0;
        let shelf = self.shelf.clone();
        let mut state = shelf.state();
        // Deleted meanwhile: then it is not wanted any more.
        if !state.collecting.contains(&self.key) {
            state.used -= stat.size;
            return;
        }
        state.clock += 1;
        let wanted = state.clock;
        let before = state.held.insert(self.key.clone(), Held { bytes, stat, wanted });
        if let Some(before) = before {
            state.used -= before.stat.size;
        }
        drop(state);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut state = self.shelf.state();
        state.used -= self.size;
        state.collecting.remove(&self.key);
    }
}
