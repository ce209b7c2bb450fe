//! `trellis doctor`: whether a cluster has what a capability needs, and what mends each lack.

use std::{collections::BTreeSet, process::ExitCode};

use anyhow::Context as _;
use clap::ValueEnum;
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        coordination::v1::{Lease, LeaseSpec},
        core::v1::Namespace,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{Api, Client, CustomResourceExt as _, ResourceExt as _, api::ListParams};
use serde::Serialize;
use trellis_bindings::gateway::{GrpcRoute, HttpRoute};
use trellis_resilience::{Gateway, annotations::Place};

use crate::{live, out};

/// How far the clocks of this machine and of the cluster may differ, in seconds.
const CLOCKS: i64 = 30;

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
}

#[derive(Clone, Copy, ValueEnum)]
enum Capability {
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
    mend: Option<&'static str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum State {
    Fine,
    /// Only a part of the capability needs it.
    Partial,
    Missing,
}

/// Exit code 1 when something is missing.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let checks = crate::wait_for(async {
        let client = Client::try_default().await.context("no cluster: set KUBECONFIG")?;
        match args.capability {
            Capability::Resilience => resilience(&client, args.linkerd_version.as_deref()).await,
        }
    })?;
    if args.json {
        out::data(serde_json::to_string_pretty(&checks)?);
    } else {
        for check in &checks {
            let mark = match check.state {
                State::Fine => "ok     ",
                State::Partial => "partly ",
                State::Missing => "MISSING",
            };
            out::data(format_args!("{mark} {}: {}", check.what, check.found));
            if let Some(mend) = check.mend {
                out::data(format_args!("        {mend}"));
            }
        }
    }
    let missing = checks.iter().any(|check| check.state == State::Missing);
    Ok(if missing { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn resilience(client: &Client, told: Option<&str>) -> anyhow::Result<Vec<Check>> {
    let version = client
        .apiserver_version()
        .await
        .context("the API server does not answer")?;
    let number = |text: &str| {
        text.trim_end_matches(|c: char| !c.is_ascii_digit())
            .parse::<u32>()
            .unwrap_or_default()
    };
    let recent = (number(&version.major), number(&version.minor)) >= KUBERNETES;
    let mut checks = vec![check(
        "Kubernetes 1.30 or newer",
        if recent { State::Fine } else { State::Missing },
        version.git_version,
        "upgrade the cluster",
    )];
    let mesh = live::mesh(client, told).await;
    let gateway = Gateway {
        http: served(client, HttpRoute::crd_name()).await?,
        grpc: served(client, GrpcRoute::crd_name()).await?,
    };
    let routes = [
        (
            "HTTPRoute, for policies with routes or for other namespaces",
            Place::HttpRoute,
            &gateway.http,
        ),
        (
            "GRPCRoute, for policies with gRPC routes",
            Place::GrpcRoute,
            &gateway.grpc,
        ),
    ];
    let routes = routes.map(|(what, place, versions)| {
        // They are written as v1, and Linkerd has to read them.
        let read = mesh.as_ref().is_ok_and(|mesh| gateway.seen(place, mesh));
        let (state, found) = match (versions.contains("v1"), read || mesh.is_err()) {
            (true, true) => (State::Fine, listed(versions)),
            (true, false) => (State::Partial, format!("{}; this Linkerd reads none of them", listed(versions))),
            (false, _) => (State::Partial, listed(versions)),
        };
        let mend = "install the standard channel of the Gateway API in a version that this Linkerd reads and that serves v1: \
                    1.1.1, for Linkerd 2.18 or newer also later ones";
        check(what, state, found, mend)
    });
    checks.push(match mesh {
        Ok(mesh) => check("Linkerd 2.16 or newer", State::Fine, mesh.version.to_string(), ""),
        Err(error) => check(
            "Linkerd 2.16 or newer",
            State::Missing,
            format!("{error:#}"),
            "install Linkerd (linkerd install --crds, linkerd install), or give --linkerd-version here and to the operator",
        ),
    });
    checks.push(controller(client).await?);
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let viz = namespaces
        .get_opt("linkerd-viz")
        .await
        .context("cannot read namespace linkerd-viz")?;
    checks.push(check(
        "Linkerd's viz, to see what its proxies do",
        if viz.is_some() { State::Fine } else { State::Partial },
        viz.map(|_| "namespace linkerd-viz".to_owned()).unwrap_or_default(),
        "linkerd viz install, or read the proxies' metrics otherwise",
    ));
    checks.extend(routes);
    let manager = listed(&served(client, "certificates.cert-manager.io").await?);
    let state = if manager.is_empty() {
        State::Partial
    } else {
        State::Fine
    };
    checks.push(check(
        "cert-manager, to renew Linkerd's certificates",
        state,
        manager,
        "install cert-manager, or renew the trust anchor and the issuer by hand; docs/resilience/mtls.md",
    ));
    for crd in trellis_api::crds() {
        let versions = listed(&served(client, &crd.name_any()).await?);
        let state = if versions.is_empty() {
            State::Missing
        } else {
            State::Fine
        };
        checks.push(check("ResiliencePolicy", state, versions, "trellis crds apply"));
    }
    checks.push(operator(client).await?);
    Ok(checks)
}

/// The policy controller runs in the Pods of `linkerd-destination`; without it no route is accepted.
async fn controller(client: &Client) -> anyhow::Result<Check> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "linkerd");
    let found = deployments
        .get_opt("linkerd-destination")
        .await
        .context("cannot read Deployment linkerd/linkerd-destination")?;
    let available = found.map(|found| {
        found
            .status
            .and_then(|status| status.available_replicas)
            .unwrap_or_default()
    });
    let state = if available.is_some_and(|number| number > 0) {
        State::Fine
    } else {
        State::Partial
    };
    let found = available.map(|number| format!("{number} available"));
    Ok(check(
        "Linkerd's policy controller, for policies with routes",
        state,
        found.unwrap_or_default(),
        "linkerd check says what is wrong with Deployment linkerd/linkerd-destination",
    ))
}

