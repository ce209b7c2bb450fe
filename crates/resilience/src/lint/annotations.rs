//! Annotations that Linkerd does not take, does not know, does not read here, or reads in vain.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource as _, ResourceExt as _};

use super::{
    Finding, Rule,
    Severity::{Error, Warning},
};
use crate::{
    Cluster,
    annotations::{
        BIAS_MAX_RETRY_AFTER, BIAS_PENALTY, BREAKER, FAILURE_ACCRUAL, HONOR_RETRY_AFTER, LOAD_BIAS, PENALIZE_FAILURES,
        Place, RETRY, RETRY_GRPC, RETRY_HTTP, RETRY_LIMIT, TIMEOUTS,
    },
    effect::{Bad, Breaker, LoadBias, Protocol, Retry, Stored, Timeouts, truth},
    shown::{VALUE, cut},
    target,
};

/// Domains of annotations that Linkerd reads for outbound policy.
const DOMAINS: [&str; 4] = [
    "retry.linkerd.io/",
    "timeout.linkerd.io/",
    "balancer.linkerd.io/",
    "balancer.alpha.linkerd.io/",
];

/// Keys of earlier tools, and what to write instead.
const LEGACY: [(&str, &str); 5] = [
    (
        "config.linkerd.io/failure-accrual-consecutive-max-failures",
        "balancer.linkerd.io/failure-accrual-consecutive-max-failures",
    ),
    (
        "config.linkerd.io/failure-accrual-consecutive-failures",
        "balancer.linkerd.io/failure-accrual-consecutive-max-failures",
    ),
    ("config.linkerd.io/failure-accrual", FAILURE_ACCRUAL),
    (
        "balancer.linkerd.io/failure-accrual-consecutive-failures",
        "balancer.linkerd.io/failure-accrual-consecutive-max-failures",
    ),
    ("retry.linkerd.io/http-status-codes", RETRY_HTTP),
];

pub(super) fn lint(cluster: &Cluster, findings: &mut Vec<Finding>) {
    for service in &cluster.services {
        let object = format!(
            "Service {}/{}",
            service.namespace().unwrap_or_default(),
            service.name_any()
        );
        one(cluster, &object, service.meta(), Place::Service, findings);
        if !service.annotations().keys().any(|key| ours(key)) {
            continue;
        }
        if let Err(refusal) = target::check(service, None, &cluster.profiles_of(service), &cluster.mesh) {
            let rule = if refusal.reason == "ServiceProfileShadowed" {
                Rule::ServiceProfile
            } else {
                Rule::InertService
            };
            let finding = Finding::new(
                Error,
                rule,
                &object,
                format!("its annotations do nothing: {}", refusal.message),
            );
            findings.push(match refusal.hint {
                Some(hint) => finding.hint(hint),
                None => finding,
            });
        }
    }
    for network in &cluster.egress_networks {
        let object = format!(
            "EgressNetwork {}/{}",
            network.namespace().unwrap_or_default(),
            network.name_any()
        );
        one(cluster, &object, network.meta(), Place::EgressNetwork, findings);
    }
    for route in cluster.routes() {
        one(
            cluster,
            &route.full_name().to_string(),
            route.meta(),
            route.place(),
            findings,
        );
    }
}

fn ours(key: &str) -> bool {
    DOMAINS.iter().any(|domain| key.starts_with(domain))
}

