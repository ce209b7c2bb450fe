//! A policy for a whole EgressNetwork: annotations on it.

use kube::{Resource as _, ResourceExt as _};
use trellis_api::{ResiliencePolicy, Section};
use trellis_bindings::linkerd::policy::EgressNetwork;

use super::{Enacted, theirs};
use crate::{
    Cluster, Reason,
    annotations::{self, Place},
    attach::Target,
    egress, owner, siblings,
};

pub(super) fn enact(policy: &ResiliencePolicy, network: &EgressNetwork, cluster: &Cluster) -> Enacted {
    let namespace = network.namespace().unwrap_or_default();
    let at = Target::new(Place::EgressNetwork, &namespace, &network.name_any());
    let mut enacted = Enacted::at(at.clone());
    enacted.contest(policy, &at, cluster);
    if let Err(refusal) = egress::check(network, &cluster.mesh) {
        return enacted.all_inert(policy, &refusal);
    }
    let manager = owner::manager(policy);
    for section in enacted.acting(policy) {
        if section == Section::CircuitBreaker && !leads_to_services(network, cluster) {
            enacted.inert(section, egress::no_breaker());
            continue;
        }
        let version = &cluster.mesh.version;
        let written = annotations::section(&policy.spec, section, Place::EgressNetwork, version);
        let beside = written.and_then(|written| {
            theirs::check(&written, network.meta(), policy, cluster)?;
            siblings::check(&written, network.meta(), &manager, Place::EgressNetwork, version)?;
            Ok(written)
        });
        match beside {
            Ok(mut written) => enacted.annotations.append(&mut written),
            Err(refusal) => enacted.inert(section, refusal),
        }
    }
    let codes = policy
        .spec
        .retry
        .as_ref()
        .and_then(|retry| retry.retryable_grpc_codes.as_ref());
    if codes.is_some() && enacted.acting(policy).contains(&Section::Retry) && !has_grpc_route(network, cluster) {
        enacted.inert(
            Section::Retry,
            Reason::GrpcNeedsGRPCRoute
                .refuse("no GRPCRoute is attached to the EgressNetwork")
                .field("spec.retry.retryableGrpcCodes"),
        );
    }
    enacted
}

/// Whether some route of the network sends traffic to Services, whose endpoints a breaker can count.
fn leads_to_services(network: &EgressNetwork, cluster: &Cluster) -> bool {
    let (namespace, name) = (network.namespace().unwrap_or_default(), network.name_any());
    let attached = |route: crate::route::Route<'_>| {
        let mut parents = route.parents().iter();
        parents.any(|parent| route.is_parent(parent, "EgressNetwork", &namespace, &name))
    };
    let leads = |backend: &trellis_bindings::gateway::BackendRef| {
        backend.kind.as_deref().unwrap_or("Service") == "Service"
            && ["", "core"].contains(&backend.group.as_deref().unwrap_or_default())
    };
    let http = cluster.http_routes.iter().any(|route| {
        attached(crate::route::Route::Http(route))
            && route.spec.rules.iter().flat_map(|rule| &rule.backend_refs).any(leads)
    });
    http || cluster.grpc_routes.iter().any(|route| {
        attached(crate::route::Route::Grpc(route))
            && route.spec.rules.iter().flat_map(|rule| &rule.backend_refs).any(leads)
    })
}

fn has_grpc_route(network: &EgressNetwork, cluster: &Cluster) -> bool {
    let (namespace, name) = (network.namespace().unwrap_or_default(), network.name_any());
    cluster.routes().any(|route| {
        route.place() == Place::GrpcRoute
            && route
                .parents()
                .iter()
                .any(|parent| route.is_parent(parent, "EgressNetwork", &namespace, &name))
    })
}
