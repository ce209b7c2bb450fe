//! The tree of processes below one, and its end.
//!
//! Invariant: a process is killed only after the whole tree was frozen, so that none is born meanwhile and missed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use rustix::process::{Pid, Signal, WaitOptions, kill_process};

/// Rounds of freezing before killing starts anyway.
const ROUNDS: usize = 100;

/// All processes below `root`, without it. Empty where `/proc` cannot be read.
pub(super) fn below(root: u32) -> BTreeSet<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    for pid in entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
        // Zombies too: one may be the first thread of a process that lives on.
        if let Some(parent) = parent_of(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = BTreeSet::new();
    let mut open = vec![root];
    while let Some(pid) = open.pop() {
        for child in children.get(&pid).into_iter().flatten() {
            if found.insert(*child) {
                open.push(*child);
            }
        }
    }
    found
}

/// The parent of a process; `None` when it has ended or cannot be seen.
pub(crate) fn parent_of(pid: u32) -> Option<u32> {
    parent(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The parent in a line of `/proc/PID/stat`: state and parent follow the last `)`, since a name may hold any character.
fn parent(stat: &str) -> Option<u32> {
    stat.get(stat.rfind(')')? + 1..)?
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()
}

/// Ends every process below this one and reaps what came to it as an orphan.
pub(super) fn end() {
    let own = std::process::id();
    let mut frozen = BTreeSet::new();
    for _ in 0..ROUNDS {
        let fresh: Vec<u32> = below(own).difference(&frozen).copied().collect();
        if fresh.is_empty() {
            break;
        }
        for pid in fresh {
            send(pid, Signal::STOP);
            frozen.insert(pid);
        }
    }
    loop {
        for pid in below(own) {
            send(pid, Signal::KILL);
        }
        // Blocks until one has ended; an error says that there is no child left.
        if rustix::process::wait(WaitOptions::empty()).is_err() {
            return;
        }
    }
}

fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It may have ended meanwhile, which is what is wanted.
        let _ = kill_process(pid, signal);
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::plain("7 (cat) S 3 7 7 0", Some(3))]
    #[case::a_name_with_brackets("7 (a) Z 9 (b) R 4 7", Some(4))]
    #[case::nothing("", None)]
    #[case::cut("7 (cat) S", None)]
    fn the_parent_follows_the_last_bracket(#[case] stat: &str, #[case] expected: Option<u32>) {
        assert_eq!(parent(stat), expected);
    }
}
