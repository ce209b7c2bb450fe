//! The cluster as a controller sees it: what it declared, watched; never polled, never listed twice.
//!
//! ```text
//!  watch ──▶ shelf (one per kind) ──▶ get
//!  our own writes ──▶ written ───────▶ (newer than the watch? it wins)
//! ```
//!
//! Invariants: a read is never older than our own last write of the same object; an object that nothing refers to is
//! not watched by name (there is no cache of all Secrets).

use std::{
    any::{Any, TypeId},
    collections::BTreeSet,
    sync::{Arc, OnceLock, Weak},
};

use kube::{Client, Resource, core::ApiResource};
use serde::de::DeserializeOwned;

use crate::{
    Error, Reference, Result,
    index::Changed,
    peers::Peers,
    shelf::{AnyShelf, Broad, Change, Kind, Named, OnChange, Scene, Sight},
    written::{Answer, Sent, revision, version_of},
};

type Start = Box<dyn FnOnce(&Scene) -> Arc<dyn AnyShelf> + Send>;

/// The kinds that a controller reads or owns besides its own. A kind may be declared in more than one way.
#[derive(Default)]
pub struct Kinds {
    starts: Vec<(TypeId, Start)>,
}

/// What a controller may read. Cheap to clone.
#[derive(Clone)]
pub struct World {
    inner: Arc<Inner>,
}

struct Inner {
    shelves: Vec<(TypeId, Arc<dyn AnyShelf>)>,
    scene: Scene,
    /// The controller's own objects; typed by its kind.
    peers: OnceLock<Box<dyn Any + Send + Sync>>,
}

impl Kinds {
    /// Every object of `K` in the namespaces that the operator serves.
    #[must_use]
    pub fn all<K: Kind>(self) -> Self {
        self.with::<K>(|scene| Arc::new(Broad::<K>::start(scene, None, false, None)))
    }

    /// Like [`Kinds::all`] for a kind whose CRD may be installed, or removed, at any time.
    #[must_use]
    pub fn all_if_served<K: Kind>(self) -> Self {
        self.with::<K>(|scene| Arc::new(Broad::<K>::start(scene, None, true, None)))
    }

    /// Like [`Kinds::all_if_served`], for objects that speak about others: what `speaks` names is looked at again
    /// whenever the object changes, and [`World::about`] finds the object by it. Whoever refers to the object is woken
    /// by a change of what it speaks about, too.
    #[must_use]
    pub fn all_if_served_about<K: Kind>(self, speaks: fn(&K) -> Vec<Reference>) -> Self {
        self.with::<K>(move |scene| Arc::new(Broad::<K>::start(scene, None, true, Some(speaks))))
    }

    /// Only those objects of `K` that something refers to, each watched by its name.
    #[must_use]
    pub fn named<K: Kind>(self) -> Self {
        self.with::<K>(|scene| Arc::new(Named::<K>::new(scene)))
    }

    /// The objects of `K` that the controller called `controller` owns.
    #[must_use]
    pub fn owned<K: Kind>(self, controller: &'static str) -> Self {
        self.labelled::<K>(controller, false)
    }

    /// Like [`Kinds::owned`] for a kind whose CRD may be installed, or removed, at any time.
    #[must_use]
    pub fn owned_if_served<K: Kind>(self, controller: &'static str) -> Self {
        self.labelled::<K>(controller, true)
    }

    fn labelled<K: Kind>(self, controller: &'static str, optional: bool) -> Self {
        self.with::<K>(move |scene| {
            let selector = format!("{}={controller}", crate::apply::CONTROLLER_LABEL);
            Arc::new(Broad::<K>::start(scene, Some(selector), optional, None))
        })
    }

    fn with<K: Kind>(mut self, start: impl FnOnce(&Scene) -> Arc<dyn AnyShelf> + Send + 'static) -> Self {
        self.starts.push((TypeId::of::<K>(), Box::new(start)));
        self
    }
}

impl World {
    /// Starts the watches. `on_change` hears of every change of every watched object.
    pub(crate) fn start(kinds: Kinds, client: &Client, namespaces: &[String], on_change: OnChange) -> Self {
        let inner = Arc::new_cyclic(|inner| {
            let scene = Scene {
                client: client.clone(),
                namespaces: namespaces.to_vec(),
                written: Arc::default(),
                on_change: second_hand(on_change, inner.clone()),
            };
            let shelves = kinds.starts.into_iter().map(|(id, start)| (id, start(&scene)));
            Inner {
                shelves: shelves.collect(),
                scene,
                peers: OnceLock::new(),
            }
        });
        Self { inner }
    }

