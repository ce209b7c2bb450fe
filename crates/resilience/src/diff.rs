//! What differs between two states of a cluster: what is stored, and what calls get.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource as _, ResourceExt as _};
use serde::Serialize;
use serde_json::Value;

use crate::{Cluster, Explanation, adopt::sections::union, explain};

/// What differs.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Diff {
    /// Annotations and objects.
    pub objects: Vec<ObjectChange>,
    /// What calls get.
    pub calls: Vec<CallChange>,
}

/// What differs at one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ObjectChange {
    /// The object, as `Kind namespace/name`.
    pub object: String,
    /// Whether it is there in only one of the states.
    pub change: Change,
    /// Annotations of Linkerd: before and after.
    pub annotations: BTreeMap<String, (Option<String>, Option<String>)>,
}

/// How an object differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Change {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It is in both.
    Changed,
}

/// What calls get at one port, from one namespace, before and after.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CallChange {
    /// Before; absent if there was no such Service.
    pub before: Option<Box<Explanation>>,
    /// After; absent if there is no such Service.
    pub after: Option<Box<Explanation>>,
}

/// What differs. Who wrote a value is no difference, as long as it is the same value.
#[must_use]
pub fn diff(before: &Cluster, after: &Cluster) -> Diff {
    Diff {
        objects: objects(before, after),
        calls: calls(before, after),
    }
}

type Stored<'a> = BTreeMap<String, BTreeMap<&'a str, &'a str>>;

fn objects(before: &Cluster, after: &Cluster) -> Vec<ObjectChange> {
    let (old, new) = (stored(before), stored(after));
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let mut changes = Vec::new();
    for name in names {
        let (was, is) = (old.get(name), new.get(name));
        let change = match (was, is) {
            (None, _) => Change::Added,
            (_, None) => Change::Removed,
            _ => Change::Changed,
        };
        let get = |from: Option<&BTreeMap<&str, &str>>, key: &str| {
            from.and_then(|all| all.get(key)).map(|value| (*value).to_owned())
        };
        let keys: BTreeSet<&str> = [was, is]
            .into_iter()
            .flatten()
            .flat_map(|all| all.keys().copied())
            .collect();
        let annotations: BTreeMap<String, _> = keys
            .into_iter()
            .map(|key| (key.to_owned(), (get(was, key), get(is, key))))
            .filter(|(_, (was, is))| was != is)
            .collect();
        if change != Change::Changed || !annotations.is_empty() {
            changes.push(ObjectChange {
                object: name.clone(),
                change,
                annotations,
            });
        }
    }
    changes
}

/// Annotations of Linkerd, by object.
fn stored(cluster: &Cluster) -> Stored<'_> {
    let named = |kind: &str, meta: &ObjectMeta| {
        let (namespace, name) = (meta.namespace.as_deref(), meta.name.as_deref());
        format!("{kind} {}/{}", namespace.unwrap_or_default(), name.unwrap_or_default())
    };
    let of = |kind: &str, meta| (named(kind, meta), linkerds(meta));
    let services = cluster.services.iter().map(|it| of("Service", it.meta()));
    let networks = cluster.egress_networks.iter().map(|it| of("EgressNetwork", it.meta()));
    let routes = cluster
        .routes()
        .map(|it| (it.full_name().to_string(), linkerds(it.meta())));
    services.chain(networks).chain(routes).collect()
}

fn linkerds(meta: &ObjectMeta) -> BTreeMap<&str, &str> {
    let all = meta.annotations.iter().flatten();
    all.filter(|(key, _)| {
        key.split_once('/')
            .is_some_and(|(domain, _)| domain.ends_with("linkerd.io"))
    })
    .map(|(key, value)| (key.as_str(), value.as_str()))
    .collect()
}

fn calls(before: &Cluster, after: &Cluster) -> Vec<CallChange> {
    let mut asked: BTreeSet<(String, String, u16, String)> = BTreeSet::new();
    for cluster in [before, after] {
        for service in &cluster.services {
            let (namespace, name) = (service.namespace().unwrap_or_default(), service.name_any());
            let mut clients = BTreeSet::from([namespace.clone()]);
            clients.extend(cluster.routes().filter_map(|route| {
                let mut parents = route.parents().iter();
                let attached = parents.any(|parent| route.is_parent(parent, "Service", &namespace, &name));
                attached.then(|| route.namespace())
            }));
            let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
            for port in ports.filter_map(|port| u16::try_from(port.port).ok()) {
                asked.extend(
                    clients
                        .iter()
                        .map(|client| (namespace.clone(), name.clone(), port, client.clone())),
                );
            }
        }
    }
    let mut changes = Vec::new();
    for (namespace, name, port, client) in asked {
        let told = |cluster| explain(cluster, &namespace, &name, port, &client).ok().map(Box::new);
        let (was, is) = (told(before), told(after));
        if was.as_deref().map(effect) != is.as_deref().map(effect) {
            changes.push(CallChange { before: was, after: is });
        }
    }
    changes
}

/// The values of an explanation, without their origins and without remarks; statuses as sets, whose spelling and order
/// make no difference.
#[must_use]
pub fn effect(explanation: &Explanation) -> Value {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.retain(|name, _| name != "origins" && name != "notes" && name != "message");
                fields.values_mut().for_each(strip);
            }
            Value::Array(items) => items.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let mut explanation = explanation.clone();
    for retry in explanation.rules.iter_mut().filter_map(|rule| rule.retry.as_mut()) {
        retry.values.statuses = union(std::mem::take(&mut retry.values.statuses));
        retry.values.codes.sort_unstable();
        retry.values.codes.dedup();
    }
    let mut value = serde_json::to_value(explanation).unwrap_or_default();
    strip(&mut value);
    value
}
