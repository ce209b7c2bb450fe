//! Who refers to what: the index that turns an event of any watched object into the few objects it concerns.
//!
//! ```text
//!  Service default/web ──┐
//!                        ├─▶ ResiliencePolicy default/web-policy
//!  ConfigMap linkerd/… ──┘
//! ```
//!
//! Invariant: a look-up costs what it finds, never what exists.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
};

use kube::{Resource, core::ApiResource};

/// One object that another one depends on, whether or not it exists. Versions of a kind are the same kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    /// API group; empty for the core group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Namespace; none for cluster-scoped objects.
    pub namespace: Option<String>,
    /// Name; [`Reference::ANY`] for every object of the kind in the namespace.
    pub name: String,
}

/// `namespace/name` of an object of the controller's own kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Namespace; none for cluster-scoped objects.
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
}

/// References in both directions.
#[derive(Debug, Default)]
pub struct Index {
    forward: HashMap<Key, BTreeSet<Reference>>,
    backward: HashMap<Reference, BTreeSet<Key>>,
}

/// What an update of the index changed about the set of referenced objects.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Referenced now, by nobody before.
    pub gained: Vec<Reference>,
    /// Referenced before, by nobody now.
    pub lost: Vec<Reference>,
}

impl Reference {
    /// The name that stands for every name. No object can have it.
    pub const ANY: &str = "*";

    /// Every object of a kind in a namespace, whether or not there is any.
    #[must_use]
    pub fn any<K: Resource<DynamicType = ()>>(namespace: Option<&str>) -> Self {
        Self::to::<K>(namespace, Self::ANY)
    }

    /// The one that stands for this object and all of its kind in its namespace.
    fn widened(&self) -> Self {
        Self {
            name: Self::ANY.into(),
            ..self.clone()
        }
    }

    /// An object of a kind known at compile time.
    #[must_use]
    pub fn to<K: Resource<DynamicType = ()>>(namespace: Option<&str>, name: &str) -> Self {
        Self {
            group: K::group(&()).into_owned(),
            kind: K::kind(&()).into_owned(),
            namespace: namespace.map(Into::into),
            name: name.into(),
        }
    }

    /// An object of a kind known at run time.
    #[must_use]
    pub fn new(resource: &ApiResource, namespace: Option<&str>, name: &str) -> Self {
        Self {
            group: resource.group.clone(),
            kind: resource.kind.clone(),
            namespace: namespace.map(Into::into),
            name: name.into(),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(out, "{} {namespace}/{}", self.kind, self.name),
            None => write!(out, "{} {}", self.kind, self.name),
        }
    }
}

impl Key {
    /// The key of an object.
    #[must_use]
    pub fn of<K: Resource>(object: &K) -> Self {
        let meta = object.meta();
        Self {
            namespace: meta.namespace.clone(),
            name: meta.name.clone().unwrap_or_default(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(out, "{namespace}/{}", self.name),
            None => out.write_str(&self.name),
        }
    }
}

impl Index {
    /// `key` refers to exactly these objects from now on.
    pub fn set(&mut self, key: &Key, references: impl IntoIterator<Item = Reference>) -> Changed {
        let new: BTreeSet<Reference> = references.into_iter().collect();
        let old = self.forward.remove(key).unwrap_or_default();
        let mut changed = Changed::default();
        for reference in old.difference(&new) {
            if let Some(keys) = self.backward.get_mut(reference) {
                keys.remove(key);
                if keys.is_empty() {
                    self.backward.remove(reference);
                    changed.lost.push(reference.clone());
                }
            }
        }
        for reference in new.difference(&old) {
            let keys = self.backward.entry(reference.clone()).or_default();
            if keys.is_empty() {
                changed.gained.push(reference.clone());
            }
            keys.insert(key.clone());
        }
        if !new.is_empty() {
            self.forward.insert(key.clone(), new);
        }
        changed
    }

    /// `key` is gone.
    pub fn forget(&mut self, key: &Key) -> Changed {
        self.set(key, [])
    }

    /// Who refers to this object, by its name or with all of its kind. For [`Reference::ANY`]: who refers to any of
    /// them. Sorted, each once.
    #[must_use]
    pub fn referrers(&self, reference: &Reference) -> BTreeSet<&Key> {
        if reference.name == Reference::ANY {
            let same = |other: &&Reference| other.widened() == *reference;
            return self
                .backward
                .keys()
                .filter(same)
                .filter_map(|other| self.backward.get(other))
                .flatten()
                .collect();
        }
        let widened = self.backward.get(&reference.widened());
        self.backward
            .get(reference)
            .into_iter()
            .chain(widened)
            .flatten()
            .collect()
    }

    /// Everything that is referred to.
    pub fn referenced(&self) -> impl Iterator<Item = &Reference> {
        self.backward.keys()
    }

    /// What `key` refers to.
    pub fn references(&self, key: &Key) -> impl Iterator<Item = &Reference> {
        self.forward.get(key).into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(n: u8) -> Key {
        Key {
            namespace: Some("ns".into()),
            name: format!("k{n}"),
        }
    }

    fn reference(n: u8) -> Reference {
        Reference {
            group: String::new(),
            kind: "Service".into(),
            namespace: Some("ns".into()),
            name: format!("r{n}"),
        }
    }

    #[test]
    fn all_of_a_kind_are_referred_to_together() {
        let mut index = Index::default();
        let any = Reference {
            name: Reference::ANY.into(),
            ..reference(0)
        };
        index.set(&key(1), [any.clone()]);
        index.set(&key(2), [reference(7)]);
        index.set(
            &key(3),
            [Reference {
                namespace: Some("other".into()),
                ..reference(7)
            }],
        );
        let found = |reference: &Reference| index.referrers(reference).into_iter().cloned().collect::<Vec<_>>();
        assert_eq!(found(&reference(7)), [key(1), key(2)]);
        assert_eq!(found(&reference(8)), [key(1)]);
        assert_eq!(found(&any), [key(1), key(2)]);
    }

    proptest! {
        /// Both directions agree with a plain map after any sequence of updates, and gained/lost track its domain.
        #[test]
        fn index_equals_a_plain_map(steps in prop::collection::vec((0_u8..6, prop::collection::btree_set(0_u8..6, 0..4)), 0..40)) {
            let mut index = Index::default();
            let mut plain: HashMap<u8, BTreeSet<u8>> = HashMap::new();
            let mut known: BTreeSet<Reference> = BTreeSet::new();
            for (k, refs) in steps {
                let changed = index.set(&key(k), refs.iter().map(|r| reference(*r)));
                plain.insert(k, refs);
                for lost in &changed.lost { prop_assert!(known.remove(lost)); }
                for gained in &changed.gained { prop_assert!(known.insert(gained.clone())); }
                let expected: BTreeSet<Reference> = plain.values().flatten().map(|r| reference(*r)).collect();
                prop_assert_eq!(&known, &expected);
                for r in 0..6 {
                    let found: BTreeSet<Key> = index.referrers(&reference(r)).into_iter().cloned().collect();
                    let wanted: BTreeSet<Key> = plain.iter().filter(|(_, refs)| refs.contains(&r)).map(|(k, _)| key(*k)).collect();
                    prop_assert_eq!(found, wanted);
                }
            }
        }
    }
}