    /// What the controller's own watch shares with those of other kinds.
    pub(crate) fn scene(&self) -> &Scene {
        &self.inner.scene
    }

    /// Waits until every kind that is watched as a whole has been listed.
    pub(crate) async fn ready(&self) {
        for (_, shelf) in &self.inner.shelves {
            shelf.ready().await;
        }
    }

    /// Whether objects of this namespace are seen: it is among those that the operator serves.
    #[must_use]
    pub fn serves(&self, namespace: &str) -> bool {
        let served = &self.inner.scene.namespaces;
        served.is_empty() || served.iter().any(|name| name == namespace)
    }

    /// An object of a declared kind, or `None` when it does not exist.
    ///
    /// # Errors
    /// [`Error::Unreadable`] when it does not parse; [`Error::NotSynced`] when the kind could not be listed yet;
    /// [`Error::Undeclared`] when the controller did not declare the kind, or reads by name what no object of its own
    /// refers to.
    pub async fn get<K: Kind>(&self, namespace: Option<&str>, name: &str) -> Result<Option<Arc<K>>> {
        let reference = Reference::to::<K>(namespace, name);
        // Asked first: what the watch has caught up with by then is on the shelf.
        let written = self.inner.scene.written.get(&reference);
        let undeclared = || Error::Undeclared {
            kind: format!("{}.{}", K::kind(&()), K::group(&())),
            name: format!("{}/{name}", namespace.unwrap_or_default()),
        };
        let mut found = Err(undeclared());
        for (id, shelf) in &self.inner.shelves {
            if *id != TypeId::of::<K>() {
                continue;
            }
            let seen = if let Some(broad) = shelf.as_any().downcast_ref::<Broad<K>>() {
                broad.get(namespace, name).await
            } else if let Some(named) = shelf.as_any().downcast_ref::<Named<K>>() {
                named.get(namespace, name).await
            } else {
                continue;
            };
            match seen {
                Err(Error::Undeclared { .. }) => {}
                Ok(None) => found = Ok(None),
                other => {
                    found = other;
                    break;
                }
            }
        }
        newer(found?, written, &reference)
    }

    /// Every object of a kind that is watched as a whole, in a namespace or in all that are served; sorted by name.
    ///
    /// # Errors
    /// As [`World::get`].
    pub async fn list<K: Kind>(&self, namespace: Option<&str>) -> Result<Vec<Arc<K>>> {
        self.broad::<K>()?.list(namespace).await
    }

    /// The objects of a kind declared with [`Kinds::all_if_served_about`] that speak about this one; sorted by name. All
    /// of those in its own namespace and in `own`; of other namespaces those that are known.
    ///
    /// # Errors
    /// As [`World::get`].
    pub async fn about<K: Kind>(&self, reference: &Reference, own: Option<&str>) -> Result<Vec<Arc<K>>> {
        let namespaces = [reference.namespace.as_deref(), own];
        self.broad::<K>()?.about(reference, &namespaces).await
    }

    /// The versions in which a kind is served, such as `v1`; none when it is not installed. Whoever refers to the
    /// kind's definition is woken when they change.
    ///
    /// # Errors
    /// As [`World::get`].
    pub async fn versions<K: Kind>(&self) -> Result<BTreeSet<String>> {
        self.broad::<K>()?.versions().await
    }

    /// The controller's own objects that contend for any of these ([`crate::Reconcile::contends`]); sorted by name.
    ///
    /// # Errors
    /// [`Error::Unreadable`] when one does not parse; [`Error::Undeclared`] for another kind than the controller's own.
    pub fn contenders<K: Kind>(&self, references: &[Reference]) -> Result<Vec<Arc<K>>> {
        let peers = self
            .inner
            .peers
            .get()
            .and_then(|peers| peers.downcast_ref::<Peers<K>>());
        peers.ok_or_else(|| undeclared::<K>())?.contenders(references)
    }

    pub(crate) fn set_peers<K: Kind>(&self, peers: Peers<K>) {
        // Set once, by the controller that made this world.
        let _ = self.inner.peers.set(Box::new(peers));
    }

    fn broad<K: Kind>(&self) -> Result<&Broad<K>> {
        let own = self.inner.shelves.iter().filter(|(id, _)| *id == TypeId::of::<K>());
        let mut broad = own.filter_map(|(_, shelf)| shelf.as_any().downcast_ref::<Broad<K>>());
        broad.next().ok_or_else(|| undeclared::<K>())
    }

