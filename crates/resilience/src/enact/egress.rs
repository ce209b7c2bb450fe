//! A policy for a whole EgressNetwork: annotations on it.

use std::collections::BTreeSet;

use kube::{Resource as _, ResourceExt as _};
use trellis_api::{ResiliencePolicy, Section};
use trellis_bindings::{gateway::BackendRef, linkerd::policy::EgressNetwork};

use super::Enacted;
use crate::{Cluster, Reason, annotations::Place, attach::Target, egress, route::Route, served::served_outside};

pub(super) fn enact(policy: &ResiliencePolicy, network: &EgressNetwork, cluster: &Cluster) -> Enacted {
    let namespace = network.namespace().unwrap_or_default();
    let at = Target::new(Place::EgressNetwork, &namespace, &network.name_any());
    let mut enacted = Enacted::at(at.clone());
    enacted.contest(policy, &at, cluster);
    if let Err(refusal) = egress::check(network, &cluster.mesh) {
        return enacted.all_inert(policy, &refusal);
    }
    let routes = served(network, cluster);
    for section in enacted.acting(policy) {
        if section == Section::CircuitBreaker && !routes.iter().any(leads_to_services) {
            enacted.inert(section, egress::no_breaker());
        } else {
            enacted.write(policy, section, network.meta(), cluster);
        }
    }
    let grpc = routes.iter().any(|route| route.place() == Place::GrpcRoute);
    let codes = policy
        .spec
        .retry
        .as_ref()
        .and_then(|retry| retry.retryable_grpc_codes.as_ref());
    if codes.is_some() && enacted.acting(policy).contains(&Section::Retry) && !grpc {
        enacted.inert(
            Section::Retry,
            Reason::GrpcNeedsGRPCRoute
                .refuse("Linkerd serves no GRPCRoute for the EgressNetwork")
                .field("spec.retry.retryableGrpcCodes"),
        );
    }
    enacted
}

/// The routes that Linkerd serves for the network, at whatever port. Where there is none, the network's own values are in
/// force.
fn served<'a>(network: &EgressNetwork, cluster: &'a Cluster) -> Vec<Route<'a>> {
    let (namespace, name) = (network.namespace().unwrap_or_default(), network.name_any());
    let ports: BTreeSet<u16> = cluster
        .routes()
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
        .flat_map(|port| served_outside(cluster, network, port))
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
