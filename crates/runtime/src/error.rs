//! Errors of the runtime, and what each asks for: retry, wait, or a change by the user.

use std::{any::Any, time::Duration};

use kube::core::Status;
use trellis_core::Refusal;

use crate::reason;

/// What an error asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Try again with exponential backoff.
    Transient,
    /// Something that is watched has to happen first; no retry until it does.
    Waiting,
    /// The user has to change something; no retry until the object or what it refers to changes.
    Refused,
}

/// A failure while an object was being reconciled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The API server, or the way to it, failed.
    #[error("{what}")]
    Api {
        /// The call that failed, as `verb kind namespace/name`.
        what: String,
        /// The client's error.
        #[source]
        source: Box<kube::Error>,
    },
    /// The API server, or the way to it, failed when we wrote to the object itself: its finalizer or its status. That
    /// is never the user's fault, whatever the answer is: a lost race, or a definition of another release.
    #[error(transparent)]
    Own(Box<Self>),
    /// The controller panicked. It is a defect of the controller.
    #[error("the controller panicked: {message}")]
    Panicked {
        /// What it said.
        message: String,
    },
    /// Another field manager owns a field that we have to set.
    #[error("{object}: {}", describe(.conflicts))]
    Conflict {
        /// The object, as `Kind namespace/name`.
        object: String,
        /// Who owns what.
        conflicts: Vec<FieldConflict>,
    },
    /// The user is wrong.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// An object in the cluster does not have the shape that its kind promises.
    #[error("{object} cannot be read: {message}")]
    Unreadable {
        /// The object, as `Kind namespace/name`.
        object: String,
        /// Why it does not parse.
        message: String,
    },
    /// A read of an object that the controller did not declare.
    #[error("{kind} {name} was read but is not among the controller's kinds and references")]
    Undeclared {
        /// The kind, as `Kind.group`.
        kind: String,
        /// The object, as `namespace/name`.
        name: String,
    },
    /// Something outside the cluster failed.
    #[error("{what}: {message}")]
    Outside {
        /// What failed, such as `the storage`.
        what: &'static str,
        /// The kind's word for it, as a condition has it.
        reason: &'static str,
        /// How, with its causes.
        message: String,
    },
    /// A value of ours does not serialise. It is a defect of the controller.
    #[error("cannot serialise {what}")]
    Serialise {
        /// What was to be sent.
        what: String,
        /// The serialiser's error.
        #[source]
        source: serde_json::Error,
    },
    /// A watch has not delivered its first list yet.
    #[error("{kind} has not been listed yet")]
    NotSynced {
        /// The kind.
        kind: String,
    },
    /// The object that was being reconciled is gone.
    #[error("{object} is gone")]
    Gone {
        /// The object, as `Kind namespace/name`.
        object: String,
    },
    /// This process does not hold the Lease (any more), so it writes nothing.
    #[error("not the leader: nothing was written")]
    NotLeader,
}

/// One field of an object that another manager owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldConflict {
    /// The field manager as the API server names it, e.g. `kubectl-edit`.
    pub manager: String,
    /// The field's path, e.g. `.metadata.annotations.example\.com/key`.
    pub field: String,
}

