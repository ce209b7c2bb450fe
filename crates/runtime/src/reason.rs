//! The reasons that the runtime itself gives, for every kind alike. A kind's own reasons are beside its domain.

/// The object is being applied; the next status says how it went.
pub const PROGRESSING: &str = "Progressing";
/// The object is suspended; what was written for it stays, unwatched.
pub const SUSPENDED: &str = "Suspended";
/// Another field manager owns a field that has to be set.
pub const FOREIGN_OWNER: &str = "ForeignOwner";
/// Another object of the same kind still owns a field that it has to let go.
pub const HANDING_OVER: &str = "HandingOver";
/// An object of the planned name exists and is not ours.
pub const NAME_TAKEN: &str = "NameTaken";
/// An object in the cluster does not have the shape of its kind.
pub const UNREADABLE_OBJECT: &str = "UnreadableObject";
/// The API server refuses what the plan wants as invalid.
pub const INVALID_OBJECT: &str = "InvalidObject";
/// The API server does not allow it.
pub const FORBIDDEN: &str = "Forbidden";
/// The API server asks for fewer requests.
pub const THROTTLED: &str = "Throttled";
/// A kind that has to be read has not been listed yet.
pub const NOT_SYNCED: &str = "NotSynced";
/// The API server failed, or did not answer.
pub const FAILED: &str = "Failed";
/// A defect of the controller.
pub const INTERNAL_ERROR: &str = "InternalError";

/// Every reason with its meaning, for the spec pages.
pub const ALL: &[(&str, &str)] = &[
    (
        PROGRESSING,
        "The object is being applied; the next status says how it went.",
    ),
    (
        SUSPENDED,
        "The object is suspended: what was written for it stays, and is not looked after.",
    ),
    (
        FOREIGN_OWNER,
        "Another field manager owns a field that has to be set. Nothing is overwritten; the message names both.",
    ),
    (
        HANDING_OVER,
        "Another object of the same kind still owns a field that it is about to let go.",
    ),
    (
        NAME_TAKEN,
        "An object of the planned name exists and is not ours. It is never taken over.",
    ),
    (
        UNREADABLE_OBJECT,
        "An object that has to be read does not have the shape of its kind.",
    ),
    (INVALID_OBJECT, "The API server refuses the planned object as invalid."),
    (
        FORBIDDEN,
        "The API server does not allow it; compare the operator's permissions with the chart's. Retried.",
    ),
    (
        THROTTLED,
        "The API server asks for fewer requests. Retried when it says so.",
    ),
    (
        NOT_SYNCED,
        "A kind that has to be read could not be listed yet; the operator's log says why. Retried.",
    ),
    (
        FAILED,
        "The API server failed or did not answer. Retried from 1 s to 5 min apart.",
    ),
    (
        INTERNAL_ERROR,
        "A defect of the controller; please report it with the operator's log. Retried.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_unique_and_explained() {
        let mut names: Vec<_> = ALL.iter().map(|(name, _)| *name).collect();
        assert!(ALL.iter().all(|(_, meaning)| meaning.ends_with('.')));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }
}
