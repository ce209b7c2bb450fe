//! One kind, watched: its store, and what a change of it sets off.
//!
//! Invariant: one object that does not parse neither stops a watch nor hides the others.

use std::{any::Any, collections::BTreeMap, fmt::Debug, sync::Arc, time::Duration};

use futures::{StreamExt as _, future::BoxFuture};
use k8s_openapi::{NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, Client, Resource,
    core::{ApiResource, DeserializeGuard},
    runtime::{WatchStreamExt as _, reflector::store::Writer, watcher},
};
use serde::{Deserialize as _, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{
    Error, Reference, Result,
    index::Key,
    written::{Written, revision},
};

mod broad;
mod named;

pub(crate) use broad::Broad;
pub(crate) use named::Named;

/// What a kind must be able to do to be watched.
pub trait Kind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + DeserializeOwned
    + Serialize
    + Clone
    + Debug
    + Send
    + Sync
    + 'static
{
}

impl<K> Kind for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + DeserializeOwned
        + Serialize
        + Clone
        + Debug
        + Send
        + Sync
        + 'static
{
}

/// Called for every change of a watched object: what it is, and how it stands.
pub(crate) type OnChange = Arc<dyn Fn(&Reference, Change<&ObjectMeta>) + Send + Sync>;

/// What every shelf of a controller needs.
#[derive(Clone)]
pub(crate) struct Scene {
    pub(crate) client: Client,
    /// Namespaces that are served; empty: all.
    pub(crate) namespaces: Vec<String>,
    pub(crate) written: Arc<Written>,
    pub(crate) on_change: OnChange,
}

/// How a watched object stands, with what is known of it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Change<T> {
    /// It is there.
    Present(T),
    /// It is not there (any more); as it was last seen, if it was.
    Gone(Option<T>),
}

impl<T> Change<T> {
    pub(crate) fn map<U>(self, map: impl FnOnce(T) -> U) -> Change<U> {
        match self {
            Self::Present(object) => Change::Present(map(object)),
            Self::Gone(last) => Change::Gone(last.map(map)),
        }
    }

    /// The object, if it is there.
    pub(crate) fn present(self) -> Option<T> {
        match self {
            Self::Present(object) => Some(object),
            Self::Gone(_) => None,
        }
    }

    /// The object as last seen.
    pub(crate) fn last(self) -> Option<T> {
        match self {
            Self::Present(object) => Some(object),
            Self::Gone(last) => last,
        }
    }
}

/// What is known of an object without asking the API server.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Sight {
    /// Nothing: it is not watched.
    Unwatched,
    /// Nothing, but it would be watched if it were what it should be: it may be absent, or have lost its label.
    Unlisted,
    /// It does not exist.
    Absent,
    /// It is this.
    Present(Value),
}

/// A watched kind, whatever its type.
pub(crate) trait AnyShelf: Send + Sync {
    fn as_any(&self) -> &dyn Any;
    fn resource(&self) -> &ApiResource;
    /// The object is referenced from now on, or not any more. Only kinds watched by name care.
    fn want(&self, reference: &Reference, wanted: bool);
    /// The object as last seen.
    fn peek<'a>(&'a self, reference: &'a Reference) -> BoxFuture<'a, Result<Sight>>;
    fn ready(&self) -> BoxFuture<'_, ()>;
    /// The objects of the kind that speak about this one.
    fn speakers(&self, reference: &Reference) -> Vec<Reference>;
}

type Guarded<K> = DeserializeGuard<K>;

/// How long a read waits for a first list. A kind that cannot be listed must not hold up objects for ever.
const PATIENCE: Duration = Duration::from_secs(10);

