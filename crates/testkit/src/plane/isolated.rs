//! `Isolated`: one test's own namespace.

use std::{
    fmt::Debug,
    hash::{BuildHasher, Hasher, RandomState},
    sync::mpsc::{RecvTimeoutError, channel},
    time::Duration,
};

use futures::StreamExt;
use k8s_openapi::{NamespaceResourceScope, api::core::v1::Namespace, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    runtime::watcher::watch_object,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tower::BoxError;

use super::{FIELD_MANAGER, Plane, Versions, apply};
use crate::{PATIENCE, background};

/// How long a drop waits until the API server has heard of it.
const ASKED: Duration = Duration::from_secs(5);

/// A namespace with a random name, deleted when dropped; the drop waits until the deletion is asked for, not until it is
/// done.
pub struct Isolated {
    plane: Plane,
    name: String,
    client: Client,
}

/// A namespaced kind known at compile time.
pub trait Kind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
}

impl<K> Kind for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned
        + Send
        + Sync
        + 'static
{
}

impl Isolated {
    pub(super) async fn create(plane: &Plane, prefix: &str) -> Result<Self, BoxError> {
        let name = format!(
            "{prefix}-{:08x}",
            RandomState::new().build_hasher().finish() & 0xffff_ffff
        );
        let client = plane.client()?;
        let metadata = ObjectMeta {
            name: Some(name.clone()),
            ..ObjectMeta::default()
        };
        let namespace = Namespace {
            metadata,
            ..Namespace::default()
        };
        Api::all(client.clone())
            .create(&PostParams::default(), &namespace)
            .await?;
        Ok(Self {
            plane: plane.clone(),
            name,
            client,
        })
    }

    /// The namespace's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The administrator's client.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The plane around it.
    #[must_use]
    pub fn plane(&self) -> &Plane {
        &self.plane
    }

    /// The objects of a kind in this namespace.
    #[must_use]
    pub fn api<K: Kind>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// Creates an object here.
    pub async fn create_object<K: Kind>(&self, object: K) -> Result<K, kube::Error> {
        self.api().create(&PostParams::default(), &object).await
    }

    /// Server-side apply of a manifest here, by the field manager [`FIELD_MANAGER`], with force.
    pub async fn apply(&self, mut manifest: Value) -> Result<(), BoxError> {
        if let Some(metadata) = manifest.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("namespace".to_owned(), self.name.clone().into());
        }
        apply(&self.client, &[manifest]).await
    }

    /// Merge patch of an object here, by the field manager [`FIELD_MANAGER`].
    pub async fn merge<K: Kind>(&self, name: &str, patch: Value) -> Result<K, kube::Error> {
        let by = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        self.api().patch(name, &by, &Patch::Merge(patch)).await
    }

    /// The object.
    pub async fn get<K: Kind>(&self, name: &str) -> Result<K, kube::Error> {
        self.api().get(name).await
    }

    /// Asks for the deletion of an object; returns before it is gone.
    pub async fn delete<K: Kind>(&self, name: &str) -> Result<(), kube::Error> {
        self.api::<K>().delete(name, &DeleteParams::default()).await.map(drop)
    }

    /// Watches an object until `reached`; returns it as it was then.
    ///
    /// # Panics
    /// After [`PATIENCE`], with `what` and the object as last seen.
    pub async fn until<K: Kind>(&self, name: &str, what: &str, reached: impl Fn(&K) -> bool) -> K {
        let found = self
            .watch(PATIENCE, name, what, |object: Option<&K>| object.is_some_and(&reached))
            .await;
        #[expect(clippy::expect_used, reason = "reached only for an object")]
        found.expect("an object that is there")
    }

    /// Watches until the object is gone.
    ///
    /// # Panics
    /// After [`PATIENCE`], with the object as last seen.
    pub async fn gone<K: Kind>(&self, name: &str) {
        self.watch(PATIENCE, name, "gone", |object: Option<&K>| object.is_none())
            .await;
    }

    /// Watches an object (`None` while there is none) until `reached`.
    ///
    /// # Panics
    /// After `limit`, with `what` and the object as last seen.
    #[expect(clippy::panic, reason = "a test's assertion")]
    pub async fn watch<K: Kind>(
        &self,
        limit: Duration,
        name: &str,
        what: &str,
        reached: impl Fn(Option<&K>) -> bool,
    ) -> Option<K> {
        let mut last = String::from("not seen");
        let mut states = watch_object(self.api::<K>(), name).boxed();
        let found = tokio::time::timeout(limit, async {
            while let Some(state) = states.next().await {
                match state {
                    Ok(object) if reached(object.as_ref()) => return Ok(object),
                    Ok(object) => last = serde_json::to_string_pretty(&object).unwrap_or_default(),
                    Err(error) => last = error.to_string(),
                }
            }
            Err("the watch ended")
        });
        match found.await {
            Ok(Ok(object)) => object,
            Ok(Err(_)) | Err(_) => {
                panic!(
                    "{} {}/{name} is not: {what}; last state: {last}",
                    K::kind(&()),
                    self.name
                )
            }
        }
    }

    /// Notes every version of an object from now on.
    pub async fn versions<K: Kind>(&self, name: &str) -> Versions<K> {
        Versions::of(self.api(), name).await
    }
}

impl Drop for Isolated {
    fn drop(&mut self) {
        let (plane, name) = (self.plane.clone(), std::mem::take(&mut self.name));
        let (done, end) = channel::<()>();
        background().spawn(async move {
            let asked = async {
                let namespaces: Api<Namespace> = Api::all(plane.client()?);
                namespaces.delete(&name, &DeleteParams::default()).await
            };
            // A plane that does not answer ends with the tests, and its namespaces with it.
            drop(asked.await);
            drop(done);
        });
        // A process that exits while another thread shakes hands is aborted by its crypto library, which has taken down
        // its random numbers by then.
        if end.recv_timeout(ASKED) == Err(RecvTimeoutError::Timeout) {
            eprintln!("a namespace is not deleted yet; it ends with the plane");
        }
    }
}
