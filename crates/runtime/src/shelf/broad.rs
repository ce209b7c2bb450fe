//! A kind watched as a whole, in the namespaces that are served.

use std::{
    any::Any,
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use futures::{Stream, StreamExt as _, TryStreamExt as _, future::BoxFuture, stream::BoxStream};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, Resource,
    core::ApiResource,
    runtime::{
        WatchStreamExt as _,
        reflector::{ObjectRef, Store, store::Writer},
        watcher,
    },
};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::{AnyShelf, Change, Complaint, Guarded, Heard, Kind, PATIENCE, Scene, Sight, follow, read, sight};
use crate::{
    Error, Reference, Result,
    index::{Index, Key},
};

/// Versions of a kind, such as `v1`.
pub(crate) type Versions = BTreeSet<String>;

/// In which versions a kind is served.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Served {
    /// Not known yet.
    Unknown,
    /// It has no definition: there is no object of it.
    Undefined,
    /// Its definition serves these; objects may exist even when ours is not among them.
    In(Versions),
}

impl Served {
    fn versions(&self) -> Versions {
        match self {
            Self::In(versions) => versions.clone(),
            Self::Unknown | Self::Undefined => Versions::new(),
        }
    }

    fn has(&self, version: &str) -> bool {
        matches!(self, Self::In(versions) if versions.contains(version))
    }
}

/// What an object of a kind speaks about: objects that have to be looked at again when it changes.
pub(crate) type About<K> = fn(&K) -> Vec<Reference>;

/// How it is found out, and what is known of it.
type Spoken<K> = (About<K>, Arc<Mutex<Index>>);

/// What is seen of a kind in one namespace.
struct Seen<K: Kind> {
    /// `None`: in all of them.
    namespace: Option<String>,
    store: Store<Guarded<K>>,
    heard: Heard,
}

impl<K: Kind> Seen<K> {
    fn covers(&self, namespace: Option<&str>) -> bool {
        self.namespace.is_none() || self.namespace.as_deref() == namespace
    }
}

/// One for each namespace that is served; one for all when all are.
type Stores<K> = Arc<RwLock<Vec<Arc<Seen<K>>>>>;

/// Every object of a kind in the namespaces that are served, if the kind exists at all.
pub(crate) struct Broad<K: Kind> {
    resource: ApiResource,
    stores: Stores<K>,
    /// Which objects speak about what.
    about: Arc<Mutex<Index>>,
    /// Whether only some of the objects are watched: what is not in the store may still exist.
    partial: bool,
    served: watch::Receiver<Served>,
    _task: AbortOnDropHandle<()>,
}

