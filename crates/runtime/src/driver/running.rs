//! The acts that go on now, so that what changes meanwhile is noticed at once.
//!
//! Invariant: a disturbance after an act began is never lost; one of an object without an act costs nothing.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::index::Key;

/// The acts that go on, by their object; an object has one at most.
#[derive(Debug, Default)]
pub(crate) struct Running {
    of: Mutex<HashMap<Key, Arc<Notify>>>,
}

/// An act that goes on until this is dropped.
pub(super) struct Begun<'a> {
    running: &'a Running,
    key: &'a Key,
    notify: Arc<Notify>,
}

impl Running {
    /// An act of this object begins.
    pub(super) fn begin<'a>(&'a self, key: &'a Key) -> Begun<'a> {
        let notify = Arc::new(Notify::new());
        self.lock().insert(key.clone(), Arc::clone(&notify));
        Begun {
            running: self,
            key,
            notify,
        }
    }

    /// The object, or one that it refers to, is another than it was.
    pub(crate) fn disturb(&self, key: &Key) {
        if let Some(notify) = self.lock().get(key) {
            notify.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Arc<Notify>>> {
        self.of.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Begun<'_> {
    /// Waits for the next disturbance.
    pub(super) async fn disturbed(&self) {
        self.notify.notified().await;
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.running.lock().remove(self.key);
    }
}
