//! The fence around a run: which files it may open, by the kernel's Landlock (5.13, no privileges needed).
//!
//! ```text
//!  /            read, execute      but not what is hidden: the directories of all runs, the socket's, the token's
//!  /dev/null …  write
//!  .            everything         the run's own directory, and what whoever runs the sidecar names
//! ```
//!
//! Landlock only adds rights to hierarchies, so what is hidden is left out of what is granted: a folder above it is
//! granted entry by entry. What a process is refused here its children are refused, and a fenced process cannot trace
//! others or look through their `/proc/PID/{cwd,root,fd,mem,environ}`.
//!
//! Invariant: a fence that was asked for and cannot be closed ends the run before its command starts.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

use landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _,
    RulesetStatus, Scope, path_beneath_rules,
};
use serde::{Deserialize, Serialize};

/// The first version: everything that opens, makes and removes files.
const NEEDED: ABI = ABI::V1;
/// What is taken as well where the kernel has it: links between folders, truncation, devices, sockets by path.
const WANTED: ABI = ABI::V9;
/// Most entries of a folder above a hidden one that are looked at; the rest is not granted.
const ENTRIES: usize = 4096;
/// Devices that anybody may write.
const DEVICES: &[&str] = &["/dev/full", "/dev/null", "/dev/random", "/dev/urandom", "/dev/zero"];

/// What a run may open beside what everybody may read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fence {
    /// What it may not even read.
    pub(crate) hidden: Vec<PathBuf>,
    /// Where it may write, beside its own directory.
    pub(crate) writable: Vec<PathBuf>,
}

/// Lets this process and all that it starts open what is not hidden for reading, and only what is writable and the
/// files below the working directory for writing. `program` may be started wherever it is.
pub(super) fn close(fence: &Fence, program: &OsStr) -> Result<(), String> {
    let hidden: BTreeSet<PathBuf> = fence
        .hidden
        .iter()
        .flat_map(|path| [fs::canonicalize(path).ok(), Some(path.clone())])
        .flatten()
        .collect();
    let mut open = Vec::new();
    grant(Path::new("/"), &hidden, &mut open);
    restrict(&open, &fence.writable, program)
        .map_err(|error| format!("cannot keep the run from the files of others: {error}"))
}

fn restrict(open: &[PathBuf], writable: &[PathBuf], program: &OsStr) -> Result<(), Box<dyn std::error::Error>> {
    let read = AccessFs::from_read(NEEDED);
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(NEEDED))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(WANTED))?
        // Sockets without a path, and signals, of processes outside: the sidecar's, the warden's, other runs'.
        .scope(Scope::AbstractUnixSocket | Scope::Signal)?
        .create()?
        .add_rules(path_beneath_rules(open, read))?
        .add_rules(path_beneath_rules([program], AccessFs::Execute | AccessFs::ReadFile))?
        .add_rules(path_beneath_rules(DEVICES, AccessFs::ReadFile | AccessFs::WriteFile))?
        .add_rules(path_beneath_rules(writable, AccessFs::from_all(WANTED)))?
        .add_rules(path_beneath_rules(["."], AccessFs::from_all(WANTED)))?
        .restrict_self()?;
    if status.ruleset == RulesetStatus::NotEnforced {
        return Err(io::Error::from(io::ErrorKind::Unsupported).into());
    }
    Ok(())
}

/// Adds the real folders and files from here on that neither are hidden nor hold something hidden.
fn grant(place: &Path, hidden: &BTreeSet<PathBuf>, open: &mut Vec<PathBuf>) {
    if hidden.contains(place) {
        return;
    }
    if !hidden.iter().any(|path| path.starts_with(place)) {
        open.push(place.to_owned());
        return;
    }
    for entry in fs::read_dir(place)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .take(ENTRIES)
    {
        // A link is granted by where it leads.
        if entry.file_type().is_ok_and(|kind| !kind.is_symlink()) {
            grant(&entry.path(), hidden, open);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_is_hidden_is_not_granted_by_any_way_there() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        for folder in ["a/b", "a/c", "a/work/1", "d"] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        fs::write(at("a/file"), "").unwrap();
        symlink("work", at("a/link")).unwrap();
        let hidden = BTreeSet::from([at("a/work"), at("d")]);
        let mut open = Vec::new();
        grant(root.path(), &hidden, &mut open);
        open.sort();
        assert_eq!(open, [at("a/b"), at("a/c"), at("a/file")]);
    }
}
