//! `cover`: which lines the tests run, by the compiler's own counters.
//!
//! ```text
//!  cargo test, workspace crates instrumented ─▶ *.profraw ─▶ llvm-profdata ─▶ llvm-cov ─▶ lines per crate ─▶ floor
//! ```
//!
//! Invariants: only the workspace's crates are instrumented, so dependencies come from the common target
//! folder; a line counts once, whichever test ran it.

mod lines;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::workspace::{Workspace, on_path, output, succeed};
use lines::Lines;

/// Cargo names what it built on stdout.
const FORMAT: &str = "--message-format=json-render-diagnostics";

/// The crates whose every decision is pure: nothing excuses an untested line.
const DOMAIN: &[&str] = &["core", "api", "bindings", "resilience", "sources"];
/// Lines of each domain crate that tests must run, in percent.
const DOMAIN_FLOOR: f64 = 90.0;
/// Lines of the whole tree that tests must run, in percent.
const TREE_FLOOR: f64 = 80.0;

/// LLVM's tools, in the major version of the compiler's LLVM.
pub(crate) const LLVM_COV: &str = "llvm-cov-22";
const LLVM_PROFDATA: &str = "llvm-profdata-22";
/// The Debian package that holds both.
pub(crate) const PACKAGE: &str = "llvm-22";

/// What `cover` takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The whole tree with every test (needs the development plane's peers), instead of the domain crates alone
    #[arg(long)]
    all: bool,
}

/// Measures, prints a line per crate, and fails below the floor.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    if args.all { tree(workspace) } else { domain(workspace) }
}

/// Each domain crate at or above its floor.
pub(crate) fn domain(workspace: &Workspace) -> Result<()> {
    let packages: Vec<String> = DOMAIN
        .iter()
        .flat_map(|name| ["--package".to_owned(), format!("trellis-{name}")])
        .collect();
    let lines = measure(workspace, &packages)?;
    let mut low = Vec::new();
    for name in DOMAIN {
        let share = lines.of(name);
        eprintln!("cover: {name}: {share}");
        if share.percent() < DOMAIN_FLOOR {
            low.push(*name);
        }
    }
    if !low.is_empty() {
        bail!("below {DOMAIN_FLOOR} % of lines: {}", low.join(", "));
    }
    Ok(())
}

/// The whole tree at or above its floor.
fn tree(workspace: &Workspace) -> Result<()> {
    let lines = measure(workspace, &["--workspace".to_owned()])?;
    for name in lines.crates() {
        eprintln!("cover: {name}: {}", lines.of(name));
    }
    let total = lines.total();
    eprintln!("cover: whole tree: {total}");
    if total.percent() < TREE_FLOOR {
        bail!("below {TREE_FLOOR} % of lines");
    }
    Ok(())
}

/// Builds the packages' tests with counters, runs them, and reads the counters.
fn measure(workspace: &Workspace, packages: &[String]) -> Result<Lines> {
    for tool in [LLVM_COV, LLVM_PROFDATA] {
        if !on_path(tool) {
            bail!("{tool} is missing; install the Debian package {PACKAGE}");
        }
    }
    let folder = workspace.target().join("cover");
    let profiles = folder.join("profiles");
    if profiles.exists() {
        std::fs::remove_dir_all(&profiles).context("old profiles cannot be removed")?;
    }
    std::fs::create_dir_all(&profiles).context("no folder for profiles")?;
    let wrapper = wrapper(&folder)?;
    let instrumented = |arguments: &[&str]| {
        let mut command = workspace.cargo(arguments.iter().copied());
        command
            .args(packages)
            .env("RUSTC_WORKSPACE_WRAPPER", &wrapper)
            .env("LLVM_PROFILE_FILE", profiles.join("%4m.profraw"))
            .env("TRELLIS_COVER", "1");
        command
    };
    // Libraries, binaries and `tests/`; not the documentation, whose programs cannot be counted.
    let targets = "--tests";
    let mut objects = objects(&output(instrumented(&["test", "--no-run", FORMAT]).arg(targets))?)?;
    let mut test = instrumented(&["test", "--quiet"]);
    test.arg(targets);
    if packages.iter().any(|package| package == "--workspace") {
        // Tests that start the binary must start the one that counts.
        let binaries = self::objects(&output(instrumented(&["build", FORMAT]).arg("--bins"))?)?;
        if let Some(binary) = binaries.iter().find(|path| path.ends_with("trellis")) {
            test.env("TRELLIS_BIN", binary);
        }
        objects.extend(binaries);
    }
    succeed(&mut test)?;
    let profile = merge(&profiles, &folder.join("merged.profdata"))?;
    let report = export(&objects, &profile)?;
    Lines::read(&report, workspace.root())
}

/// A compiler wrapper that cargo uses for workspace crates only, and that keeps their output apart from the plain one.
fn wrapper(folder: &Path) -> Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let path = folder.join("rustc-counting");
    let text = "#!/usr/bin/env bash\nexec \"$@\" -C instrument-coverage\n";
    // Bash, because dash drops variables with a dash in their names, such as cargo's CARGO_BIN_EXE_some-name.
    // Left alone when it is right: cargo rebuilds when the wrapper is newer.
    if std::fs::read_to_string(&path).is_ok_and(|found| found == text) {
        return Ok(path);
    }
    std::fs::write(&path, text).context("the compiler wrapper cannot be written")?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))
        .context("the compiler wrapper cannot be made executable")?;
    Ok(path)
}

/// The executables that cargo says it built: they hold the map from counters to lines.
fn objects(messages: &str) -> Result<BTreeSet<PathBuf>> {
    #[derive(serde::Deserialize)]
    struct Message {
        executable: Option<PathBuf>,
    }
    let mut objects = BTreeSet::new();
    for line in messages.lines().filter(|line| line.starts_with('{')) {
        let message: Message = serde_json::from_str(line).context("cargo's messages are not the JSON we know")?;
        objects.extend(message.executable);
    }
    if objects.is_empty() {
        bail!("cargo built no program");
    }
    Ok(objects)
}

fn merge(profiles: &Path, into: &Path) -> Result<PathBuf> {
    let mut command = Command::new(LLVM_PROFDATA);
    command
        .args(["merge", "--sparse", "--failure-mode=all", "-o"])
        .arg(into);
    for entry in std::fs::read_dir(profiles).context("profiles cannot be listed")? {
        command.arg(entry.context("profiles cannot be listed")?.path());
    }
    succeed(&mut command)?;
    Ok(into.to_owned())
}

fn export(objects: &BTreeSet<PathBuf>, profile: &Path) -> Result<String> {
    let mut command = Command::new(LLVM_COV);
    command
        .args(["export", "--summary-only", "--instr-profile"])
        .arg(profile);
    for object in objects {
        command.arg("--object").arg(object);
    }
    output(&mut command)
}
