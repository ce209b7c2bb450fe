//! `trellis crds`: the custom resource definitions, printed or installed.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;
use kube::{Client, ResourceExt as _};

use crate::out;

/// Arguments of `trellis crds`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print them as YAML
    Print,
    /// Install or upgrade them; refuses to drop a version in which objects are stored
    Apply,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let crds = trellis_api::crds();
    match args.command {
        Command::Print => {
            for crd in &crds {
                out::data("---");
                out::data(serde_saphyr::to_string(crd)?.trim_end());
            }
        }
        Command::Apply => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let client = Client::try_default().await.context("no cluster to install into")?;
                trellis_runtime::crds::install(&client, &crds).await?;
                for crd in &crds {
                    out::say(format_args!("{} is established", crd.name_any()));
                }
                anyhow::Ok(())
            })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
