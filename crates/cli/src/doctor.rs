//! `trellis doctor`: whether a cluster has what a capability needs, and what mends each lack.
//!
//! Every check stands by itself: one that cannot be made is unknown, and the others go on.

use std::{collections::BTreeSet, process::ExitCode};

use anyhow::Context as _;
use clap::ValueEnum;
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        coordination::v1::{Lease, LeaseSpec},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::Client;
use serde::Serialize;
use trellis_core::Refusal;

use crate::{
    live::{self, Served},
    out,
};

mod resilience;
mod room;
mod sources;

/// How far the clocks of this machine and of the cluster may differ, in seconds.
const CLOCKS: i64 = 30;

/// What installs our kinds.
const CRDS: &str = "trellis crds apply";

/// Oldest Kubernetes that the requirements name.
const KUBERNETES: (u32, u32) = (1, 30);

/// Arguments of `trellis doctor`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The capability
    #[arg(long = "for", value_name = "CAPABILITY")]
    capability: Capability,
    /// As JSON
    #[arg(long)]
    json: bool,
    /// Version of Linkerd, such as 2.18; default: read from ConfigMap linkerd/linkerd-config
    #[arg(long, value_name = "VERSION")]
    linkerd_version: Option<String>,
    /// Namespace of Flux's controllers
    #[arg(long, default_value = "flux-system", value_name = "NAMESPACE")]
    flux_namespace: String,
    /// Namespace of the Lease that elects the leading operator
    #[arg(long, default_value = "trellis-system", value_name = "NAMESPACE")]
    lease_namespace: String,
    /// Name of that Lease
    #[arg(long, default_value = "trellis", value_name = "NAME")]
    lease_name: String,
}

#[derive(Clone, Copy, ValueEnum)]
enum Capability {
    /// External sources for Flux
    ExternalSource,
    /// Resilience policies for Linkerd
    Resilience,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    what: &'static str,
    state: State,
    found: String,
    /// What mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum State {
    Fine,
    /// Only a part of the capability needs it.
    Partial,
    /// It could not be looked at.
    Unknown,
    Missing,
}

/// Whether it is as it should be, and what was found; nothing found is not installed.
type Found = anyhow::Result<(State, String)>;

