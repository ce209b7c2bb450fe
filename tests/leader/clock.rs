//! A wrong wall clock for a replica, by a small library that its process loads first.
//!
//! clock.c ─▶ C compiler ─▶ library ─▶ `LD_PRELOAD` of the operator ─▶ every look at the wall clock is off, and jumps

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;
use trellis_testkit::operator::Launch;

use crate::chance::Chance;

/// Most seconds by which a clock is off, either way.
const OFF: usize = 3600;
/// Most seconds by which it jumps from one look to the next, either way.
const JITTER: usize = 30;

/// The library, until dropped.
pub(crate) struct Clocks {
    folder: TempDir,
}

impl Clocks {
    pub(crate) fn build() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("leader/clock.c");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(Self::library(&folder))
            .arg(&source)
            .arg("-ldl")
            .output()
            .unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        Self { folder }
    }

    /// The operator with a clock of its own.
    pub(crate) fn on(&self, launch: Launch, chance: &mut Chance) -> Launch {
        let off = i64::try_from(chance.below(2 * OFF)).unwrap() - i64::try_from(OFF).unwrap();
        launch
            .environment("LD_PRELOAD", Self::library(&self.folder))
            .environment("TRELLIS_CLOCK_OFF", off.to_string())
            .environment("TRELLIS_CLOCK_JITTER", JITTER.to_string())
    }

    fn library(folder: &TempDir) -> PathBuf {
        folder.path().join("clock.so")
    }
}
