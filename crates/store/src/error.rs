//! What goes wrong with a storage, and what each asks for.
//!
//! ```text
//!  io::Error, object_store::Error ─▶ Error ─▶ class(): try again | somebody has to make room | never
//! ```
//!
//! Invariants: told apart by kinds and status codes, never by words; no message holds a secret or a path of the host.

use std::{error::Error as StdError, io};

use trellis_core::Digest;

use crate::key::Key;

/// What another library said.
pub type Cause = Box<dyn StdError + Send + Sync>;

/// What operations of a storage return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// How many characters of a cause are [told](Error::told): the service may have put a page into it.
const TOLD: usize = 200;

/// What an error asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Try again with exponential backoff.
    Transient,
    /// Somebody has to make room or give permission. Trying again does no harm, and finds out when that was done.
    Waiting,
    /// The same will fail for ever: another file or other settings are needed.
    Refused,
}

/// A failure of a storage.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such file.
    #[error("{key} is not stored")]
    NotFound {
        /// The file.
        key: Key,
    },
    /// The range starts behind the end of the file.
    #[error("{key} is shorter than the range asked for")]
    OutOfRange {
        /// The file.
        key: Key,
    },
    /// The disk, the quota or the bound of the memory is used up.
    #[error("no space is left for {subject}")]
    NoSpace {
        /// The file that did not fit.
        subject: String,
        /// What the backend said.
        #[source]
        source: Cause,
    },
    /// The backend does not allow it: permissions of the file system, credentials or the bucket's policy.
    #[error("access to {subject} was denied")]
    Denied {
        /// The file or prefix.
        subject: String,
        /// What the backend said.
        #[source]
        source: Cause,
    },
    /// The backend did not answer, answered too late, or answered that it is unable to.
    #[error("the storage cannot be reached for {subject}")]
    Unreachable {
        /// The file or prefix.
        subject: String,
        /// What came instead of an answer.
        #[source]
        source: Cause,
    },
    /// The bytes offered are not those that the key names. Nothing was stored.
    #[error("the bytes offered for {key} have the digest {found}")]
    Mismatch {
        /// The file.
        key: Key,
        /// The digest of what was offered.
        found: Digest,
    },
    /// The file is larger than this backend takes at all.
    #[error("{subject} is larger than the {limit} bytes that this storage takes")]
    TooLarge {
        /// The file.
        subject: String,
        /// In bytes.
        limit: u64,
    },
    /// What was to be stored could not be read. Nothing was stored.
    #[error("the content offered for {subject} cannot be read")]
    Content {
        /// The file.
        subject: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The settings of the backend are wrong.
    #[error("the storage is not usable: {what}")]
    Settings {
        /// Which, and how.
        what: String,
        /// What the backend said, if it was asked.
        #[source]
        source: Option<Cause>,
    },
    /// The file system failed in another way.
    #[error("the file system failed for {subject}")]
    Io {
        /// The file or prefix.
        subject: String,
        /// How.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// An error of the file system, told apart by its kind.
    pub(crate) fn io(subject: &(impl ToString + ?Sized), source: io::Error) -> Self {
        let subject = subject.to_string();
        match source.kind() {
            // `FileTooLarge` is the limit of a process or of the file system, and no more room for this file either.
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => Self::NoSpace {
                subject,
                source: source.into(),
            },
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Self::Denied {
                subject,
                source: source.into(),
            },
            // A volume over the network that is away.
            io::ErrorKind::TimedOut
            | io::ErrorKind::StaleNetworkFileHandle
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NotConnected => Self::Unreachable {
                subject,
                source: source.into(),
            },
            _ => Self::Io { subject, source },
        }
    }

    /// The same of a file, which may also be missing.
    pub(crate) fn file(key: &Key, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::NotFound => Self::NotFound { key: key.clone() },
            _ => Self::io(key, source),
        }
    }

    /// What the error asks for.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::NotFound { .. } | Self::Unreachable { .. } | Self::Content { .. } | Self::Io { .. } => {
                Class::Transient
            }
            Self::NoSpace { .. } | Self::Denied { .. } => Class::Waiting,
            Self::OutOfRange { .. } | Self::Mismatch { .. } | Self::TooLarge { .. } | Self::Settings { .. } => {
                Class::Refused
            }
        }
    }

    /// A stable word, `CamelCase`, one per cause.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "NotFound",
            Self::OutOfRange { .. } => "OutOfRange",
            Self::NoSpace { .. } => "NoSpace",
            Self::Denied { .. } => "Denied",
            Self::Unreachable { .. } => "Unreachable",
            Self::Mismatch { .. } => "Mismatch",
            Self::TooLarge { .. } => "TooLarge",
            Self::Content { .. } => "ContentUnreadable",
            Self::Settings { .. } => "SettingsInvalid",
            Self::Io { .. } => "FileSystemFailed",
        }
    }

    /// Whether the backend as a whole is away, so that an answer from elsewhere is better than none. A file that is
    /// missing or denied is an answer.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Io { .. })
    }

    /// For people, and for a status: the error and what is at the bottom of it. What lies between, such as addresses,
    /// counts of tries and times that they took, is left to [`chain`](Self::chain), so that the same failure is told in
    /// the same words.
    #[must_use]
    pub fn told(&self) -> String {
        let text = self.to_string();
        let mut bottom = self.source();
        while let Some(deeper) = bottom.and_then(StdError::source) {
            bottom = Some(deeper);
        }
        let Some(bottom) = bottom.map(ToString::to_string) else {
            return text;
        };
        let line: String = bottom.lines().next().unwrap_or_default().chars().take(TOLD).collect();
        format!("{text}: {}", line.trim_end_matches([' ', ':']))
    }

    /// The whole chain on one line, for logs.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = self.source();
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// Numbers of errno, as Linux has them.
    #[rstest]
    #[case::full(28, "NoSpace", Class::Waiting, false)]
    #[case::quota(122, "NoSpace", Class::Waiting, false)]
    #[case::too_big(27, "NoSpace", Class::Waiting, false)]
    #[case::denied(13, "Denied", Class::Waiting, false)]
    #[case::read_only(30, "Denied", Class::Waiting, false)]
    #[case::stale(116, "Unreachable", Class::Transient, true)]
    #[case::timed_out(110, "Unreachable", Class::Transient, true)]
    #[case::broken(5, "FileSystemFailed", Class::Transient, true)]
    fn errors_of_the_file_system(#[case] errno: i32, #[case] reason: &str, #[case] class: Class, #[case] outage: bool) {
        let error = Error::io("a", io::Error::from_raw_os_error(errno));
        assert_eq!(
            (error.reason(), error.class(), error.is_outage()),
            (reason, class, outage)
        );
    }
}
