//! What Linkerd says of a route at one parent.
//!
//! A verdict carries no generation: it may be of an earlier shape of the route. That it says Accepted proves that the
//! parent is one that Linkerd serves, not that the route's annotations are in force; whoever asks must know that they
//! are well formed.

use trellis_bindings::gateway::{ParentRef, RouteParentStatus};
use trellis_core::Refusal;

use super::means;
use crate::Reason;

/// Linkerd's name in the status of routes.
pub const CONTROLLER: &str = "linkerd.io/policy-controller";

/// What Linkerd says of a route at one parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acceptance {
    /// It takes the route.
    Accepted,
    /// It has not said anything yet.
    Pending,
    /// It does not take the route: `RouteNotAccepted` or `RouteConflicted`.
    Refused(Refusal),
}

/// What Linkerd says of a route in namespace `from` at this parent, among the verdicts of all controllers.
#[must_use]
pub fn accepted(verdicts: &[RouteParentStatus], parent: &ParentRef, from: &str) -> Acceptance {
    let kind = parent.kind.as_deref().unwrap_or_default();
    let namespace = parent.namespace.as_deref().unwrap_or(from);
    let condition = verdicts
        .iter()
        .filter(|verdict| verdict.controller_name == CONTROLLER)
        .filter(|verdict| means(&verdict.parent_ref, from, kind, namespace, &parent.name))
        .filter(|verdict| verdict.parent_ref.port == parent.port)
        .flat_map(|verdict| &verdict.conditions)
        .find(|condition| condition.type_ == "Accepted");
    let Some(condition) = condition else {
        return Acceptance::Pending;
    };
    match (condition.status.as_str(), condition.reason.as_deref()) {
        ("True", _) => Acceptance::Accepted,
        ("False", Some("RouteReasonConflicted")) => Acceptance::Refused(
            Reason::RouteConflicted
                .refuse(format!(
                    "{kind} {} also has a route of another kind at this port, which Linkerd follows",
                    parent.name
                ))
                .hint("at one port Linkerd serves HTTP routes or gRPC routes, not both"),
        ),
        ("False", reason) => {
            let said = [reason, condition.message.as_deref()];
            let said: Vec<&str> = said.into_iter().flatten().filter(|text| !text.is_empty()).collect();
            Acceptance::Refused(
                Reason::RouteNotAccepted
                    .refuse(format!("Linkerd says of the route: {}", said.join(", ")))
                    .hint("the parent must exist and, if it is a Service, have a cluster IP"),
            )
        }
        _ => Acceptance::Pending,
    }
}