fn one(cluster: &Cluster, object: &str, meta: &ObjectMeta, place: Place, findings: &mut Vec<Finding>) {
    let Some(stored) = meta.annotations.as_ref() else {
        return;
    };
    let mut say = |severity, rule, message: String| findings.push(Finding::new(severity, rule, object, message));
    for key in stored.keys() {
        if let Some((_, instead)) = LEGACY.iter().find(|(legacy, _)| legacy == key) {
            say(
                Error,
                Rule::LegacyAnnotation,
                format!("no Linkerd reads {key}; write {instead}"),
            );
        } else if ours(key) && !known(key) {
            say(
                Error,
                Rule::UnknownAnnotation,
                format!("Linkerd knows no annotation {key}"),
            );
        } else if let Some(why) = misplaced(key, place) {
            say(
                Error,
                Rule::MisplacedAnnotation,
                format!("{key} does nothing here: {why}"),
            );
        } else if key.starts_with("balancer.alpha.") && !cluster.mesh.version.at_least(2, 20) {
            say(
                Error,
                Rule::NotInVersion,
                format!("{key} needs Linkerd 2.20; this is {}", cluster.mesh.version),
            );
        }
    }
    for bad in bad(stored, place, cluster) {
        say(Error, Rule::InvalidAnnotation, invalid(&bad, place));
    }
    let balanced = matches!(place, Place::Service | Place::EgressNetwork);
    if let Some(text) = stored.get(HONOR_RETRY_AFTER)
        && balanced
        && truth(text).is_none()
    {
        let message = format!(
            "{HONOR_RETRY_AFTER}: {:?} must be true or false; Linkerd takes it for false",
            cut(text, VALUE)
        );
        say(Error, Rule::InvalidAnnotation, message);
    }
    if balanced {
        let breaker = Breaker::read(stored, &cluster.mesh.version).unwrap_or_default();
        let bias = LoadBias::read(stored, &cluster.mesh.version).unwrap_or_default();
        let refused = breaker
            .and_then(|breaker| breaker.refused_by_proxies(stored))
            .or_else(|| bias.and_then(|bias| bias.refused_by_proxies(stored)));
        if let Some(bad) = refused {
            say(Error, Rule::RejectedByProxy, format!("every request fails: {bad}"));
        }
    }
    for (key, why) in dead(stored, balanced) {
        say(Warning, Rule::DeadAnnotation, format!("{key} does nothing: {why}"));
    }
    let timeouts = Timeouts::read(stored).unwrap_or_default();
    let zero = [timeouts.request, timeouts.response, timeouts.idle].contains(&Some(0));
    if zero {
        let message = "a timeout of zero is not none: it ends every request at once".to_owned();
        say(Error, Rule::ZeroTimeout, message);
    }
}

fn known(key: &str) -> bool {
    [&BREAKER[..], &RETRY[..], &TIMEOUTS[..], &LOAD_BIAS[..]]
        .concat()
        .contains(&key)
}

fn misplaced(key: &str, place: Place) -> Option<&'static str> {
    let (breaker, bias) = (BREAKER.contains(&key), LOAD_BIAS.contains(&key));
    match place {
        Place::HttpRoute | Place::GrpcRoute if breaker || bias => Some("Linkerd reads it from Services only"),
        Place::EgressNetwork if bias => Some("Linkerd reads it from Services only"),
        Place::HttpRoute if key == RETRY_GRPC => Some("Linkerd ignores gRPC statuses on an HTTPRoute"),
        Place::GrpcRoute if key == RETRY_HTTP => Some("Linkerd ignores HTTP statuses on a GRPCRoute"),
        _ => None,
    }
}

fn bad(stored: &Stored, place: Place, cluster: &Cluster) -> Vec<Bad> {
    let mut all = Vec::new();
    if matches!(place, Place::Service | Place::EgressNetwork) {
        all.extend(Breaker::read(stored, &cluster.mesh.version).err());
    }
    if place == Place::Service {
        all.extend(LoadBias::read(stored, &cluster.mesh.version).err());
    }
    if place != Place::GrpcRoute {
        all.extend(Retry::read(stored, Protocol::Http).err());
    }
    if place != Place::HttpRoute {
        all.extend(Retry::read(stored, Protocol::Grpc).err());
    }
    all.extend(Timeouts::read(stored).err());
    all.dedup();
    all
}

fn invalid(bad: &Bad, place: Place) -> String {
    let lost = match place {
        Place::HttpRoute | Place::GrpcRoute => "the whole route",
        Place::Service | Place::EgressNetwork => "it and the others of its block",
    };
    format!("{bad}; Linkerd drops {lost}")
}

/// Keys that depend on another one that is not there.
fn dead(stored: &Stored, balanced: bool) -> Vec<(&str, &'static str)> {
    let has = |key: &str| stored.contains_key(key);
    let value = |key: &str| stored.get(key).map(String::as_str);
    let mut found = Vec::new();
    for key in BREAKER.into_iter().skip(1).filter(|key| balanced && has(key)) {
        match value(FAILURE_ACCRUAL) {
            None => found.push((key, "there is no balancer.linkerd.io/failure-accrual")),
            Some("consecutive") if key.starts_with("balancer.alpha.") => found.push((key, "it counts in unified only")),
            Some(_) => {}
        }
    }
    for key in [BIAS_PENALTY, BIAS_MAX_RETRY_AFTER] {
        if balanced && has(key) && !has(PENALIZE_FAILURES) {
            found.push((key, "there is no balancer.alpha.linkerd.io/penalize-failures"));
        }
    }
    if value(RETRY_LIMIT) == Some("0") {
        found.push((RETRY_LIMIT, "a limit of 0 counts as not set, and switches nothing off"));
    } else if has(RETRY_LIMIT) && !has(RETRY_HTTP) && !has(RETRY_GRPC) {
        found.push((RETRY_LIMIT, "without statuses, no response is retried"));
    }
    found
}
