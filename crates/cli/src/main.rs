//! `trellis`: one binary for the platform's whole life.

mod adopt;
mod crds;
mod dev;
mod diff;
mod doctor;
mod explain;
mod hooks;
mod lint;
mod live;
mod migrate;
mod object;
mod operator;
mod out;
mod reconcile;
mod source;
mod suspend;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Parser, Subcommand};

/// Carries a Kubernetes platform through its whole life.
#[derive(Parser)]
#[command(
    name = "trellis",
    version,
    about = "Carries a Kubernetes platform through its whole life",
    propagate_version = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A real local Kubernetes with every controller and the examples
    Dev(dev::Args),
    /// Run the controllers against the cluster of the current kubeconfig
    Operator(Box<operator::Args>),
    /// Print, install or upgrade the custom resource definitions
    Crds(crds::Args),
    /// What calls to a Service get, and who said so
    Explain(explain::Args),
    /// Find annotations, routes and policies that do not do what they seem to
    Lint(lint::Args),
    /// What policies in a file would change
    Diff(diff::Args),
    /// Turn a Service's hand-written annotations into a policy
    Adopt(adopt::Args),
    /// Check whether a cluster has what a capability needs
    Doctor(doctor::Args),
    /// Turn legacy configuration into policies
    Migrate(migrate::Args),
    /// Ask for an object to be carried out now, and wait until it was
    Reconcile(reconcile::Args),
    /// Leave an object alone; what was written for it stays
    Suspend(suspend::Suspend),
    /// Carry a suspended object out again, and wait until it was
    Resume(suspend::Resume),
    /// What a source asks for, and what comes of it, without a cluster
    Source(source::Args),
    /// Run the hooks of sources, as a sidecar of the operator
    Hooks(hooks::Args),
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|word| word == hooks::STEP) {
        return trellis_hooks::step(arguments);
    }
    let cli = Cli::parse();
    // The only failure is that a provider is installed already, which cannot be: nothing came before.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let result = match cli.command {
        Command::Dev(args) => dev::run(args),
        Command::Operator(args) => operator::run(*args),
        Command::Crds(args) => crds::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Lint(args) => lint::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Adopt(args) => adopt::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Migrate(args) => migrate::run(&args),
        Command::Reconcile(args) => reconcile::run(&args),
        Command::Suspend(args) => suspend::suspend(&args),
        Command::Resume(args) => suspend::resume(&args),
        Command::Source(args) => source::run(&args),
        Command::Hooks(args) => hooks::run(args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            out::error(&error);
            ExitCode::FAILURE
        }
    }
}

/// The file of this program, also after a rebuild has put another one in its place.
fn this_program() -> anyhow::Result<PathBuf> {
    if cfg!(target_os = "linux") {
        return Ok(PathBuf::from(format!("/proc/{}/exe", std::process::id())));
    }
    std::env::current_exe().context("cannot find this program")
}

/// Runs one piece of work that asks a cluster.
fn wait_for<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(work)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn no_two_arguments_of_a_command_get_in_each_others_way() {
        Cli::command().debug_assert();
    }
}
