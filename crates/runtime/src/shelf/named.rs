//! Objects watched one by one, by their names, while something refers to them.

use std::{
    any::Any,
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use futures::{StreamExt as _, future::BoxFuture};
use kube::{
    Resource,
    core::ApiResource,
    runtime::{WatchStreamExt as _, watcher},
};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::{AnyShelf, Change, Complaint, Guarded, Kind, PATIENCE, Scene, Sight, api, read, sight, trim};
use crate::{Error, Reference, Result, index::Key};

/// Single objects of a kind, each watched by its name while something refers to it.
pub(crate) struct Named<K: Kind> {
    resource: ApiResource,
    scene: Scene,
    watches: Mutex<HashMap<Key, Watched<K>>>,
}

/// What a watch by name knows.
#[derive(Clone)]
enum First<K> {
    /// Nothing yet: the first answer is still to come.
    Unknown,
    Absent,
    Present(Arc<Guarded<K>>),
}

struct Watched<K> {
    value: watch::Receiver<First<K>>,
    _task: AbortOnDropHandle<()>,
}

impl<K: Kind> Named<K> {
    pub(crate) fn new(scene: &Scene) -> Self {
        Self {
            resource: ApiResource::erase::<K>(&()),
            scene: scene.clone(),
            watches: Mutex::default(),
        }
    }

    /// The object as last seen by its watch; waits for the first answer.
    pub(crate) async fn get(&self, namespace: Option<&str>, name: &str) -> Result<Option<Arc<K>>> {
        let key = Key {
            namespace: namespace.map(Into::into),
            name: name.to_owned(),
        };
        let watched = {
            let watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
            watches.get(&key).map(|watched| watched.value.clone())
        };
        let undeclared = || Error::Undeclared {
            kind: self.resource.kind.clone(),
            name: key.to_string(),
        };
        let mut value = watched.ok_or_else(undeclared)?;
        let known = tokio::time::timeout(PATIENCE, value.wait_for(|known| !matches!(known, First::Unknown))).await;
        let late = || Error::NotSynced {
            kind: self.resource.kind.clone(),
        };
        let known = known.map_err(|_| late())?.map_err(|_| undeclared())?.clone();
        match known {
            First::Present(object) => read(&object).map(Some),
            First::Unknown | First::Absent => Ok(None),
        }
    }
}

impl<K: Kind> AnyShelf for Named<K> {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn resource(&self) -> &ApiResource {
        &self.resource
    }

    fn want(&self, reference: &Reference, wanted: bool) {
        if reference.kind != self.resource.kind || reference.group != self.resource.group {
            return;
        }
        let key = Key {
            namespace: reference.namespace.clone(),
            name: reference.name.clone(),
        };
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        if !wanted {
            watches.remove(&key);
            self.scene.written.gone(reference, None);
            return;
        }
        let (sender, value) = watch::channel(First::Unknown);
        let scene = self.scene.clone();
        let reference = reference.clone();
        let objects = api::<K>(&scene.client, key.namespace.as_deref());
        let mut changes = Box::pin(watcher::watch_object(objects, &key.name).default_backoff());
        let task = tokio::spawn(async move {
            let mut complaint = Complaint::default();
            while let Some(change) = changes.next().await {
                let object = match change {
                    Ok(object) => object,
                    Err(error) => {
                        complaint.make::<K>(&error);
                        continue;
                    }
                };
                complaint = Complaint::default();
                let Some(mut object) = object else {
                    sender.send_replace(First::Absent);
                    scene.written.gone(&reference, None);
                    (scene.on_change)(&reference, Change::Gone(None));
                    continue;
                };
                trim(&mut object);
                let meta = object.meta().clone();
                sender.send_replace(First::Present(Arc::new(object)));
                scene.written.seen(&reference, &meta);
                (scene.on_change)(&reference, Change::Present(&meta));
            }
        });
        watches.insert(
            key,
            Watched {
                value,
                _task: AbortOnDropHandle::new(task),
            },
        );
    }

    fn peek<'a>(&'a self, reference: &'a Reference) -> BoxFuture<'a, Result<Sight>> {
        Box::pin(async move {
            match self.get(reference.namespace.as_deref(), &reference.name).await {
                Err(Error::Undeclared { .. }) => Ok(Sight::Unwatched),
                found => sight(found?, reference),
            }
        })
    }

    fn speakers(&self, _: &Reference) -> Vec<Reference> {
        Vec::new()
    }

    fn ready(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}
