//! `Operator`: the real binary, as a process that the test owns.
//!
//! Launch (flags, kubeconfig) ─▶ `trellis operator …` ─▶ log, health, signals, memory ─▶ ends with the test

mod binary;

use std::{
    ffi::OsString,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, header::HOST};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tower::BoxError;
pub use trellis_devplane::Signal;
use trellis_devplane::{Process, ProcessError};

pub use self::binary::{BinaryError, binary, released};
use crate::eventually;

/// How long a process that was asked to end may take before it is killed.
const GRACE: Duration = Duration::from_secs(20);
/// How much of the log a failed test prints, in lines.
const LAST_LINES: usize = 40;

/// Why an operator could not be started or observed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OperatorError {
    /// There is no binary.
    #[error(transparent)]
    Binary(#[from] BinaryError),
    /// It did not start.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A file of it, or of `/proc`, could not be read or made.
    #[error("operator {identity}")]
    Io {
        /// Which replica.
        identity: String,
        /// What happened.
        source: io::Error,
    },
}

/// How to start an operator; may be started several times, one process after another.
#[derive(Clone, Debug)]
pub struct Launch {
    identity: String,
    kubeconfig: PathBuf,
    program: Option<PathBuf>,
    flags: Vec<(String, String)>,
    environment: Vec<(String, OsString)>,
}

impl Launch {
    /// `trellis operator` under this kubeconfig, as the replica `identity`: Lease holder and user agent carry it, so
    /// give each replica of a plane its own. It listens on free loopback ports, logs JSON, and keeps artifacts in memory.
    #[must_use]
    pub fn new(kubeconfig: &Path, identity: &str) -> Self {
        let launch = Self {
            identity: identity.to_owned(),
            kubeconfig: kubeconfig.to_owned(),
            program: None,
            flags: Vec::new(),
            environment: Vec::new(),
        };
        launch
            .flag("identity", identity)
            .flag("listen", "127.0.0.1:0")
            .flag("log", "json")
            .flag("storage-backend", "memory")
            .flag("storage-addr", "127.0.0.1:0")
    }

