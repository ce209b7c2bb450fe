//! `Locks`: one lock for each key that is being written or deleted.
//!
//! ```text
//!  put a ─┐            put b ──▶ runs at the same time
//!  put a ─┴▶ one after the other
//! ```
//!
//! Invariants: I/O on one key never waits for that on another; a lock lives as long as somebody holds or awaits it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::OwnedMutexGuard;

use crate::key::Key;

type Table = Arc<Mutex<HashMap<Key, Arc<tokio::sync::Mutex<()>>>>>;

/// The locks of a backend.
#[derive(Debug, Clone, Default)]
pub(crate) struct Locks(Table);

/// The right to write or delete one file, for as long as it lives. It may move to a thread that blocks.
pub(crate) struct Held {
    key: Key,
    table: Table,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Locks {
    /// Waits until nobody else holds the key.
    pub(crate) async fn hold(&self, key: &Key) -> Held {
        let lock = {
            let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(table.entry(key.clone()).or_default())
        };
        // Made before the wait, so that one who gives up waiting tidies the table too.
        let mut held = Held {
            guard: None,
            key: key.clone(),
            table: Arc::clone(&self.0),
        };
        held.guard = Some(lock.lock_owned().await);
        held
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.guard = None;
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        // One reference is the table's: nobody holds or awaits it.
        if table.get(&self.key).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            table.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_key_waits_another_does_not_and_nothing_stays() {
        let locks = Locks::default();
        let key = |name: &str| -> Key {
            format!("{name}/{}.tar.gz", crate::Digest::of(b"").hex())
                .parse()
                .unwrap()
        };
        let (a, b) = (key("a"), key("b"));
        let first = locks.hold(&a).await;
        let mut second = Box::pin(locks.hold(&a));
        assert!(futures::poll!(&mut second).is_pending());
        drop(locks.hold(&b).await);
        let mut third = Box::pin(locks.hold(&a));
        assert!(futures::poll!(&mut third).is_pending());
        drop(first);
        drop(third);
        drop(second.await);
        assert!(locks.0.lock().unwrap().is_empty());
    }
}
