//! The first minute of somebody new: a fresh clone, an empty cache, and the two commands that README names.

use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::told;
use crate::workspace::{Workspace, succeed};

/// Clones the committed state beside nothing of ours and runs both commands in it.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let folder = std::env::temp_dir().join(format!("trellis-clone-{}", std::process::id()));
    let held = held(workspace, &folder);
    let removed = std::fs::remove_dir_all(&folder).with_context(|| format!("{} cannot be removed", folder.display()));
    held.and(removed)
}

fn held(workspace: &Workspace, folder: &std::path::Path) -> Result<()> {
    let mut clone = Command::new("git");
    clone
        .args(["clone", "--quiet", "--no-hardlinks"])
        .arg(workspace.root())
        .arg(folder)
        .stdin(Stdio::null());
    succeed(&mut clone)?;
    let cargo = |arguments: &[&str]| {
        let mut cargo = workspace.cargo(arguments);
        // The clone builds for itself, wherever this checkout builds, and finds no peer that was built before.
        cargo
            .current_dir(folder)
            .env("CARGO_TARGET_DIR", folder.join("target"))
            .env("TRELLIS_CACHE", folder.join(".cache"))
            .env_remove("CARGO_MANIFEST_DIR");
        cargo
    };
    succeed(&mut cargo(&["run", "--release", "--", "dev", "up", "--once"]))?;
    told::everything_proven(&mut cargo(&["xtask", "test"]))
}
