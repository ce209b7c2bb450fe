//! `Listed`: objects in the order in which they came, found by a key without a look at all of them.
//!
//! ```text
//!  Vec of objects ─▶ the keys of each ─▶ sorted at the first question ─▶ binary search
//! ```
//!
//! Invariant: a change of the list forgets what was sorted, so that what is found is what is there.

use std::{
    ops::{Deref, DerefMut},
    sync::OnceLock,
};

use k8s_openapi::api::core::v1::Service;
use kube::Resource;
use trellis_api::{ResiliencePolicy, TargetKind};
use trellis_bindings::{
    gateway::{GrpcRoute, HttpRoute, ParentRef},
    linkerd::{
        ServiceProfile,
        policy::{EgressNetwork, LinkerdHttpRoute, Server},
    },
};

/// A namespace and a name.
pub type Key<'a> = (&'a str, &'a str);

/// What is asked for by a key.
pub trait Keyed {
    /// Its key of this number; they are numbered from 0, without gaps.
    fn key(&self, number: usize) -> Option<Key<'_>>;
}

/// A list that is used like a `Vec`.
#[derive(Debug, Clone)]
pub struct Listed<K> {
    all: Vec<K>,
    /// Index in the list and number of the key, by key and then in the order of the list.
    sorted: OnceLock<Vec<(usize, usize)>>,
}

impl<K: Keyed> Listed<K> {
    /// Those with this key, in the order of the list.
    pub fn with(&self, key: Key<'_>) -> impl Iterator<Item = &K> + use<'_, K> {
        let sorted = self.sorted.get_or_init(|| self.sorted());
        let from = sorted.partition_point(|place| self.key(*place) < Some(key));
        let rest = sorted.get(from..).unwrap_or_default();
        let found = rest.get(..rest.partition_point(|place| self.key(*place) == Some(key)));
        let mut found: Vec<usize> = found.unwrap_or_default().iter().map(|(at, _)| *at).collect();
        // A route may name a Service more than once.
        found.dedup();
        found.into_iter().filter_map(|at| self.all.get(at))
    }

    fn key(&self, (at, number): (usize, usize)) -> Option<Key<'_>> {
        self.all.get(at)?.key(number)
    }

    fn sorted(&self) -> Vec<(usize, usize)> {
        let of = |(at, object): (usize, &K)| {
            let keys = (0..).take_while(|number| object.key(*number).is_some());
            keys.map(|number| (at, number)).collect::<Vec<_>>()
        };
        let mut sorted: Vec<(usize, usize)> = self.all.iter().enumerate().flat_map(of).collect();
        sorted.sort_by(|a, b| self.key(*a).cmp(&self.key(*b)));
        sorted
    }
}

impl<K> Default for Listed<K> {
    fn default() -> Self {
        Vec::new().into()
    }
}

impl<K> From<Vec<K>> for Listed<K> {
    fn from(all: Vec<K>) -> Self {
        Self {
            all,
            sorted: OnceLock::new(),
        }
    }
}

impl<K, const N: usize> From<[K; N]> for Listed<K> {
    fn from(all: [K; N]) -> Self {
        Vec::from(all).into()
    }
}

impl<K> FromIterator<K> for Listed<K> {
    fn from_iter<I: IntoIterator<Item = K>>(all: I) -> Self {
        all.into_iter().collect::<Vec<_>>().into()
    }
}

impl<K> Deref for Listed<K> {
    type Target = Vec<K>;

    fn deref(&self) -> &Vec<K> {
        &self.all
    }
}

impl<K> DerefMut for Listed<K> {
    fn deref_mut(&mut self) -> &mut Vec<K> {
        self.sorted.take();
        &mut self.all
    }
}

impl<K> IntoIterator for Listed<K> {
    type Item = K;
    type IntoIter = std::vec::IntoIter<K>;

    fn into_iter(self) -> Self::IntoIter {
        self.all.into_iter()
    }
}

impl<'a, K> IntoIterator for &'a Listed<K> {
    type Item = &'a K;
    type IntoIter = std::slice::Iter<'a, K>;

    fn into_iter(self) -> Self::IntoIter {
        self.all.iter()
    }
}

