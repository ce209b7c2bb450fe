//! `trellis lint`: annotations, routes and policies of a cluster, or of a namespace, that do not do what they seem to.

use std::process::ExitCode;

use trellis_resilience::lint::{Finding, Rule, Severity, lint};

use crate::{live, out};

/// Arguments of `trellis lint`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only what is found in this namespace; default: everywhere
    #[arg(long, short, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cluster: live::From,
}

/// Exit code 1 when something has no effect or breaks calls.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let namespaces = args.namespace.iter().cloned().collect();
    let read = crate::wait_for(args.cluster.cluster(live::Scope::Whole(namespaces)))?;
    let mut findings = lint(&read.cluster);
    if let Some(namespace) = &args.namespace {
        let here = format!(" {namespace}/");
        findings.retain(|finding| finding.object.contains(&here));
    }
    findings.extend(read.notes.into_iter().map(|message| Finding {
        severity: Severity::Hint,
        rule: Rule::NotLookedAt,
        object: args.namespace.as_deref().unwrap_or("cluster").to_owned(),
        message,
        hint: Some("findings about what was not looked at are missing, or wrong".to_owned()),
    }));
    if args.json {
        out::data(serde_json::to_string_pretty(&findings)?);
    } else {
        for finding in &findings {
            let severity = serde_json::to_value(finding.severity)?;
            out::line(format_args!("{}: {finding}", severity.as_str().unwrap_or_default()));
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
