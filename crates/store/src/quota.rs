//! `Quota`: a storage whose files may take so much together.
//!
//! ```text
//!  put ─▶ size + what lies there + what is on its way ≤ limit ? ─▶ backend │ NoSpace
//! ```
//!
//! What lies there is counted anew for each file that is stored: whoever else writes there, or removes something, counts.
//!
//! Invariant: what one process stores at a time does not exceed the limit; what was there before may.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::{TryStreamExt as _, stream::BoxStream};

use crate::{
    content::Content,
    error::{Error, Result},
    key::{Key, Prefix},
    storage::{Entry, Opened, Put, Stat, Storage, Verdict},
};

/// A storage with a limit. Cheap to clone; clones count together.
#[derive(Debug, Clone)]
pub struct Quota {
    backend: Arc<dyn Storage>,
    limit: u64,
    coming: Arc<AtomicU64>,
}

impl Quota {
    /// At most `limit` bytes of files in the backend.
    #[must_use]
    pub fn new(backend: Arc<dyn Storage>, limit: u64) -> Self {
        Self {
            backend,
            limit,
            coming: Arc::default(),
        }
    }

    /// Room for a file of that size, until it is dropped.
    async fn room(&self, key: &Key, size: u64) -> Result<Coming> {
        let before = self.coming.fetch_add(size, Ordering::SeqCst);
        let coming = Coming {
            all: Arc::clone(&self.coming),
            size,
        };
        let there = self.backend.list(&Prefix::root());
        let there = there.try_fold(0_u64, async |sum, entry| Ok(sum.saturating_add(entry.stat.size)));
        let sum = there.await?.saturating_add(before).saturating_add(size);
        if sum <= self.limit {
            return Ok(coming);
        }
        Err(Error::NoSpace {
            subject: key.to_string(),
            source: Full { limit: self.limit }.into(),
        })
    }
}

/// The limit is reached.
#[derive(Debug, thiserror::Error)]
#[error("all files together may take {limit} bytes (--storage-max-bytes)")]
struct Full {
    limit: u64,
}

/// What is on its way.
struct Coming {
    all: Arc<AtomicU64>,
    size: u64,
}

impl Drop for Coming {
    fn drop(&mut self) {
        self.all.fetch_sub(self.size, Ordering::SeqCst);
    }
}

#[async_trait]
impl Storage for Quota {
    fn name(&self) -> &'static str {
        self.backend.name()
    }

    /// A stream, whose size nobody knows, needs what is left to be more than nothing.
    async fn put(&self, key: &Key, content: Content) -> Result<Put> {
        let size = content.size().await.map_err(|source| Error::Content {
            subject: key.to_string(),
            source,
        })?;
        // One that is there takes nothing more.
        let _coming = match self.backend.head(key).await? {
            Some(stat) if size.is_none_or(|size| size <= stat.size) => None,
            _ => Some(self.room(key, size.unwrap_or(1)).await?),
        };
        self.backend.put(key, content).await
    }

    async fn open(&self, key: &Key, range: Option<Range<u64>>) -> Result<Opened> {
        self.backend.open(key, range).await
    }

    async fn head(&self, key: &Key) -> Result<Option<Stat>> {
        self.backend.head(key).await
    }

    fn list(&self, prefix: &Prefix) -> BoxStream<'static, Result<Entry>> {
        self.backend.list(prefix)
    }

    async fn delete(&self, key: &Key) -> Result<bool> {
        self.backend.delete(key).await
    }

    async fn verify(&self, key: &Key) -> Result<Verdict> {
        self.backend.verify(key).await
    }

    async fn presigned(&self, key: &Key, valid: Duration) -> Result<Option<String>> {
        self.backend.presigned(key, valid).await
    }
}
