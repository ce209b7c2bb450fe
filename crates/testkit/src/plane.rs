//! `Shared`: one real control plane per test binary; `Plane`: what a test does with it.
//!
//! static Shared ─▶ started once, in the background runtime ─▶ install (CRDs, RBAC) ─▶ Plane ─▶ Isolated namespaces
//!
//! Invariants: the plane outlives the runtime of the test that started it and ends with the test process; a client
//! belongs to the runtime of the test that asked for it.

mod isolated;
mod versions;

use std::{
    env, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::future::BoxFuture;
use kube::{
    Api, Client, Config,
    api::{DynamicObject, Patch, PatchParams},
    config::Kubeconfig,
    core::GroupVersionKind,
    discovery::{ApiCapabilities, ApiResource, Scope, pinned_kind},
};
use serde::Serialize;
use tokio::{
    sync::OnceCell,
    time::{Instant, interval},
};
use tower::BoxError;
use trellis_devplane::{ControlPlane, Kubernetes};

pub use self::{isolated::Isolated, versions::Versions};
use crate::{
    Audit, PATIENCE, Script, background,
    proxy::{Proxy, ProxyError},
};

/// How often discovery is asked for a kind that is not there yet.
const LOOK: Duration = Duration::from_millis(50);

/// Who applies what a test sets up.
pub const FIELD_MANAGER: &str = "testkit";

/// Puts into a fresh plane what every test of the binary needs: CRDs, RBAC.
pub type Install = fn(Plane) -> BoxFuture<'static, Result<(), BoxError>>;

/// Why there is no plane. Kept, so that every test of the binary says the same.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the shared control plane: {0}")]
pub struct SharedError(String);

/// One control plane per test binary, with its audit log on.
///
/// ```no_run
/// use trellis_testkit::plane::Shared;
/// static PLANE: Shared = Shared::new(|plane| Box::pin(async move { plane.apply(&trellis_api::crds()).await }));
/// ```
///
/// `TRELLIS_KUBERNETES` (`1.34`, …) chooses the version; absent, the default of devplane.
#[derive(Debug)]
pub struct Shared {
    install: Install,
    plane: OnceCell<Result<Plane, SharedError>>,
}

impl Shared {
    /// A plane that is not started yet.
    #[must_use]
    pub const fn new(install: Install) -> Self {
        Self {
            install,
            plane: OnceCell::const_new(),
        }
    }

    /// The plane; the first test that asks starts it, the others wait.
    pub async fn get(&self) -> Result<&Plane, SharedError> {
        let install = self.install;
        let started = self.plane.get_or_init(|| async move {
            let start = background().spawn(async move {
                let plane = Plane::start().await?;
                install(plane.clone()).await?;
                Ok::<_, BoxError>(plane)
            });
            match start.await {
                Ok(Ok(plane)) => Ok(plane),
                Ok(Err(error)) => Err(SharedError(chain(error.as_ref()))),
                Err(error) => Err(SharedError(error.to_string())),
            }
        });
        started.await.as_ref().map_err(Clone::clone)
    }
}

/// A running control plane. Clones share it; the last one ends it.
#[derive(Clone, Debug)]
pub struct Plane {
    control: Arc<ControlPlane>,
    audit: Audit,
}

impl Plane {
    /// Starts a plane of its own, for a test that stops or breaks it; others use [`Shared`]. Nothing here runs pods, so
    /// it has no scheduler.
    pub async fn start() -> Result<Self, BoxError> {
        let mut options = ControlPlane::options().audit(true).scheduler(false);
        if let Ok(version) = env::var("TRELLIS_KUBERNETES") {
            options = options.kubernetes(version.parse::<Kubernetes>()?);
        }
        let control = options.start().await?;
        let audit = Audit::at(control.audit_log().ok_or("the plane has no audit log")?);
        Ok(Self {
            control: Arc::new(control),
            audit,
        })
    }

    /// The processes themselves.
    #[must_use]
    pub fn control(&self) -> &ControlPlane {
        &self.control
    }

    /// The administrator's configuration.
    #[must_use]
    pub fn config(&self) -> Config {
        self.control.config()
    }

    /// A client of the administrator, for the runtime that calls this.
    pub fn client(&self) -> Result<Client, kube::Error> {
        Client::try_from(self.config())
    }

    /// The audit log.
    #[must_use]
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// A fresh namespace; it is deleted when dropped.
    pub async fn isolated(&self, prefix: &str) -> Result<Isolated, BoxError> {
        Isolated::create(self, prefix).await
    }

    /// A token of a ServiceAccount, as a kubeconfig file.
    pub async fn service_account(&self, namespace: &str, name: &str) -> Result<Credentials, BoxError> {
        let kubeconfig = self.control.token_kubeconfig(namespace, name).await?;
        Ok(Credentials::write(kubeconfig)?)
    }

    /// A disturbing proxy for these credentials.
    pub async fn proxy(&self, credentials: &Credentials, script: &Script) -> Result<Proxy, ProxyError> {
        Proxy::start(self.config(), credentials.kubeconfig.clone(), script).await
    }

    /// [`apply`] as the administrator.
    pub async fn apply<T: Serialize + Sync>(&self, objects: &[T]) -> Result<(), BoxError> {
        apply(&self.client()?, objects).await
    }
}

/// Server-side apply of any objects, in their order, by the field manager [`FIELD_MANAGER`]. Waits for a kind that has
/// just been defined.
pub async fn apply<T: Serialize + Sync>(client: &Client, objects: &[T]) -> Result<(), BoxError> {
    for object in objects {
        let object: DynamicObject = serde_json::from_value(serde_json::to_value(object)?)?;
        apply_one(client, &object).await?;
    }
    Ok(())
}

async fn apply_one(client: &Client, object: &DynamicObject) -> Result<(), BoxError> {
    let types = object.types.as_ref().ok_or("an object without apiVersion and kind")?;
    let kind = GroupVersionKind::try_from(types)?;
    let name = object.metadata.name.as_deref().ok_or("an object without a name")?;
    let (resource, capabilities) = served(client, &kind).await?;
    let api: Api<DynamicObject> = match (&object.metadata.namespace, capabilities.scope) {
        (Some(namespace), Scope::Namespaced) => Api::namespaced_with(client.clone(), namespace, &resource),
        (None, Scope::Namespaced) => return Err(format!("{} {name} needs a namespace", types.kind).into()),
        (_, Scope::Cluster) => Api::all_with(client.clone(), &resource),
    };
    api.patch(name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(object))
        .await?;
    Ok(())
}

/// Discovery of a kind; waits for one that has just been defined.
async fn served(client: &Client, kind: &GroupVersionKind) -> Result<(ApiResource, ApiCapabilities), kube::Error> {
    let mut looks = interval(LOOK);
    let end = Instant::now() + PATIENCE;
    loop {
        looks.tick().await;
        match pinned_kind(client, kind).await {
            Err(_) if Instant::now() < end => {}
            outcome => return outcome,
        }
    }
}

/// A kubeconfig in a file of its own, removed when dropped.
#[derive(Debug)]
pub struct Credentials {
    kubeconfig: Kubeconfig,
    path: PathBuf,
    _directory: tempfile::TempDir,
}

impl Credentials {
    fn write(kubeconfig: Kubeconfig) -> io::Result<Self> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("kubeconfig");
        // JSON is YAML.
        std::fs::write(&path, serde_json::to_vec_pretty(&kubeconfig)?)?;
        Ok(Self {
            kubeconfig,
            path,
            _directory: directory,
        })
    }

    /// The kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> &Kubeconfig {
        &self.kubeconfig
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source()).map(|cause| format!(": {cause}"));
    std::iter::once(error.to_string()).chain(causes).collect()
}
