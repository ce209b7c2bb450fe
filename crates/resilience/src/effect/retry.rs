//! Retries, as Linkerd reads them: limit and timeout are shared, statuses are of one protocol.

use serde::Serialize;

use super::{Bad, Stored, duration, read};
use crate::{
    annotations::{RETRY_GRPC, RETRY_HTTP, RETRY_LIMIT, RETRY_TIMEOUT},
    codes::GRPC,
};

/// Which of the two retry blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Protocol {
    /// Statuses of HTTP.
    Http,
    /// Statuses of gRPC.
    Grpc,
}

/// Retries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// Retries after the first try.
    pub limit: u16,
    /// Ranges of HTTP statuses, as written.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub statuses: Vec<(u16, u16)>,
    /// gRPC statuses, as written, in lower case.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub codes: Vec<&'static str>,
    /// Time for one try until the response headers, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
}

impl Retry {
    /// The retries that these annotations give for one protocol. Zero counts as unset, for limit and timeout.
    pub fn read(stored: &Stored, protocol: Protocol) -> Result<Option<Self>, Bad> {
        let count = "be a whole number from 0 to 65535, without blanks";
        let limit = read(stored, RETRY_LIMIT, count, |text| text.parse::<u16>().ok())?.filter(|limit| *limit != 0);
        let timeout = duration(stored, RETRY_TIMEOUT)?.filter(|timeout| *timeout != 0);
        let (mut statuses, mut codes) = (None, None);
        match protocol {
            Protocol::Http => {
                let list = "be a list without blanks of 5xx, gateway-error, codes from 100 to 599 and ranges of them";
                statuses = read(stored, RETRY_HTTP, list, |text| text.split(',').map(range).collect())?;
            }
            Protocol::Grpc => {
                let list = "be a list without blanks of cancelled, deadline-exceeded, internal, resource-exhausted and \
                            unavailable";
                codes = read(stored, RETRY_GRPC, list, |text| text.split(',').map(code).collect())?;
            }
        }
        if limit.is_none() && timeout.is_none() && statuses.is_none() && codes.is_none() {
            return Ok(None);
        }
        Ok(Some(Self {
            limit: limit.unwrap_or(1),
            statuses: statuses.unwrap_or_default(),
            codes: codes.unwrap_or_default(),
            timeout,
        }))
    }
}

fn range(item: &str) -> Option<(u16, u16)> {
    if item.eq_ignore_ascii_case("5xx") {
        return Some((500, 599));
    }
    if item.eq_ignore_ascii_case("gateway-error") {
        return Some((502, 504));
    }
    let status = |text: &str| text.parse().ok().filter(|status: &u16| (100..=599).contains(status));
    let (low, high) = item.split_once('-').unwrap_or((item, item));
    status(low).zip(status(high)).filter(|(low, high)| low <= high)
}

fn code(item: &str) -> Option<&'static str> {
    GRPC.into_iter().find(|name| item.eq_ignore_ascii_case(name))
}