impl<K: Kind> Broad<K> {
    /// Watches the kind. With `optional`, only while its CRD is established.
    pub(crate) fn start(scene: &Scene, selector: Option<String>, optional: bool, speaks: Option<About<K>>) -> Self {
        let stores: Stores<K> = Arc::default();
        let partial = selector.is_some();
        let (served_in, served) = watch::channel(Served::Unknown);
        let about: Arc<Mutex<Index>> = Arc::default();
        let (shared, scene) = (Arc::clone(&stores), scene.clone());
        let spoken = speaks.map(|speaks| (speaks, Arc::clone(&about)));
        let task = tokio::spawn(async move {
            let mut established: BoxStream<'static, Served> = if optional {
                established::<K>(&scene.client).boxed()
            } else {
                always::<K>().boxed()
            };
            let mut running = None;
            while let Some(served) = established.next().await {
                let exists = served.has(&K::version(&()));
                if exists && running.is_none() {
                    running = Some(run::<K>(&scene, selector.as_deref(), &shared, spoken.as_ref()));
                } else if !exists {
                    running = None;
                    clear::<K>(&scene, &shared, spoken.as_ref());
                }
                if served_in.send_replace(served.clone()) != served {
                    let definition = Reference::to::<CustomResourceDefinition>(None, &definition::<K>());
                    (scene.on_change)(&definition, Change::Gone(None));
                }
            }
        });
        Self {
            resource: ApiResource::erase::<K>(&()),
            stores,
            about,
            partial,
            served,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// The object as last seen by the watch; waits a little for the first list.
    pub(crate) async fn get(&self, namespace: Option<&str>, name: &str) -> Result<Option<Arc<K>>> {
        match self.store(namespace).await? {
            Place::Undefined | Place::NotServed | Place::Elsewhere => Ok(None),
            Place::Here(store) => {
                let mut reference = ObjectRef::<Guarded<K>>::new(name);
                if let Some(namespace) = namespace {
                    reference = reference.within(namespace);
                }
                store.get(&reference).map(|object| read(&object)).transpose()
            }
        }
    }

    /// Every object in a namespace that is served, by name. `None`: in all of them.
    pub(crate) async fn list(&self, namespace: Option<&str>) -> Result<Vec<Arc<K>>> {
        let stores: Vec<_> = if namespace.is_some() {
            match self.store(namespace).await? {
                Place::Undefined | Place::NotServed | Place::Elsewhere => Vec::new(),
                Place::Here(store) => vec![store],
            }
        } else {
            tokio::time::timeout(PATIENCE, self.ready())
                .await
                .map_err(|_| self.late())?;
            self.all_seen().iter().map(|seen| seen.store.clone()).collect()
        };
        let here = |object: &Arc<Guarded<K>>| namespace.is_none() || object.meta().namespace.as_deref() == namespace;
        let mut found: Vec<_> = stores.iter().flat_map(Store::state).filter(here).collect();
        found.sort_by_key(|object| Key::of(object.as_ref()));
        found.iter().map(|object| read(object)).collect()
    }

    /// The objects that speak about this one, by name; waits a little for the first lists of these namespaces, so that
    /// what is not listed yet is not taken for none. From other namespaces it is what is known.
    pub(crate) async fn about(&self, reference: &Reference, namespaces: &[Option<&str>]) -> Result<Vec<Arc<K>>> {
        for namespace in namespaces {
            self.store(*namespace).await?;
        }
        let mut found = Vec::new();
        for key in self.keys_about(reference) {
            found.extend(self.get(key.namespace.as_deref(), &key.name).await?);
        }
        Ok(found)
    }

    fn keys_about(&self, reference: &Reference) -> Vec<Key> {
        let about = self.about.lock().unwrap_or_else(PoisonError::into_inner);
        about.referrers(reference).into_iter().cloned().collect()
    }

    fn all_seen(&self) -> Vec<Arc<Seen<K>>> {
        self.stores.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn late(&self) -> Error {
        Error::NotSynced {
            kind: self.resource.kind.clone(),
        }
    }

    async fn store(&self, namespace: Option<&str>) -> Result<Place<K>> {
        let found = async {
            match self.served().await? {
                Served::In(versions) if versions.contains(K::version(&()).as_ref()) => {}
                Served::In(_) => return Some(Place::NotServed),
                Served::Unknown | Served::Undefined => return Some(Place::Undefined),
            }
            let Some(seen) = self.all_seen().into_iter().find(|seen| seen.covers(namespace)) else {
                return Some(Place::Elsewhere);
            };
            seen.heard.first_list().await.then(|| Place::Here(seen.store.clone()))
        };
        tokio::time::timeout(PATIENCE, found)
            .await
            .ok()
            .flatten()
            .ok_or_else(|| self.late())
    }

    /// The versions in which the kind is served; waits a little until that is known.
    pub(crate) async fn versions(&self) -> Result<Versions> {
        let known = tokio::time::timeout(PATIENCE, self.served()).await;
        let known = known.ok().flatten().ok_or_else(|| self.late())?;
        Ok(known.versions())
    }

    /// What is known, as soon as anything is.
    async fn served(&self) -> Option<Served> {
        let mut served = self.served.clone();
        let known = served.wait_for(|known| *known != Served::Unknown).await;
        known.ok().map(|known| known.clone())
    }

    async fn is_served(&self) -> bool {
        self.served().await.is_some_and(|served| served.has(&K::version(&())))
    }
}

/// What a kind is watched in, for one namespace.
enum Place<K: Kind> {
    /// The kind does not exist.
    Undefined,
    /// The kind exists, but not in our version.
    NotServed,
    /// The namespace is not served.
    Elsewhere,
    Here(Store<Guarded<K>>),
}

fn run<K: Kind>(
    scene: &Scene,
    selector: Option<&str>,
    stores: &Stores<K>,
    spoken: Option<&Spoken<K>>,
) -> Vec<AbortOnDropHandle<()>> {
    let places: Vec<Option<String>> = match scene.namespaces.as_slice() {
        [] => vec![None],
        namespaces => namespaces.iter().cloned().map(Some).collect(),
    };
    let mut fresh = Vec::new();
    let mut tasks = Vec::new();
    for place in places {
        let writer = Writer::<Guarded<K>>::new(());
        let (told, heard) = Heard::channel();
        fresh.push(Arc::new(Seen {
            namespace: place.clone(),
            store: writer.as_reader(),
            heard,
        }));
        let on_change = Arc::clone(&scene.on_change);
        let spoken = spoken.cloned();
        let on_event = move |key: &Key, change: Change<&Guarded<K>>| {
            on_change(
                &Reference::to::<K>(key.namespace.as_deref(), &key.name),
                change.map(Resource::meta),
            );
            let Some((speaks, about)) = &spoken else { return };
            let concerned: BTreeSet<Reference> = {
                let mut about = about.lock().unwrap_or_else(PoisonError::into_inner);
                let before: Vec<_> = about.references(key).cloned().collect();
                let now = match change.present().map(|object| &object.0) {
                    Some(Ok(object)) => speaks(object),
                    // What it spoke about still has to know that it cannot be read.
                    Some(Err(_)) => before.clone(),
                    None => Vec::new(),
                };
                about.set(key, now.iter().cloned());
                before.into_iter().chain(now).collect()
            };
            for reference in concerned {
                on_change(&reference, Change::Gone(None));
            }
        };
        let following = follow(scene, place.as_deref(), selector, writer, told, on_event);
        tasks.push(AbortOnDropHandle::new(tokio::spawn(following)));
    }
    *stores.write().unwrap_or_else(PoisonError::into_inner) = fresh;
    tasks
}

/// The kind went: so did every object of it.
fn clear<K: Kind>(scene: &Scene, stores: &Stores<K>, spoken: Option<&Spoken<K>>) {
    let gone = std::mem::take(&mut *stores.write().unwrap_or_else(PoisonError::into_inner));
    for object in gone.iter().flat_map(|seen| seen.store.state()) {
        let key = Key::of(object.as_ref());
        let reference = Reference::to::<K>(key.namespace.as_deref(), &key.name);
        scene.written.gone(&reference, None);
        (scene.on_change)(&reference, Change::Gone(Some(object.meta())));
    }
    let Some((_, about)) = spoken else { return };
    let about = std::mem::take(&mut *about.lock().unwrap_or_else(PoisonError::into_inner));
    for reference in about.referenced() {
        (scene.on_change)(reference, Change::Gone(None));
    }
}

/// A kind that every API server has.
fn always<K: Kind>() -> impl Stream<Item = Served> + Send {
    futures::stream::once(async { Served::In(Versions::from([K::version(&()).into_owned()])) })
        .chain(futures::stream::pending())
}

/// The name of the definition of a kind.
fn definition<K: Kind>() -> String {
    format!("{}.{}", K::plural(&()), K::group(&()))
}

/// The versions that are served, whenever that changes: none while the kind is not established.
fn established<K: Kind>(client: &Client) -> impl Stream<Item = Served> + Send + use<K> {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let mut complaint = Complaint::default();
    watcher::watch_object(crds, &definition::<K>())
        .default_backoff()
        .inspect_err(move |error| complaint.make::<CustomResourceDefinition>(error))
        .filter_map(|crd| futures::future::ready(crd.ok()))
        .map(|crd| crd.map_or(Served::Undefined, |crd| Served::In(crate::crds::served(&crd))))
}

impl<K: Kind> AnyShelf for Broad<K> {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn resource(&self) -> &ApiResource {
        &self.resource
    }

    fn want(&self, _: &Reference, _: bool) {}

    fn speakers(&self, reference: &Reference) -> Vec<Reference> {
        let keys = self.keys_about(reference).into_iter();
        keys.map(|key| Reference::to::<K>(key.namespace.as_deref(), &key.name))
            .collect()
    }

    fn peek<'a>(&'a self, reference: &'a Reference) -> BoxFuture<'a, Result<Sight>> {
        Box::pin(async move {
            match self.store(reference.namespace.as_deref()).await? {
                Place::Elsewhere => return Ok(Sight::Unwatched),
                // What exists in a version that we cannot read is not gone.
                Place::NotServed => return Err(self.late()),
                Place::Undefined | Place::Here(_) => {}
            }
            match self.get(reference.namespace.as_deref(), &reference.name).await? {
                // Only some of the objects are watched: what is not among them may still exist.
                None if self.partial => Ok(Sight::Unlisted),
                found => sight(found, reference),
            }
        })
    }

    fn ready(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if !self.is_served().await {
                return;
            }
            for seen in self.all_seen() {
                // A watch that ended belongs to a kind that went meanwhile: nothing to wait for.
                seen.heard.first_list().await;
            }
        })
    }
}
