//! Objects of one kind that want the same thing: each has to know of the others, and to look again when one changes
//! its mind.
//!
//! ```text
//!  policy a ─┐
//!            ├─ contend for Service web ─▶ a changed: b is woken, and sees a
//!  policy b ─┘
//! ```
//!
//! Invariant: only a new spec, an end or a beginning wakes the others; a status does not.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use kube::{
    Resource,
    core::DeserializeGuard,
    runtime::reflector::{ObjectRef, Store},
};

use crate::{
    Error, Reference, Result,
    index::{Index, Key},
    shelf::Kind,
};

/// The objects of a controller, by what they contend for. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Peers<K: Kind> {
    stores: Vec<Store<DeserializeGuard<K>>>,
    contention: Arc<Mutex<Contention>>,
}

#[derive(Default)]
struct Contention {
    index: Index,
    /// What of an object concerns the others: its identity, its spec, and whether it is on its way out.
    states: HashMap<Key, State>,
}

type State = (Option<String>, Option<i64>, bool);

impl<K: Kind> Peers<K> {
    pub(crate) fn new(stores: Vec<Store<DeserializeGuard<K>>>) -> Self {
        Self {
            stores,
            contention: Arc::default(),
        }
    }

    /// The object changed, or went (`None`). Returns the others that have to look again.
    pub(crate) fn changed(&self, key: &Key, object: Option<(&K, Vec<Reference>)>) -> BTreeSet<Key> {
        let mut contention = self.contention.lock().unwrap_or_else(PoisonError::into_inner);
        let state = object.as_ref().map(|(object, _)| state(*object));
        if contention.states.get(key) == state.as_ref() {
            return BTreeSet::new();
        }
        let before: Vec<_> = contention.index.references(key).cloned().collect();
        match state {
            Some(state) => contention.states.insert(key.clone(), state),
            None => contention.states.remove(key),
        };
        let now = object.map(|(_, references)| references).unwrap_or_default();
        contention.index.set(key, now.iter().cloned());
        let concerned = before
            .iter()
            .chain(&now)
            .flat_map(|reference| contention.index.referrers(reference));
        concerned.filter(|other| *other != key).cloned().collect()
    }

    /// The objects that contend for any of these.
    pub(crate) fn contenders(&self, references: &[Reference]) -> Result<Vec<Arc<K>>> {
        let keys: BTreeSet<Key> = {
            let contention = self.contention.lock().unwrap_or_else(PoisonError::into_inner);
            references
                .iter()
                .flat_map(|reference| contention.index.referrers(reference))
                .cloned()
                .collect()
        };
        let mut found = Vec::new();
        for key in keys {
            let mut name = ObjectRef::<DeserializeGuard<K>>::new(&key.name);
            if let Some(namespace) = &key.namespace {
                name = name.within(namespace);
            }
            let Some(object) = self.stores.iter().find_map(|store| store.get(&name)) else {
                continue;
            };
            match &object.0 {
                Ok(object) => found.push(Arc::new(object.clone())),
                Err(invalid) => {
                    let object = format!("{} {key}", K::kind(&()));
                    return Err(Error::Unreadable {
                        object,
                        message: invalid.error.clone(),
                    });
                }
            }
        }
        Ok(found)
    }
}

fn state<K: Resource>(object: &K) -> State {
    let meta = object.meta();
    (meta.uid.clone(), meta.generation, meta.deletion_timestamp.is_some())
}
