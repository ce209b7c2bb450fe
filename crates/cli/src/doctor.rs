//! `trellis doctor`: whether a cluster has what a capability needs, and what mends each lack.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::ValueEnum;
use k8s_openapi::{
    api::coordination::v1::Lease, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{Api, Client, CustomResourceExt as _, ResourceExt as _, api::ListParams};
use serde::Serialize;
use trellis_bindings::gateway::{GrpcRoute, HttpRoute};

use crate::{live, out};

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
    checks.push(match live::mesh(client, told).await {
        Ok(mesh) => check("Linkerd 2.16 or newer", State::Fine, mesh.version.to_string(), ""),
        Err(error) => check(
            "Linkerd 2.16 or newer",
            State::Missing,
            format!("{error:#}"),
            "install Linkerd (linkerd install --crds, linkerd install), or give --linkerd-version here and to the operator",
        ),
    });
    for (what, name) in [
        (
            "HTTPRoute, for policies with routes or for other namespaces",
            HttpRoute::crd_name(),
        ),
        ("GRPCRoute, for policies with gRPC routes", GrpcRoute::crd_name()),
    ] {
        let versions = served(client, name).await?;
        let state = if versions.is_empty() {
            State::Partial
        } else {
            State::Fine
        };
        checks.push(check(
            what,
            state,
            versions,
            "install the standard channel of the Gateway API, 1.1.1 or newer",
        ));
    }
    for crd in trellis_api::crds() {
        let versions = served(client, &crd.name_any()).await?;
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

async fn operator(client: &Client) -> anyhow::Result<Check> {
    let leases: Api<Lease> = Api::all(client.clone());
    let found = leases
        .list(&ListParams::default())
        .await
        .context("cannot list Leases")?;
    let holder = found
        .items
        .iter()
        .filter(|lease| lease.name_any() == "trellis")
        .find_map(|lease| {
            let holder = lease.spec.as_ref()?.holder_identity.clone()?;
            (!holder.is_empty()).then_some(holder)
        });
    let state = if holder.is_some() { State::Fine } else { State::Missing };
    let mend = "install the chart, or run trellis operator";
    Ok(check(
        "an operator that leads",
        state,
        holder.unwrap_or_else(|| "none holds the Lease trellis".into()),
        mend,
    ))
}

async fn served(client: &Client, name: &str) -> anyhow::Result<String> {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let crd = crds
        .get_opt(name)
        .await
        .with_context(|| format!("cannot read CRD {name}"))?;
    let versions = crd.map(|crd| trellis_runtime::crds::served(&crd)).unwrap_or_default();
    Ok(versions.into_iter().collect::<Vec<_>>().join(", "))
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
