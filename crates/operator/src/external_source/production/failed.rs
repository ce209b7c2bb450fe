//! `Failed`: what a failure of any part means for the source, and what the user is told.

use std::{error::Error, io, net::IpAddr, time::Duration};

use jiff::Timestamp;
use trellis_fetch::{ConnectFault, Hints, Link};
use trellis_sources::{
    failure::{Cause, Failure, Headers, StorageCause, asked},
    reason::Reason,
};

/// Why there is no artifact. Displayed as what the user is told: no query, no header, nothing secret.
#[derive(Debug, thiserror::Error)]
#[error("{told}")]
pub struct Failed {
    /// What it means.
    pub failure: Failure,
    /// What the user is told.
    pub told: String,
}

impl Failed {
    pub(in crate::external_source) fn of(failure: Failure) -> Self {
        let told = failure.to_string();
        Self { failure, told }
    }

    /// The folder for what is on its way.
    pub(in crate::external_source) fn spool(error: &io::Error) -> Self {
        let cause = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StorageCause::NoSpace,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => StorageCause::Denied,
            _ => StorageCause::Unavailable,
        };
        Self {
            failure: Failure::Storage(cause),
            told: format!("the operator's spool: {error}"),
        }
    }

    /// The same, with whose rule it is that the payload breaks.
    pub(in crate::external_source) fn because(self, reason: Reason, whose: &str) -> Self {
        let told = format!("{}, {whose}", self.told);
        Self {
            failure: Failure::Payload(reason.refuse(told.clone())),
            told,
        }
    }

    /// Something that cannot happen did.
    pub(in crate::external_source) fn defect(error: &dyn Error) -> Self {
        Self {
            failure: Failure::Storage(StorageCause::Unavailable),
            told: format!("a defect of the operator: {error}"),
        }
    }

    pub(in crate::external_source) fn too_long(limit: Duration) -> Self {
        Self {
            failure: Failure::Io(Cause::Timeout),
            told: format!("the round took longer than {} s", limit.as_secs()),
        }
    }

    pub(in crate::external_source) fn storage(error: &trellis_store::Error) -> Self {
        let cause = match error {
            trellis_store::Error::NoSpace { .. } => StorageCause::NoSpace,
            trellis_store::Error::Denied { .. } => StorageCause::Denied,
            _ => StorageCause::Unavailable,
        };
        Self {
            failure: Failure::Storage(cause),
            told: error.told(),
        }
    }

    /// The request for `link` failed.
    pub(in crate::external_source) fn fetch(error: trellis_fetch::Error, link: &str) -> Self {
        use trellis_fetch::Error as E;
        let told = chain(&error);
        let refused = |reason: Reason| Failure::Refused(reason.refuse(told.clone()));
        let failure = match error {
            E::Link(_) | E::Request { .. } | E::Material { .. } | E::InsecureNotAllowed => {
                refused(Reason::ConfigurationError)
            }
            E::Denied { ref at, address, .. } if is_asked_for(at.as_str(), address, link) => {
                refused(Reason::AccessDenied)
            }
            // Where a redirect leads, or a name, is upstream's to change.
            E::Denied { .. } => Failure::Payload(Reason::AccessDenied.refuse(told.clone())),
            E::Held { wait, .. } => Failure::Status {
                code: 429,
                wait: Some(wait),
            },
            E::Dns { .. } => Failure::Io(Cause::Dns),
            E::Connect { fault, .. } => Failure::Io(match fault {
                ConnectFault::Refused => Cause::Refused,
                ConnectFault::Unreachable => Cause::Unreachable,
                _ => Cause::Reset,
            }),
            E::Tls { .. } => Failure::Io(Cause::Tls),
            E::Proxy { status: Some(code), .. } => Failure::Status { code, wait: None },
            E::Timeout { .. } => Failure::Io(Cause::Timeout),
            E::Protocol { .. } => Failure::Io(Cause::Protocol),
            E::Status { status, hints, .. } => Failure::Status {
                code: status,
                wait: patience(status, &hints),
            },
            E::Redirect { .. } => Failure::Payload(Reason::PermanentError.refuse(told.clone())),
            E::TooLarge { .. } => Failure::Payload(Reason::SizeLimitExceeded.refuse(told.clone())),
            E::Cut { .. } => Failure::Io(Cause::Truncated),
            E::Encoding { .. } => Failure::Io(Cause::Encoding),
            E::Sink(error) => return Self::spool(&error),
            // A proxy without an answer, a connection that broke, and what is still to come.
            _ => Failure::Io(Cause::Reset),
        };
        Self { failure, told }
    }
}

/// Whether what is denied stands in the spec: its host by name, or its address written out.
fn is_asked_for(at: &str, address: Option<IpAddr>, link: &str) -> bool {
    let (Ok(at), Ok(link)) = (Link::parse(at), Link::parse(link)) else {
        return true;
    };
    at.same_origin(&link) && (address.is_none() || link.address().is_some())
}

/// How long the server asks to be left alone; for [`trellis_fetch::Settings`].
pub(in crate::external_source) fn patience(code: u16, hints: &Hints) -> Option<Duration> {
    let header = |name: &str| {
        let found = hints.rate_limit.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    };
    let headers = Headers {
        retry_after: hints.retry_after.as_deref(),
        rate_limit: header("ratelimit"),
        rate_limit_reset: header("ratelimit-reset"),
        x_rate_limit_reset: header("x-ratelimit-reset"),
        remaining: header("ratelimit-remaining").or_else(|| header("x-ratelimit-remaining")),
    };
    asked(code, headers, Timestamp::now())
}

/// An error with its causes.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
