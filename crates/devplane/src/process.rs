//! `Process`: a child that cannot outlive its owner.
//!
//! ```text
//! owner ──pipe──▶ guardian (sh, same process group) ──signal──▶ peer
//!                 end of pipe ⇒ KILL to the whole group
//! ```
//!
//! Invariants: the peer is the direct child (its PID and exit status are the real ones); the only write end of the pipe
//! is in the owner, so the owner's death, of whatever kind and on whatever thread, ends the group.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// The guardian reads signal names from the pipe and, at its end, kills its process group. The shell then becomes the
/// peer. A process group's number is not reused while the guardian is in it, so `$$` never names a stranger.
const GUARD: &str = r#"exec 3<&0 </dev/null
{ while read -r signal <&3; do kill -s "$signal" "$$"; done; kill -s KILL 0; } 2>/dev/null &
exec 3<&-
exec "$@"
"#;

/// How many lines of a log an error quotes.
const TAIL_LINES: usize = 20;
/// How much of the end of a log is looked at, in bytes.
const TAIL_BYTES: u64 = 64 * 1024;
/// Longest quoted line, in characters.
const TAIL_WIDTH: usize = 500;
/// How long `Drop` waits for a killed process to be gone.
const DROP_PATIENCE: Duration = Duration::from_secs(2);

/// Why a process could not be started or did not stay.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// The log file could not be opened.
    #[error("cannot open the log of {name} at {}", log.display())]
    Log {
        /// The process.
        name: String,
        /// Its log file.
        log: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The operating system refused to start it.
    #[error("cannot start {name}")]
    Spawn {
        /// The process.
        name: String,
        /// The cause.
        source: io::Error,
    },
    /// It ended although it should run. `tail` quotes the end of its log.
    #[error("{name} ended ({status}); log: {}\n{tail}\nhint: {}", log.display(), hint(tail, *status))]
    Ended {
        /// The process.
        name: String,
        /// How it ended.
        status: ExitStatus,
        /// Its log file.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },
}

impl ProcessError {
    /// Whether the process ended because somebody else had taken its port.
    #[must_use]
    pub fn port_taken(&self) -> bool {
        matches!(self, Self::Ended { tail, .. } if tail.contains("address already in use"))
    }
}

/// What to do about an ended process, from what it said last.
fn hint(tail: &str, status: ExitStatus) -> &'static str {
    if tail.contains("address already in use") {
        "another process took the port; start again"
    } else if tail.contains("no space left on device") {
        "the disk is full; free some space and start again"
    } else if tail.contains("too many open files") {
        "raise the limit of open files (`ulimit -n`) and start again"
    } else if status.signal() == Some(9) {
        "it was killed from outside, often because memory ran out; check free memory and start again"
    } else {
        "the log says why; for a state directory that no longer starts, use a new one"
    }
}

/// A signal that can be sent to a [`Process`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Please end (SIGTERM).
    Term,
    /// Please end, as if from a terminal (SIGINT).
    Int,
    /// End at once (SIGKILL); only the process itself, not what it started.
    Kill,
    /// Freeze (SIGSTOP).
    Stop,
    /// Thaw (SIGCONT).
    Cont,
}

impl Signal {
    fn line(self) -> &'static [u8] {
        match self {
            Self::Term => b"TERM\n",
            Self::Int => b"INT\n",
            Self::Kill => b"KILL\n",
            Self::Stop => b"STOP\n",
            Self::Cont => b"CONT\n",
        }
    }
}

/// An owned child process with a log file.
///
/// # Guarantees
/// - It runs in its own process group, in which everything is killed when this value is dropped and when the owning
///   process ends in any way, `kill -9` included.
/// - It does not depend on the thread or the async runtime that started it.
/// - Standard output and error go to the log, which is appended to; standard input is empty.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: u32,
    log: PathBuf,
    log_start: u64,
    control: Arc<Mutex<Option<ChildStdin>>>,
    exit: watch::Receiver<Option<ExitStatus>>,
}

