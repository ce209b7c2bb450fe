//! One run: from a permitted file to the end of its tree.
//!
//! ```text
//!  body ─▶ feed ─▶ stdin ┐                    ┌ stdout ─▶ pump ─▶ output (bounded, with backpressure)
//!                        warden ▶ … ▶ command ┤
//!  timeout, caller gone ─▶ end of the tree    └ stderr ─▶ keep ─▶ its last bytes
//! ```
//!
//! Invariants: a run leaves one line in the log, without arguments, variables and data; its slot and directory are
//! given back only when its tree has ended; whoever drops [`Started`] ends the run; no more than a few buffers of either
//! stream are in memory.

mod streams;
mod tail;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use bytes::Bytes;
use hyper::body::Body;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use crate::{
    Limits, Network, duration,
    slots::Slot,
    step::{Ended, Fence, Order, REPORT, Report, THIS_PROGRAM},
    wire::Word,
};
pub(crate) use tail::Tail;

/// How the private directories of runs begin, so that those of a crashed sidecar are found.
pub(crate) const FOLDER: &str = "trellis-hook-";
/// How long the warden has to end the tree before it is killed itself.
const GRACE: Duration = Duration::from_secs(2);

/// What is run.
#[derive(Debug)]
pub(crate) struct Job {
    /// As it was asked for, and for whom: for the log.
    pub(crate) command: String,
    pub(crate) namespace: Option<String>,
    pub(crate) file: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) env: BTreeMap<OsString, OsString>,
    pub(crate) timeout: Duration,
    pub(crate) limits: Limits,
    pub(crate) network: Network,
    /// What the run may open, where the kernel can keep it from the rest.
    pub(crate) fence: Option<Fence>,
    pub(crate) step: Vec<OsString>,
    pub(crate) folder: Folder,
    pub(crate) slot: Slot,
}

/// The private directory of a run: `work` is the command's, the report beside it is not.
#[derive(Debug)]
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new(place: &Path) -> io::Result<Self> {
        let prefix = format!("{FOLDER}{}-", std::process::id());
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir_in(place)?;
        std::fs::create_dir(folder.path().join("work"))?;
        Ok(Self(folder))
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.0.path().join("work")
    }

    fn report(&self) -> PathBuf {
        self.0.path().join(REPORT)
    }

    /// Removes it with all that is in it, also where the command closed its directories to itself.
    fn remove(self) -> io::Result<()> {
        let folder = self.0.keep();
        std::fs::remove_dir_all(&folder).or_else(|_| {
            open_up(&folder)?;
            std::fs::remove_dir_all(&folder)
        })
    }
}

/// Gives the owner its rights to every directory back. Links are not followed.
fn open_up(folder: &Path) -> io::Result<()> {
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))?;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}

/// A run that was started.
#[derive(Debug)]
pub(crate) struct Started {
    /// Standard output. Complete only when `finished` says that the command exited.
    pub(crate) output: mpsc::Receiver<Bytes>,
    pub(crate) finished: oneshot::Receiver<Finished>,
    /// Ends the run when it is dropped.
    pub(crate) guard: DropGuard,
}

/// How a run ended.
#[derive(Debug, Clone)]
pub(crate) struct Finished {
    pub(crate) end: End,
    pub(crate) stderr: Tail,
}

/// The end of a run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum End {
    #[error("exited with code {0}")]
    Exited(u8),
    #[error("timed out after {}", duration::text(*.0))]
    TimedOut(Duration),
    #[error("{stream} has more than {limit} bytes")]
    TooLarge { stream: &'static str, limit: u64 },
    #[error("{0}")]
    Wrote(String),
    #[error("has more than {0} processes")]
    TooManyProcesses(u32),
    #[error("cancelled")]
    Cancelled,
    #[error("could not be run: {0}")]
    Broken(String),
}

impl End {
    fn code(&self) -> Option<u8> {
        match self {
            Self::Exited(code) => Some(*code),
            _ => None,
        }
    }

    pub(crate) fn word(&self) -> Word {
        match self {
            Self::Exited(_) => Word::Exited,
            Self::TimedOut(_) => Word::TimedOut,
            Self::TooLarge { .. } | Self::Wrote(_) => Word::TooLarge,
            Self::TooManyProcesses(_) => Word::TooManyProcesses,
            Self::Cancelled => Word::Cancelled,
            Self::Broken(_) => Word::Broken,
        }
    }
}

