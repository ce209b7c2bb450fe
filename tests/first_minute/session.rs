//! One `trellis dev up`, attached to the test or detached from it, and other commands beside it.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use serde_json::Value;
use tokio::time::interval;
use trellis_devplane::{Process, Signal};
use trellis_testkit::{eventually, operator::binary};

/// How often a process is looked at that may end at any time.
const LOOK: Duration = Duration::from_millis(20);

/// What a command has said.
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "exit code {:?}\nstdout: {}\nstderr: {}",
            self.code, self.stdout, self.stderr
        )
    }
}

/// Where the README's commands are typed: the examples are found from there.
fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

async fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary().await.unwrap());
    command.args(arguments).current_dir(checkout()).env("NO_COLOR", "1");
    command
}

/// Runs a command to its end.
pub(crate) async fn trellis(arguments: &[&str]) -> Said {
    let mut command = command(arguments).await;
    command.stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
        .unwrap();
    Said {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The record of a running `dev up`, once there is one; `ready`: once everything in it is up.
async fn record(pid: u32, ready: bool) -> Value {
    eventually("dev status shows it", async || {
        let said = trellis(&["dev", "status", "--json"]).await;
        let records: Vec<Value> = serde_json::from_str(&said.stdout).map_err(|_| said.to_string())?;
        let own = records
            .into_iter()
            .find(|record| record["pid"] == pid && (!ready || record["ready"] == true));
        own.ok_or_else(|| said.to_string())
    })
    .await
}

/// A `dev up` that is a child of the test; it is killed with it.
pub(crate) struct Attached {
    process: Process,
    _folder: tempfile::TempDir,
}

impl Attached {
    /// Starts it, and waits for nothing.
    pub(crate) async fn spawn(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let command = command(&[&["dev", "up"], arguments].concat()).await;
        let process = Process::spawn("dev-up", &command, &folder.path().join("log")).unwrap();
        Self {
            process,
            _folder: folder,
        }
    }

    /// Starts it, and waits until everything is up.
    pub(crate) async fn start(arguments: &[&str]) -> Self {
        let up = Self::spawn(arguments).await;
        eventually("dev up says that it is up", async || {
            let said = up.said();
            assert!(up.process.running(), "{said}");
            if said.contains("export KUBECONFIG=") {
                Ok(())
            } else {
                Err(said)
            }
        })
        .await;
        up
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(crate) fn said(&self) -> String {
        fs::read_to_string(self.process.log()).unwrap()
    }

    pub(crate) async fn record(&self) -> Value {
        record(self.pid(), true).await
    }

    /// The folder of its plane, as soon as it says so.
    pub(crate) async fn directory(&self) -> String {
        let record = record(self.pid(), false).await;
        record["directory"].as_str().unwrap().to_owned()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    pub(crate) async fn exited(&self) -> ExitStatus {
        self.process.exited().await
    }

    /// Looks again and again until it has ended.
    pub(crate) async fn exited_while(&self, mut look: impl AsyncFnMut()) -> ExitStatus {
        let mut pace = interval(LOOK);
        loop {
            tokio::select! {
                status = self.exited() => return status,
                _ = pace.tick() => look().await,
            }
        }
    }
}

/// A `dev up --detach`; it is taken down at the end of the test, however that comes.
pub(crate) struct Detached {
    record: Value,
    program: PathBuf,
    down: bool,
}

impl Detached {
    pub(crate) async fn up(arguments: &[&str]) -> Self {
        let said = trellis(&[&["dev", "up", "--detach", "--json"], arguments].concat()).await;
        assert_eq!(said.code, Some(0), "{said}");
        Self {
            record: serde_json::from_str(&said.stdout).unwrap(),
            program: binary().await.unwrap(),
            down: false,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.record["pid"].as_u64().unwrap().try_into().unwrap()
    }

    pub(crate) fn server(&self) -> &str {
        self.record["server"].as_str().unwrap()
    }

    /// The file that `dev env` names.
    pub(crate) async fn kubeconfig(&self) -> PathBuf {
        let said = trellis(&["dev", "env", "--pid", &self.pid().to_string()]).await;
        let path = said.stdout.trim_end().strip_prefix("export KUBECONFIG=");
        PathBuf::from(path.unwrap_or_else(|| panic!("{said}")))
    }

    /// `dev down`.
    pub(crate) async fn down(mut self) {
        self.down = true;
        let pid = self.pid().to_string();
        let said = trellis(&["dev", "down", "--pid", &pid]).await;
        assert_eq!(said.code, Some(0), "{said}");
        let listed = trellis(&["dev", "status", "--json"]).await;
        let records: Vec<Value> = serde_json::from_str(&listed.stdout).unwrap();
        assert!(records.iter().all(|record| record["pid"] != self.pid()), "{listed}");
    }
}

impl Drop for Detached {
    fn drop(&mut self) {
        if !self.down {
            let pid = self.pid().to_string();
            // The test has failed already; this only tidies up.
            let _ = Command::new(&self.program)
                .args(["dev", "down", "--pid", &pid])
                .status();
        }
    }
}
