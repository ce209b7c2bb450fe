//! `trellis migrate serviceprofile`: policies in place of a legacy profile.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;
use trellis_bindings::linkerd::ServiceProfile;
use trellis_resilience::migrate::service_profile;

use crate::{live, out};

/// Arguments of `trellis migrate`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// A ServiceProfile; prints the policies and what has no counterpart, writes nothing
    Serviceprofile {
        /// Its name, such as web.shop.svc.cluster.local
        name: String,
        /// Its namespace
        #[arg(long, short, default_value = "default", value_name = "NAMESPACE")]
        namespace: String,
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        cluster: live::From,
    },
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let What::Serviceprofile {
        name,
        namespace,
        json,
        cluster,
    } = &args.what;
    let (profile, mesh, unread) = crate::wait_for(async {
        let (client, mesh, notes) = cluster.mesh().await?;
        Ok((
            live::one::<ServiceProfile>(&client, namespace, name).await?,
            mesh,
            notes,
        ))
    })?;
    let profile = profile.with_context(|| format!("there is no ServiceProfile {name} in namespace {namespace}"))?;
    let mut migration = service_profile(&profile, &mesh.cluster_domain)?;
    migration.notes.extend(unread);
    if *json {
        out::data(serde_json::to_string_pretty(&migration)?);
        return Ok(ExitCode::SUCCESS);
    }
    for note in &migration.notes {
        out::note(note);
    }
    for policy in &migration.policies {
        out::data("---");
        out::data(serde_saphyr::to_string(policy)?.trim_end());
    }
    Ok(ExitCode::SUCCESS)
}
