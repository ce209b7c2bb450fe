//! `Family`: a process and everything below it, as `/proc` shows them.

use std::{collections::BTreeMap, fs, time::Duration};

use trellis_testkit::{eventually, eventually_within};

/// One process; its start tells it from a later one with the same number.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Process {
    parent: u32,
    name: String,
    state: String,
    started: String,
}

/// A process and everything below it at one time.
#[derive(Debug)]
pub(crate) struct Family {
    members: BTreeMap<u32, Process>,
}

impl Family {
    /// The family as it is now.
    pub(crate) fn of(ancestor: u32) -> Self {
        let all = all();
        let mut members: BTreeMap<u32, Process> = BTreeMap::new();
        let mut found = vec![ancestor];
        while let Some(pid) = found.pop() {
            if let Some(process) = all.get(&pid) {
                members.insert(pid, process.clone());
                found.extend(all.iter().filter(|(_, other)| other.parent == pid).map(|(pid, _)| *pid));
            }
        }
        Self { members }
    }

    /// The family once it has a member of this name.
    pub(crate) async fn with_peer(ancestor: u32, name: &str) -> Self {
        eventually(&format!("{name} runs"), async || {
            let family = Self::of(ancestor);
            if family.names().iter().any(|member| member == name) {
                Ok(family)
            } else {
                Err(format!("{:?}", family.names()))
            }
        })
        .await
    }

    /// Adds who has come since.
    pub(crate) fn grow(&mut self, ancestor: u32) {
        self.members.extend(Self::of(ancestor).members);
    }

    /// The members that this one started itself, guardians left out, by process ID.
    pub(crate) fn children(&self, parent: u32) -> Vec<u32> {
        let own = |process: &Process| process.parent == parent && process.name != "sh";
        let members = self.members.iter().filter(|(_, process)| own(process));
        members.map(|(pid, _)| *pid).collect()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.members.values().map(|process| process.name.clone()).collect()
    }

    /// Waits until no member runs.
    pub(crate) async fn gone(&self, limit: Duration) {
        eventually_within(limit, "every process is gone", async || {
            let now = all();
            let left: Vec<String> = self
                .members
                .iter()
                .filter(|(pid, process)| {
                    let same = now.get(pid).filter(|now| now.started == process.started);
                    same.is_some_and(|now| now.state != "Z")
                })
                .map(|(pid, process)| format!("{pid} {}", process.name))
                .collect();
            if left.is_empty() { Ok(()) } else { Err(left.join(", ")) }
        })
        .await;
    }
}

/// Every process whose command line or environment names this folder.
pub(crate) fn naming(folder: &str) -> Vec<String> {
    let read = |pid: u32, file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).replace('\0', " ");
    pids()
        .into_iter()
        .map(|pid| (text(read(pid, "cmdline")), text(read(pid, "environ"))))
        .filter(|(line, environment)| line.contains(folder) || environment.contains(folder))
        .map(|(line, _)| line)
        .collect()
}

/// Waits until no process names this folder, however it came to be.
pub(crate) async fn none_naming(folder: &str, limit: Duration) {
    eventually_within(limit, "nothing names the folder", async || {
        let left = naming(folder);
        if left.is_empty() { Ok(()) } else { Err(left.join(", ")) }
    })
    .await;
}

fn pids() -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap();
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

fn all() -> BTreeMap<u32, Process> {
    pids()
        .into_iter()
        .filter_map(|pid| Some((pid, read(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?)))
        .collect()
}

/// `proc_pid_stat(5)`: "pid (name) state ppid …", the start is field 22; the name may hold anything.
fn read(stat: &str) -> Option<Process> {
    let (head, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    Some(Process {
        parent: fields.get(1)?.parse().ok()?,
        name: head.split_once('(')?.1.to_owned(),
        state: (*fields.first()?).to_owned(),
        started: (*fields.get(19)?).to_owned(),
    })
}
