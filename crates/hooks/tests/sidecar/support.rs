//! Starts the sidecar as a real process and looks at it from outside.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use trellis_hooks::{Client, Endpoint, Hook, Token};

/// The user that hooks run as in the shipped image.
const NOBODY: u32 = 65532;
/// How long a condition may take to come true on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running sidecar; ended when dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) root: TempDir,
    pub(crate) work: PathBuf,
    pub(crate) port: Option<u16>,
    pub(crate) isolation: Value,
    token: Option<String>,
}

impl Process {
    /// With a socket file and these options; not as root where that can be chosen, since limits do not bind root.
    pub(crate) fn start(options: Value) -> Self {
        Self::start_with(options, &[])
    }

    /// Started by another program in front, such as `unshare`.
    pub(crate) fn start_with(options: Value, front: &[&str]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let work = root.path().join("work");
        fs::create_dir(&work).unwrap();
        let mut all = json!({ "work": work });
        if options.get("token").is_none() {
            all["socket"] = json!(root.path().join("s"));
        }
        for (name, value) in options.as_object().unwrap() {
            all[name] = value.clone();
        }
        let program = reachable(root.path());
        let words: Vec<&str> = front.iter().copied().chain([program.to_str().unwrap()]).collect();
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .arg(all.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        command.env("SECRET_OF_THE_SIDECAR", "do not tell");
        if is_root() {
            for folder in [root.path(), &work] {
                fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap();
            }
            command.uid(NOBODY).gid(NOBODY);
        }
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let mut parts = line.trim().splitn(3, ' ');
        assert_eq!(parts.next(), Some("ready"), "it said {line:?}");
        let port = parts.next().unwrap().parse().ok();
        let isolation = serde_json::from_str(parts.next().unwrap()).unwrap();
        let token = all["token"].as_str().map(str::to_owned);
        Self {
            child,
            root,
            work,
            port,
            isolation,
            token,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.root.path().join("s")
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        match self.port {
            None => Endpoint::Socket(self.socket()),
            Some(port) => Endpoint::Loopback {
                port,
                token: self.token.as_deref().map(|token| Token::new(token).unwrap()),
            },
        }
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.endpoint())
    }

    /// Runs of this sidecar whose directory is still there.
    pub(crate) fn folders(&self) -> usize {
        fs::read_dir(&self.work).unwrap().count()
    }

    /// Peak of resident memory, in bytes.
    pub(crate) fn peak(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    pub(crate) fn terminate(&mut self) -> std::process::ExitStatus {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap()
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The sidecar's program in this folder: where it was built, others than its builder may not look.
fn reachable(folder: &Path) -> PathBuf {
    let built = env!("CARGO_BIN_EXE_hooks-sidecar");
    let program = folder.join("hooks-sidecar");
    if fs::hard_link(built, &program).is_err() {
        fs::copy(built, &program).unwrap();
    }
    program
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

pub(crate) fn hook(command: &str, args: &[&str]) -> Hook {
    Hook {
        command: command.to_owned(),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: BTreeMap::new(),
        timeout: Some(Duration::from_mins(1)),
        namespace: None,
    }
}

pub(crate) fn shell(script: &str) -> Hook {
    hook("bash", &["-c", script])
}

/// Processes that have `mark` as an argument, without the sidecar's own steps.
pub(crate) fn marked(mark: &str) -> Vec<u32> {
    let all = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
            words.contains(&mark.as_bytes()) && !words.contains(&b"hooks-step".as_slice())
        })
        .collect()
}

/// Waits until it is so.
pub(crate) async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < PATIENCE, "{what} did not come true");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A number of seconds that no other test sleeps: marks the processes of one test.
pub(crate) fn mark() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "{}.{}",
        100_000 + std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// What `curl` gets: status, then body.
pub(crate) fn curl(process: &Process, args: &[&str]) -> (u16, String) {
    let mut command = Command::new("curl");
    command.args(["-sS", "-w", "\n%{http_code}"]);
    if process.port.is_none() {
        command.arg("--unix-socket").arg(process.socket());
    }
    let output = command.args(args).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), body.to_owned())
}

/// Whether the kernel lets runs have namespaces of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kernel {
    Allows,
    Refuses,
}

impl Kernel {
    /// A sidecar under such a kernel.
    pub(crate) fn start(self, options: Value) -> Process {
        self.start_below(&[], options)
    }

    /// The same, below another program in front.
    pub(crate) fn start_below(self, front: &[&str], options: Value) -> Process {
        let process = match self {
            Self::Allows => Process::start_with(options, front),
            Self::Refuses => Process::start_with(options, &[front, REFUSING].concat()),
        };
        assert_eq!(
            process.isolation["processes"],
            self == Self::Allows,
            "{}",
            process.isolation
        );
        process
    }
}

/// No further namespaces below this one: what a container's seccomp profile does, for real.
pub(crate) const REFUSING: &[&str] = &[
    "unshare",
    "-r",
    "bash",
    "-c",
    "for kind in user pid net; do echo 0 > /proc/sys/user/max_${kind}_namespaces; done; exec \"$@\"",
    "-",
];