/// Starts a run, with `stdin` as it comes. It ends when its task is told to by the token, too.
pub(crate) fn start<B>(job: Job, stdin: B, tasks: &TaskTracker, stop: &CancellationToken) -> io::Result<Started>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Send,
{
    let child = spawn(&job)?;
    let stop = stop.child_token();
    // Two buffers: one is sent while the next is filled.
    let (output, receiver) = mpsc::channel(2);
    let (finish, finished) = oneshot::channel();
    let guard = stop.clone().drop_guard();
    tasks.spawn(async move {
        let finished = supervise(job, child, stdin, output, stop).await;
        // Nobody may be there to hear it.
        let _ = finish.send(finished);
    });
    Ok(Started {
        output: receiver,
        finished,
        guard,
    })
}

fn spawn(job: &Job) -> io::Result<Child> {
    let order = Order {
        parent: std::process::id(),
        network: job.network,
        limits: job.limits,
        fence: job.fence.clone(),
    };
    Command::new(THIS_PROGRAM)
        .args(&job.step)
        .arg("warden")
        .arg(serde_json::to_string(&order)?)
        .arg(&job.file)
        .args(&job.args)
        .env_clear()
        .envs(&job.env)
        .current_dir(job.folder.work())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

async fn supervise<B>(
    job: Job,
    mut child: Child,
    stdin: B,
    output: mpsc::Sender<Bytes>,
    stop: CancellationToken,
) -> Finished
where
    B: Body<Data = Bytes> + Send + Unpin,
    B::Error: Send,
{
    let start = Instant::now();
    let deadline = start + job.timeout;
    let mut stderr = Tail::default();
    let (mut fed, mut pumped) = (0, 0);
    let gone = CancellationToken::new();
    let early = {
        let feed = streams::feed(child.stdin.take(), stdin, job.limits.stdin, &gone, &mut fed);
        let pump = streams::pump(child.stdout.take(), output, job.limits.stdout, &gone, &mut pumped);
        let keep = streams::keep(child.stderr.take(), &mut stderr, job.limits.stderr, &gone);
        let wait = async {
            let status = child.wait().await;
            gone.cancel();
            status
                .map(drop)
                .map_err(|error| End::Broken(format!("cannot wait for it: {error}")))
        };
        let all = async { tokio::try_join!(feed, pump, keep, wait).err() };
        tokio::select! {
            early = all => early,
            () = sleep_until(deadline) => Some(End::TimedOut(job.timeout)),
            () = stop.cancelled() => Some(End::Cancelled),
        }
    };
    if early.is_some() {
        end(&mut child).await;
    }
    let end = early.unwrap_or_else(|| reported(&job));
    tracing::info!(
        command = job.command,
        namespace = job.namespace,
        %end,
        exit = end.code(),
        milliseconds = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
        stdin = fed,
        stdout = pumped,
        stderr = stderr.total(),
        "hook ran"
    );
    let Job { folder, slot, .. } = job;
    let removed = tokio::task::spawn_blocking(move || folder.remove()).await;
    if !matches!(removed, Ok(Ok(()))) {
        tracing::warn!(?removed, "the directory of a hook stays behind until the next start");
    }
    drop(slot);
    Finished { end, stderr }
}

/// Has the tree ended by its warden, and by force when the warden does not answer.
async fn end(child: &mut Child) {
    let Some(pid) = child
        .id()
        .and_then(|pid| i32::try_from(pid).ok())
        .and_then(Pid::from_raw)
    else {
        return;
    };
    // Not waited for yet, so the number is still its own.
    let _ = kill_process(pid, Signal::TERM);
    if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
        tracing::warn!("a warden did not end its tree in time; its process group is killed");
        let _ = kill_process_group(pid, Signal::KILL);
        let _ = child.wait().await;
    }
}

/// What the warden said.
fn reported(job: &Job) -> End {
    let report = std::fs::read(job.folder.report())
        .map_err(|error| error.to_string())
        .and_then(|text| serde_json::from_slice::<Report>(&text).map_err(|error| error.to_string()));
    match report.map(|report| report.ended) {
        Ok(Ended::Exited(code)) => End::Exited(code),
        Ok(Ended::TooManyProcesses) => End::TooManyProcesses(job.limits.processes),
        Ok(Ended::Wrote(why)) => End::Wrote(why),
        Ok(Ended::Stopped) => End::Cancelled,
        Ok(Ended::Broken(why)) => End::Broken(why),
        Err(error) => End::Broken(format!("its warden left no report ({error})")),
    }
}
