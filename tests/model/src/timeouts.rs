//! Timeouts: three keys, all good or none.

use crate::parse::{Bad, duration, optional};

/// Timeouts of the default route, in milliseconds. Zero is real: it ends every request at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// Life of the whole request.
    pub request: Option<u64>,
    /// From the end of the request to the end of the response.
    pub response: Option<u64>,
    /// Without anything sent.
    pub idle: Option<u64>,
}

pub(crate) fn of<'a>(read: impl Fn(&str) -> Option<&'a str>) -> Timeouts {
    block(read).unwrap_or_default()
}

pub(crate) fn block<'a>(read: impl Fn(&str) -> Option<&'a str>) -> Result<Timeouts, Bad> {
    let get = |name: &str| optional(read(&format!("timeout.linkerd.io/{name}")), duration);
    Ok(Timeouts {
        request: get("request")?,
        response: get("response")?,
        idle: get("idle")?,
    })
}
