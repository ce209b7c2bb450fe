//! The load biaser: on, with two durations; anything bad and it is off.

use crate::{
    Version,
    parse::{Bad, duration, optional, truth},
};

/// A bias against endpoints that fail, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bias {
    /// Latency that a failure counts for.
    pub penalty: u64,
    /// Longest `Retry-After` that is believed.
    pub max_retry_after: u64,
}

impl Bias {
    /// The proxy keeps the penalty in 32 bits.
    pub(crate) fn fails_in_the_proxy(&self) -> bool {
        self.penalty > 0xffff_ffff
    }
}

pub(crate) fn of<'a>(read: impl Fn(&str) -> Option<&'a str>, version: Version) -> Option<Bias> {
    let get = |name: &str| read(&format!("balancer.alpha.linkerd.io/{name}"));
    let on = version >= (2, 20) && get("penalize-failures").map(truth) == Some(Ok(true));
    let times = || -> Result<Bias, Bad> {
        Ok(Bias {
            penalty: optional(get("load-biaser-penalty"), duration)?.unwrap_or(5000),
            max_retry_after: optional(get("load-biaser-max-retry-after"), duration)?.unwrap_or(300_000),
        })
    };
    on.then(|| times().ok()).flatten()
}
