//! A sidecar as it is in a Pod: the real binary, a mounted ConfigMap with its whitelist, a folder for its runs, its log.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, symlink},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use trellis_testkit::{eventually, operator::binary};

/// The user of the chart's Pods; limits do not bind root.
const USER: u32 = 65532;
/// A whitelist that takes `tr a-z A-Z` and scripts, and nothing else.
pub(crate) const FIRST: &str = r"
commands:
  tr: { allowed: true, argumentPatterns: ['a-z', 'A-Z'] }
  bash: { allowed: true }
  rm: { allowed: false }
";
/// One that takes `wc -c` only.
pub(crate) const SECOND: &str = "commands: { wc: { allowed: true, argumentPatterns: ['-c'] } }";

/// A folder of a sidecar: a mounted ConfigMap with its whitelist, a folder for its runs, its log.
pub(crate) struct Pod {
    folder: TempDir,
    program: PathBuf,
}

/// The sidecar's process; killed when dropped.
pub(crate) struct Sidecar {
    process: Child,
}

impl Pod {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("trellis");
        let built = binary().await.unwrap();
        // Where it was built, others than its builder may not look.
        if fs::hard_link(&built, &program).is_err() {
            fs::copy(&built, &program).unwrap();
        }
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let pod = Self { folder, program };
        for name in ["work", "hooks"] {
            fs::create_dir(pod.file(name)).unwrap();
            fs::set_permissions(pod.file(name), fs::Permissions::from_mode(0o777)).unwrap();
        }
        symlink("..data/whitelist.yaml", pod.whitelist()).unwrap();
        pod.mount("..1", FIRST);
        pod
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn whitelist(&self) -> PathBuf {
        self.file("hooks/whitelist.yaml")
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.file("log")).unwrap()
    }

    /// Puts another text into the mounted ConfigMap, as the kubelet does: a new folder, and `..data` swapped to it.
    pub(crate) fn mount(&self, version: &str, text: &str) {
        let hooks = self.file("hooks");
        fs::create_dir(hooks.join(version)).unwrap();
        fs::write(hooks.join(version).join("whitelist.yaml"), text).unwrap();
        symlink(version, hooks.join("..data_tmp")).unwrap();
        fs::rename(hooks.join("..data_tmp"), hooks.join("..data")).unwrap();
    }

    /// Starts it and waits until it answers.
    pub(crate) async fn start(&self, more: &[&str]) -> Sidecar {
        let log = fs::File::create(self.file("log")).unwrap();
        let mut command = Command::new(&self.program);
        command
            .arg("hooks")
            .args([Path::new("--whitelist"), &self.whitelist()])
            .args([Path::new("--work"), &self.file("work")])
            .args(more)
            .stdin(Stdio::null())
            .stderr(log);
        if more.is_empty() {
            command.args([Path::new("--socket"), &self.file("s")]);
        }
        if fs::metadata("/proc/self").unwrap().uid() == 0 {
            command.uid(USER).gid(USER);
        }
        let sidecar = Sidecar {
            process: command.spawn().unwrap(),
        };
        eventually("the sidecar serves", async || {
            let log = self.log();
            if log.contains("serving hooks") {
                Ok(())
            } else {
                Err(log)
            }
        })
        .await;
        sidecar
    }

    /// What `curl` gets at the socket: status, then body.
    pub(crate) fn curl(&self, arguments: &[&str]) -> (u16, String) {
        curl(&[&["--unix-socket", self.file("s").to_str().unwrap()], arguments].concat())
    }

    pub(crate) fn execute(&self, asked: &Value) -> (u16, String) {
        self.curl(&["--data-binary", &asked.to_string(), "http://localhost/execute"])
    }

    pub(crate) async fn status(&self, asked: Value, wanted: u16) {
        eventually("the rules count", async || match self.execute(&asked) {
            (found, _) if found == wanted => Ok(()),
            (found, text) => Err(format!("{found} {text}; {}", self.log())),
        })
        .await;
    }
}

impl Sidecar {
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([format!("-{name}"), self.process.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
    }

    pub(crate) fn ended(&mut self) -> ExitStatus {
        self.process.wait().unwrap()
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(crate) fn curl(arguments: &[&str]) -> (u16, String) {
    let output = Command::new("curl")
        .args(["-sS", "-w", "\n%{http_code}"])
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), body.to_owned())
}

/// Processes with this argument that are no step of the sidecar.
pub(crate) fn marked(mark: &str) -> usize {
    let all = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    all.filter(|entry| {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        words.contains(&mark.as_bytes()) && !words.contains(&b"hooks-step".as_slice())
    })
    .count()
}

pub(crate) async fn until(what: &str, so: impl Fn() -> bool) {
    eventually(what, async || if so() { Ok(()) } else { Err("not yet") }).await;
}

/// A run of a tree of three that sleeps for this number of seconds, which no other test does.
pub(crate) fn tree(mark: &str) -> Value {
    let script = format!("setsid sleep {mark} & bash -c 'sleep {mark} & wait' & sleep {mark}");
    json!({ "command": "bash", "args": ["-c", script], "timeout": "2m" })
}

/// Asks for such a run and returns when it is under way.
pub(crate) async fn begun(pod: &Pod, mark: &str) -> std::thread::JoinHandle<(u16, String)> {
    let (socket, asked) = (pod.file("s"), tree(mark).to_string());
    let asking = std::thread::spawn(move || {
        let socket = socket.to_str().unwrap();
        let output = Command::new("curl")
            .args(["-sS", "-w", "\n%{http_code}", "--unix-socket", socket])
            .args(["--data-binary", &asked, "http://localhost/execute"])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, status) = text.rsplit_once('\n').unwrap();
        (status.parse().unwrap(), body.to_owned())
    });
    until("the run's tree is there", || marked(mark) >= 3).await;
    asking
}
