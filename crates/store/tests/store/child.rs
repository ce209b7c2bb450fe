//! Another process: this test binary, started again for one task, so that it can be killed or measured.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::Arc,
};

use tokio_util::sync::CancellationToken;
use trellis_store::{Content, Disk, Key, Server, ServerSettings, Storage as _};

use crate::backend::{bytes, key};

/// What the other process is told.
const TASK: &str = "TRELLIS_STORE_TEST_TASK";

/// A running process. Killed (SIGKILL) with the value.
pub(crate) struct Process {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Process {
    /// Starts `task` on that directory, with a size.
    pub(crate) fn start(task: &str, root: &Path, size: usize) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child::task", "--nocapture", "--quiet"])
            .env(TASK, format!("{task} {} {size}", root.display()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// What follows the next `word ` that the process says.
    pub(crate) fn said(&mut self, word: &str) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            let read = self.lines.read_line(&mut line).unwrap();
            assert!(read > 0, "the process ended before it said {word:?}");
            if let Some(rest) = line.trim_end().strip_prefix(word) {
                return rest.trim().to_owned();
            }
        }
    }

    /// The most memory that the process ever had resident, in bytes.
    pub(crate) fn peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Kills the process as `kill -9` does, and waits until it is gone.
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

/// The other process's side. On its own it does nothing.
#[test]
fn task() {
    let Ok(task) = std::env::var(TASK) else { return };
    let words: Vec<&str> = task.split(' ').collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let size = words[2].parse().unwrap();
    match words[0] {
        "put-part" => runtime.block_on(put_part(words[1], size)),
        "put-and-serve" => runtime.block_on(put_and_serve(words[1], size)),
        other => panic!("unknown task {other:?}"),
    }
}

/// The key of what the task `put-part` never finishes.
pub(crate) fn unfinished() -> Key {
    key("a/b", b"the end is missing")
}

/// Stores that many bytes of a file which does not end, says so, and stays.
async fn put_part(root: &str, size: usize) {
    let disk = Disk::open(root).await.unwrap();
    let (mut far, near) = tokio::io::duplex(1024);
    let putting = tokio::spawn(async move { disk.put(&unfinished(), Content::stream(near)).await });
    tokio::io::AsyncWriteExt::write_all(&mut far, &bytes(1, size))
        .await
        .unwrap();
    println!("\nwritten {size}");
    drop(putting.await.unwrap());
}

/// Stores a file of that size, serves the directory for ever, and says where and which.
async fn put_and_serve(root: &str, size: usize) {
    let disk = Arc::new(Disk::open(root).await.unwrap());
    // Made by another process, so that this one's memory is only what storing and serving takes.
    let spool = Path::new(root).join("spool");
    let file = key("a/b", &[]);
    let digest = std::fs::read_to_string(Path::new(root).join("digest")).unwrap_or_default();
    let file = match digest.parse() {
        Ok(digest) => Key::new(&"a/b".parse().unwrap(), digest).unwrap(),
        Err(_) => file,
    };
    assert_eq!(std::fs::metadata(&spool).unwrap().len(), size as u64);
    disk.put(&file, Content::file(spool)).await.unwrap();
    let server = Server::new(disk, ServerSettings::new("127.0.0.1:0".parse().unwrap()));
    let mut serving = server.serving();
    let (_leading, leads) = tokio::sync::watch::channel(true);
    let running = tokio::spawn(server.run(leads, CancellationToken::new()));
    let address = serving.wait_for(Option::is_some).await.unwrap().unwrap();
    println!("\nserving {address}");
    running.await.unwrap().unwrap();
}