/// Drops what no reader needs: bookkeeping is most of an object's size. What is kept as it is are the managers under which
/// an object of ours applies others ([`crate::apply::manager`]); the one of finalizers and status is not, although
/// each status comes with it. Of the rest, only which annotations they own is kept, since annotations are what we
/// share objects by.
fn trim<K: Resource>(object: &mut K) {
    let Some(managed) = object.meta_mut().managed_fields.as_mut() else {
        return;
    };
    managed.retain_mut(|entry| {
        if entry
            .manager
            .as_deref()
            .is_some_and(|manager| manager.starts_with("trellis-") && manager.contains('/'))
        {
            return true;
        }
        let fields = entry.fields_v1.as_mut().map(|fields| &mut fields.0);
        let annotations = fields
            .as_ref()
            .and_then(|fields| fields.pointer("/f:metadata/f:annotations"))
            .cloned();
        let (Some(fields), Some(annotations)) = (fields, annotations) else {
            return false;
        };
        *fields = json!({ "f:metadata": { "f:annotations": annotations } });
        true
    });
}

/// Whether `on_event` of [`follow`] has heard of the whole first list. Then the store is ready too, and so is what is kept
/// beside it.
#[derive(Clone)]
pub(crate) struct Heard(watch::Receiver<bool>);

impl Heard {
    /// To be set by [`follow`], and to be waited for.
    pub(crate) fn channel() -> (watch::Sender<bool>, Self) {
        let (heard, waiting) = watch::channel(false);
        (heard, Self(waiting))
    }

    /// Waits; `false` when the watch ended before.
    pub(crate) async fn first_list(&self) -> bool {
        self.0.clone().wait_for(|heard| *heard).await.is_ok()
    }
}

/// Watches one kind in one namespace (or all) into a store. `on_event` hears of every object that appeared, changed
/// or went, also of those that went while the watch was down; `heard` tells when that was the whole first list.
pub(crate) fn follow<K: Kind, F>(
    scene: &Scene,
    namespace: Option<&str>,
    selector: Option<&str>,
    mut writer: Writer<Guarded<K>>,
    heard: watch::Sender<bool>,
    mut on_event: F,
) -> impl Future<Output = ()> + Send + use<K, F>
where
    F: FnMut(&Key, Change<&Guarded<K>>) + Send,
{
    let mut config = watcher::Config::default();
    if let Some(selector) = selector {
        config = config.labels(selector);
    }
    let mut events = Box::pin(
        watcher(api::<K>(&scene.client, namespace), config)
            .default_backoff()
            .modify(trim),
    );
    let written = Arc::clone(&scene.written);
    let kind = Reference::to::<K>(namespace, "");
    let ours = move |other: &Reference| {
        (&other.group, &other.kind) == (&kind.group, &kind.kind)
            && (kind.namespace.is_none() || kind.namespace == other.namespace)
    };
    async move {
        let reference = |key: &Key| Reference::to::<K>(key.namespace.as_deref(), &key.name);
        let mut hear = |key: Key, change: Change<&Guarded<K>>| {
            if let Change::Present(object) = change {
                written.seen(&reference(&key), object.meta());
            }
            on_event(&key, change);
        };
        let mut before: BTreeMap<Key, Arc<Guarded<K>>> = BTreeMap::new();
        let mut written_before = Vec::new();
        let mut complaint = Complaint::default();
        while let Some(event) = events.next().await {
            let event = match event {
                Ok(event) => event,
                Err(error) => {
                    complaint.make::<K>(&error);
                    continue;
                }
            };
            complaint = Complaint::default();
            writer.apply_watcher_event(&event);
            match event {
                watcher::Event::Init => {
                    let objects = writer.as_reader().state();
                    before = objects
                        .into_iter()
                        .map(|object| (Key::of(object.as_ref()), object))
                        .collect();
                    written_before = written.before_list(&ours);
                }
                // A list enters the store as a whole, at its end: only then is there anything to hear of.
                watcher::Event::InitApply(_) => {}
                watcher::Event::Apply(object) => hear(Key::of(&object), Change::Present(&object)),
                watcher::Event::Delete(object) => {
                    let key = Key::of(&object);
                    written.gone(
                        &reference(&key),
                        Some(revision(object.meta())).filter(|version| *version > 0),
                    );
                    hear(key, Change::Gone(Some(&object)));
                }
                watcher::Event::InitDone => {
                    for object in writer.as_reader().state() {
                        let key = Key::of(object.as_ref());
                        before.remove(&key);
                        written_before.retain(|(known, _)| *known != reference(&key));
                        hear(key, Change::Present(object.as_ref()));
                    }
                    for (reference, version) in std::mem::take(&mut written_before) {
                        let Some(forgotten) = written.not_listed(&reference, version) else {
                            continue;
                        };
                        let key = Key {
                            namespace: reference.namespace.clone(),
                            name: reference.name.clone(),
                        };
                        // What the watch never showed has nobody else to tell its end.
                        if !before.contains_key(&key) {
                            let last = Guarded::<K>::deserialize(forgotten.as_ref()).ok();
                            hear(key, Change::Gone(last.as_ref()));
                        }
                    }
                    for (key, last) in std::mem::take(&mut before) {
                        written.missed(&reference(&key));
                        hear(key, Change::Gone(Some(last.as_ref())));
                    }
                    heard.send_replace(true);
                }
            }
        }
    }
}

