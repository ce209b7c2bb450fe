//! Who runs the hooks of sources.

use std::path::PathBuf;

use anyhow::ensure;
use trellis_hooks::{Client, Endpoint};
use trellis_operator::external_source::HooksSettings;

#[derive(clap::Args)]
#[command(next_help_heading = "External sources: hooks")]
pub(super) struct Hooks {
    /// The sidecar that runs hooks, such as <unix:///run/trellis/hooks.sock>; default: none, and sources with hooks are refused
    #[arg(
        long = "hook-endpoint",
        id = "hook-endpoint",
        env = "HOOK_EXECUTOR_ENDPOINT",
        value_name = "ENDPOINT"
    )]
    endpoint: Option<String>,
    /// File with the token that a sidecar on a port asks for
    #[arg(
        long = "hook-token-file",
        id = "hook-token-file",
        env = "HOOK_TOKEN_FILE",
        value_name = "FILE"
    )]
    token_file: Option<PathBuf>,
    /// Which commands may run, the same file as the sidecar's; read again whenever it changes
    #[arg(
        long = "hook-whitelist",
        id = "hook-whitelist",
        env = "HOOK_WHITELIST_PATH",
        default_value = "/etc/hooks/whitelist.yaml",
        value_name = "FILE"
    )]
    whitelist: PathBuf,
    /// Hooks that run at the same time; no more than the sidecar runs
    #[arg(
        long = "hooks-at-once",
        id = "hooks-at-once",
        env = "HOOK_AT_ONCE",
        default_value_t = 4,
        value_name = "NUMBER"
    )]
    at_once: usize,
}

impl Hooks {
    pub(super) fn settings(self) -> anyhow::Result<Option<HooksSettings>> {
        let Some(endpoint) = self.endpoint else { return Ok(None) };
        let token = self.token_file.as_deref().map(crate::hooks::token);
        ensure!(self.at_once > 0, "--hooks-at-once is 1 or more");
        let client = Client::new(Endpoint::parse(&endpoint, token.transpose()?)?);
        let mut settings = HooksSettings::open(client, self.whitelist)?;
        settings.at_once = self.at_once;
        Ok(Some(settings))
    }
}