    /// The newer of an object as the watch shows it and as we wrote it. `see` is asked after our own writes were, so
    /// that what the watch catches up with in between is not missed.
    pub(crate) fn newest<K>(
        &self,
        see: impl FnOnce() -> Option<Arc<K>>,
        reference: &Reference,
    ) -> Result<Option<Arc<K>>>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned,
    {
        let written = self.inner.scene.written.get(reference);
        newer(see(), written, reference)
    }

    /// The object as a value, if it is watched here; else the API server has to be asked.
    pub(crate) async fn peek(&self, resource: &ApiResource, reference: &Reference) -> Result<Sight> {
        let written = self.inner.scene.written.get(reference);
        let mut nothing = Sight::Unwatched;
        for (_, shelf) in self
            .inner
            .shelves
            .iter()
            .filter(|(_, shelf)| shelf.resource() == resource)
        {
            let (version, seen) = match shelf.peek(reference).await? {
                Sight::Unwatched => continue,
                Sight::Unlisted => {
                    nothing = Sight::Unlisted;
                    continue;
                }
                Sight::Absent => (0, Sight::Absent),
                Sight::Present(object) => (version_of(&object).unwrap_or_default(), Sight::Present(object)),
            };
            return Ok(match written {
                Some(answer) if answer.version > version => Sight::Present(answer.object.as_ref().clone()),
                _ => seen,
            });
        }
        Ok(match written {
            Some(answer) if nothing == Sight::Unlisted => Sight::Present(answer.object.as_ref().clone()),
            _ => nothing,
        })
    }

    /// The version of an object that is watched and there.
    pub(crate) async fn version(&self, reference: &Reference) -> Option<String> {
        let of = |resource: &ApiResource| (&resource.group, &resource.kind) == (&reference.group, &reference.kind);
        for (_, shelf) in self.inner.shelves.iter().filter(|(_, shelf)| of(shelf.resource())) {
            if let Ok(Sight::Present(object)) = shelf.peek(reference).await {
                let version = object.pointer("/metadata/resourceVersion");
                return version.and_then(|version| version.as_str()).map(ToOwned::to_owned);
            }
        }
        None
    }

    /// The resource of a kind as declared, for kinds that are only known by name (an inventory).
    pub(crate) fn resource(&self, api_version: &str, kind: &str) -> Option<ApiResource> {
        let mut resources = self.inner.shelves.iter().map(|(_, shelf)| shelf.resource());
        resources
            .find(|resource| resource.kind == kind && resource.api_version == api_version)
            .cloned()
    }

    /// A write of this object is about to be sent.
    pub(crate) fn sending(&self, reference: &Reference) -> Sent {
        self.inner.scene.written.begin(reference)
    }

    /// Starts and ends watches by name as references come and go.
    pub(crate) fn follow(&self, changed: &Changed) {
        for (_, shelf) in &self.inner.shelves {
            for reference in &changed.lost {
                shelf.want(reference, false);
            }
            for reference in &changed.gained {
                shelf.want(reference, true);
            }
        }
    }
}

/// A change of an object is also news of those that speak about it.
fn second_hand(on_change: OnChange, world: Weak<Inner>) -> OnChange {
    Arc::new(move |reference, change| {
        on_change(reference, change);
        let Some(world) = world.upgrade() else { return };
        let speakers = world.shelves.iter().flat_map(|(_, shelf)| shelf.speakers(reference));
        for speaker in speakers {
            on_change(&speaker, Change::Gone(None));
        }
    })
}

fn undeclared<K: Kind>() -> Error {
    Error::Undeclared {
        kind: format!("{}.{}", K::kind(&()), K::group(&())),
        name: "(all)".into(),
    }
}

fn newer<K>(seen: Option<Arc<K>>, written: Option<Answer>, reference: &Reference) -> Result<Option<Arc<K>>>
where
    K: Resource<DynamicType = ()> + DeserializeOwned,
{
    let Some(answer) = written else { return Ok(seen) };
    if seen
        .as_ref()
        .is_some_and(|object| revision(object.meta()) >= answer.version)
    {
        return Ok(seen);
    }
    let object = K::deserialize(answer.object.as_ref()).map_err(|error| Error::Unreadable {
        object: reference.to_string(),
        message: error.to_string(),
    })?;
    Ok(Some(Arc::new(object)))
}
