//! Retries: limit, statuses and timeout, all good or no retries. HTTP and gRPC share limit and timeout.

use crate::{
    parse::{Bad, duration, number, optional},
    route::Kind,
};

/// Retries of HTTP requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retry {
    /// Retries after the first try.
    pub limit: u16,
    /// Ranges of statuses that are retried, as written; empty: only failures without a status.
    pub statuses: Vec<(u16, u16)>,
    /// Time for one try until the response headers, in milliseconds.
    pub timeout: Option<u64>,
}

/// Retries of either protocol.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Block {
    /// Limit, statuses of HTTP, and timeout.
    pub retry: Retry,
    /// Statuses of gRPC, in lower case, as written.
    pub codes: Vec<String>,
}

/// What a Service says of HTTP.
pub(crate) fn of<'a>(read: impl Fn(&str) -> Option<&'a str>) -> Option<Retry> {
    block(read, Kind::Http).ok().flatten().map(|block| block.retry)
}

/// What annotations say of one protocol.
pub(crate) fn block<'a>(read: impl Fn(&str) -> Option<&'a str>, kind: Kind) -> Result<Option<Block>, Bad> {
    let get = |name: &str| read(&format!("retry.linkerd.io/{name}"));
    // Zero counts as unset, for the limit as for the timeout.
    let limit = optional(get("limit"), |text| number::<u16>(text, false))?.filter(|limit| *limit != 0);
    let timeout = optional(get("timeout"), duration)?.filter(|timeout| *timeout != 0);
    let (http, grpc) = match kind {
        Kind::Http => (get("http"), None),
        Kind::Grpc => (None, get("grpc")),
    };
    let statuses = optional(http, |text| text.split(',').map(range).collect::<Result<Vec<_>, _>>())?;
    let codes = optional(grpc, |text| text.split(',').map(code).collect::<Result<Vec<_>, _>>())?;
    if limit.is_none() && timeout.is_none() && statuses.is_none() && codes.is_none() {
        return Ok(None);
    }
    Ok(Some(Block {
        retry: Retry {
            limit: limit.unwrap_or(1),
            statuses: statuses.unwrap_or_default(),
            timeout,
        },
        codes: codes.unwrap_or_default(),
    }))
}

fn range(item: &str) -> Result<(u16, u16), Bad> {
    if item.eq_ignore_ascii_case("5xx") {
        return Ok((500, 599));
    }
    if item.eq_ignore_ascii_case("gateway-error") {
        return Ok((502, 504));
    }
    let (low, high) = match item.find('-') {
        Some(at) => (status(&item[..at])?, status(&item[at + 1..])?),
        None => (status(item)?, status(item)?),
    };
    if low > high { Err(Bad) } else { Ok((low, high)) }
}

fn status(text: &str) -> Result<u16, Bad> {
    match number(text, false)? {
        code @ 100..=599 => Ok(code),
        _ => Err(Bad),
    }
}

fn code(item: &str) -> Result<String, Bad> {
    match item.to_lowercase().as_str() {
        name @ ("cancelled" | "deadline-exceeded" | "internal" | "resource-exhausted" | "unavailable") => {
            Ok(name.into())
        }
        _ => Err(Bad),
    }
}
