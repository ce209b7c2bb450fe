//! `Failure`: what an error means, and what follows from it.
//!
//! ```text
//!  status code │ I/O cause │ Refusal │ hook │ storage ─▶ Failure ─▶ Category ─▶ next(): soon, at the interval, on a change
//! ```
//!
//! Invariants: categories come from codes and types, never from words of a message; a wait that upstream asks for is
//! bounded; randomness and time are parameters.

mod asked;
mod backoff;

use std::time::Duration;

use thiserror::Error;
use trellis_core::Refusal;

pub use asked::{Headers, LONGEST_WAIT, asked};
pub use backoff::{Backoff, Chance, Next};

use crate::reason::Reason;

/// How a failure is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Category {
    /// Likely to pass: tried again with backoff.
    Transient,
    /// Upstream named a time: waited for, by every source of the same host.
    RateLimited,
    /// The user has to act: `Stalled`, and nothing until the spec or what it names changes.
    Configuration,
    /// Upstream means it: asked again at the interval only.
    Permanent,
    /// A hook or transform failed, after the retries of its own policy.
    Hook,
    /// The artifact could not be stored: tried again with backoff.
    Storage,
}

/// What went wrong between us and upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum Cause {
    /// No answer, or no progress, within the time for it.
    #[error("timed out")]
    Timeout,
    /// Nobody listens.
    #[error("connection refused")]
    Refused,
    /// The connection broke.
    #[error("connection broke")]
    Reset,
    /// There is no way to the host.
    #[error("host unreachable")]
    Unreachable,
    /// The name has no address, or nobody knows.
    #[error("name not resolved")]
    Dns,
    /// The body ended before its announced length.
    #[error("body ended early")]
    Truncated,
    /// The answer is not HTTP.
    #[error("answer is not HTTP")]
    Protocol,
    /// The server's certificate is not one that we trust, or it wants one from us.
    #[error("TLS failed")]
    Tls,
    /// The body does not decompress.
    #[error("body does not decompress")]
    Encoding,
}

/// Why a hook gave no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum HookCause {
    /// It ended with another code than 0.
    #[error("exit code {0}")]
    Exit(i32),
    /// It ran out of time.
    #[error("timed out")]
    Timeout,
    /// It wrote more than it may.
    #[error("too much output")]
    Output,
    /// What it wrote is no change of a request.
    #[error("no change of a request")]
    Change,
    /// The sidecar does not answer.
    #[error("executor unreachable")]
    Unreachable,
}

/// Why an artifact is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum StorageCause {
    /// The backend does not answer.
    #[error("storage unavailable")]
    Unavailable,
    /// There is no room.
    #[error("no space left in storage")]
    NoSpace,
    /// We may not write there.
    #[error("storage denies access")]
    Denied,
}

/// A failed round. The text is for the user; links in it are shown without their query.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Failure {
    /// Upstream answered with a code that is no success.
    #[error("upstream answered {code}")]
    Status {
        /// The status code.
        code: u16,
        /// How long upstream asks to wait, from [`asked`].
        wait: Option<Duration>,
    },
    /// Upstream could not be asked, or its answer not be read.
    #[error("upstream could not be read: {0}")]
    Io(Cause),
    /// The user is wrong.
    #[error(transparent)]
    Refused(Refusal),
    /// The payload is not what the spec needs it to be: it does not parse, or holds no objects.
    #[error("the payload cannot be used: {0}")]
    Payload(Refusal),
    /// A hook failed.
    #[error("hook {name}: {cause}")]
    Hook {
        /// Name of the hook.
        name: String,
        /// Why.
        cause: HookCause,
        /// The retries that the hooks of this round have used up, where there is one retry too few.
        retries: Option<u32>,
    },
    /// Storing failed.
    #[error(transparent)]
    Storage(StorageCause),
}

impl Failure {
    /// How the failure is treated.
    #[must_use]
    pub fn category(&self) -> Category {
        match self {
            Self::Status { wait: Some(_), .. } => Category::RateLimited,
            Self::Status { code, .. } => of_status(*code),
            // Another attempt meets the same certificate; the interval, or a changed CA bundle, is soon enough.
            // And what upstream serves today is upstream's to change.
            Self::Io(Cause::Tls | Cause::Encoding) | Self::Payload(_) => Category::Permanent,
            // The sidecar starts beside us, or again: that passes.
            Self::Io(_)
            | Self::Hook {
                cause: HookCause::Unreachable,
                ..
            } => Category::Transient,
            Self::Refused(_) => Category::Configuration,
            Self::Hook { .. } => Category::Hook,
            Self::Storage(_) => Category::Storage,
        }
    }

    /// The reason of the condition.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Refused(refusal) | Self::Payload(refusal) => refusal.reason,
            Self::Hook {
                cause: HookCause::Output,
                ..
            } => Reason::SizeLimitExceeded.as_str(),
            Self::Hook { .. } if self.used_up() => Reason::MaxRetriesExceeded.as_str(),
            Self::Hook { .. } => Reason::HookFailed.as_str(),
            _ => match self.category() {
                Category::Transient => Reason::FetchFailed.as_str(),
                Category::RateLimited => Reason::RateLimited.as_str(),
                Category::Configuration => Reason::ConfigurationError.as_str(),
                Category::Permanent => Reason::PermanentError.as_str(),
                Category::Hook => Reason::HookFailed.as_str(),
                Category::Storage => Reason::StorageOperationFailed.as_str(),
            },
        }
    }

    /// Whether a hook failed with no retry left.
    fn used_up(&self) -> bool {
        let retries = matches!(self, Self::Hook { retries: Some(_), .. });
        retries && self.category() == Category::Hook
    }

    fn wait(&self) -> Option<Duration> {
        match self {
            Self::Status { wait, .. } => *wait,
            _ => None,
        }
    }

    /// What follows.
    ///
    /// `failures`: how many rounds failed in a row, this one included; it is kept in the status and starts over on success,
    /// on a change of the spec and on request.
    #[must_use]
    pub fn next(&self, failures: u32, backoff: &Backoff, chance: Chance) -> Next {
        match self.category() {
            Category::Configuration => Next::OnChange,
            Category::Hook if self.used_up() => Next::GivenUp,
            // Its policy is to fail at once.
            Category::Permanent | Category::Hook => Next::AtInterval,
            _ if failures >= backoff.attempts => Next::GivenUp,
            Category::Transient | Category::Storage => Next::In(backoff.delay(failures, chance)),
            // Not earlier than asked, as far as that is within the bound; the jitter only adds, and stays within it.
            Category::RateLimited => {
                let asked = self.wait().unwrap_or(backoff.base).min(backoff.patience);
                Next::In((asked + asked.mul_f64(backoff.jitter * chance.get())).min(backoff.patience))
            }
        }
    }
}

/// The category of a status code that is neither a success nor a redirect that is followed (RFC 9110, 15).
fn of_status(code: u16) -> Category {
    match code {
        408 | 425 | 429 | 500..=599 => Category::Transient,
        _ => Category::Permanent,
    }
}

#[cfg(test)]
mod tests;
