//! `Spool`: the folder for what is on its way, with a folder of its own for each production.
//!
//! ```text
//!  trellis-round-<process>-<its mark>-… : of this process │ of one that lives │ of one that is dead, which is removed
//! ```
//!
//! Invariant: what a process left that was killed does not fill the disk of the next one, though that may have the same
//! number, as the first process of a container has.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process,
    sync::OnceLock,
};

use tempfile::TempDir;

const PREFIX: &str = "trellis-round-";

/// Tells this process from others of its number.
static MARK: OnceLock<u64> = OnceLock::new();

/// The folder for what is on its way.
#[derive(Debug, Clone)]
pub(super) struct Spool(PathBuf);

impl Spool {
    /// Removes what dead processes left there.
    pub(super) fn open(folder: &Path) -> Self {
        // What cannot be removed is told; that nothing can be written is told when something is.
        for left in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = left.file_name();
            if name.to_str().and_then(maker).is_none_or(lives) {
                continue;
            }
            match fs::remove_dir_all(left.path()) {
                Ok(()) => tracing::info!(folder = %left.path().display(), "removed what a dead process left"),
                Err(error) => {
                    tracing::warn!(folder = %left.path().display(), %error, "cannot remove what a dead process left");
                }
            }
        }
        Self(folder.to_owned())
    }

    /// A folder that goes when it is dropped.
    pub(super) fn place(&self) -> io::Result<TempDir> {
        let prefix = format!("{PREFIX}{}-{}-", process::id(), mark());
        tempfile::Builder::new().prefix(&prefix).tempdir_in(&self.0)
    }
}

fn mark() -> u64 {
    *MARK.get_or_init(|| fastrand::u64(..))
}

/// Number and mark of the process that made a folder.
fn maker(name: &str) -> Option<(u32, u64)> {
    let mut parts = name.strip_prefix(PREFIX)?.split('-');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn lives((number, of): (u32, u64)) -> bool {
    if number == process::id() {
        of == mark()
    } else {
        Path::new("/proc").join(number.to_string()).exists()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_dead_left_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(folder.path());
        let ours = spool.place().unwrap();
        let make = |name: String| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.join("files")).unwrap();
            path
        };
        let dead = make(format!("{PREFIX}{}-1-abc", u32::MAX));
        let before = make(format!("{PREFIX}{}-{}-abc", process::id(), mark().wrapping_add(1)));
        let parent = make(format!("{PREFIX}{}-1-abc", std::os::unix::process::parent_id()));
        let other = make("other".to_owned());
        Spool::open(folder.path());
        let there = [ours.path(), &dead, &before, &parent, &other].map(Path::exists);
        assert_eq!(there, [true, false, false, true, true]);
    }
}
