//! Routes that Linkerd does not attach, does not accept, drops, or reads in part.

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt as _;

use super::{
    Finding, Rule,
    Severity::{Error, Warning},
    clients,
};
use crate::{
    Cluster,
    route::{Acceptance, Route, Unconvertible, accepted},
    served::{self, route_retry, rule_timeouts},
};

pub(super) fn lint(cluster: &Cluster, findings: &mut Vec<Finding>) {
    for service in &cluster.services {
        unreached(cluster, service, findings);
    }
    for route in cluster.routes() {
        let object = route.full_name().to_string();
        parents(cluster, route, &object, findings);
        if let Err(why @ Unconvertible::Filter(_)) = route.convertible()
            && in_mesh(route)
        {
            findings.push(Finding::new(Error, Rule::RouteDropped, &object, why.to_string()));
        }
        if let Route::Http(http) = route
            && in_mesh(route)
        {
            for (index, rule) in http.spec.rules.iter().enumerate() {
                let mut say = |field: &str, why: &str| {
                    let message = format!("spec.rules[{index}].{field} does nothing: {why}");
                    findings.push(Finding::new(Warning, Rule::IgnoredField, &object, message));
                };
                if rule.retry.is_some() {
                    say("retry", "Linkerd reads the annotations retry.linkerd.io/*");
                }
                let Some(timeouts) = &rule.timeouts else { continue };
                if timeouts.backend_request.is_some() {
                    say(
                        "timeouts.backendRequest",
                        "Linkerd reads the annotation retry.linkerd.io/timeout",
                    );
                }
                let Some(request) = &timeouts.request else { continue };
                if !cluster.mesh.version.at_least(2, 20) {
                    say(
                        "timeouts.request",
                        "Linkerd reads it since 2.20; write timeout.linkerd.io/request",
                    );
                } else if crate::duration::linkerd(request).is_none() {
                    say(
                        "timeouts.request",
                        "Linkerd reads only a whole number with one unit here",
                    );
                }
            }
        }
    }
}

/// Rules of routes to this Service that no request takes.
fn unreached(cluster: &Cluster, service: &Service, findings: &mut Vec<Finding>) {
    let (namespace, name) = (service.namespace().unwrap_or_default(), service.name_any());
    for (port, clients) in clients(cluster, service) {
        for client in clients {
            let Ok(served) = served::served(cluster, service, port, &client) else {
                continue;
            };
            for (route, takers) in served.routes.iter().zip(served::takers(&served.routes)) {
                // What sets nothing loses nothing; and others' clients are told about their own routes only.
                let sets = route_retry(*route).is_some()
                    || rule_timeouts(*route, cluster).iter().any(|(own, _)| !own.is_empty());
                if (route.owner().is_some() && !sets) || (client != namespace && route.namespace() == namespace) {
                    continue;
                }
                for (index, taker) in takers.into_iter().enumerate() {
                    let Some(other) = taker else { continue };
                    let message = format!(
                        "no request at port {port} of Service {namespace}/{name} takes spec.rules[{index}]: {} is older, and for the same",
                        other.full_name()
                    );
                    let finding = Finding::new(Warning, Rule::UnreachedRule, &route.full_name().to_string(), message);
                    findings.push(finding.hint("make the matches differ, or remove one of the rules"));
                }
            }
        }
    }
}

/// Whether it has a parent that Linkerd looks at.
fn in_mesh(route: Route<'_>) -> bool {
    let namespace = route.namespace();
    route.parents().iter().any(|parent| {
        let to = parent.namespace.as_deref().unwrap_or(&namespace);
        ["Service", "EgressNetwork"]
            .iter()
            .any(|kind| route.is_parent(parent, kind, to, &parent.name))
    })
}

fn parents(cluster: &Cluster, route: Route<'_>, object: &str, findings: &mut Vec<Finding>) {
    let namespace = route.namespace();
    for (index, parent) in route.parents().iter().enumerate() {
        let to = parent.namespace.as_deref().unwrap_or(&namespace);
        let service = parent.kind.as_deref() == Some("Service");
        if service && parent.group.as_deref() == Some(route.default_group()) {
            findings.push(
                Finding::new(
                    Error,
                    Rule::InertParent,
                    object,
                    format!(
                        "spec.parentRefs[{index}] has group {}, which the API server fills in; Linkerd ignores it",
                        route.default_group()
                    ),
                )
                .hint("write group: \"\" for a Service"),
            );
            continue;
        }
        if !service || !route.is_parent(parent, "Service", to, &parent.name) {
            continue;
        }
        if !cluster.sees(route) {
            let message = format!(
                "Linkerd {} does not read the version that is served",
                cluster.mesh.version
            );
            findings.push(Finding::new(Error, Rule::RouteNotAccepted, object, message));
            continue;
        }
        match accepted(route.verdicts(), parent, &namespace) {
            Acceptance::Accepted => {}
            Acceptance::Pending => findings.push(Finding::new(
                Warning,
                Rule::RouteNotAccepted,
                object,
                format!("Linkerd has said nothing of it at Service {to}/{}", parent.name),
            )),
            Acceptance::Refused(refusal) => {
                let finding = Finding::new(Error, Rule::RouteNotAccepted, object, refusal.message);
                findings.push(finding.hint(refusal.hint.unwrap_or_default()));
            }
        }
    }
}
