//! The load bias, as Linkerd 2.20 reads it from a Service.

use serde::Serialize;

use super::{Bad, Stored, duration, read, truth};
use crate::{
    LinkerdVersion,
    annotations::{BIAS_MAX_RETRY_AFTER, BIAS_PENALTY, PENALIZE_FAILURES},
};

/// Fewer requests for endpoints that fail. Times are milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadBias {
    /// Latency that a failure counts for.
    pub penalty: u64,
    /// Longest Retry-After that is believed.
    pub max_retry_after: u64,
}

impl LoadBias {
    /// The load bias that these annotations give; none when it is off, or before 2.20.
    pub fn read(stored: &Stored, linkerd: &LinkerdVersion) -> Result<Option<Self>, Bad> {
        if !linkerd.at_least(2, 20) {
            return Ok(None);
        }
        match read(stored, PENALIZE_FAILURES, "be true or false", truth)? {
            None | Some(false) => Ok(None),
            Some(true) => Ok(Some(Self {
                penalty: duration(stored, BIAS_PENALTY)?.unwrap_or(5000),
                max_retry_after: duration(stored, BIAS_MAX_RETRY_AFTER)?.unwrap_or(300_000),
            })),
        }
    }

    /// What the control plane passes on and the proxies then refuse.
    #[must_use]
    pub fn refused_by_proxies(&self, stored: &Stored) -> Option<Bad> {
        (self.penalty > u64::from(u32::MAX)).then(|| {
            let value = stored.get(BIAS_PENALTY).map_or("", String::as_str);
            Bad::new(BIAS_PENALTY, value, "be at most 49d")
        })
    }
}