    /// `--name value`; a flag given before is replaced.
    #[must_use]
    pub fn flag(mut self, name: &str, value: &str) -> Self {
        self.flags.retain(|(given, _)| given != name);
        self.flags.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Another program than [`binary`].
    #[must_use]
    pub fn program(mut self, path: &Path) -> Self {
        self.program = Some(path.to_owned());
        self
    }

    /// An environment variable.
    #[must_use]
    pub fn environment(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Only these controllers, comma-separated.
    #[must_use]
    pub fn controllers(self, names: &str) -> Self {
        self.flag("controllers", names)
    }

    /// Only this namespace, or several, comma-separated.
    #[must_use]
    pub fn namespaces(self, namespaces: &str) -> Self {
        self.flag("namespaces", namespaces)
    }

    /// The Lease that it competes for.
    #[must_use]
    pub fn lease(self, namespace: &str, name: &str) -> Self {
        self.flag("lease-namespace", namespace).flag("lease-name", name)
    }

    /// How long a claim of the Lease lasts, such as `2s`.
    #[must_use]
    pub fn lease_duration(self, time: &str) -> Self {
        self.flag("lease-duration", time)
    }

    /// The version of Linkerd to assume, such as `2.18`.
    #[must_use]
    pub fn linkerd_version(self, version: &str) -> Self {
        self.flag("linkerd-version", version)
    }

    /// Which replica this is.
    #[must_use]
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Starts it. Returns once the process runs; see [`Operator::ready`].
    pub async fn start(&self) -> Result<Operator, OperatorError> {
        let io = |source| OperatorError::Io {
            identity: self.identity.clone(),
            source,
        };
        let program = match &self.program {
            Some(program) => program.clone(),
            None => binary().await?,
        };
        let directory = tempfile::tempdir().map_err(io)?;
        let mut command = Command::new(program);
        command
            .arg("operator")
            .env("KUBECONFIG", &self.kubeconfig)
            .current_dir(directory.path());
        for (name, value) in &self.flags {
            command.arg(format!("--{name}")).arg(value);
        }
        for (name, value) in &self.environment {
            command.env(name, value);
        }
        let name = format!("operator-{}", self.identity);
        let process = Process::spawn(&name, &command, &directory.path().join("log"))?;
        Ok(Operator {
            process,
            identity: self.identity.clone(),
            _directory: directory,
        })
    }
}

/// A running operator; it is killed when dropped, and by the end of the test process.
///
/// When its test panics, the end of its log is printed.
#[derive(Debug)]
pub struct Operator {
    process: Process,
    identity: String,
    _directory: tempfile::TempDir,
}

impl Operator {
    /// Which replica this is.
    #[must_use]
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Process ID.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Whether it still runs (or is frozen).
    #[must_use]
    pub fn running(&self) -> bool {
        self.process.running()
    }

    /// Everything it has said.
    pub fn log(&self) -> Result<String, OperatorError> {
        let bytes = std::fs::read(self.process.log()).map_err(|source| self.io(source))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The log lines that are JSON objects.
    pub fn log_lines(&self) -> Result<Vec<Value>, OperatorError> {
        Ok(self
            .log()?
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .filter(Value::is_object)
            .collect())
    }

    /// Where it serves `/metrics`, `/livez` and `/readyz`; waits until it says so.
    pub async fn address(&self) -> SocketAddr {
        eventually("the operator says where it listens", async || {
            if !self.running() {
                return Err(format!("it ended: {}", self.process.tail()));
            }
            let lines = self.log_lines().map_err(|error| error.to_string())?;
            let said = lines
                .iter()
                .filter(|line| field(line, "message").is_some_and(|text| text == "listening"));
            let address = said
                .filter_map(|line| field(line, "address")?.as_str()?.parse().ok())
                .next_back();
            address.ok_or_else(|| self.process.tail())
        })
        .await
    }

    /// GET on its own server: status and body.
    pub async fn get(&self, path: &str) -> Result<(u16, String), BoxError> {
        let address = self.address().await;
        let (mut sender, connection) = http1::handshake(TokioIo::new(TcpStream::connect(address).await?)).await?;
        let connection = tokio::spawn(connection);
        let request = Request::get(path)
            .header(HOST, address.to_string())
            .body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await?.to_bytes();
        connection.abort();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }

    /// Waits until `/readyz` says yes.
    pub async fn ready(&self) {
        eventually("the operator is ready", async || match self.get("/readyz").await {
            Ok((200, _)) => Ok(()),
            Ok((status, body)) => Err(format!("{status} {body}")),
            Err(error) => Err(error.to_string()),
        })
        .await;
    }

    /// SIGKILL; returns when the process is gone.
    pub async fn kill9(&self) -> ExitStatus {
        self.process.kill();
        self.process.exited().await
    }

    /// SIGTERM or SIGINT; returns when the process has ended, killed after 20 seconds.
    pub async fn stop(&self, signal: Signal) -> ExitStatus {
        self.process.signal(signal);
        match tokio::time::timeout(GRACE, self.process.exited()).await {
            Ok(status) => status,
            Err(_elapsed) => self.kill9().await,
        }
    }

    /// SIGSTOP; returns when the process is frozen.
    pub async fn pause(&self) {
        self.process.signal(Signal::Stop);
        self.until("frozen", |state| state == 'T').await;
    }

    /// SIGCONT; returns when the process goes on.
    pub async fn resume(&self) {
        self.process.signal(Signal::Cont);
        self.until("going on", |state| state != 'T').await;
    }

    /// Resident memory in bytes.
    pub fn memory(&self) -> Result<u64, OperatorError> {
        self.bytes("VmRSS:")
    }

    /// The most that it ever was.
    pub fn peak_memory(&self) -> Result<u64, OperatorError> {
        self.bytes("VmHWM:")
    }

    fn bytes(&self, field: &str) -> Result<u64, OperatorError> {
        let status = self.proc("status")?;
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix(field)?.trim().strip_suffix("kB")?.trim().parse().ok());
        let missing = || {
            let what = format!("no {field} the process is gone");
            self.io(io::Error::new(io::ErrorKind::NotFound, what))
        };
        kib.map(|kib: u64| kib * 1024).ok_or_else(missing)
    }

    async fn until(&self, what: &str, reached: impl Fn(char) -> bool) {
        eventually(&format!("operator {} is {what}", self.identity), async || {
            let stat = self.proc("stat").map_err(|error| error.to_string())?;
            // "pid (name) S …": the name may hold anything, so the state follows the last parenthesis.
            let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
            state.filter(|state| reached(*state)).map(drop).ok_or(stat)
        })
        .await;
    }

    fn proc(&self, file: &str) -> Result<String, OperatorError> {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.pid())).map_err(|source| self.io(source))
    }

    fn io(&self, source: io::Error) -> OperatorError {
        OperatorError::Io {
            identity: self.identity.clone(),
            source,
        }
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log().unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines.get(lines.len().saturating_sub(LAST_LINES)..).unwrap_or_default();
            eprintln!(
                "operator {}, last lines of its log:\n{}",
                self.identity,
                last.join("\n")
            );
        }
    }
}

/// A field of a log line, at the top or under `fields`.
fn field<'a>(line: &'a Value, name: &str) -> Option<&'a Value> {
    line.get(name).or_else(|| line.get("fields")?.get(name))
}
