//! `Options`: which controllers are started, and how.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{Controller, Flux};
use crate::progress::{Progress, Silent};
use crate::{PlaneError, cache};

/// How long the controllers may take to start once built, unless told otherwise.
const DEADLINE: Duration = Duration::from_secs(90);

/// How to start [`Flux`]; made by [`Flux::options`].
#[derive(Clone)]
#[must_use = "nothing runs before `start`"]
pub struct Options {
    pub(super) kubeconfig: PathBuf,
    pub(super) controllers: Vec<Controller>,
    pub(super) cache: Option<PathBuf>,
    pub(super) artifact_host: Option<String>,
    pub(super) events: Option<String>,
    pub(super) flags: Vec<(Controller, String)>,
    pub(super) keep_logs: bool,
    pub(super) deadline: Duration,
    pub(super) progress: Arc<dyn Progress>,
}

impl Options {
    pub(super) fn new(kubeconfig: PathBuf) -> Self {
        Self {
            kubeconfig,
            controllers: Vec::new(),
            cache: None,
            artifact_host: None,
            events: None,
            flags: Vec::new(),
            keep_logs: false,
            deadline: DEADLINE,
            progress: Arc::new(Silent),
        }
    }

    /// A controller to start; default none.
    pub fn controller(mut self, controller: Controller) -> Self {
        if !self.controllers.contains(&controller) {
            self.controllers.push(controller);
        }
        self
    }

    /// The cache; default [`cache_directory`](crate::cache_directory).
    pub fn cache(mut self, directory: impl Into<PathBuf>) -> Self {
        self.cache = Some(directory.into());
        self
    }

    /// `HOST:PORT` that kustomize- and helm-controller ask instead of the host in the URL of any artifact (their variable
    /// `SOURCE_CONTROLLER_LOCALHOST`); that of the source-controller started here too. Default: none.
    pub fn artifact_host(mut self, host: impl Into<String>) -> Self {
        self.artifact_host = Some(host.into());
        self
    }

    /// URL of a receiver of events (flag `--events-addr`); default none, and only Events of Kubernetes are written.
    pub fn events(mut self, url: impl Into<String>) -> Self {
        self.events = Some(url.into());
        self
    }

    /// A further flag of a controller, for example `--no-cross-namespace-refs=true`. The last of a name counts.
    pub fn flag(mut self, controller: Controller, flag: impl Into<String>) -> Self {
        self.flags.push((controller, flag.into()));
        self
    }

    /// Whether the logs stay, for a day, after the controllers ended; default no. After a failed start they always stay.
    pub fn keep_logs(mut self, on: bool) -> Self {
        self.keep_logs = on;
        self
    }

    /// How long the start may take once built; default 90 s.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Who is told about builds and the start; default nobody.
    pub fn progress(mut self, progress: Arc<dyn Progress>) -> Self {
        self.progress = progress;
        self
    }

    /// Builds what is missing and starts the controllers; see [`Flux`] for when they are ready.
    ///
    /// # Errors
    /// A failed build; a definition that the API server refuses; a controller that ended or was not ready in time, with
    /// the end of its log. Dropping the future ends everything started so far.
    pub async fn start(self) -> Result<Flux, PlaneError> {
        let cache = cache::named(self.cache.as_deref())?;
        super::start::start(self, cache).await
    }
}