/// Watches fail now and then and resume by themselves; one that keeps failing has to be heard of, once.
#[derive(Debug, Default)]
pub(crate) struct Complaint {
    failures: u32,
}

impl Complaint {
    /// Failures in a row after which an interruption is no passing one.
    const PATIENCE: u32 = 3;

    pub(crate) fn make<K: Resource<DynamicType = ()>>(&mut self, error: &watcher::Error) {
        let kind = K::kind(&());
        self.failures = self.failures.saturating_add(1);
        let code = match error {
            watcher::Error::InitialListFailed(kube::Error::Api(status))
            | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code,
            _ => 0,
        };
        let hint = match code {
            403 => "grant the permissions that the chart's RBAC lists",
            404 => "the kind is not served; install the CRDs: trellis crds apply",
            _ => "it resumes by itself",
        };
        let telling = (matches!(code, 403 | 404) && self.failures == 1) || self.failures == Self::PATIENCE;
        if telling {
            tracing::error!(%kind, %error, hint, "cannot watch; trying again");
        } else {
            tracing::debug!(%kind, %error, hint, "watch interrupted");
        }
    }
}

fn api<K: Kind>(client: &Client, namespace: Option<&str>) -> Api<Guarded<K>> {
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

fn read<K: Kind>(object: &Guarded<K>) -> Result<Arc<K>> {
    match &object.0 {
        Ok(object) => Ok(Arc::new(object.clone())),
        Err(invalid) => Err(Error::Unreadable {
            object: format!("{} {}", K::kind(&()), Key::of(object)),
            message: invalid.error.clone(),
        }),
    }
}

fn sight<K: Kind>(object: Option<Arc<K>>, reference: &Reference) -> Result<Sight> {
    let Some(object) = object else { return Ok(Sight::Absent) };
    serde_json::to_value(object.as_ref())
        .map(Sight::Present)
        .map_err(|source| Error::Serialise {
            what: reference.to_string(),
            source,
        })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;

    use super::*;

    #[test]
    fn of_the_bookkeeping_only_what_tells_who_shares_an_object_is_kept() {
        let status = json!({ "f:status": { "f:conditions": {} } });
        let annotated = json!({ "f:metadata": { "f:annotations": { "f:a": {} } }, "f:spec": {} });
        let entries = [
            "trellis-toy/shop/web",
            "trellis-toy",
            "kubectl",
            "kube-controller-manager",
        ];
        let fields = [&annotated, &status, &annotated, &status];
        let entries = entries.iter().zip(fields);
        let entries: Vec<_> = entries
            .map(|(manager, fields)| json!({ "manager": manager, "fieldsV1": fields }))
            .collect();
        let mut service: Service = serde_json::from_value(json!({ "metadata": { "managedFields": entries } })).unwrap();
        trim(&mut service);
        let kept: Vec<_> = service.metadata.managed_fields.iter().flatten().collect();
        let kept: Vec<_> = kept
            .iter()
            .map(|entry| (entry.manager.as_deref().unwrap(), &entry.fields_v1.as_ref().unwrap().0))
            .collect();
        let annotations = json!({ "f:metadata": { "f:annotations": { "f:a": {} } } });
        assert_eq!(kept, [("trellis-toy/shop/web", &annotated), ("kubectl", &annotations)]);
    }
}
