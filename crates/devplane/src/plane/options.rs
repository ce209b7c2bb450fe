//! `Options`: how a plane is started.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{ControlPlane, PlaneError};
use crate::progress::{Progress, Silent};
use crate::{Kubernetes, cache};

/// How long a plane may take to become ready once built, unless told otherwise.
const DEADLINE: Duration = Duration::from_secs(90);

/// How to start a [`ControlPlane`]; made by [`ControlPlane::options`].
#[derive(Clone)]
#[must_use = "nothing runs before `start`"]
pub struct Options {
    pub(crate) kubernetes: Kubernetes,
    pub(crate) data: Option<PathBuf>,
    pub(crate) cache: Option<PathBuf>,
    pub(crate) audit: bool,
    pub(crate) scheduler: bool,
    pub(crate) keep_logs: bool,
    pub(crate) deadline: Duration,
    pub(crate) progress: Arc<dyn Progress>,
    pub(crate) apiserver_flags: Vec<String>,
    pub(crate) controller_manager_flags: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            kubernetes: Kubernetes::default(),
            data: None,
            cache: None,
            audit: false,
            scheduler: true,
            keep_logs: false,
            deadline: DEADLINE,
            progress: Arc::new(Silent),
            apiserver_flags: Vec::new(),
            controller_manager_flags: Vec::new(),
        }
    }
}

impl Options {
    /// The Kubernetes minor; default 1.34.
    pub fn kubernetes(mut self, version: Kubernetes) -> Self {
        self.kubernetes = version;
        self
    }

    /// A directory whose state survives: objects, certificates and, when still free, ports. Default: none, and
    /// everything goes with the plane. Writes to it reach the disk; without it they do not wait for that.
    pub fn data(mut self, directory: impl Into<PathBuf>) -> Self {
        self.data = Some(directory.into());
        self
    }

    /// The cache; default [`cache_directory`](crate::cache_directory).
    pub fn cache(mut self, directory: impl Into<PathBuf>) -> Self {
        self.cache = Some(directory.into());
        self
    }

    /// Whether the API server writes an audit log; default no. Bodies are logged for Leases, Services and our own
    /// kinds, metadata for everything else; each line is written before its request is answered.
    pub fn audit(mut self, on: bool) -> Self {
        self.audit = on;
        self
    }

    /// Whether a scheduler runs; default yes.
    pub fn scheduler(mut self, on: bool) -> Self {
        self.scheduler = on;
        self
    }

    /// Whether logs (and the audit log) of a plane without data directory stay, for a day, after it ended well; default
    /// no. After a failed start they always stay.
    pub fn keep_logs(mut self, on: bool) -> Self {
        self.keep_logs = on;
        self
    }

    /// How long it may take to become ready once built; default 90 s.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Who is told about builds and the start; default nobody.
    pub fn progress(mut self, progress: Arc<dyn Progress>) -> Self {
        self.progress = progress;
        self
    }

    /// A further kube-apiserver flag, for example `--runtime-config=api/beta=true`.
    pub fn apiserver_flag(mut self, flag: impl Into<String>) -> Self {
        self.apiserver_flags.push(flag.into());
        self
    }

    /// A further kube-controller-manager flag.
    pub fn controller_manager_flag(mut self, flag: impl Into<String>) -> Self {
        self.controller_manager_flags.push(flag.into());
        self
    }

    /// Builds what is missing and starts the plane; see [`ControlPlane`] for when it is ready.
    ///
    /// # Errors
    /// A failed build; a process that ended or was not ready in time, with the end of its log; a data directory that
    /// another plane holds. Dropping the future ends everything started so far.
    pub async fn start(self) -> Result<ControlPlane, PlaneError> {
        let cache = cache::named(self.cache.as_deref())?;
        super::start::start(self, cache).await
    }
}
