//! `trellis lint`: annotations, routes and policies of a cluster, or of a namespace, that do not do what they seem to.

use std::{collections::BTreeSet, process::ExitCode};

use kube::ResourceExt;
use trellis_resilience::{
    PolicyName,
    lint::{Finding, Rule, Severity, lint},
};

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
    let mut read = crate::wait_for(args.cluster.cluster(live::Scope::Whole(namespaces)))?;
    if !read.notes.is_empty() {
        leave_out(&mut read);
    }
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

/// Takes out policies for Services in namespaces of which nothing was seen: nothing can be said of them.
fn leave_out(read: &mut live::Read) {
    let seen: BTreeSet<_> = read
        .cluster
        .services
        .iter()
        .filter_map(ResourceExt::namespace)
        .collect();
    read.cluster.policies.retain(|policy| {
        let target = policy.spec.target_ref.as_ref();
        let elsewhere = target.and_then(|target| target.namespace.as_ref());
        let judged = elsewhere
            .is_none_or(|namespace| seen.contains(namespace) || policy.namespace().as_ref() == Some(namespace));
        if !judged {
            read.notes.push(format!(
                "policy {} is for another namespace: it was not judged",
                PolicyName::of(policy)
            ));
        }
        judged
    });
}
