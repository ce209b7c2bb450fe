//! `ControlPlane`: real Kubernetes on this machine, owned by a value.
//!
//! ```text
//! etcd ─▶ kube-apiserver ─▶ kube-controller-manager, kube-scheduler ─▶ ready
//! ```
//!
//! Invariants: ready means `/readyz` is ok and ServiceAccount `default/default` exists; everything listens on loopback
//! only; nothing survives the value but a data directory and, after a failure, logs.

mod commands;
pub(crate) mod home;
mod options;
mod start;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::config::{Kubeconfig, KubeconfigError};
use kube::{Api, Client, Config};

use crate::cache::CacheError;
use crate::kubeconfig::{self, Proof};
use crate::pki::PkiError;
use crate::{Binaries, BuildError, Kubernetes, Process, ProcessError};
use home::Home;
pub use options::Options;

/// How long processes may take to end by themselves in [`ControlPlane::stop`].
const GRACE: Duration = Duration::from_secs(5);
/// Lifetime of the tokens of [`ControlPlane::token_kubeconfig`], in seconds.
const TOKEN_SECONDS: i64 = 24 * 60 * 60;

/// Why a plane did not start or answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlaneError {
    /// A peer could not be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The cache or the plane's folder could not be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// Keys and certificates could not be made or read.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// A process could not be started or ended.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// No free ports.
    #[error("cannot find free ports on loopback")]
    Ports(#[source] io::Error),
    /// Another plane holds the data directory.
    #[error("{} is used by another plane (process {owner})\nhint: stop that one or use another data directory", data.display())]
    InUse {
        /// The data directory.
        data: PathBuf,
        /// The process ID of its holder.
        owner: String,
    },
    /// The data directory was written by a newer Kubernetes.
    #[error(
        "{} holds state of Kubernetes {found}, which {wanted} may not read\nhint: use {found}, or another data directory",
        data.display()
    )]
    Newer {
        /// The data directory.
        data: PathBuf,
        /// The minor that wrote it.
        found: Kubernetes,
        /// The minor asked for.
        wanted: Kubernetes,
    },
    /// A process runs but the plane did not become ready in time.
    #[error(
        "{process} was not ready after {} s: {reason}; log: {}\n{tail}\nhint: on a slow machine, allow more time",
        waited.as_secs(),
        log.display()
    )]
    NotReady {
        /// The process that was waited for.
        process: String,
        /// How long.
        waited: Duration,
        /// What the last look found.
        reason: String,
        /// Its log.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },
    /// A definition was accepted but never served.
    #[error("{crd} was not established after {} s", waited.as_secs())]
    NotEstablished {
        /// Name of the `CustomResourceDefinition`.
        crd: String,
        /// How long.
        waited: Duration,
    },
    /// A kubeconfig was not understood.
    #[error("cannot use the plane's kubeconfig")]
    Kubeconfig(#[from] KubeconfigError),
    /// The API server refused or did not answer.
    #[error("the plane's API server did not do what it was asked")]
    Client(#[from] kube::Error),
    /// The API server answered a token request without a token.
    #[error("no token for ServiceAccount {namespace}/{name}")]
    NoToken {
        /// The ServiceAccount's namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

/// A running control plane: etcd, kube-apiserver, kube-controller-manager and, unless switched off, kube-scheduler.
///
/// # Guarantees
/// - When [`Options::start`] returns it, `/readyz` answers ok and ServiceAccount `default` exists in namespace `default`.
/// - Several may run side by side, in one process or many.
/// - Dropping it kills everything (blocking for the few milliseconds that takes) and removes its folder, unless it has a
///   data directory. When the owning process dies, by `kill -9` even, the processes die too and the folder is removed by
///   the next start.
#[derive(Debug)]
pub struct ControlPlane {
    /// In start order. First field: processes are gone before the folder goes.
    processes: Vec<Process>,
    home: Home,
    kubeconfig: PathBuf,
    kubernetes: Kubernetes,
    config: Config,
    server: String,
    ca: String,
    audit_log: Option<PathBuf>,
    /// Leases: the cache keeps running programs.
    _binaries: [Binaries; 2],
}

impl ControlPlane {
    /// The defaults; chain what differs and call [`Options::start`].
    pub fn options() -> Options {
        Options::default()
    }

    /// The minor that runs.
    #[must_use]
    pub fn kubernetes(&self) -> Kubernetes {
        self.kubernetes
    }

    /// The administrator's kubeconfig file (mode 0600, everything embedded).
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The administrator's client configuration.
    #[must_use]
    pub fn config(&self) -> Config {
        self.config.clone()
    }

    /// A new administrator client, without a rate limit. It belongs to the current tokio runtime, which must exist; take
    /// a new one in each.
    #[must_use]
    #[expect(
        clippy::missing_panics_doc,
        clippy::expect_used,
        reason = "the start made a client of the same configuration"
    )]
    pub fn client(&self) -> Client {
        Client::try_from(self.config()).expect("a configuration that made a client before makes another")
    }

    /// The API server's URL, `https://127.0.0.1:PORT`.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The cluster's authority, PEM.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca
    }

    /// The audit log (one JSON event per line), if [`Options::audit`] was on.
    #[must_use]
    pub fn audit_log(&self) -> Option<&Path> {
        self.audit_log.as_deref()
    }

    /// The plane's folder: state, kubeconfigs, `logs/`.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.home.path()
    }

    /// The process IDs, in start order. Each is also a process group.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        self.processes.iter().map(Process::pid).collect()
    }

    /// A process by name, for example `kube-controller-manager`.
    #[must_use]
    pub fn process(&self, name: &str) -> Option<&Process> {
        self.processes.iter().find(|process| process.name() == name)
    }

    /// Waits until one of the processes ends, which none should before [`stop`](Self::stop).
    pub async fn died(&self) -> PlaneError {
        let all = self.processes.iter().map(|process| Box::pin(process.died()));
        let (error, _, _) = futures::future::select_all(all).await;
        self.home.keep_logs();
        error.into()
    }

    /// A kubeconfig that acts as a ServiceAccount, which must exist, with a token for 24 hours.
    pub async fn token_kubeconfig(&self, namespace: &str, service_account: &str) -> Result<Kubeconfig, PlaneError> {
        let text = self.token_kubeconfig_text(namespace, service_account).await?;
        Ok(Kubeconfig::from_yaml(&text)?)
    }

    /// [`token_kubeconfig`](Self::token_kubeconfig) as the text of a file, for another process.
    pub async fn token_kubeconfig_text(&self, namespace: &str, service_account: &str) -> Result<String, PlaneError> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client(), namespace);
        let spec = TokenRequestSpec {
            expiration_seconds: Some(TOKEN_SECONDS),
            ..TokenRequestSpec::default()
        };
        let request = TokenRequest {
            spec: Some(spec),
            ..TokenRequest::default()
        };
        let answer = accounts
            .create_token_request(service_account, &PostParams::default(), &request)
            .await?;
        let token = answer
            .status
            .and_then(|status| status.token)
            .ok_or_else(|| PlaneError::NoToken {
                namespace: namespace.to_owned(),
                name: service_account.to_owned(),
            })?;
        Ok(kubeconfig::text(
            &self.server,
            &self.ca,
            namespace,
            service_account,
            &Proof::Token(&token),
        ))
    }

    /// Asks the processes to end, last started first and etcd when the others are gone, and kills those that have not
    /// after five seconds. Then goes as if dropped.
    pub async fn stop(self) -> Result<(), PlaneError> {
        let (etcd, others) = self.processes.split_at(self.processes.len().min(1));
        futures::future::join_all(others.iter().rev().map(|process| process.stop(GRACE))).await;
        futures::future::join_all(etcd.iter().map(|process| process.stop(GRACE))).await;
        Ok(())
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        // All at once; each process then waits for its own end.
        self.processes.iter().for_each(Process::kill);
    }
}
