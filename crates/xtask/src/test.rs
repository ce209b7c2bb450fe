//! `test`: every capability, in groups of a few minutes, in a fixed order.
//!
//! ```text
//!  groups (data) ─▶ what is missing here? ─▶ does it fit the clock? ─▶ run ─▶ table, NOT PROVEN HERE, counts
//! ```
//!
//! Invariants: a group either ran or is named under NOT PROVEN HERE; it never passes silently. Groups
//! that need nothing come first, so a short clock still proves the most.

mod group;
mod report;

pub(crate) use report::UNPROVEN;

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::built::Built;
use crate::peers;
use crate::step::Walk;
use crate::workspace::{Workspace, is_root, on_path};
use group::{GROUPS, Group};
use report::{Outcome, Report};

/// What `test` takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Build a peer only if its recorded minutes fit into this many, counted from the start
    #[arg(long, value_name = "MINUTES")]
    clock: Option<u32>,
    /// Print the groups, what each needs and how long it takes, and run nothing
    #[arg(long)]
    list: bool,
    /// Fail when this group is not run, whatever keeps it from running; may be repeated
    #[arg(long, value_name = "GROUP")]
    must: Vec<String>,
    /// Run only these groups
    #[arg(value_name = "GROUP")]
    groups: Vec<String>,
}

/// Runs the groups and says which passed, failed or could not be run.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let groups = chosen(&args.groups)?;
    chosen(&args.must)?;
    if args.list {
        report::list(&groups);
        return Ok(());
    }
    let clock = args.clock.map(|minutes| Duration::from_secs(u64::from(minutes) * 60));
    let start = Instant::now();
    let mut report = Report::default();
    let walk = Walk::new(workspace);
    eprintln!("==> building");
    all_run(walk.built()?)?;
    eprintln!("==> built in {:.1} min", start.elapsed().as_secs_f64() / 60.0);
    for group in groups {
        if let Some(why) = absent(group).or_else(|| too_long(group, clock, start.elapsed())) {
            eprintln!("==> {}: not run: {why}", group.name);
            report.add(group.name, Outcome::NotRun(why), Duration::ZERO);
            continue;
        }
        eprintln!("==> {}: {}", group.name, group.about);
        let began = Instant::now();
        let outcome = match group.steps.iter().try_for_each(|step| walk.take(step, &[])) {
            Ok(()) => Outcome::Passed,
            Err(error) => {
                eprintln!("error: {}: {error:#}", group.name);
                Outcome::Failed
            }
        };
        report.add(group.name, outcome, began.elapsed());
    }
    report.print(GROUPS.iter().map(|group| group.name));
    if report.failed() > 0 {
        bail!("{} of the groups failed", report.failed());
    }
    if let Some(left) = args.must.iter().find(|name| !report.ran(name)) {
        bail!("group {left} had to run and did not");
    }
    Ok(())
}

/// Every file in `tests/` belongs to a group, or it would never run.
fn all_run(built: &Built) -> Result<()> {
    let steps = || GROUPS.iter().flat_map(|group| group.steps);
    let left: Vec<String> = built
        .programs()
        .iter()
        .filter(|program| !steps().any(|step| step.runs(program)))
        .map(|program| format!("{} {}", program.package, program.target))
        .collect();
    ensure!(
        left.is_empty(),
        "no group in crates/xtask/src/test/group.rs runs the tests {}",
        left.join(", ")
    );
    Ok(())
}

fn chosen(names: &[String]) -> Result<Vec<&'static Group>> {
    if let Some(unknown) = names
        .iter()
        .find(|name| GROUPS.iter().all(|group| group.name != **name))
    {
        let known: Vec<&str> = GROUPS.iter().map(|group| group.name).collect();
        bail!("no group {unknown}; there are {}", known.join(", "));
    }
    Ok(GROUPS
        .iter()
        .filter(|group| names.is_empty() || names.iter().any(|name| name == group.name))
        .collect())
}

/// What the machine lacks for this group, if anything.
fn absent(group: &Group) -> Option<String> {
    if group.root && !is_root() {
        return Some("needs root".to_owned());
    }
    let package = group.debian.iter().find(|package| !on_path(package.program))?;
    Some(format!("needs the Debian package {}", package.name))
}

/// Why the group does not fit, if it does not. What is cheap, or built already, is always run.
fn too_long(group: &Group, clock: Option<Duration>, elapsed: Duration) -> Option<String> {
    let clock = clock?;
    let missing: Vec<&peers::Peer> = group.peers.iter().filter(|peer| !peers::built(peer)).collect();
    if group.rung <= 4 || missing.is_empty() {
        return None;
    }
    let building: Duration = missing.iter().map(|peer| peer.building).sum();
    if elapsed + building + group.minutes.cold() <= clock {
        return None;
    }
    let names: Vec<&str> = missing.iter().map(|peer| peer.name).collect();
    let minutes = building.as_secs().div_ceil(60);
    Some(format!(
        "building {} takes about {minutes} min, which does not fit the clock",
        names.join(", ")
    ))
}
