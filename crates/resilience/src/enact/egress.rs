//! A policy for a whole EgressNetwork: annotations on it.

use std::collections::BTreeSet;

use kube::{Resource as _, ResourceExt as _};
use trellis_api::{ResiliencePolicy, Section};
use trellis_bindings::{gateway::BackendRef, linkerd::policy::EgressNetwork};

use super::{Enacted, blocks};
use crate::{
    Cluster, Reason,
    annotations::Place,
    attach::Target,
    egress,
    route::Route,
    served::{reached_timeouts, route_retry, served_outside},
};

pub(super) fn enact(policy: &ResiliencePolicy, network: &EgressNetwork, cluster: &Cluster) -> Enacted {
    let namespace = network.namespace().unwrap_or_default();
    let at = Target::new(Place::EgressNetwork, &namespace, &network.name_any());
    let mut enacted = Enacted::at(at.clone());
    enacted.contest(policy, &at, cluster);
    if let Err(refusal) = egress::check(network, &cluster.mesh) {
        return enacted.all_inert(policy, &refusal);
    }
    let ports = served(network, cluster);
    let mut routes = ports.iter().flat_map(|(_, routes)| routes);
    let leads = routes.clone().any(leads_to_services);
    let grpc = routes.any(|route| route.place() == Place::GrpcRoute);
    for section in enacted.acting(policy) {
        if section == Section::CircuitBreaker && !leads {
            enacted.inert(section, egress::no_breaker());
        } else {
            enacted.write(policy, section, network.meta(), cluster);
        }
    }
    let codes = policy
        .spec
        .retry
        .as_ref()
        .is_some_and(|retry| retry.retryable_grpc_codes.is_some());
    if codes && enacted.acting(policy).contains(&Section::Retry) && !grpc {
        enacted.inert(
            Section::Retry,
            Reason::GrpcNeedsGRPCRoute
                .refuse("Linkerd serves no GRPCRoute for the EgressNetwork")
                .field("spec.retry.retryableGrpcCodes"),
        );
    }
    notes(&mut enacted, policy, &ports, codes, cluster);
    enacted
}

/// What routes leave of the network's retries and timeouts, port by port; at the other ports all of it is in force.
fn notes(
    enacted: &mut Enacted,
    policy: &ResiliencePolicy,
    ports: &[(u16, Vec<Route<'_>>)],
    codes: bool,
    cluster: &Cluster,
) {
    let acting = enacted.acting(policy);
    let (retry, timeout) = (acting.contains(&Section::Retry), acting.contains(&Section::Timeout));
    for (port, routes) in ports {
        for (route, rules) in routes.iter().zip(reached_timeouts(routes, cluster)) {
            let timed = rules.iter().any(|(own, _)| !own.is_empty());
            let own = blocks(retry && route_retry(*route).is_some(), timeout && timed);
            if let Some(own) = own.filter(|_| !rules.is_empty()) {
                enacted.notes.push(format!(
                    "at port {port} {} sets its own {own} for its requests",
                    route.full_name()
                ));
            }
        }
        let grpc = routes.iter().any(|route| route.place() == Place::GrpcRoute);
        if retry && grpc && !codes {
            let note = format!("at port {port} only gRPC is served, where statuses of HTTP do not count");
            enacted.notes.push(note);
        } else if retry && codes && !routes.is_empty() && !grpc {
            let note = format!("at port {port} only HTTP is served, where statuses of gRPC do not count");
            enacted.notes.push(note);
        }
    }
}

/// The routes that Linkerd serves for the network, at each port where there are some. Elsewhere the network's own values
/// are in force.
fn served<'a>(network: &EgressNetwork, cluster: &'a Cluster) -> Vec<(u16, Vec<Route<'a>>)> {
    let (namespace, name) = (network.namespace().unwrap_or_default(), network.name_any());
    let ports: BTreeSet<u16> = cluster
        .routes_of(&namespace, &name)
        .flat_map(|route| {
            let parents = route.parents().iter();
            parents
                .filter(|parent| route.is_parent(parent, "EgressNetwork", &namespace, &name))
                .filter_map(|parent| parent.port)
                .collect::<Vec<_>>()
        })
        .collect();
    ports
        .into_iter()
        .map(|port| (port, served_outside(cluster, network, port)))
        .collect()
}

/// Whether a route sends traffic to Services, whose endpoints a breaker can count.
fn leads_to_services(route: &Route<'_>) -> bool {
    let leads = |backend: &BackendRef| {
        backend.kind.as_deref().unwrap_or("Service") == "Service"
            && ["", "core"].contains(&backend.group.as_deref().unwrap_or_default())
    };
    match route {
        Route::Http(route) => route.spec.rules.iter().flat_map(|rule| &rule.backend_refs).any(leads),
        Route::Grpc(route) => route.spec.rules.iter().flat_map(|rule| &rule.backend_refs).any(leads),
        Route::Linkerd(_) => false,
    }
}
