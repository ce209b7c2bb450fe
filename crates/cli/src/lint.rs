//! `trellis lint`: annotations, routes and policies of a whole cluster that do not do what they seem to.

use std::process::ExitCode;

use trellis_resilience::lint::{Severity, lint};

use crate::{live, out};

/// Arguments of `trellis lint`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cluster: live::From,
}

/// Exit code 1 when something has no effect or breaks calls.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let cluster = crate::wait_for(args.cluster.cluster())?;
    let findings = lint(&cluster);
    if args.json {
        out::data(serde_json::to_string_pretty(&findings)?);
    } else {
        for finding in &findings {
            let severity = serde_json::to_value(finding.severity)?;
            out::data(format_args!("{}: {finding}", severity.as_str().unwrap_or_default()));
        }
    }
    let errors = findings
        .iter()
        .filter(|finding| finding.severity == Severity::Error)
        .count();
    out::say(format_args!("{} findings, {errors} of them errors", findings.len()));
    Ok(if errors == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
