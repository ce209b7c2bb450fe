//! What requests lose that routes of ours take from routes of others. It is no reason not to make them, and it is said.
//!
//! ```text
//!  others' matches ─▶ met by ours, and not more specific ─▶ retry, timeout: not theirs any more
//!                                                        ─▶ of another namespace: named
//!  ours beyond all of a user's ─▶ sent on, and no longer refused
//! ```

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt as _;
use trellis_api::ResiliencePolicy;
use trellis_bindings::gateway::ParentRef;

use super::{
    super::{blocks, overlap},
    Object, Parent,
};
use crate::{
    Cluster, PolicyName,
    annotations::{Annotations, Place, RETRY, TIMEOUTS},
    route::{Acceptance, Built, Request, Route, accepted},
    served::{self, possible_timeouts, route_retry},
    shown::some_of,
};

impl Parent<'_> {
    /// One sentence for each loss.
    pub(super) fn passed(
        &self,
        policy: &ResiliencePolicy,
        built: &[Built],
        acting: &[u16],
        annotations: &Annotations,
        cluster: &Cluster,
    ) -> Vec<String> {
        let (rests, entries): (Vec<&Built>, Vec<&Built>) = built.iter().partition(|built| built.is_rest(policy));
        let of = |built: &&Built| Ours::of(built, cluster);
        let mut ours: Vec<Ours<'_>> = entries.iter().map(of).collect();
        let blocks = self.blocks(policy, &ours, acting, annotations, cluster);
        let opened = self.opened(policy, &ours, acting, cluster);
        // What fits no entry is taken, too.
        ours.extend(rests.iter().map(of));
        let clients = self.clients(policy, &ours, acting, cluster);
        [blocks, opened, clients].into_iter().flatten().collect()
    }

    /// Retries and timeouts of routes that do not reach what ours take from them: a route has those of its own, or else
    /// the Service's, whole.
    fn blocks(
        &self,
        policy: &ResiliencePolicy,
        ours: &[Ours<'_>],
        acting: &[u16],
        annotations: &Annotations,
        cluster: &Cluster,
    ) -> Option<String> {
        let own = policy.namespace().unwrap_or_default();
        let sets = |block: &[&str]| block.iter().any(|key| annotations.contains_key(key));
        let (retry, timeout) = (sets(&RETRY), sets(&TIMEOUTS));
        let mut lost = BTreeMap::new();
        for route in acting.iter().flat_map(|port| self.served(cluster, *port, &own)) {
            if route.owner() == Some(PolicyName::of(policy)) || route.place() != self.contest.place {
                continue;
            }
            let rules = Request::of(route).into_iter().zip(possible_timeouts(route, cluster));
            let taken: Vec<bool> = rules
                .filter(|(requests, _)| ours.iter().any(|ours| ours.take(route, requests)))
                .map(|(_, (timeouts, _))| !timeouts.is_empty())
                .collect();
            let lose = blocks(
                !retry && !taken.is_empty() && route_retry(route).is_some(),
                !timeout && taken.contains(&true),
            );
            if let Some(lose) = lose {
                let by = route.owner().map_or_else(String::new, |by| format!(" (policy {by})"));
                lost.insert(route.full_name(), format!("{lose} of {}{by}", route.full_name()));
            }
        }
        let lost: Vec<String> = lost.into_values().collect();
        (!lost.is_empty()).then(|| {
            format!(
                "requests that its routes take over do not get {}, but what the {} says",
                some_of(&lost),
                self.kind
            )
        })
    }

    /// Whether a user's routes refuse requests that ours admit, at a port where there is no `rest`.
    fn opened(
        &self,
        policy: &ResiliencePolicy,
        ours: &[Ours<'_>],
        acting: &[u16],
        cluster: &Cluster,
    ) -> Option<String> {
        if policy.spec.routes.is_empty() || self.denies() {
            return None;
        }
        let own = policy.namespace().unwrap_or_default();
        let opened = |port: &u16| {
            let mut served = self.served(cluster, *port, &own);
            let us = Some(PolicyName::of(policy));
            served.retain(|route| route.owner() != us && route.place() == self.contest.place);
            let users = served.iter().any(|route| route.owner().is_none());
            let theirs: Vec<Request> = served.iter().flat_map(|route| Request::of(*route)).flatten().collect();
            let covered = |ours: &Request| theirs.iter().any(|theirs| theirs.covers(ours));
            users && !ours.iter().flat_map(|ours| &ours.requests).all(covered)
        };
        acting
            .iter()
            .any(opened)
            .then(|| "requests that fit an entry and no other route are sent on, and no longer refused".to_owned())
    }

    /// Namespaces with routes of their own for this Service, from which ours take requests.
    fn clients(
        &self,
        policy: &ResiliencePolicy,
        ours: &[Ours<'_>],
        acting: &[u16],
        cluster: &Cluster,
    ) -> Option<String> {
        if !matches!(self.object, Object::Service(_)) || policy.namespace().as_ref() != Some(&self.namespace) {
            return None;
        }
        let place = self.contest.place;
        let taken = |parent: &ParentRef, route: Route<'_>| {
            let said = accepted(route.verdicts(), parent, &route.namespace());
            said == Acceptance::Accepted && acting.iter().any(|port| overlap(parent.port, Some(*port)))
        };
        // Where there is gRPC, no route for HTTP is followed.
        let loses = |route: Route<'_>| {
            let displaced = place == Place::GrpcRoute && route.place() != place;
            let passed = |ours: &Ours<'_>| Request::of(route).iter().any(|theirs| ours.take(route, theirs));
            !ours.is_empty() && (displaced || (route.place() == place && ours.iter().any(passed)))
        };
        let namespaces: BTreeSet<String> = cluster
            .routes_of(&self.namespace, &self.name)
            .filter(|route| route.namespace() != self.namespace)
            .filter(|route| self.ports(*route).any(|parent| taken(parent, *route)))
            .filter(|route| cluster.sees(*route) && route.convertible().is_ok() && loses(*route))
            .map(Route::namespace)
            .collect();
        let namespaces: Vec<String> = namespaces.into_iter().collect();
        (!namespaces.is_empty()).then(|| {
            format!(
                "it takes requests from routes that other namespaces made for their own clients: {}",
                some_of(&namespaces)
            )
        })
    }
}

/// A route of ours.
struct Ours<'a> {
    requests: Vec<Request>,
    /// As it stands in the cluster; none: it is the youngest.
    living: Option<Route<'a>>,
}

impl<'a> Ours<'a> {
    fn of(built: &Built, cluster: &'a Cluster) -> Self {
        let wanted = built.as_route();
        let name = wanted.full_name();
        Self {
            requests: Request::of(wanted).into_iter().flatten().collect(),
            living: cluster.routes().find(|route| route.full_name() == name),
        }
    }

    /// Whether some of the requests of a rule of theirs go to ours.
    fn take(&self, route: Route<'_>, theirs: &[Request]) -> bool {
        let older = || {
            let living = self.living.map(served::order);
            living.is_some_and(|ours| ours < served::order(route))
        };
        let takes =
            |ours: &Request, theirs: &Request| ours.meets(theirs) && !theirs.beats(ours) && (ours != theirs || older());
        self.requests
            .iter()
            .any(|ours| theirs.iter().any(|theirs| takes(ours, theirs)))
    }
}
