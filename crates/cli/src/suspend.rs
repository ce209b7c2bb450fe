//! `trellis suspend` and `trellis resume`: leave an object alone, and carry it out again.

use std::{process::ExitCode, time::Duration};

use crate::object::{Ask, Named, Wait};

/// Arguments of `trellis suspend`.
#[derive(clap::Args)]
pub(crate) struct Suspend {
    #[command(flatten)]
    object: Named,
}

/// Arguments of `trellis resume`.
#[derive(clap::Args)]
pub(crate) struct Resume {
    #[command(flatten)]
    object: Named,
    #[command(flatten)]
    wait: Wait,
}

/// What was published or written stays as it is.
pub(crate) fn suspend(args: &Suspend) -> anyhow::Result<ExitCode> {
    // There is nothing to wait for: from now on it is left alone.
    args.object.ask(Ask::Suspend, Duration::ZERO)
}

/// Exit code 1 when it is not ready afterwards.
pub(crate) fn resume(args: &Resume) -> anyhow::Result<ExitCode> {
    args.object.ask(Ask::Resume, args.wait.timeout)
}
