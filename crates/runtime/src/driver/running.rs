//! The acts that go on now, so that what changes meanwhile is noticed at once, and no namespace has all the places.
//!
//! Invariants: a disturbance after an act began is never lost; one of an object without an act costs nothing; a namespace
//! never has more acts than it may.

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
    /// Most acts of one namespace; none: no bound.
    most: Option<usize>,
}

/// An act that goes on until this is dropped.
pub(super) struct Begun<'a> {
    running: &'a Running,
    key: &'a Key,
    notify: Arc<Notify>,
}

impl Running {
    /// With so many acts of one namespace at most.
    pub(crate) fn bounded(most: Option<usize>) -> Self {
        Self {
            most,
            ..Self::default()
        }
    }

    /// An act of this object begins; none when its namespace has no place left.
    pub(super) fn begin<'a>(&'a self, key: &'a Key) -> Option<Begun<'a>> {
        let notify = Arc::new(Notify::new());
        let mut acts = self.lock();
        if self.fills(&acts, key) {
            return None;
        }
        acts.insert(key.clone(), Arc::clone(&notify));
        Some(Begun {
            running: self,
            key,
            notify,
        })
    }

    /// Whether the object's namespace has no place left.
    pub(super) fn is_full(&self, key: &Key) -> bool {
        self.fills(&self.lock(), key)
    }

    fn fills(&self, acts: &HashMap<Key, Arc<Notify>>, key: &Key) -> bool {
        let same = || acts.keys().filter(|other| other.namespace == key.namespace).count();
        self.most.is_some_and(|most| same() >= most)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn key(namespace: &str, name: &str) -> Key {
        Key {
            namespace: Some(namespace.to_owned()),
            name: name.to_owned(),
        }
    }

    #[test]
    fn no_namespace_takes_the_places_of_another() {
        let running = Running::bounded(Some(2));
        let (a, b, c, other) = (key("a", "a"), key("a", "b"), key("a", "c"), key("b", "a"));
        let first = running.begin(&a).unwrap();
        let _second = running.begin(&b).unwrap();
        assert!(running.begin(&c).is_none() && running.is_full(&c));
        assert!(!running.is_full(&other));
        let _third = running.begin(&other).unwrap();
        drop(first);
        assert!(running.begin(&c).is_some());
    }

    #[tokio::test]
    async fn a_disturbance_before_it_is_waited_for_is_not_lost() {
        let running = Running::default();
        let a = key("a", "a");
        running.disturb(&a);
        let begun = running.begin(&a).unwrap();
        running.disturb(&a);
        begun.disturbed().await;
    }
}
