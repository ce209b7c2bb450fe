//! Routes of others at the same parent: of the other kind, for the same requests, or leading elsewhere.
//!
//! ```text
//!  other kind at the port ─▶ none of ours   leads elsewhere ─▶ none of ours   older, same requests ─▶ not that entry
//! ```
//!
//! Linkerd follows the older of two routes with equal matches (by creation, then by name), whoever
//! made them; so the routes that live decide, and not the age of policies.

use kube::ResourceExt as _;
use trellis_api::{ResiliencePolicy, TargetRef};
use trellis_bindings::gateway::ParentRef;
use trellis_core::Refusal;

use super::{
    super::{Enacted, age, makes_routes, overlap},
    Object, Parent, followed, spreads,
};
use crate::{
    Cluster, PolicyName, Reason,
    annotations::Place,
    route::{self, Acceptance, Built, Request, Route, Unconvertible, accepted},
    served,
};

impl Parent<'_> {
    /// At one port Linkerd serves only one kind. Ours must not push out somebody else's routes, nor be pushed out.
    pub(super) fn uncontested(
        &self,
        policy: &ResiliencePolicy,
        cluster: &Cluster,
        enacted: &mut Enacted,
    ) -> Result<(), Refusal> {
        let place = self.contest.place;
        for route in self.foreign(policy, cluster).filter(|route| route.place() != place) {
            let elsewhere =
                |parent: &ParentRef| place == Place::HttpRoute && parent.port.is_some() && self.port.is_none();
            if self.ports(route).all(elsewhere) {
                enacted.notes.push(format!(
                    "not where {} is attached, since Linkerd serves gRPC only there",
                    route.full_name()
                ));
                continue;
            }
            return Err(self.conflict(place, &route.full_name().to_string()));
        }
        let rival = cluster
            .policies
            .iter()
            .filter(|other| route::kind_of(other) != place && age(other) < age(policy))
            .filter(|other| {
                let clients = [&self.namespace, &policy.namespace().unwrap_or_default()]
                    .contains(&&other.namespace().unwrap_or_default());
                let target = makes_routes(other, self.kind, &self.namespace, &self.name);
                // Routes for gRPC at several ports are not made.
                let made = |target: &TargetRef| match self.object {
                    Object::Service(service) if place == Place::HttpRoute => {
                        let followed = followed(Place::GrpcRoute, cluster, service, &enacted.ports);
                        !spreads(target.port, &followed)
                    }
                    _ => true,
                };
                clients && target.is_some_and(|target| overlap(target.port, self.port) && made(&target))
            })
            .min_by_key(|other| age(other));
        match rival {
            Some(rival) => Err(self.conflict(place, &format!("policy {}", PolicyName::of(rival)))),
            None => Ok(()),
        }
    }

    fn conflict(&self, place: Place, other: &str) -> Refusal {
        let (ours, theirs) = match place {
            Place::GrpcRoute => ("gRPC", "HTTP"),
            _ => ("HTTP", "gRPC"),
        };
        Reason::RouteConflicted
            .refuse(format!(
                "{other} has routes for {theirs} at {} {}, and Linkerd serves only one kind at a port",
                self.kind, self.name
            ))
            .field("spec.routes")
            .hint(format!("name another port, or do without routes for {ours}"))
    }

    /// A route of somebody else that splits or changes what ours would take, and that ours would then pass by.
    pub(super) fn redirected(
        &self,
        policy: &ResiliencePolicy,
        built: &[Built],
        acting: &[u16],
        cluster: &Cluster,
    ) -> Option<Refusal> {
        let entries = built.iter().filter(|built| !built.is_rest(policy));
        let ours: Vec<Request> = entries
            .flat_map(|built| Request::of(built.as_route()))
            .flatten()
            .collect();
        // What is for every request is passed by only where it is for every request, too.
        let passes = |theirs: &Request| {
            let passed = |ours: &Request| ours.meets(theirs) && (!ours.is_every() || theirs.is_every());
            ours.iter().any(passed)
        };
        let own = policy.namespace().unwrap_or_default();
        let found = self.foreign(policy, cluster).find(|route| {
            let dropped = matches!(route.convertible(), Err(Unconvertible::Filter(_)));
            let elsewhere = |port: &u16| {
                let mut parents = self.ports(*route).filter(|parent| overlap(parent.port, Some(*port)));
                let taken = |parent: &ParentRef| {
                    !matches!(
                        accepted(route.verdicts(), parent, &route.namespace()),
                        Acceptance::Refused(_)
                    )
                };
                parents.any(taken) && route.redirects(&self.namespace, &self.name, *port)
            };
            route.place() == self.contest.place
                && !dropped
                && acting.iter().any(elsewhere)
                && Request::of(*route).iter().flatten().any(passes)
        })?;
        let (name, namespace) = (found.full_name(), found.namespace());
        let refusal = Reason::RouteConflicted
            .refuse(format!(
                "{name} sends requests elsewhere or changes them, and routes of this policy would pass it by"
            ))
            .field("spec.routes");
        Some(if namespace == own {
            refusal.hint(format!(
                "make the policy for that route: targetRef.kind {}, name {}",
                found.place(),
                found.name()
            ))
        } else {
            refusal.hint(format!(
                "name other requests; that route is namespace {namespace}'s to set"
            ))
        })
    }

    /// What is left of the routes where older ones are for the same requests, which Linkerd follows.
    pub(super) fn outrun(
        &self,
        policy: &ResiliencePolicy,
        built: Vec<Built>,
        acting: &[u16],
        enacted: &mut Enacted,
        cluster: &Cluster,
    ) -> Vec<Built> {
        let own = policy.namespace().unwrap_or_default();
        let served = acting.iter().map(|port| self.served(cluster, *port, &own));
        // Where there is gRPC, a route for HTTP is not followed anyway.
        let grpc = |routes: &Vec<Route<'_>>| routes.iter().any(|route| route.place() == Place::GrpcRoute);
        let followed = served.filter(|routes| self.contest.place == Place::GrpcRoute || !grpc(routes));
        let served: Vec<Vec<Route<'_>>> = followed.collect();
        let mut refusal = None;
        let mut kept = Vec::new();
        let all = built.len();
        for route in built {
            if route.is_rest(policy) {
                kept.push(route);
                continue;
            }
            let wanted = route.as_route();
            let name = wanted.full_name();
            let mine = |living: &Route<'_>| living.full_name() == name;
            let living = cluster
                .routes()
                .find(|living| mine(living) && living.owner() == Some(PolicyName::of(policy)));
            let requests: Vec<Request> = Request::of(wanted).into_iter().flatten().collect();
            let mut lost = 0;
            for request in &requests {
                let rivals: Vec<Option<Route<'_>>> = served
                    .iter()
                    .map(|routes| rival(routes, wanted, living, request))
                    .collect();
                let taken = rivals.iter().flatten().count();
                let Some(rival) = rivals.into_iter().flatten().next() else {
                    continue;
                };
                let outrun = served::outrun(&name.to_string(), rival);
                if taken == served.len() {
                    lost += 1;
                    refusal.get_or_insert(outrun);
                } else if !enacted.notes.contains(&outrun.message) {
                    enacted.notes.push(format!("not at every port: {}", outrun.message));
                }
            }
            if lost < requests.len() {
                kept.push(route);
            }
        }
        if let Some(refusal) = refusal {
            for section in enacted.acting(policy) {
                enacted.inert(section, refusal.clone().field("spec.routes"));
            }
        }
        // Without an entry the rest is nobody's concern.
        if kept.len() < all && kept.iter().all(|route| route.is_rest(policy)) {
            kept.clear();
        }
        kept
    }
}

/// The older route among these for the same requests as one of ours, which is the youngest if it does not live yet.
fn rival<'c>(routes: &[Route<'c>], ours: Route<'_>, living: Option<Route<'_>>, request: &Request) -> Option<Route<'c>> {
    let older = |other: &Route<'_>| living.is_none_or(|living| served::order(*other) < served::order(living));
    let takes = |other: &Route<'_>| Request::of(*other).iter().flatten().any(|theirs| theirs == request);
    let mut others = routes
        .iter()
        .filter(|other| other.place() == ours.place() && other.full_name() != ours.full_name());
    others.find(|other| older(other) && takes(other)).copied()
}