/// Exit code 1 when something is missing.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let checks = crate::wait_for(async {
        let client = live::client().await?;
        match args.capability {
            Capability::ExternalSource => sources::checks(&client, args).await,
            Capability::Resilience => resilience::checks(&client, args).await,
        }
    })?;
    if args.json {
        out::data(serde_json::to_string_pretty(&checks)?);
    } else {
        for check in &checks {
            let mark = match check.state {
                State::Fine => "ok     ",
                State::Partial => "partly ",
                State::Unknown => "unknown",
                State::Missing => "MISSING",
            };
            out::line(format_args!("{mark} {}: {}", check.what, check.found));
            if let Some(mend) = &check.mend {
                out::line(format_args!("        {mend}"));
            }
        }
    }
    let missing = checks.iter().any(|check| check.state == State::Missing);
    Ok(if missing { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// An API server that does not answer is an error: nothing else can be asked then.
async fn kubernetes(client: &Client) -> anyhow::Result<Found> {
    let version = match client.apiserver_version().await {
        Ok(version) => version,
        Err(error) if live::is_forbidden(&error) => return Ok(Err(error.into())),
        Err(error) => return Err(error).context("the API server does not answer"),
    };
    let number = |text: &str| {
        text.trim_end_matches(|c: char| !c.is_ascii_digit())
            .parse::<u32>()
            .unwrap_or_default()
    };
    let recent = (number(&version.major), number(&version.minor)) >= KUBERNETES;
    let state = if recent { State::Fine } else { State::Missing };
    Ok(Ok((state, version.git_version)))
}

/// The kind of a definition of ours, as it is served.
fn kind(crd: &CustomResourceDefinition, served: Result<&Served, &anyhow::Error>) -> Found {
    let versions = versions(served, &crd.spec.group, &crd.spec.names.plural)?;
    let state = if versions.is_empty() {
        State::Missing
    } else {
        State::Fine
    };
    Ok((state, listed(&versions)))
}

async fn deployed(client: &Client, namespace: &str, name: &str) -> Found {
    let Some(found) = live::one::<Deployment>(client, namespace, name).await? else {
        return Ok((State::Partial, String::new()));
    };
    let available = found
        .status
        .and_then(|status| status.available_replicas)
        .unwrap_or_default();
    let state = if available > 0 { State::Fine } else { State::Partial };
    Ok((state, format!("{available} available")))
}

async fn leader(client: &Client, args: &Args) -> Check {
    check(
        "an operator that leads",
        operator(client, &args.lease_namespace, &args.lease_name).await,
        "install the chart, or run trellis operator; if it is there, look at its logs, or name its Lease with \
         --lease-namespace and --lease-name",
    )
}

async fn operator(client: &Client, namespace: &str, name: &str) -> Found {
    let lease = live::one::<Lease>(client, namespace, name).await?;
    let spec = lease.and_then(|lease| lease.spec).unwrap_or_default();
    let lasts = lasts(&spec, jiff::Timestamp::now());
    Ok(match spec.holder_identity.filter(|holder| !holder.is_empty()) {
        Some(holder) if lasts => (State::Fine, holder),
        Some(holder) => {
            let found = format!("{holder} held the Lease {namespace}/{name} and does not renew it");
            (State::Missing, found)
        }
        None => (State::Missing, format!("none holds the Lease {namespace}/{name}")),
    })
}

/// Whether a claim is still good: renewed within its duration, give or take what clocks differ.
fn lasts(lease: &LeaseSpec, now: jiff::Timestamp) -> bool {
    let Some((renewed, seconds)) = lease.renew_time.as_ref().zip(lease.lease_duration_seconds) else {
        return false;
    };
    let slack = jiff::SignedDuration::from_secs(i64::from(seconds) + CLOCKS);
    now.duration_since(renewed.0) <= slack
}

fn versions(served: Result<&Served, &anyhow::Error>, group: &str, plural: &str) -> anyhow::Result<BTreeSet<String>> {
    let served = served.map_err(|error| anyhow::anyhow!("{error:#}"))?;
    Ok(live::versions(served, group, plural))
}

fn listed(versions: &BTreeSet<String>) -> String {
    versions.iter().cloned().collect::<Vec<_>>().join(", ")
}

fn is_forbidden(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<Refusal>()
        .is_some_and(|refusal| refusal.reason == "Forbidden")
}

/// An error without its hint.
fn told(error: &anyhow::Error) -> String {
    error
        .downcast_ref::<Refusal>()
        .map_or_else(|| format!("{error:#}"), |refusal| refusal.message.clone())
}

fn check(what: &'static str, found: Found, mend: &str) -> Check {
    let (state, found, mend) = match found {
        Ok((state, found)) => (state, found, (state != State::Fine).then(|| mend.to_owned())),
        Err(error) => {
            let hint = error.downcast_ref::<Refusal>().and_then(|refusal| refusal.hint.clone());
            (
                State::Unknown,
                told(&error),
                Some(hint.unwrap_or_else(|| mend.to_owned())),
            )
        }
    };
    let found = if found.is_empty() {
        "not installed".to_owned()
    } else {
        found
    };
    Check {
        what,
        state,
        found,
        mend,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

    use super::*;

    #[test]
    fn a_claim_lasts_while_it_is_renewed() {
        let now = jiff::Timestamp::UNIX_EPOCH;
        let renewed = |ago: i64| LeaseSpec {
            renew_time: Some(MicroTime(now - jiff::SignedDuration::from_secs(ago))),
            lease_duration_seconds: Some(10),
            ..LeaseSpec::default()
        };
        assert!(lasts(&renewed(2), now) && lasts(&renewed(39), now));
        assert!(!lasts(&renewed(41), now) && !lasts(&LeaseSpec::default(), now));
    }
}