/// What operations of the runtime return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Wraps the error of a call, told apart by what it means for us.
    pub fn api(what: impl Into<String>, source: kube::Error) -> Self {
        if crate::fence::is_lost(&source) {
            return Self::NotLeader;
        }
        Self::Api {
            what: what.into(),
            source: Box::new(source),
        }
    }

    /// The same of a write to the object that is being reconciled.
    pub(crate) fn own(what: impl Into<String>, source: kube::Error) -> Self {
        match Self::api(what, source) {
            Self::NotLeader => Self::NotLeader,
            error => Self::Own(Box::new(error)),
        }
    }

    /// A panic, as [`std::panic::catch_unwind`] hands it over.
    pub(crate) fn panicked(payload: &(dyn Any + Send)) -> Self {
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let message = text.or_else(|| payload.downcast_ref::<String>().cloned());
        Self::Panicked {
            message: message.unwrap_or_else(|| "without a word".to_owned()),
        }
    }

    /// What the error asks for.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Refused(_) | Self::Conflict { .. } => Class::Refused,
            Self::Api { .. } if self.status_code() == Some(422) && !self.is_of_another_object() => Class::Refused,
            Self::Unreadable { .. } | Self::Gone { .. } => Class::Waiting,
            Self::Api { .. }
            | Self::Own(_)
            | Self::Panicked { .. }
            | Self::NotSynced { .. }
            | Self::Undeclared { .. }
            | Self::Serialise { .. }
            | Self::Outside { .. }
            | Self::NotLeader => Class::Transient,
        }
    }

    /// The condition reason: stable, `CamelCase`, one per cause.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.reason,
            Self::Conflict { .. } => reason::FOREIGN_OWNER,
            Self::Unreadable { .. } => reason::UNREADABLE_OBJECT,
            Self::Undeclared { .. } | Self::Serialise { .. } | Self::Panicked { .. } => reason::INTERNAL_ERROR,
            Self::NotSynced { .. } => reason::NOT_SYNCED,
            // The latter two are never told: there is nobody to tell, or no right to.
            Self::Gone { .. } | Self::NotLeader => reason::FAILED,
            Self::Outside { reason, .. } => reason,
            Self::Own(error) => match error.reason() {
                // It is not a planned object.
                reason::INVALID_OBJECT => reason::FAILED,
                reason => reason,
            },
            Self::Api { .. } => match self.status_code() {
                Some(401 | 403) => reason::FORBIDDEN,
                Some(422) => reason::INVALID_OBJECT,
                Some(429) => reason::THROTTLED,
                _ => reason::FAILED,
            },
        }
    }

    /// The HTTP status of the API server's answer, if it answered.
    #[must_use]
    pub fn status_code(&self) -> Option<u16> {
        self.answer().map(|status| status.code)
    }

    /// What the API server answered.
    fn answer(&self) -> Option<&Status> {
        match self {
            Self::Own(error) => error.answer(),
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether the write was meant for another object of that name: the API server takes the uid that it names for an
    /// attempt to change the uid of the present one.
    pub(crate) fn is_of_another_object(&self) -> bool {
        let Some(status) = self.answer() else { return false };
        let mut causes = status.details.iter().flat_map(|details| &details.causes);
        status.code == 422 && causes.any(|cause| cause.field == "metadata.uid")
    }

    /// How long the server asked us to wait, if it did.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        let seconds = self.answer()?.details.as_ref()?.retry_after_seconds;
        (seconds > 0).then(|| Duration::from_secs(u64::from(seconds)))
    }

    /// What users are told: the same text for the same cause, however the details vary from try to try.
    #[must_use]
    pub fn brief(&self) -> String {
        match self {
            Self::Own(error) => error.brief(),
            Self::Panicked { .. } => "the controller panicked; see the operator's log".to_owned(),
            Self::Api { source, what } => match source.as_ref() {
                kube::Error::Api(status) if status.code == 422 || status.code == 403 => {
                    format!("{what}: {}", status.message)
                }
                kube::Error::Api(status) => format!("{what}: the API server answered {}", status.code),
                _ => format!("{what}: no answer from the API server"),
            },
            other => other.to_string(),
        }
    }

    /// The whole chain on one line, for logs.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !text.ends_with(&cause_text) {
                text.push_str(": ");
                text.push_str(&cause_text);
            }
            source = cause.source();
        }
        text
    }
}

fn describe(conflicts: &[FieldConflict]) -> String {
    let fields: Vec<String> = conflicts
        .iter()
        .map(|conflict| format!("{} belongs to {}", conflict.field, conflict.manager))
        .collect();
    fields.join(", ")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn answer(code: u16, field: Option<&str>) -> kube::Error {
        let causes: Vec<_> = field.map(|field| json!({ "field": field })).into_iter().collect();
        let status = json!({ "status": "Failure", "code": code, "message": "no", "details": { "causes": causes } });
        kube::Error::Api(Box::new(serde_json::from_value(status).unwrap()))
    }

    #[rstest]
    #[case::invalid(422, None, Class::Refused, false)]
    #[case::other_object(422, Some("metadata.uid"), Class::Transient, true)]
    #[case::forbidden(403, None, Class::Transient, false)]
    fn a_refused_write_is_the_users_to_mend_unless_it_was_to_the_object_itself(
        #[case] code: u16,
        #[case] field: Option<&str>,
        #[case] class: Class,
        #[case] other: bool,
    ) {
        let planned = Error::api("apply", answer(code, field));
        assert_eq!((planned.class(), planned.is_of_another_object()), (class, other));
        let own = Error::own("write the status", answer(code, field));
        assert_eq!((own.class(), own.is_of_another_object()), (Class::Transient, other));
        assert_eq!(own.status_code(), Some(code));
        assert_ne!(own.reason(), reason::INVALID_OBJECT);
    }

    #[test]
    fn a_panic_is_a_defect_and_says_what_it_said() {
        let error = Error::panicked(&"a word");
        assert_eq!(error.to_string(), "the controller panicked: a word");
        assert_eq!(
            (error.class(), error.reason()),
            (Class::Transient, reason::INTERNAL_ERROR)
        );
        assert_eq!(error.brief(), Error::panicked(&"another".to_owned()).brief());
    }
}
