//! Everything built once, with one set of features: the test programs of the whole workspace, and the binary.
//!
//! ```text
//!  cargo test --workspace --no-run ─▶ (package, target, executable)… ─▶ run those that a group names
//! ```
//!
//! Cargo chooses the features of dependencies by the packages that it is asked for, so asking for one package after
//! another would compile kube once for each. Here cargo is asked once, and the programs are run from here.
//!
//! Invariant: a program runs as cargo would run it: in its package's folder, told where that is.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::workspace::{Workspace, output, succeed};

/// A program that holds tests.
#[derive(Debug)]
pub(crate) struct TestProgram {
    /// The package, such as `trellis-core`.
    pub package: String,
    /// The target, such as the name of a file in `tests/`.
    pub target: String,
    /// Whether the target is a file in `tests/`, not the library or binary itself.
    pub integration: bool,
    executable: PathBuf,
    folder: PathBuf,
}

/// How cargo says what it built.
const FORMAT: &str = "--message-format=json-render-diagnostics";

/// The binary `trellis`, built with the features that [`Built`] builds it with.
pub(crate) fn binary(workspace: &Workspace) -> Result<PathBuf> {
    executable(&output(&mut workspace.cargo([
        "build",
        "--quiet",
        "--workspace",
        "--bins",
        FORMAT,
    ]))?)
}

fn executable(binaries: &str) -> Result<PathBuf> {
    messages(binaries)?
        .into_iter()
        .filter(|message| message.target.as_ref().is_some_and(|target| target.name == "trellis"))
        .find_map(|message| message.executable)
        .context("cargo built no binary `trellis`")
}

/// What cargo built.
pub(crate) struct Built {
    programs: Vec<TestProgram>,
    binary: PathBuf,
}

/// The parts of cargo's messages that are read here.
#[derive(serde::Deserialize)]
struct Message {
    reason: String,
    manifest_path: Option<PathBuf>,
    target: Option<Target>,
    profile: Option<Profile>,
    executable: Option<PathBuf>,
}

#[derive(serde::Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(serde::Deserialize)]
struct Profile {
    test: bool,
}

impl Built {
    /// Builds the workspace's binaries and test programs.
    pub(crate) fn build(workspace: &Workspace) -> Result<Self> {
        let binary = binary(workspace)?;
        let tests = output(&mut workspace.cargo(["test", "--quiet", "--workspace", "--no-run", FORMAT]))?;
        Self::read(binary, &tests)
    }

    fn read(binary: PathBuf, tests: &str) -> Result<Self> {
        let programs: Vec<TestProgram> = messages(tests)?.into_iter().filter_map(program).collect();
        if programs.is_empty() {
            bail!("cargo built no test");
        }
        Ok(Self { programs, binary })
    }

    /// The test programs, in cargo's order.
    pub(crate) fn programs(&self) -> &[TestProgram] {
        &self.programs
    }

    /// Runs a test program.
    pub(crate) fn test(&self, program: &TestProgram, environment: &[(&str, &str)]) -> Result<()> {
        eprintln!("--- {} {}", program.package, program.target);
        let mut command = Command::new(&program.executable);
        command
            .arg("--quiet")
            .current_dir(&program.folder)
            .env("CARGO_MANIFEST_DIR", &program.folder)
            .env("CARGO_PKG_NAME", &program.package)
            .env("TRELLIS_BIN", &self.binary)
            .envs(environment.iter().copied())
            .stdin(Stdio::null());
        succeed(&mut command).with_context(|| format!("{} {}", program.package, program.target))
    }

    /// Runs the binary `trellis`.
    pub(crate) fn trellis(
        &self,
        workspace: &Workspace,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<()> {
        let mut command = Command::new(&self.binary);
        command
            .args(arguments)
            .current_dir(workspace.root())
            .envs(environment.iter().copied())
            .stdin(Stdio::null());
        succeed(&mut command)
    }
}

fn messages(text: &str) -> Result<Vec<Message>> {
    let artifacts = text.lines().filter(|line| line.starts_with('{'));
    let read = artifacts.map(|line| serde_json::from_str(line).context("cargo's messages are not the JSON we know"));
    let messages: Vec<Message> = read.collect::<Result<_>>()?;
    Ok(messages
        .into_iter()
        .filter(|message| message.reason == "compiler-artifact")
        .collect())
}

fn program(message: Message) -> Option<TestProgram> {
    let target = message.target?;
    let folder = message.manifest_path.as_deref().and_then(Path::parent)?.to_owned();
    if !message.profile?.test {
        return None;
    }
    Some(TestProgram {
        package: package(&folder)?,
        integration: target.kind.iter().any(|kind| kind == "test"),
        target: target.name,
        executable: message.executable?,
        folder,
    })
}

/// The name in the folder's manifest: cargo's messages hold it only inside an opaque identifier.
fn package(folder: &Path) -> Option<String> {
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).ok()?;
    let line = manifest.lines().find_map(|line| line.strip_prefix("name = "))?;
    Some(line.trim().trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_programs_with_tests_count() {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let artifact = |name: &str, kind: &str, test: bool, executable: Option<&str>| {
            json!({"reason": "compiler-artifact", "manifest_path": manifest, "target": {"name": name, "kind": [kind]},
                   "profile": {"test": test}, "executable": executable})
            .to_string()
        };
        let tests = [
            artifact("xtask", "bin", true, Some("/t/xtask-1")),
            artifact("laws", "test", true, Some("/t/laws-1")),
            artifact("xtask", "bin", false, Some("/t/xtask")),
            artifact("core", "lib", false, None),
            json!({"reason": "build-finished", "success": true}).to_string(),
        ];
        let binary = executable(&artifact("trellis", "bin", false, Some("/t/trellis"))).unwrap();
        let built = Built::read(binary, &tests.join("\n")).unwrap();
        let seen: Vec<_> = built
            .programs()
            .iter()
            .map(|program| (program.package.as_str(), program.target.as_str(), program.integration))
            .collect();
        assert_eq!(seen, [("xtask", "xtask", false), ("xtask", "laws", true)]);
        assert_eq!(built.binary, Path::new("/t/trellis"));
        assert!(executable(&tests.join("\n")).is_err());
    }
}
