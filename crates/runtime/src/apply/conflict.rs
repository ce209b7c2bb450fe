//! What the API server says when another manager owns a field.

use kube::core::Status;

use crate::{Error, Reference, error::FieldConflict};

pub(super) fn conflict(reference: &Reference, error: kube::Error) -> Error {
    if let kube::Error::Api(status) = &error {
        let conflicts = field_conflicts(status);
        if !conflicts.is_empty() {
            return Error::Conflict {
                object: reference.to_string(),
                conflicts,
            };
        }
    }
    Error::api(format!("apply {reference}"), error)
}

/// The causes of a server-side apply conflict, each `conflict with "manager" using v1` and a field path.
fn field_conflicts(status: &Status) -> Vec<FieldConflict> {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes
        .filter(|cause| cause.reason == "FieldManagerConflict")
        .map(|cause| FieldConflict {
            manager: cause.message.split('"').nth(1).unwrap_or(&cause.message).to_owned(),
            field: cause.field.clone(),
        })
        .collect()
}