impl<'a, K> IntoIterator for &'a mut Listed<K> {
    type Item = &'a mut K;
    type IntoIter = std::slice::IterMut<'a, K>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}

fn of<K: Resource>(object: &K) -> Key<'_> {
    let meta = object.meta();
    (
        meta.namespace.as_deref().unwrap_or_default(),
        meta.name.as_deref().unwrap_or_default(),
    )
}

/// By their namespaces and names.
macro_rules! by_name {
    ($($kind:ty),+) => {$(
        impl Keyed for $kind {
            fn key(&self, number: usize) -> Option<Key<'_>> {
                (number == 0).then(|| of(self))
            }
        }
    )+};
}

by_name!(Service, EgressNetwork, Server);

impl Keyed for ServiceProfile {
    /// By the name alone, which says the Service's namespace.
    fn key(&self, number: usize) -> Option<Key<'_>> {
        (number == 0).then(|| ("", of(self).1))
    }
}

fn parent<'a>(parents: &'a [ParentRef], number: usize, (own, _): Key<'a>) -> Option<Key<'a>> {
    let parent = parents.get(number)?;
    Some((parent.namespace.as_deref().unwrap_or(own), parent.name.as_str()))
}

/// By what they are attached to, of whatever kind that is.
macro_rules! by_parent {
    ($($kind:ty),+) => {$(
        impl Keyed for $kind {
            fn key(&self, number: usize) -> Option<Key<'_>> {
                parent(&self.spec.parent_refs, number, of(self))
            }
        }
    )+};
}

by_parent!(HttpRoute, GrpcRoute, LinkerdHttpRoute);

impl Keyed for ResiliencePolicy {
    /// By what it names in its namespace; a policy for many Services by an empty name.
    fn key(&self, number: usize) -> Option<Key<'_>> {
        let target = self.spec.target_ref.as_ref();
        let named = target.filter(|target| target.kind != TargetKind::Namespace && self.spec.target_selector.is_none());
        let name = named.map_or("", |target| target.name.as_str());
        (number == 0).then(|| (of(self).0, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(namespace: &str, name: &str) -> Service {
        let metadata = serde_json::json!({"namespace": namespace, "name": name});
        serde_json::from_value(serde_json::json!({"metadata": metadata})).expect("a Service")
    }

    fn names<'a>(found: impl Iterator<Item = &'a Service>) -> Vec<(&'a str, &'a str)> {
        found.map(of).collect()
    }

    #[test]
    fn what_is_there_is_found_after_any_change() {
        let mut listed: Listed<Service> = ["c", "a", "b"].map(|name| service("shop", name)).to_vec().into();
        assert_eq!(names(listed.with(("shop", "a"))), [("shop", "a")]);
        assert_eq!(names(listed.with(("bank", "a"))), []);
        listed.push(service("bank", "a"));
        assert_eq!(names(listed.with(("bank", "a"))), [("bank", "a")]);
        for service in &mut listed {
            service.metadata.namespace = Some("bank".into());
        }
        assert_eq!(listed.with(("bank", "a")).count(), 2);
        listed.retain(|service| service.metadata.name.as_deref() != Some("a"));
        assert_eq!(listed.with(("bank", "a")).count(), 0);
        assert_eq!(names(listed.with(("bank", "c"))), [("bank", "c")]);
    }

    #[test]
    fn a_route_is_found_once_by_each_of_its_parents() {
        let route = |name: &str, parents: &serde_json::Value| -> HttpRoute {
            let metadata = serde_json::json!({"namespace": "shop", "name": name});
            let spec = serde_json::json!({"parentRefs": parents});
            serde_json::from_value(serde_json::json!({"metadata": metadata, "spec": spec})).expect("a route")
        };
        let (twice, other) = (
            serde_json::json!([{"name": "web", "port": 1}, {"name": "web", "port": 2}, {"name": "web", "namespace": "bank"}]),
            serde_json::json!([{"name": "db"}, {"name": "web"}]),
        );
        let listed: Listed<HttpRoute> = vec![
            route("b", &twice),
            route("none", &serde_json::json!([])),
            route("a", &other),
        ]
        .into();
        let found = |key| listed.with(key).map(|route| of(route).1).collect::<Vec<_>>();
        assert_eq!(found(("shop", "web")), ["b", "a"]);
        assert_eq!(found(("bank", "web")), ["b"]);
        assert_eq!(found(("shop", "db")), ["a"]);
    }
}
