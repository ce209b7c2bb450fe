//! `Reason`: the closed set of reasons that an `ExternalSource` gives.
//!
//! The comments of the variants are what the spec page says. Names are those that users of the kind know, and on the
//! `ExternalArtifact` those of Flux (RFC-0012).

use strum::{EnumIter, EnumMessage, IntoEnumIterator as _, IntoStaticStr};
use trellis_core::Refusal;

/// Why a source is ready, or is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, EnumIter, EnumMessage, IntoStaticStr)]
#[non_exhaustive]
pub enum Reason {
    /// The artifact for the current spec is stored and published, and can be fetched at its digest.
    Succeeded,
    /// Work towards the current spec goes on; the artifact that is served, if any, is that of before.
    Progressing,
    /// Work goes on after a failure. The message says what failed and when the next try is due.
    ProgressingWithRetry,
    /// Something that cannot be named better failed; the message says what. Retried from 1 s to 5 min apart.
    Failed,
    /// The source is suspended: what is served stays, and nothing is fetched.
    Suspended,
    /// The spec, or an object that it names, cannot work: a Secret or a key is missing, a certificate cannot be read.
    /// Nothing is tried until one of them changes.
    ConfigurationError,
    /// Asking again soon would not help: the server answered that the request is wrong or not allowed (any 4xx but 408, 425 and
    /// 429), or with what is no whole body (204, 206, a redirect that is not followed); TLS with it fails; or what came is not
    /// what the spec says that it is. Asked again at the interval, and at once when the spec changes; after 401, 403 and a
    /// failure of TLS, when a Secret of it does.
    PermanentError,
    /// Ten tries failed, or the retries of the hooks are used up. Tried again at the interval.
    MaxRetriesExceeded,
    /// A rule of the operator forbids it: the address is not one that may be asked, or the command is not in the
    /// whitelist. The message names it.
    AccessDenied,
    /// The server asked for fewer requests, through this source or another of the namespace with the same credentials.
    /// Retried when it said so, within the operator's bound (15 min); a forced reconcile asks at once.
    RateLimited,
    /// The server could not be reached, or its answer was an error that may pass. Retried from 1 s to 5 min apart.
    FetchFailed,
    /// A hook exited with an error, ran out of time, or its executor could not be reached. The message has the end of what
    /// it wrote to standard error.
    HookFailed,
    /// A transform failed, or its result is not what output asks for. The message names the transform.
    TransformFailed,
    /// The answer, what a hook wrote, or what was unpacked is larger than its limit. Raise the limit if that is meant.
    SizeLimitExceeded,
    /// The data does not have the pinned checksum. It is not published.
    VerificationFailed,
    /// The artifact could not be stored or removed. Retried from 1 s to 5 min apart; what is served stays.
    StorageOperationFailed,
}

impl Reason {
    /// As written in conditions and Events.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// A refusal for this reason.
    #[must_use]
    pub fn refuse(self, message: impl Into<String>) -> Refusal {
        Refusal::new(self.as_str(), message)
    }

    /// What it means and what to do, for the spec page.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        self.get_documentation().unwrap_or_default()
    }

    /// All reasons, in the order of the spec page.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_camel_case_unique_and_explained() {
        let mut names: Vec<&str> = Reason::all().map(Reason::as_str).collect();
        for (name, reason) in names.iter().zip(Reason::all()) {
            assert!(name.starts_with(|c: char| c.is_ascii_uppercase()), "{name}");
            assert!(name.chars().all(|c| c.is_ascii_alphanumeric()), "{name}");
            assert!(reason.meaning().len() > 30, "{name} is not explained");
        }
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
