//! `trellis reconcile`: asks for an object to be carried out now, and waits until it was.

use std::process::ExitCode;

use anyhow::bail;
use trellis_api::external_source::FORCE_AT;

use crate::object::{Ask, Kind, Named, Wait};

/// Arguments of `trellis reconcile`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    object: Named,
    /// Fetch even what the upstream says is unchanged; only for externalsource
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    wait: Wait,
}

/// Exit code 1 when it is not ready afterwards.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.force && args.object.kind != Kind::ExternalSource {
        bail!("--force is for externalsource: other kinds look at everything each time");
    }
    let force = args.force.then_some(FORCE_AT);
    args.object.ask(Ask::Reconcile { force }, args.wait.timeout)
}
