//! What the operator is told about sources.

use std::{path::PathBuf, time::Duration};

use trellis_sources::{archive::Limits, failure::Backoff, retention::Retention};

/// What the operator is told about sources.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Address below which stored files are served, as consumers in the cluster reach it, such as
    /// `http://trellis-artifacts.trellis-system.svc.cluster.local.`; without a slash at its end.
    pub base: String,
    /// A folder for what is on its way, on a disk that holds a few of the largest artifacts. It must not be shared.
    pub spool: PathBuf,
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
    /// Longest time of a round from request to stored file. Default: 30 min.
    pub longest: Duration,
}

impl Settings {
    /// The defaults, for this address and this folder.
    #[must_use]
    pub fn new(base: impl Into<String>, spool: impl Into<PathBuf>) -> Self {
        Self {
            base: base.into(),
            spool: spool.into(),
            backoff: Backoff::default(),
            retention: Retention::default(),
            allow_insecure_tls: false,
            max_bytes: 100 << 20,
            unpack: Limits::default(),
            longest: Duration::from_mins(30),
        }
    }
}
