//! `trellis dev`: real Kubernetes on this machine, the controllers on it, the examples applied.
//!
//! ```text
//!  up ─▶ ControlPlane, Flux ─▶ CRDs ─▶ RBAC ─▶ operator (a child, under its own ServiceAccount) ─▶ examples ─▶ table
//!  down, status, env ─▶ record of each running `up`
//! ```
//!
//! Invariant: `up` owns every process that it started; when it ends in any way, so do they.

mod controllers;
mod examples;
mod line;
mod progress;
mod record;
mod table;
mod up;
mod upstream;

use std::process::ExitCode;

use anyhow::bail;
use clap::Subcommand;

use crate::out;
use record::Record;

/// Arguments of `trellis dev`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build what is missing, start Kubernetes and the controllers, apply the examples
    Up(up::Args),
    /// Stop a running `dev up`
    Down(Which),
    /// Show what runs
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the settings for kubectl: eval "$(trellis dev env)"
    Env(Which),
}

/// Which of several running `dev up`.
#[derive(clap::Args)]
struct Which {
    /// Process ID as `dev status` shows it; needed only when several run
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Up(args) => return up::run(&args),
        Command::Down(which) => which.one()?.stop()?,
        Command::Status { json } => status(json)?,
        Command::Env(which) => {
            let record = which.one()?;
            out::data(format_args!(
                "export KUBECONFIG={}",
                shell_quoted(&record.kubeconfig.display().to_string())
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn status(json: bool) -> anyhow::Result<()> {
    let records = Record::running()?;
    if json {
        out::data(serde_json::to_string_pretty(&records)?);
    } else if records.is_empty() {
        out::say("nothing runs; start it with: trellis dev up");
    } else {
        out::data(table::records(&records));
    }
    Ok(())
}

impl Which {
    fn one(&self) -> anyhow::Result<Record> {
        let mut running = Record::running()?;
        if let Some(pid) = self.pid {
            running.retain(|record| record.pid == pid);
        }
        match (running.pop(), running.is_empty()) {
            (Some(record), true) => Ok(record),
            (None, _) if self.pid.is_some() => bail!("no dev up with this process ID runs; see: trellis dev status"),
            (None, _) => bail!("nothing runs; start it with: trellis dev up"),
            (Some(_), false) => bail!("several run; say which with --pid, see: trellis dev status"),
        }
    }
}

/// A word that a POSIX shell reads as this text.
fn shell_quoted(text: &str) -> String {
    let plain = |character: char| character.is_ascii_alphanumeric() || "/._-+:@%".contains(character);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_blanks_and_quotes_survives_the_shell() {
        assert_eq!(shell_quoted("/a/b-c.d"), "/a/b-c.d");
        assert_eq!(shell_quoted("/a b/it's"), r"'/a b/it'\''s'");
        assert_eq!(shell_quoted(""), "''");
    }
}
