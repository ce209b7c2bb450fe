//! `Versions`: every version of one object, as a watch shows them.

use std::sync::{Arc, Mutex};

use futures::StreamExt;
use kube::{Api, runtime::watcher::watch_object};
use tokio::{sync::watch, task::JoinHandle};

use super::isolated::Kind;
use crate::lock;

/// Notes every version of one object until dropped; `None` stands for a time without the object.
///
/// A watch may merge nothing but may start late: versions before [`Isolated::versions`](super::Isolated::versions)
/// returned are not in it.
#[derive(Debug)]
pub struct Versions<K> {
    seen: Arc<Mutex<Vec<Option<K>>>>,
    changes: watch::Receiver<usize>,
    task: JoinHandle<()>,
}

impl<K: Kind> Versions<K> {
    pub(super) async fn of(api: Api<K>, name: &str) -> Self {
        let seen: Arc<Mutex<Vec<Option<K>>>> = Arc::default();
        let (changed, changes) = watch::channel(0);
        let (name, notes) = (name.to_owned(), Arc::clone(&seen));
        let task = tokio::spawn(async move {
            let mut states = watch_object(api, &name).boxed();
            while let Some(state) = states.next().await {
                // The watcher starts again by itself after an error.
                let Ok(object) = state else { continue };
                lock(&notes).push(object);
                changed.send_modify(|count| *count += 1);
            }
        });
        let mut versions = Self { seen, changes, task };
        versions.at_least(1).await;
        versions
    }

    /// Everything noted so far, oldest first.
    #[must_use]
    pub fn seen(&self) -> Vec<Option<K>> {
        lock(&self.seen).clone()
    }

    /// Waits until `count` versions are noted.
    pub async fn at_least(&mut self, count: usize) {
        // An error means that the task is gone; then nothing more will come.
        let _ = self.changes.wait_for(|seen| *seen >= count).await;
    }
}

impl<K> Drop for Versions<K> {
    fn drop(&mut self) {
        self.task.abort();
    }
}