impl Process {
    /// Starts `command` (its program, arguments, environment changes and directory; other settings are ignored).
    ///
    /// A program that does not exist shows as a process that ends with status 127 and says so in its log.
    pub fn spawn(name: &str, command: &Command, log: &Path) -> Result<Self, ProcessError> {
        let log_error = |source| ProcessError::Log {
            name: name.to_owned(),
            log: log.to_owned(),
            source,
        };
        let output = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .map_err(log_error)?;
        let log_start = output.metadata().map_err(log_error)?.len();
        let error = output.try_clone().map_err(log_error)?;

        let spawn_error = |source| ProcessError::Spawn {
            name: name.to_owned(),
            source,
        };
        let mut child = guarded(command)
            .stdin(Stdio::piped())
            .stdout(output)
            .stderr(error)
            .process_group(0)
            .spawn()
            .map_err(spawn_error)?;
        let pid = child.id();
        let control = Arc::new(Mutex::new(child.stdin.take()));
        let (ended, exit) = watch::channel(None);
        let pipe = Arc::clone(&control);
        // A thread rather than the runtime's reaper: a shared process outlives the runtime of the test that started it.
        std::thread::Builder::new()
            .name(format!("wait-{name}"))
            .spawn(move || {
                let status = child.wait().unwrap_or_else(|_| unknown());
                close(&pipe);
                ended.send_replace(Some(status));
            })
            .map_err(spawn_error)?;
        Ok(Self {
            name: name.to_owned(),
            pid,
            log: log.to_owned(),
            log_start,
            control,
            exit,
        })
    }

    /// The name given at the start.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process ID, which is also its process group.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The log file.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The last lines that this run wrote to the log; empty when it wrote none or the log cannot be read.
    #[must_use]
    pub fn tail(&self) -> String {
        tail(&self.log, self.log_start).unwrap_or_default()
    }

    /// How many of the last lines that this run wrote to the log contain `text`; twenty at most.
    pub(crate) fn said(&self, text: &str) -> usize {
        quote(&self.log, self.log_start, |line| line.contains(text)).map_or(0, |lines| lines.lines().count())
    }

    /// Whether it has not ended yet.
    #[must_use]
    pub fn running(&self) -> bool {
        self.exit.borrow().is_none()
    }

    /// Waits for the end.
    pub async fn exited(&self) -> ExitStatus {
        let mut exit = self.exit.clone();
        exit.wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|status| *status)
            .unwrap_or_else(unknown)
    }

    /// Waits for the end and describes it as the error that it is for a process that should run.
    pub async fn died(&self) -> ProcessError {
        let status = self.exited().await;
        ProcessError::Ended {
            name: self.name.clone(),
            status,
            log: self.log.clone(),
            tail: self.tail(),
        }
    }

    /// Sends a signal; does nothing when the process has ended.
    pub fn signal(&self, signal: Signal) {
        if let Some(pipe) = self.control.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            // A broken pipe means that the guardian is gone, and then so is the process.
            let _ = pipe.write_all(signal.line());
        }
    }

    /// Asks it to end, and after `grace` kills its group. Returns when it is gone.
    pub async fn stop(&self, grace: Duration) -> ExitStatus {
        self.signal(Signal::Term);
        if let Ok(status) = tokio::time::timeout(grace, self.exited()).await {
            return status;
        }
        self.kill();
        self.exited().await
    }

    /// Kills its whole group; returns without waiting.
    pub fn kill(&self) {
        close(&self.control);
    }
}

/// Kills and waits (at most two seconds, typically a few milliseconds), so that files and ports are free afterwards.
impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        let since = Instant::now();
        while self.running() && since.elapsed() < DROP_PATIENCE {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// `command` as the guardian's arguments.
fn guarded(command: &Command) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell
        .arg("-c")
        .arg(GUARD)
        .arg("guard")
        .arg(command.get_program())
        .args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(key, value),
            None => shell.env_remove(key),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        shell.current_dir(directory);
    }
    shell
}

fn close(control: &Mutex<Option<ChildStdin>>) {
    drop(control.lock().unwrap_or_else(PoisonError::into_inner).take());
}

/// The status of a process whose real one cannot be known (exit code 255).
fn unknown() -> ExitStatus {
    ExitStatus::from_raw(0xff00)
}

/// The last lines of `path`, not looking before byte `start`.
fn tail(path: &Path, start: u64) -> io::Result<String> {
    quote(path, start, |_| true)
}

/// The last of the lines of `path` that satisfy `wanted`, not looking before byte `start`.
pub(crate) fn quote(path: &Path, start: u64, wanted: impl Fn(&str) -> bool) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(start.max(length.saturating_sub(TAIL_BYTES))))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().filter(|line| wanted(line)).collect();
    let skip = lines.len().saturating_sub(TAIL_LINES);
    let quoted: Vec<String> = lines
        .into_iter()
        .skip(skip)
        .map(|line| line.chars().take(TAIL_WIDTH).collect())
        .collect();
    Ok(quoted.join("\n"))
}
