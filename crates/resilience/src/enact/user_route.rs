//! A policy for a route that somebody else made: annotations on the route, and nothing else of it.

use trellis_api::{ResiliencePolicy, Section, Strategy};

use super::{Enacted, Standing, theirs};
use crate::{
    Cluster, Reason, annotations, owner,
    route::{Acceptance, Route, Unconvertible, accepted},
    served, siblings,
};

pub(super) fn enact(policy: &ResiliencePolicy, route: Route<'_>, cluster: &Cluster) -> Enacted {
    let at = cluster.route_target(route);
    let mut enacted = Enacted::at(at.clone());
    if let Some(maker) = route.owner() {
        let refusal = Reason::Invalid
            .refuse(format!("policy {maker} made the route, and decides what it says"))
            .field("spec.targetRef.name")
            .hint(format!("change policy {maker}"));
        for section in policy.spec.sections() {
            enacted.inert(section, refusal.clone());
        }
        return enacted;
    }
    enacted.contest(policy, &at, cluster);
    if !cluster.gateway.seen(route.place(), &cluster.mesh) {
        let refusal = super::own::unseen(route.place(), cluster);
        return enacted.all_inert(policy, &refusal);
    }
    if let Err(why @ Unconvertible::Filter(_)) = route.convertible() {
        let refusal = Reason::RouteNotConvertible
            .refuse(why.to_string())
            .hint("remove that filter from the route");
        return enacted.all_inert(policy, &refusal);
    }

    let (manager, version) = (owner::manager(policy), &cluster.mesh.version);
    for section in enacted.acting(policy) {
        let written = annotations::section(&policy.spec, section, route.place(), version);
        let held = written.and_then(|written| theirs::check(&written, route.meta(), policy, cluster));
        if let Err(refusal) = held {
            enacted.inert(section, refusal);
        }
    }
    let written = enacted.annotations_for(policy, route.place(), cluster);
    if let Err(refusal) = siblings::check(&written, route.meta(), &manager, route.place(), version) {
        return enacted.all_inert(policy, &refusal);
    }
    enacted.annotations = written;
    let acceptance = acceptance(route);
    for section in enacted.acting(policy) {
        match &acceptance {
            Acceptance::Accepted => {
                if let Err(refusal) = served::acts(cluster, route) {
                    enacted.inert(section, refusal);
                }
            }
            Acceptance::Pending => {
                let refusal = Reason::RoutePending.refuse("Linkerd has not said yet whether it takes the route");
                enacted.sections.insert(section, Standing::Pending(refusal));
            }
            Acceptance::Refused(refusal) => enacted.inert(section, refusal.clone()),
        }
    }
    off(&mut enacted, policy);
    enacted
}

/// Linkerd takes a route's block, or else the Service's: a route cannot say that there is none.
pub(super) fn off(enacted: &mut Enacted, policy: &ResiliencePolicy) {
    for section in [Section::Retry, Section::Timeout] {
        let won = enacted.sections.get(&section) == Some(&Standing::Won);
        if won && !policy.spec.enables(section) && policy.spec.strategy == Strategy::Defaults {
            enacted.notes.push(format!(
                "{section} is off here, but Linkerd cannot switch it off for a route: what the Service says applies"
            ));
        }
    }
}

/// The best of what Linkerd says of the route at its parents in the mesh.
fn acceptance(route: Route<'_>) -> Acceptance {
    let namespace = route.namespace();
    let in_mesh = |kind: Option<&str>| ["Service", "EgressNetwork"].contains(&kind.unwrap_or_default());
    let mut said: Vec<Acceptance> = route
        .parents()
        .iter()
        .filter(|parent| in_mesh(parent.kind.as_deref()))
        .filter(|parent| {
            let (kind, name) = (parent.kind.as_deref().unwrap_or_default(), &parent.name);
            route.is_parent(parent, kind, parent.namespace.as_deref().unwrap_or(&namespace), name)
        })
        .map(|parent| accepted(route.verdicts(), parent, &namespace))
        .collect();
    if said.is_empty() {
        return Acceptance::Refused(
            Reason::RouteNotConvertible
                .refuse("the route has no parent of group \"\" and kind Service, which is all that Linkerd looks at")
                .hint("write group: \"\" and kind: Service in its parentRefs; the API server fills in others"),
        );
    }
    let rank = |acceptance: &Acceptance| match acceptance {
        Acceptance::Accepted => 0,
        Acceptance::Refused(_) => 1,
        Acceptance::Pending => 2,
    };
    said.sort_by_key(rank);
    said.swap_remove(0)
}
