//! `Site`: real Kubernetes with the operator's kinds and account, and the shipped binary on it.

use std::path::{Path, PathBuf};

use kube::{Client, Config, config::KubeConfigOptions, config::Kubeconfig};
use serde_json::json;
use trellis_devplane::ControlPlane;
use trellis_testkit::{
    Proxy, Script, eventually,
    operator::{Launch, Operator, released},
    plane::apply,
};
use trellis_tests::{ACCOUNT, NAMESPACE, launch, manifests};

use crate::Error;

/// A plane without an audit log, which would cost the API server time.
pub struct Site {
    plane: ControlPlane,
    kubeconfig: Kubeconfig,
    file: PathBuf,
    binary: PathBuf,
    _directory: tempfile::TempDir,
}

impl Site {
    /// Builds what is missing, and starts it.
    ///
    /// # Errors
    /// When something does not build or start.
    pub async fn start() -> Result<Self, Error> {
        let binary = released().await?;
        let plane = ControlPlane::options().scheduler(false).start().await?;
        apply(&plane.client(), &manifests()?).await?;
        let text = plane.token_kubeconfig_text(NAMESPACE, ACCOUNT).await?;
        let directory = tempfile::tempdir()?;
        let file = directory.path().join("kubeconfig");
        std::fs::write(&file, &text)?;
        Ok(Self {
            plane,
            kubeconfig: Kubeconfig::from_yaml(&text)?,
            file,
            binary,
            _directory: directory,
        })
    }

    /// The administrator.
    #[must_use]
    pub fn admin(&self) -> Client {
        self.plane.client()
    }

    /// A bare client with the operator's account.
    ///
    /// # Errors
    /// When its configuration is unusable.
    pub async fn bare(&self) -> Result<Client, Error> {
        let config = Config::from_custom_kubeconfig(self.kubeconfig.clone(), &KubeConfigOptions::default()).await?;
        Ok(Client::try_from(config)?)
    }

    /// A namespace that is not there yet.
    ///
    /// # Errors
    /// When it is not made.
    pub async fn namespace(&self, name: &str) -> Result<(), Error> {
        let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
        apply(&self.admin(), &[namespace]).await
    }

    /// The shipped operator, for every namespace, leading and ready.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn operator(&self) -> Result<Operator, Error> {
        self.launched(&self.file).await
    }

    /// The same, and everything that it says to the API server.
    ///
    /// # Errors
    /// When one of the two does not start.
    pub async fn recorded(&self) -> Result<(Operator, Proxy), Error> {
        let proxy = Proxy::start(self.plane.config(), self.kubeconfig.clone(), &Script::new()).await?;
        Ok((self.launched(proxy.kubeconfig()).await?, proxy))
    }

    /// The shipped operator with these controllers alone, as `change` has it, for every namespace. It may not lead yet.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn alone(&self, controllers: &str, change: impl FnOnce(Launch) -> Launch) -> Result<Operator, Error> {
        self.alone_at(&self.file, controllers, change).await
    }

    /// The same, and everything that it says to the API server.
    ///
    /// # Errors
    /// When one of the two does not start.
    pub async fn alone_recorded(
        &self,
        controllers: &str,
        change: impl FnOnce(Launch) -> Launch,
    ) -> Result<(Operator, Proxy), Error> {
        let proxy = Proxy::start(self.plane.config(), self.kubeconfig.clone(), &Script::new()).await?;
        Ok((self.alone_at(proxy.kubeconfig(), controllers, change).await?, proxy))
    }

    async fn alone_at(
        &self,
        kubeconfig: &Path,
        controllers: &str,
        change: impl FnOnce(Launch) -> Launch,
    ) -> Result<Operator, Error> {
        let launch = launch(kubeconfig, "bench", &[]).program(&self.binary);
        Ok(change(launch.controllers(controllers)).start().await?)
    }

    /// The shipped program, for what runs beside the operator.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.binary
    }

    async fn launched(&self, kubeconfig: &Path) -> Result<Operator, Error> {
        let operator = launch(kubeconfig, "bench", &[]).program(&self.binary).start().await?;
        eventually("the operator leads, and has listed everything", async || {
            let (_, text) = operator.get("/metrics").await.map_err(|error| error.to_string())?;
            let counts = text.contains("\nresilience_operator_retries_configured ");
            if counts { Ok(()) } else { Err(text) }
        })
        .await;
        Ok(operator)
    }
}
