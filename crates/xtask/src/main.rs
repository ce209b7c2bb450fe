//! The project's tasks. `cargo xtask help` lists them.
//!
//! ```text
//!  gen ── what is derived from code     arch ── what may depend on what     cover ── lines that a test ran
//!  test ── every capability, bounded    prove ── one claim, the long form   chart, explain ── what Helm, kubectl say
//! ```
//!
//! Invariants: a task needs no network beyond cargo's and Go's registries; it never passes silently what it
//! could not run.

mod arch;
mod built;
mod chart;
mod cover;
mod explain;
mod generate;
mod peers;
mod prove;
mod step;
mod test;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// The project's tasks.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Xtask {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Write CRDs, RBAC, lint settings and spec tables from the code, or compare them
    Gen(generate::Args),
    /// Check the ring rule and the shape of the source files
    Arch,
    /// Lint and render the chart through the development plane's Helm
    Chart,
    /// Ask kubectl, on a real API server, for the description of every field of every kind
    Explain,
    /// Measure which lines the tests run, and fail below the floor
    Cover(cover::Args),
    /// Run every capability's tests, bounded in time; what CI runs
    Test(test::Args),
    /// Prove one claim in its long form
    Prove(prove::Args),
}

fn main() -> ExitCode {
    match run(&Xtask::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(xtask: &Xtask) -> Result<()> {
    let workspace = Workspace::find()?;
    match &xtask.task {
        Task::Gen(args) => generate::run(&workspace, args),
        Task::Arch => arch::run(&workspace),
        Task::Chart => chart::run(&workspace),
        Task::Explain => explain::run(&workspace),
        Task::Cover(args) => cover::run(&workspace, args),
        Task::Test(args) => test::run(&workspace, args),
        Task::Prove(args) => prove::run(&workspace, args),
    }
}
