//! How long `.ci/run` takes: with nothing built, and again.
//!
//! Invariant: the cache is a folder of its own, empty at first; what cargo has downloaded is all that is there before.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::told;
use crate::workspace::Workspace;

/// The longest that a run may take.
const LIMIT: Duration = Duration::from_mins(90);

/// Runs `.ci/run` twice and says how long each took.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let cache = std::env::temp_dir().join(format!("trellis-minutes-{}", std::process::id()));
    std::fs::create_dir(&cache).with_context(|| format!("{} cannot be made", cache.display()))?;
    let held = held(workspace, &cache);
    let removed = std::fs::remove_dir_all(&cache).with_context(|| format!("{} cannot be removed", cache.display()));
    held.and(removed)
}

fn held(workspace: &Workspace, cache: &Path) -> Result<()> {
    let cold = timed(workspace, cache)?;
    let warm = timed(workspace, cache)?;
    let minutes = |took: Duration| took.as_secs_f64() / 60.0;
    println!("cold: {:.1} min\nwarm: {:.1} min", minutes(cold), minutes(warm));
    for (name, took) in [("cold", cold), ("warm", warm)] {
        ensure!(took <= LIMIT, "the {name} run took {:.1} min", minutes(took));
    }
    Ok(())
}

fn timed(workspace: &Workspace, cache: &Path) -> Result<Duration> {
    let began = Instant::now();
    let mut run = Command::new("bash");
    run.arg(".ci/run")
        .current_dir(workspace.root())
        .env("TRELLIS_CACHE", cache)
        .env_remove("CARGO_MANIFEST_DIR")
        .stdin(Stdio::null());
    told::everything_proven(&mut run)?;
    Ok(began.elapsed())
}
