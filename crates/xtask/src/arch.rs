//! `arch`: the ring rule over cargo's own view of the workspace, and the shape of the source files.
//!
//! ```text
//!  cargo metadata ─▶ crates with rings ─▶ edges that do not point inward ─┐
//!  *.rs ───────────▶ lines ─────────────▶ files that break the style ─────┴▶ faults, or nothing
//! ```
//!
//! Invariant: a crate that the ring table does not know is a fault, so that a new crate states its ring.

mod ring;
mod source;

use anyhow::{Context, Result, bail};

use crate::workspace::{Workspace, output};
use ring::Member;

/// Checks the workspace.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let metadata = output(&mut workspace.cargo(["metadata", "--no-deps", "--offline", "--format-version", "1"]))?;
    let members = members(&metadata)?;
    let mut faults = ring::faults(&members);
    faults.extend(source::faults(workspace)?);
    if faults.is_empty() {
        eprintln!("arch: {} crates, every edge points inward", members.len());
        return Ok(());
    }
    for fault in &faults {
        eprintln!("{fault}");
    }
    bail!("{} faults; the rules are in ARCHITECTURE.md", faults.len());
}

/// Reads the members and their direct dependencies from `cargo metadata --no-deps`.
fn members(metadata: &str) -> Result<Vec<Member>> {
    #[derive(serde::Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
    }
    #[derive(serde::Deserialize)]
    struct Package {
        name: String,
        dependencies: Vec<Dependency>,
    }
    #[derive(serde::Deserialize)]
    struct Dependency {
        name: String,
        kind: Option<String>,
    }
    let metadata: Metadata = serde_json::from_str(metadata).context("cargo metadata is not the JSON we know")?;
    let member = |package: Package| Member {
        name: package.name,
        needs: package
            .dependencies
            .into_iter()
            .map(|dependency| ring::Need {
                name: dependency.name,
                dev: dependency.kind.as_deref() == Some("dev"),
            })
            .collect(),
    };
    Ok(metadata.packages.into_iter().map(member).collect())
}
