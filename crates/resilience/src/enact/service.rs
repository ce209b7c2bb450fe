//! A policy for a whole Service of its namespace: annotations on the Service, and a rate limit beside it.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Service;
use kube::{Resource as _, ResourceExt as _};
use trellis_api::{ResiliencePolicy, Section};
use trellis_core::Refusal;

use super::{Enacted, Standing};
use crate::{
    Cluster, Reason,
    effect::Protocol,
    ratelimit,
    served::{Served, reached_timeouts, route_retry, served},
    target,
};

pub(super) fn enact(policy: &ResiliencePolicy, service: &Service, cluster: &Cluster) -> Enacted {
    let at = Cluster::service_target(service);
    let mut enacted = Enacted::at(at.clone());
    let won = enacted.contest(policy, &at, cluster);
    if won.contains(&Section::RateLimit) {
        limit(&mut enacted, policy, service, cluster);
    }

    let outbound: Vec<Section> = enacted
        .acting(policy)
        .into_iter()
        .filter(|section| *section != Section::RateLimit)
        .collect();
    if outbound.is_empty() {
        return enacted;
    }
    let port = policy.spec.target_ref.as_ref().and_then(|target| target.port);
    let effective = match target::check(service, port, &cluster.profiles_of(service), &cluster.mesh) {
        Ok(effective) => effective,
        Err(refusal) => {
            for section in outbound {
                enacted.inert(section, refusal.clone());
            }
            return enacted;
        }
    };
    for section in outbound {
        enacted.write(policy, section, service.meta(), cluster);
    }

    let client = service.namespace().unwrap_or_default();
    let acting: Vec<Served<'_>> = effective
        .ports
        .iter()
        .filter(|listed| port.is_none_or(|port| i32::from(port) == **listed))
        .filter_map(|listed| served(cluster, service, u16::try_from(*listed).ok()?, &client).ok())
        .collect();
    routes(&mut enacted, policy, &acting, cluster);
    enacted
        .notes
        .extend(effective.inert.iter().map(|inert| format!("not on it: {inert}")));
    enacted.notes.extend(effective.notes);
    enacted.ports = effective.ports;
    enacted
}

fn limit(enacted: &mut Enacted, policy: &ResiliencePolicy, service: &Service, cluster: &Cluster) {
    match ratelimit::limit(policy, service, cluster) {
        Ok(None) => enacted
            .notes
            .push("no rate is limited, since rateLimit.enabled is false; set it to true to switch it on".into()),
        Ok(Some(limit)) => {
            if let Err(refusal) = ratelimit::accepted(&limit, cluster) {
                let standing = if refusal.reason == Reason::RateLimitPending.as_str() {
                    Standing::Pending(refusal)
                } else {
                    Standing::Inert(refusal)
                };
                enacted.sections.insert(Section::RateLimit, standing);
            }
            enacted.notes.extend(limit.notes.iter().cloned());
            enacted.limit = Some(limit);
        }
        Err(refusal) => enacted.inert(Section::RateLimit, refusal),
    }
}

/// What routes leave of the Service's retries and timeouts. A block of a route's own replaces the Service's.
fn routes(enacted: &mut Enacted, policy: &ResiliencePolicy, acting: &[Served<'_>], cluster: &Cluster) {
    let mut own = BTreeSet::new();
    // Ports where some requests get the Service's retries.
    let mut heirs = Vec::new();
    let (mut retried, mut timed) = (acting.is_empty(), acting.is_empty());
    for served in acting {
        let mut inherits = served.routes.is_empty();
        timed |= served.routes.is_empty();
        for (route, rules) in served.routes.iter().zip(reached_timeouts(&served.routes, cluster)) {
            if rules.is_empty() {
                continue;
            }
            let own_timeouts = rules.iter().all(|(timeouts, _)| !timeouts.is_empty());
            let own_retry = route_retry(*route).is_some();
            inherits |= !own_retry;
            timed |= !own_timeouts;
            if own_retry || own_timeouts {
                own.insert(format!("{} sets its own for its requests", route.full_name()));
            }
        }
        if inherits {
            retried = true;
            heirs.push(served);
        }
    }
    let shadowed = |section: &str| -> Refusal {
        Reason::ShadowedByRoutes
            .refuse(format!(
                "every route of the Service sets its own {section}, and Linkerd ignores the Service's"
            ))
            .field(format!("spec.{section}"))
            .hint("make a policy for the routes, with targetRef.kind HTTPRoute or GRPCRoute")
    };
    let acts = enacted.acting(policy);
    if acts.contains(&Section::Retry) {
        if !retried {
            enacted.inert(Section::Retry, shadowed("retry"));
        } else if let Some(refusal) = grpc(policy, &heirs) {
            enacted.inert(Section::Retry, refusal);
        }
    }
    if acts.contains(&Section::Timeout) && !timed {
        enacted.inert(Section::Timeout, shadowed("timeout"));
    }
    enacted.notes.extend(own);
}

/// Statuses of gRPC count only where a route for gRPC is served, and then those of HTTP do not.
fn grpc(policy: &ResiliencePolicy, acting: &[&Served<'_>]) -> Option<Refusal> {
    let codes = policy.spec.retry.as_ref()?.retryable_grpc_codes.is_some();
    let served = |protocol| acting.iter().any(|served| served.protocol == protocol);
    if codes && !served(Protocol::Grpc) {
        return Some(
            Reason::GrpcNeedsGRPCRoute
                .refuse("no GRPCRoute is attached to the Service, without which Linkerd retries on no gRPC status")
                .field("spec.retry.retryableGrpcCodes")
                .hint("attach a GRPCRoute, or list grpc routes in the policy; retries of HTTP are in force"),
        );
    }
    if !codes && !acting.is_empty() && !served(Protocol::Http) {
        return Some(
            Reason::GrpcNeedsGRPCRoute
                .refuse("GRPCRoutes make the Service serve gRPC only, where statuses of HTTP do not count")
                .field("spec.retry.retryableGrpcCodes")
                .hint("list the gRPC statuses to retry on"),
        );
    }
    None
}
