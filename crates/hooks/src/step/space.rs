//! How much a run has written: the files of its directory, and those that it holds open without a name.
//!
//! Limits of the kernel are for each file. What counts is what the disk has, so a hole takes nothing. A process that
//! lets nobody look at it (`PR_SET_DUMPABLE`) can hold nameless files unseen; each of them has its own limit.
//!
//! Invariant: what cannot be counted is too much, since it could be anything.

use std::{
    collections::BTreeSet,
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// Most files and directories of a run, all together.
const FILES: usize = 65_536;
/// Bytes of a block, as `st_blocks` counts.
const BLOCK: u64 = 512;

/// What has been counted.
#[derive(Default)]
struct Count {
    seen: BTreeSet<(u64, u64)>,
    bytes: u64,
}

/// Why it is too much, when below `folder` and in what `processes` hold open there are more bytes than that.
pub(super) fn excess(folder: &Path, processes: &BTreeSet<u32>, limit: u64) -> Option<String> {
    let device = fs::metadata(folder).ok()?.dev();
    let mut count = Count::default();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Some(format!("has a directory that cannot be counted: {error}")),
        };
        for entry in entries.filter_map(Result::ok) {
            // Of a link its own size. What is gone meanwhile takes nothing.
            let Ok(about) = entry.metadata() else { continue };
            if let Some(why) = count.add(&about, limit) {
                return Some(why);
            }
            if about.is_dir() {
                open.push(entry.path());
            }
        }
    }
    for held in processes.iter().flat_map(|pid| held(*pid)) {
        let Ok(about) = fs::metadata(held) else { continue };
        if about.is_file()
            && about.dev() == device
            && about.nlink() == 0
            && let Some(why) = count.add(&about, limit)
        {
            return Some(why);
        }
    }
    None
}

impl Count {
    fn add(&mut self, about: &Metadata, limit: u64) -> Option<String> {
        if !self.seen.insert((about.dev(), about.ino())) {
            return None;
        }
        self.bytes = self.bytes.saturating_add(about.blocks().saturating_mul(BLOCK));
        if self.bytes > limit {
            Some(format!("has written more than {limit} bytes"))
        } else {
            (self.seen.len() > FILES).then(|| format!("has made more than {FILES} files"))
        }
    }
}

/// What a process holds open.
fn held(pid: u32) -> Vec<PathBuf> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd"));
    let entries = entries.into_iter().flatten().filter_map(Result::ok);
    entries.map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write as _, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn what_is_written_counts_once_and_wherever_it_is() {
        let own = BTreeSet::from([std::process::id()]);
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let write = |name: &str, bytes: usize| {
            let mut file = File::create(at(name)).unwrap();
            file.write_all(&vec![1; bytes]).unwrap();
            file
        };
        let exceeds = |limit: u64| excess(folder.path(), &own, limit);
        fs::create_dir_all(at("a/b")).unwrap();
        write("a/b/one", 300_000);
        fs::hard_link(at("a/b/one"), at("two")).unwrap();
        symlink("/usr", at("link")).unwrap();
        File::create(at("hole")).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(
            exceeds(400_000),
            None,
            "a name more, a link out and a hole take nothing"
        );
        assert_eq!(exceeds(299_999).unwrap(), "has written more than 299999 bytes");
        let nameless = write("gone", 200_000);
        fs::remove_file(at("gone")).unwrap();
        assert!(
            exceeds(400_000).is_some(),
            "a file without a name is there while it is open"
        );
        drop(nameless);
        assert_eq!(exceeds(400_000), None);
    }
}
