//! What differs between two states of a cluster: what is stored, and what calls get.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource as _, ResourceExt as _};
use serde::Serialize;
use serde_json::Value;

use crate::{
    Cluster, Explanation,
    adopt::sections::union,
    explain, owner,
    route::Route,
    shown::{FIELD, cut},
};

/// What differs.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Diff {
    /// Objects: annotations of those of users, everything of those that are made for policies.
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
    pub annotations: Changes,
    /// Fields of the spec of what policies make, by their paths: before and after.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: Changes,
}

/// Values by name, before and after; absent where there is none, and cut beyond [`FIELD`].
pub type Changes = BTreeMap<String, (Option<String>, Option<String>)>;

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

/// An object as far as it is compared.
#[derive(Default)]
struct Stored {
    annotations: BTreeMap<String, String>,
    fields: BTreeMap<String, String>,
}

fn objects(before: &Cluster, after: &Cluster) -> Vec<ObjectChange> {
    let (mut old, mut new) = (stored(before), stored(after));
    let names: BTreeSet<String> = old.keys().chain(new.keys()).cloned().collect();
    let mut changes = Vec::new();
    for object in names {
        let (was, is) = (old.remove(&object), new.remove(&object));
        let change = match (&was, &is) {
            (None, _) => Change::Added,
            (_, None) => Change::Removed,
            _ => Change::Changed,
        };
        let (was, is) = (was.unwrap_or_default(), is.unwrap_or_default());
        let annotations = changed(&was.annotations, &is.annotations);
        let fields = changed(&was.fields, &is.fields);
        if change != Change::Changed || !annotations.is_empty() || !fields.is_empty() {
            changes.push(ObjectChange {
                object,
                change,
                annotations,
                fields,
            });
        }
    }
    changes
}

fn changed(was: &BTreeMap<String, String>, is: &BTreeMap<String, String>) -> Changes {
    let keys: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
    keys.into_iter()
        .map(|key| (key.clone(), (was.get(key).cloned(), is.get(key).cloned())))
        .filter(|(_, (was, is))| was != is)
        .map(|(key, (was, is))| {
            let bounded = |value: Option<String>| value.map(|value| cut(&value, FIELD));
            (key, (bounded(was), bounded(is)))
        })
        .collect()
}

/// What is compared, by object.
fn stored(cluster: &Cluster) -> BTreeMap<String, Stored> {
    let named = |kind: &str, meta: &ObjectMeta| {
        let (namespace, name) = (meta.namespace.as_deref(), meta.name.as_deref());
        format!("{kind} {}/{}", namespace.unwrap_or_default(), name.unwrap_or_default())
    };
    let of = |kind: &str, meta: &ObjectMeta, fields| {
        let annotations = linkerds(meta);
        (named(kind, meta), Stored { annotations, fields })
    };
    let services = cluster
        .services
        .iter()
        .map(|it| of("Service", it.meta(), BTreeMap::new()));
    let networks = cluster
        .egress_networks
        .iter()
        .map(|it| of("EgressNetwork", it.meta(), BTreeMap::new()));
    let routes = cluster.routes().map(|it| {
        let spec = match it {
            Route::Http(route) => leaves(&route.spec),
            Route::Grpc(route) => leaves(&route.spec),
            Route::Linkerd(_) => BTreeMap::new(),
        };
        let fields = made(it.meta(), spec);
        let annotations = linkerds(it.meta());
        (it.full_name().to_string(), Stored { annotations, fields })
    });
    let servers = cluster
        .servers
        .iter()
        .map(|it| of("Server", it.meta(), made(it.meta(), leaves(&it.spec))));
    let limits = cluster
        .rate_limits
        .iter()
        .map(|it| of("HTTPLocalRateLimitPolicy", it.meta(), made(it.meta(), leaves(&it.spec))));
    services
        .chain(networks)
        .chain(routes)
        .chain(servers)
        .chain(limits)
        .collect()
}

/// What users made is theirs to compare.
fn made(meta: &ObjectMeta, fields: BTreeMap<String, String>) -> BTreeMap<String, String> {
    if owner::made_for(meta).is_some() {
        fields
    } else {
        BTreeMap::new()
    }
}

/// The values in a tree, by their paths: `rules[0].matches[0].path.value`.
fn leaves(tree: &impl Serialize) -> BTreeMap<String, String> {
    fn walk(at: &str, value: &Value, into: &mut BTreeMap<String, String>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    let path = if at.is_empty() {
                        name.clone()
                    } else {
                        format!("{at}.{name}")
                    };
                    walk(&path, value, into);
                }
            }
            Value::Array(items) => {
                for (index, value) in items.iter().enumerate() {
                    walk(&format!("{at}[{index}]"), value, into);
                }
            }
            Value::Null => {}
            Value::String(text) => drop(into.insert(at.to_owned(), text.clone())),
            other => drop(into.insert(at.to_owned(), other.to_string())),
        }
    }
    let mut found = BTreeMap::new();
    walk("", &serde_json::to_value(tree).unwrap_or_default(), &mut found);
    found
}

fn linkerds(meta: &ObjectMeta) -> BTreeMap<String, String> {
    let all = meta.annotations.iter().flatten();
    all.filter(|(key, _)| {
        key.split_once('/')
            .is_some_and(|(domain, _)| domain.ends_with("linkerd.io"))
    })
    .map(|(key, value)| (key.clone(), value.clone()))
    .collect()
}

fn calls(before: &Cluster, after: &Cluster) -> Vec<CallChange> {
    let mut asked: BTreeSet<(String, String, u16, String)> = BTreeSet::new();
    for cluster in [before, after] {
        for service in &cluster.services {
            let (namespace, name) = (service.namespace().unwrap_or_default(), service.name_any());
            let mut clients = BTreeSet::from([namespace.clone()]);
            clients.extend(cluster.routes_of(&namespace, &name).filter_map(|route| {
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

impl CallChange {
    /// What calls get otherwise, by where it stands in an [`Explanation`].
    #[must_use]
    pub fn fields(&self) -> Changes {
        let of = |told: &Option<Box<Explanation>>| told.as_deref().map(|told| leaves(&effect(told)));
        changed(
            &of(&self.before).unwrap_or_default(),
            &of(&self.after).unwrap_or_default(),
        )
    }
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
