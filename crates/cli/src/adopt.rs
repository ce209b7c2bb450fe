//! `trellis adopt`: hand-written annotations of a Service as a policy, without an effective change.

use std::process::ExitCode;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Service;
use trellis_resilience::{
    adopt::adopt,
    annotations::Place,
    shown::{VALUE, cut},
};

use crate::{explain, live, out};

/// Arguments of `trellis adopt`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The Service, as service/NAME
    #[arg(value_name = "service/NAME")]
    service: String,
    /// Namespace of the Service
    #[arg(long, short, default_value = "default", value_name = "NAMESPACE")]
    namespace: String,
    /// As JSON, with what stays as it is
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cluster: live::From,
}

/// Prints the policy; nothing is written.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let name = explain::service(&args.service)?;
    let (service, mesh) = crate::wait_for(async {
        // Neither opaque ports nor the cluster domain matter to annotations.
        let (client, mesh, _) = args.cluster.mesh().await?;
        Ok((live::one::<Service>(&client, &args.namespace, name).await?, mesh))
    })?;
    let service = service.with_context(|| format!("there is no Service {name} in namespace {}", args.namespace))?;
    let adoption = adopt(&service.metadata, Place::Service, &mesh.version);
    if args.json {
        out::data(serde_json::to_string_pretty(&adoption)?);
        return Ok(ExitCode::SUCCESS);
    }
    for (key, (theirs, ours)) in &adoption.respelt {
        let theirs = cut(theirs, VALUE);
        match ours {
            Some(ours) => out::note(format_args!(
                "set {key} to {ours} before you apply the policy; it means the same as {theirs}"
            )),
            None => out::note(format_args!(
                "{key}: {theirs} may stay or go; it makes no difference, and the policy says nothing of it"
            )),
        }
    }
    for left in &adoption.left {
        out::note(format_args!("left as it is: {left}"));
    }
    match &adoption.policy {
        Some(policy) => out::data(serde_saphyr::to_string(policy)?.trim_end()),
        None => out::say("there is nothing to take over"),
    }
    Ok(ExitCode::SUCCESS)
}
