//! What the policies of a cluster come to, as their statuses tell it.

use kube::CustomResourceExt as _;
use trellis_api::{ResiliencePolicy, Section, SectionState};
use trellis_bindings::gateway::HttpRoute;
use trellis_runtime::metrics::Gauge;

use super::ENFORCED;

/// A section counts where callers get it: it is enabled, something of the policy is in place, and it is in force on a
/// target that the status lists.
pub(super) const ALL: &[Gauge<ResiliencePolicy>] = &[
    Gauge::total(
        "circuit_breakers_configured",
        "Policies whose circuit breaker is in force on at least one target.",
        |policy| in_force(policy, Section::CircuitBreaker),
    ),
    Gauge::total(
        "retries_configured",
        "Policies whose retries are in force on at least one target.",
        |policy| in_force(policy, Section::Retry),
    ),
    Gauge::total(
        "timeouts_configured",
        "Policies whose timeouts are in force on at least one target.",
        |policy| in_force(policy, Section::Timeout),
    ),
    Gauge::by_namespace(
        "httproutes_created",
        "HTTPRoutes that were made for policies and are there.",
        routes,
    ),
];

fn in_force(policy: &ResiliencePolicy, section: Section) -> i64 {
    let Some(status) = &policy.status else { return 0 };
    let conditions = &status.common.conditions;
    let in_place = conditions.iter().any(|condition| condition.type_ == ENFORCED);
    let mut sections = status.targets.iter().flat_map(|target| &target.sections);
    let acts = sections.any(|told| told.section == section && told.state == SectionState::InForce);
    i64::from(policy.spec.enables(section) && in_place && acts)
}

/// What was recorded before it was written has no uid yet.
fn routes(policy: &ResiliencePolicy) -> i64 {
    let kind = HttpRoute::api_resource().kind;
    let inventory = policy.status.iter().flat_map(|status| &status.common.inventory);
    let made = inventory.filter(|entry| entry.kind == kind && !entry.part && entry.uid.is_some());
    i64::try_from(made.count()).unwrap_or(i64::MAX)
}
