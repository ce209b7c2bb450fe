//! What `cargo xtask test` tells at its end, read from a run of it.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::test::UNPROVEN;

/// Runs a command that runs the tests; its output goes to the terminal. Fails when it fails, and when a group was not
/// proven.
pub(crate) fn everything_proven(command: &mut Command) -> Result<()> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    let stdout = child.stdout.take().context("no pipe to the tests")?;
    let mut told = None;
    for line in BufReader::new(stdout).lines() {
        let line = line.context("the tests' output cannot be read")?;
        println!("{line}");
        told = unproven(&line).map(str::to_owned).or(told);
    }
    let status = child.wait().context("the tests' end cannot be seen")?;
    ensure!(status.success(), "the tests failed ({status})");
    match told.as_deref() {
        Some("none") => Ok(()),
        Some(left) => bail!("not proven here: {left}"),
        None => bail!("the tests did not say what they proved"),
    }
}

fn unproven(line: &str) -> Option<&str> {
    line.strip_prefix(UNPROVEN).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_run_that_proves_everything_passes() {
        let run = |script: &str| everything_proven(Command::new("sh").args(["-c", script]));
        assert!(run("echo 'NOT PROVEN HERE: none'; echo 9 passed, 0 failed").is_ok());
        let left = run("echo 'NOT PROVEN HERE: cover, chart'").unwrap_err();
        assert!(left.to_string().ends_with("cover, chart"), "{left}");
        assert!(run("echo 'NOT PROVEN HERE: none'; exit 1").is_err());
        assert!(run("echo hello").is_err());
    }
}
