//! What the operator is told about sources.

use std::{path::PathBuf, sync::Arc, time::Duration};

use trellis_hooks::{Client, Reload, ReloadError};
use trellis_runtime::notify::Address;
use trellis_sources::{
    archive::Limits,
    failure::Backoff,
    retention::Retention,
    whitelist::{self, Whitelist},
};

use super::measured::Measured;

/// What the operator is told about sources.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Address below which stored files are served, as consumers in the cluster reach it, such as
    /// `http://trellis-artifacts.trellis-system.svc.cluster.local.`; without a slash at its end.
    pub base: String,
    /// A folder for what is on its way, on a disk that holds a few of the largest artifacts. It must not be shared.
    pub spool: PathBuf,
    /// Most bytes that lie in that folder at once, small sources not counted, which take up to 4 MiB each. A source that
    /// may need more has all of it alone; others wait. Default: 1 GiB.
    pub spool_bytes: u64,
    /// How failures are tried again.
    pub backoff: Backoff,
    /// Which artifacts stay beside the current one.
    pub retention: Retention,
    /// Whether `insecureSkipVerify` is allowed. Default: no.
    pub allow_insecure_tls: bool,
    /// Most bytes that a source may ask for. Default: 100 MiB.
    pub max_bytes: u64,
    /// What an upstream archive may unpack to.
    pub unpack: Limits,
    /// Longest time of a round from its first hook to the packed file. Default: 30 min.
    pub longest: Duration,
    /// Who runs hooks. Default: nobody, and sources with hooks are refused.
    pub hooks: Option<HooksSettings>,
    /// Address of Flux's notification-controller (`--events-addr`), such as
    /// `http://notification-controller.flux-system.svc.cluster.local./`. Default: none, and it is told nothing.
    pub events: Option<Address>,
    /// Where what happens is counted. Clones count together.
    pub(super) measured: Measured,
}

/// Who runs hooks, and which.
#[derive(Debug, Clone)]
pub struct HooksSettings {
    /// The sidecar.
    pub client: Client,
    /// What may run: asked before the sidecar is.
    pub whitelist: Arc<Reload<Whitelist>>,
    /// How many hooks are run at once; no more than the sidecar has places for. Default: 4, as the sidecar's.
    pub at_once: usize,
}

impl HooksSettings {
    /// The defaults, with the whitelist in this file, which is read again whenever it changes. That it is missing or broken
    /// is no error here: no hook is allowed until it is good, and then the last good one counts.
    ///
    /// # Errors
    /// When the folder of the file is not there.
    pub fn open(client: Client, whitelist: impl Into<PathBuf>) -> Result<Self, ReloadError> {
        Ok(Self {
            client,
            whitelist: Arc::new(Reload::start(whitelist, whitelist::LIMIT, Whitelist::parse)?),
            at_once: 4,
        })
    }
}

impl Settings {
    /// The defaults, for this address and this folder.
    #[must_use]
    pub fn new(base: impl Into<String>, spool: impl Into<PathBuf>) -> Self {
        Self {
            base: base.into(),
            spool: spool.into(),
            spool_bytes: 1 << 30,
            backoff: Backoff::default(),
            retention: Retention::default(),
            allow_insecure_tls: false,
            max_bytes: 100 << 20,
            unpack: Limits::default(),
            longest: Duration::from_mins(30),
            hooks: None,
            events: None,
            measured: Measured::default(),
        }
    }
}
