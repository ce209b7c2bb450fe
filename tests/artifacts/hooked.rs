//! `Hooked`: a sidecar with its whitelist, both as they are in a Pod: a socket file, and a `ConfigMap` mount.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use tempfile::TempDir;
use trellis_hooks::{Client, Endpoint};
use trellis_operator::external_source::HooksSettings;

/// What the tests run: every command takes any arguments.
pub(crate) const RULES: &str =
    "commands:\n  cat: { allowed: true }\n  jq: { allowed: true }\n  bash: { allowed: true }\n";

/// A sidecar; ended when dropped.
pub(crate) struct Hooked {
    root: TempDir,
    child: Child,
    swaps: AtomicU32,
}

impl Hooked {
    /// With this whitelist.
    pub(crate) fn start(rules: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        for folder in ["work", "mount"] {
            fs::create_dir(root.path().join(folder)).unwrap();
        }
        swap(&root.path().join("mount"), 0, rules);
        let child = sidecar(&root);
        Self {
            root,
            child,
            swaps: AtomicU32::new(1),
        }
    }

    /// Replaces the whitelist as the kubelet does: a new folder, and the link to it renamed over the old one.
    pub(crate) fn rules(&self, rules: &str) {
        let number = self.swaps.fetch_add(1, Ordering::Relaxed);
        swap(&self.root.path().join("mount"), number, rules);
    }

    /// Ends the sidecar.
    pub(crate) fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again, at the same place.
    pub(crate) fn again(&mut self) {
        self.child = sidecar(&self.root);
    }

    /// A file for a hook to write or read.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// How many runs have a folder: all that have not ended.
    pub(crate) fn runs(&self) -> usize {
        fs::read_dir(self.root.path().join("work")).unwrap().count()
    }

    /// What the controller is told about it.
    pub(crate) fn settings(&self) -> HooksSettings {
        let client = Client::new(Endpoint::Socket(self.file("s")));
        HooksSettings::open(client, self.root.path().join("mount/whitelist.yaml")).unwrap()
    }
}

impl Drop for Hooked {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn sidecar(root: &TempDir) -> Child {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sources-sidecar"))
        .arg(root.path().join("s"))
        .arg(root.path().join("work"))
        .arg(root.path().join("mount/whitelist.yaml"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line.trim(), "ready");
    child
}

fn swap(mount: &Path, number: u32, rules: &str) {
    let folder = format!("..{number}");
    fs::create_dir(mount.join(&folder)).unwrap();
    fs::write(mount.join(&folder).join("whitelist.yaml"), rules).unwrap();
    symlink(&folder, mount.join("..data_tmp")).unwrap();
    fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
    if number == 0 {
        symlink("..data/whitelist.yaml", mount.join("whitelist.yaml")).unwrap();
    }
}
