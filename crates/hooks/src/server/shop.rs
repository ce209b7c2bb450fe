//! `Shop`: what all requests share, and the way from a request to a job.
//!
//! ```text
//!  request ─▶ timeout, variables ─▶ Allow ─▶ the file ─▶ a slot ─▶ a directory ─▶ Job
//! ```

use std::{ffi::OsString, fmt, fs, io, path::Path, process::Stdio, sync::Arc};

use http::{HeaderMap, header};
use tokio::process::Command;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Refused, ServeError};
use crate::{
    Allow, Asked, Isolation, Limits, Listen, Settings, environment, resolve,
    run::{FOLDER, Folder, Job},
    slots::Slots,
    step::{Fence, THIS_PROGRAM},
    wire::{self, Request},
};

/// Most arguments of a command.
const ARGUMENTS: usize = 4096;
/// Longest argument, in bytes; the kernel's own limit is 128 KiB.
const ARGUMENT: usize = 96 * 1024;

/// What all requests share.
pub(super) struct Shop {
    pub(super) settings: Settings,
    allow: Box<dyn Allow>,
    slots: Slots,
    path: OsString,
    fence: Option<Fence>,
    /// Ends all runs and connections.
    pub(super) stop: CancellationToken,
    pub(super) runs: TaskTracker,
    pub(super) connections: TaskTracker,
}

impl fmt::Debug for Shop {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Shop")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl Shop {
    /// `fenced`: whether the kernel can keep runs from the files of others.
    pub(super) fn new(settings: Settings, allow: Box<dyn Allow>, fenced: bool) -> Self {
        Self {
            fence: fenced.then(|| settings.fence()),
            slots: Slots::new(settings.at_once, settings.queue, settings.patience),
            path: std::env::join_paths(&settings.path).unwrap_or_default(),
            settings,
            allow,
            stop: CancellationToken::new(),
            runs: TaskTracker::new(),
            connections: TaskTracker::new(),
        }
    }

    /// Whether the request carries the token, where one is needed.
    pub(super) fn knows(&self, headers: &HeaderMap) -> bool {
        match &self.settings.listen {
            Listen::Socket(_) => true,
            Listen::Loopback { token, .. } => headers
                .get(header::AUTHORIZATION)
                .is_some_and(|value| token.is_in(value.as_bytes())),
        }
    }

    /// A job for what was asked, when it may run and has its turn.
    pub(super) async fn admit(self: &Arc<Self>, request: Request, limits: Limits) -> Result<Job, Refused> {
        let (command, namespace) = (request.command.clone(), request.namespace.clone());
        self.judge(request, limits).await.map_err(|why| Refused::Hook {
            command,
            namespace,
            why: Box::new(why),
        })
    }

    async fn judge(self: &Arc<Self>, request: Request, limits: Limits) -> Result<Job, Refused> {
        let timeout = wire::timeout(&request.timeout, self.settings.default_timeout).map_err(Refused::Bad)?;
        for (name, value) in &request.env {
            environment::check(name, value)?;
        }
        if request.args.len() > ARGUMENTS
            || request
                .args
                .iter()
                .any(|arg| arg.len() > ARGUMENT || arg.contains('\0'))
        {
            return Err(Refused::Bad(
                "an argument holds a NUL or is longer than 96 KiB, or there are too many".to_owned(),
            ));
        }
        let namespace = request.namespace.as_deref();
        let env: Vec<&str> = request.env.keys().map(String::as_str).collect();
        let asked = Asked {
            namespace,
            command: &request.command,
            args: &request.args,
            env: &env,
        };
        let permit = self.allow.allow(&asked)?;
        let slot = self.slots.take().await?;
        let shop = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            let settings = &shop.settings;
            let file = resolve::resolve(&request.command, &permit, &settings.path)?;
            let folder = Folder::new(&settings.work)?;
            Ok(Job {
                command: request.command,
                namespace: request.namespace,
                file,
                env: environment::whole(&shop.path, &folder.work(), &settings.passed, &request.env),
                args: request.args,
                timeout,
                limits,
                network: settings.network,
                fence: shop.fence.clone(),
                step: settings.step.clone(),
                folder,
                slot,
            })
        })
        .await
        .map_err(io::Error::from)?
    }
}

/// Removes the directories of runs whose sidecar is gone. Their names hold its process id, which in a container is
/// often the same after a restart; one of our own number is left over as well, since nothing runs yet.
pub(super) fn sweep(work: &Path) -> io::Result<()> {
    for entry in fs::read_dir(work)?.filter_map(Result::ok) {
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|name| name.strip_prefix(FOLDER)?.split_once('-')?.0.parse::<u32>().ok());
        let Some(owner) = owner else { continue };
        if owner != std::process::id() && Path::new(&format!("/proc/{owner}")).exists() {
            continue;
        }
        if let Err(error) = fs::remove_dir_all(entry.path()) {
            tracing::warn!(%error, folder = %entry.path().display(), "cannot remove what a hook left");
        }
    }
    Ok(())
}

/// Asks the kernel, through the same steps as a run, what runs can be kept apart from.
pub(super) async fn probe(settings: &Settings) -> Result<Isolation, ServeError> {
    let step = |error: String| ServeError::Step(error);
    let network = serde_json::to_string(&settings.network).map_err(|error| step(error.to_string()))?;
    let output = Command::new(THIS_PROGRAM)
        .args(&settings.step)
        .args(["probe", &network])
        .env_clear()
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| step(error.to_string()))?;
    serde_json::from_slice(&output.stdout)
        .map_err(|_| step(format!("it said {:?}", String::from_utf8_lossy(&output.stderr).trim())))
}