/// Leases of this name only: every node has one, too.
async fn operator(client: &Client) -> anyhow::Result<Check> {
    let leases: Api<Lease> = Api::all(client.clone());
    let named = ListParams::default().fields("metadata.name=trellis");
    let found = leases.list(&named).await.context("cannot list Leases")?;
    let now = jiff::Timestamp::now();
    let held = found.items.iter().filter_map(|lease| {
        let spec = lease.spec.as_ref()?;
        let holder = spec.holder_identity.clone().filter(|holder| !holder.is_empty())?;
        Some((holder, lasts(spec, now)))
    });
    let held: Vec<_> = held.collect();
    let leads = held.iter().find(|(_, lasts)| *lasts).map(|(holder, _)| holder.clone());
    let state = if leads.is_some() { State::Fine } else { State::Missing };
    let found = leads.unwrap_or_else(|| match held.first() {
        Some((holder, _)) => format!("{holder} held the Lease trellis and does not renew it"),
        None => "none holds the Lease trellis".into(),
    });
    let mend = "install the chart, or run trellis operator; if it is there, look at its logs";
    Ok(check("an operator that leads", state, found, mend))
}

/// Whether a claim is still good: renewed within its duration, give or take what clocks differ.
fn lasts(lease: &LeaseSpec, now: jiff::Timestamp) -> bool {
    let Some((renewed, seconds)) = lease.renew_time.as_ref().zip(lease.lease_duration_seconds) else {
        return false;
    };
    let slack = jiff::SignedDuration::from_secs(i64::from(seconds) + CLOCKS);
    now.duration_since(renewed.0) <= slack
}

async fn served(client: &Client, name: &str) -> anyhow::Result<BTreeSet<String>> {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let crd = crds
        .get_opt(name)
        .await
        .with_context(|| format!("cannot read CRD {name}"))?;
    Ok(crd.map(|crd| trellis_runtime::crds::served(&crd)).unwrap_or_default())
}

fn listed(versions: &BTreeSet<String>) -> String {
    versions.iter().cloned().collect::<Vec<_>>().join(", ")
}

fn check(what: &'static str, state: State, found: String, mend: &'static str) -> Check {
    let found = if found.is_empty() {
        "not installed".to_owned()
    } else {
        found
    };
    Check {
        what,
        state,
        found,
        mend: (state != State::Fine).then_some(mend),
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
