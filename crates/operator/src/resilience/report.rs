//! What is said of a policy: target by target, and as a whole.

use std::collections::BTreeSet;

use kube::ResourceExt as _;
use trellis_api::{
    MAX_TARGETS_LISTED, ResiliencePolicy, ResiliencePolicyStatus, Section, TargetKind, status::InventoryEntry,
};
use trellis_core::{
    Refusal,
    condition::{Draft, READY, STALLED, State},
};
use trellis_resilience::{
    Cluster, Enacted, Mesh, Reason, Standing, annotations::Place, mesh::Source, owner, siblings, summary, warning,
};
use trellis_runtime::{End, Outcome, Reported};

use super::Seen;

/// Condition: whether the proxies of callers are known to apply the policy.
pub const ENFORCED: &str = "Enforced";

const UNOBSERVED: &str = "Linkerd reports no status for annotations, and takes a route with unreadable ones as accepted: \
    that its proxies apply the policy, in every meshed caller, is concluded and not observed";

/// Most winners of sections that the message of `Ready` names.
const MAX_LOSSES: usize = 8;

/// What the targets of a policy come to.
pub(super) enum Judgement {
    /// The policy acts wherever it is for it to act.
    InForce,
    /// Others decide everything.
    Overridden(String),
    /// Linkerd has to say something first.
    Waiting(&'static str, String),
    /// The user has to change something first.
    Refused(Refusal),
    /// The same, and the routes that the policy made go: Linkerd would serve them, and not those of somebody else.
    Yielding(Refusal),
}

/// A policy for one target has to act there. One for many is a default: it is no fault of it that some have their own,
/// or cannot be reached, as long as it acts somewhere.
pub(super) fn judge(policy: &ResiliencePolicy, targets: &[Enacted]) -> Judgement {
    let refused = |pending: bool| {
        let standings = targets.iter().flat_map(|target| target.sections.values());
        standings.filter_map(move |standing| match standing {
            Standing::Inert(refusal) if !pending => Some(refusal),
            Standing::Pending(refusal) if pending => Some(refusal),
            _ => None,
        })
    };
    let in_force = targets.iter().any(Enacted::in_force);
    if let Some(refusal) = refused(false).next()
        && !(inherited(policy) && in_force)
    {
        let makes_none = |target: &Enacted| {
            matches!(target.target.place, Place::Service | Place::EgressNetwork) && target.routes.is_empty()
        };
        let yields = |refusal: &&Refusal| {
            [Reason::RouteConflicted, Reason::GrpcNeedsPort]
                .map(Reason::as_str)
                .contains(&refusal.reason)
        };
        if let Some(refusal) = refused(false).find(yields)
            && targets.iter().all(makes_none)
        {
            return Judgement::Yielding(refusal.clone());
        }
        return Judgement::Refused(refusal.clone());
    }
    if let Some(refusal) = refused(true).next() {
        return Judgement::Waiting(refusal.reason, refusal.to_string());
    }
    let enabled = policy.spec.sections().any(|section| policy.spec.enables(section));
    if in_force || (!enabled && targets.iter().all(|target| target.sections.is_empty())) {
        return Judgement::InForce;
    }
    if targets.iter().all(|target| target.sections.is_empty()) {
        return Judgement::Refused(Reason::Invalid.refuse("no section of the policy can act on its target"));
    }
    let message = targets
        .iter()
        .map(|target| target.status().message)
        .find(|message| !message.is_empty());
    Judgement::Overridden(message.unwrap_or_default())
}

fn inherited(policy: &ResiliencePolicy) -> bool {
    policy
        .spec
        .target_ref
        .as_ref()
        .is_none_or(|target| target.kind == TargetKind::Namespace)
}

pub(super) fn report(policy: &ResiliencePolicy, seen: &Seen, outcome: &Outcome) -> Reported<ResiliencePolicyStatus> {
    let cluster = seen.undecided.is_none().then_some(&seen.cluster);
    let targets = &seen.enactment.targets;
    let judgement = judge(policy, targets);
    let mut told = targets.clone();
    for target in &mut told {
        not_written(target, outcome);
    }
    // Those that need attention are listed first, and then cut.
    told.sort_by_key(Enacted::in_force);
    let count = |number: usize| (number > 0).then(|| i32::try_from(number).unwrap_or(i32::MAX));
    let services = outcome
        .in_place
        .iter()
        .filter(|entry| entry.part && entry.kind == "Service");
    let status = ResiliencePolicyStatus {
        applied_to_services: services.map(path).collect(),
        targets: told.iter().take(MAX_TARGETS_LISTED).map(Enacted::status).collect(),
        targets_total: count(targets.len()),
        targets_in_force: (!targets.is_empty())
            .then(|| i32::try_from(told.iter().filter(|target| target.in_force()).count()).unwrap_or(i32::MAX)),
        linkerd_version: cluster.map(|cluster| cluster.mesh.version.to_string()),
        ..ResiliencePolicyStatus::default()
    };
    let mut conditions = Vec::new();
    if !outcome.in_place.is_empty() {
        conditions.push(Draft::new(
            ENFORCED,
            State::Unknown,
            Reason::LinkerdNotObserved.as_str(),
            UNOBSERVED,
        ));
    }
    let ready = match (&outcome.end, cluster, judgement) {
        (End::Done, Some(_), Judgement::Overridden(by)) => {
            conditions.push(Draft::new(
                STALLED,
                State::True,
                Reason::Overridden.as_str(),
                by.clone(),
            ));
            Draft::new(READY, State::False, Reason::Overridden.as_str(), by)
        }
        (End::Done, Some(_), Judgement::Yielding(refusal)) => {
            let why = refusal.to_string();
            conditions.push(Draft::new(STALLED, State::True, refusal.reason, why.clone()));
            Draft::new(READY, State::False, refusal.reason, why)
        }
        (_, Some(cluster), _) => outcome.ready(done(policy, targets).as_str(), message(policy, targets, cluster)),
        (_, None, _) => outcome.ready(Reason::Applied.as_str(), ""),
    };
    Reported {
        status,
        ready,
        conditions,
    }
}

/// What could not be put in place acts nowhere yet.
fn not_written(target: &mut Enacted, outcome: &Outcome) {
    let missing = |kind: &str, namespace: &str, name: &str| {
        outcome
            .missing
            .iter()
            .any(|entry| entry.kind == kind && entry.namespace.as_deref() == Some(namespace) && entry.name == name)
    };
    let at = &target.target;
    let on_target = missing(&at.place.to_string(), &at.namespace, &at.name);
    let routes = target.routes.iter().any(|built| {
        let route = built.as_route();
        missing(&route.place().to_string(), &route.namespace(), &route.name())
    });
    let limit = target.limit.as_ref().is_some_and(|limit| {
        let namespace = limit.policy.namespace().unwrap_or_default();
        missing("HTTPLocalRateLimitPolicy", &namespace, &limit.policy.name_any())
            || missing("Server", &namespace, &limit.policy.spec.target_ref.name)
    });
    let why = outcome.ready("", "");
    for (section, standing) in &mut target.sections {
        let unwritten = if *section == Section::RateLimit {
            limit
        } else {
            on_target || routes
        };
        if unwritten && *standing == Standing::Won {
            *standing = Standing::Pending(Reason::NotWritten.refuse(format!("not written: {}", why.message)));
        }
    }
}

/// The reason of a policy that is in place.
fn done(policy: &ResiliencePolicy, targets: &[Enacted]) -> Reason {
    let mut standings = targets.iter().flat_map(|target| target.sections.values());
    if standings.any(|standing| matches!(standing, Standing::Overridden(_))) {
        Reason::PartiallyOverridden
    } else if policy.spec.sections().any(|section| policy.spec.enables(section)) {
        Reason::Applied
    } else {
        Reason::NothingEnabled
    }
}

/// What a policy that is in force does, where, and on what that rests.
fn message(policy: &ResiliencePolicy, targets: &[Enacted], cluster: &Cluster) -> String {
    let mut parts = vec![match targets {
        [one] => {
            let ports: Vec<String> = one.ports.iter().map(ToString::to_string).collect();
            let ports = if ports.is_empty() {
                String::new()
            } else {
                format!(", port {}", ports.join(", "))
            };
            let target = &one.target;
            format!(
                "{} on {} {}/{}{ports}",
                summary(&policy.spec),
                target.kind(),
                target.namespace,
                target.name
            )
        }
        many => {
            let in_force = many.iter().filter(|target| target.in_force()).count();
            format!("{} on {in_force} of {} Services", summary(&policy.spec), many.len())
        }
    }];
    if let [one] = targets {
        parts.extend(one.told());
        let service = cluster.service(&one.target.namespace, &one.target.name);
        if let Some(service) = service.filter(|_| one.target.place == Place::Service) {
            let beside = siblings::beside(&one.annotations, &service.metadata, &owner::manager(policy));
            if !beside.is_empty() {
                parts.push(format!("beside it, somebody else set {}", beside.join(", ")));
            }
        }
    }
    parts.extend(losses(targets));
    parts.push(format!("for {}", basis(&cluster.mesh)));
    parts.extend(warning(&policy.spec).map(|warning| format!("but {warning}")));
    parts.join("; ")
}

/// Who decides instead of the policy, section by section; at most [`MAX_LOSSES`].
fn losses(targets: &[Enacted]) -> Vec<String> {
    let lost: BTreeSet<String> = targets.iter().flat_map(Enacted::losses).collect();
    let more = lost.len().saturating_sub(MAX_LOSSES);
    let mut told: Vec<String> = lost.into_iter().take(MAX_LOSSES).collect();
    told.extend((more > 0).then(|| format!("{more} more in status.targets")));
    told
}

/// `namespace/name` of an object in the inventory.
fn path(entry: &InventoryEntry) -> String {
    format!("{}/{}", entry.namespace.as_deref().unwrap_or_default(), entry.name)
}

/// What `Ready` rests on.
fn basis(mesh: &Mesh) -> String {
    match mesh.source {
        Source::Flag => format!("Linkerd {} as --linkerd-version says", mesh.version),
        Source::ConfigMap => format!("Linkerd {} as ConfigMap linkerd/linkerd-config says", mesh.version),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Forty Services, of which the last is headless, and the first could not be written.
    #[test]
    fn those_not_in_force_are_listed_first() {
        let mut cluster = Cluster::of(Mesh::from_flag("2.20").expect("a version"));
        for index in 0..40 {
            let ip = if index == 39 { "None" } else { "10.0.0.1" };
            let service = json!({
                "metadata": {"name": format!("s{index:02}"), "namespace": "shop"},
                "spec": {"clusterIP": ip, "ports": [{"port": 80}]},
            });
            cluster
                .services
                .push(serde_json::from_value(service).expect("a Service"));
        }
        let policy: ResiliencePolicy = serde_json::from_value(json!({
            "apiVersion": "resilience.trellis.dev/v1alpha1", "kind": "ResiliencePolicy",
            "metadata": {"name": "p", "namespace": "shop"},
            "spec": {"targetRef": {"kind": "Namespace", "name": "shop"}, "retry": {}},
        }))
        .expect("a policy");
        cluster.policies = vec![policy.clone()].into();
        let missing = json!({"apiVersion": "v1", "kind": "Service", "namespace": "shop", "name": "s00", "part": true});
        let outcome = Outcome {
            end: End::Refused(Reason::ForeignOwner.refuse("somebody holds it")),
            in_place: Vec::new(),
            missing: vec![serde_json::from_value(missing).expect("an entry")],
        };
        let status = report(&policy, &Seen::of(&policy, cluster, None), &outcome).status;
        let first: Vec<(&str, &str)> = status
            .targets
            .iter()
            .take(3)
            .map(|target| (target.name.as_str(), target.reason.as_str()))
            .collect();
        assert_eq!(first, [("s00", "NotWritten"), ("s39", "Headless"), ("s01", "Applied")]);
        assert_eq!((status.targets_total, status.targets_in_force), (Some(40), Some(38)));
    }

    /// A consumer with a section that is not of routes, and a route for the requests that a canary's splits.
    #[test]
    fn routes_go_whatever_else_is_refused() {
        let mut cluster = Cluster::of(Mesh::from_flag("2.20").expect("a version"));
        let service = json!({
            "metadata": {"name": "ledger", "namespace": "bank"},
            "spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 80}]},
        });
        let parent = json!({"group": "", "kind": "Service", "name": "ledger", "namespace": "bank"});
        let canary = json!({
            "metadata": {"name": "canary", "namespace": "bank"},
            "spec": {
                "parentRefs": [parent],
                "rules": [{"backendRefs": [{"name": "v1", "port": 80}, {"name": "v2", "port": 80}]}],
            },
            "status": {"parents": [{
                "controllerName": "linkerd.io/policy-controller", "parentRef": parent,
                "conditions": [{"type": "Accepted", "status": "True"}],
            }]},
        });
        cluster.services = vec![serde_json::from_value(service).expect("a Service")].into();
        cluster.http_routes = vec![serde_json::from_value(canary).expect("a route")].into();
        let policy: ResiliencePolicy = serde_json::from_value(json!({
            "apiVersion": "resilience.trellis.dev/v1alpha1", "kind": "ResiliencePolicy",
            "metadata": {"name": "p", "namespace": "shop"},
            "spec": {"targetRef": {"name": "ledger", "namespace": "bank"}, "circuitBreaker": {}, "retry": {}},
        }))
        .expect("a policy");
        cluster.policies = vec![policy.clone()].into();
        let targets = trellis_resilience::enact(&policy, &cluster).targets;
        let first = targets[0].refusal().map(|refusal| refusal.reason);
        assert_eq!(first, Some("CrossNamespaceTarget"));
        let Judgement::Yielding(refusal) = judge(&policy, &targets) else {
            panic!("its routes stay, before those of the bank")
        };
        assert_eq!(refusal.reason, "RouteConflicted");
        // Without the canary they are made, and stay.
        cluster.http_routes.clear();
        let targets = trellis_resilience::enact(&policy, &cluster).targets;
        assert!(matches!(judge(&policy, &targets), Judgement::Refused(_)));
    }

    /// Twenty older policies, each of one Service, set the retries there.
    #[test]
    fn the_winners_are_named_and_bounded() {
        let policy = |name: &str, spec: serde_json::Value, year: u32| -> ResiliencePolicy {
            serde_json::from_value(json!({
                "apiVersion": "resilience.trellis.dev/v1alpha1", "kind": "ResiliencePolicy", "spec": spec,
                "metadata": {"name": name, "namespace": "shop", "creationTimestamp": format!("{year}-01-01T00:00:00Z")},
            }))
            .expect("a policy")
        };
        let mut cluster = Cluster::of(Mesh::from_flag("2.20").expect("a version"));
        for index in 0..20 {
            let name = format!("s{index:02}");
            let service = json!({
                "metadata": {"name": name, "namespace": "shop"},
                "spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 80}]},
            });
            cluster
                .services
                .push(serde_json::from_value(service).expect("a Service"));
            let spec = json!({"targetRef": {"name": name}, "retry": {}});
            cluster.policies.push(policy(&name, spec, 2025));
        }
        let spec = json!({
            "targetRef": {"kind": "Namespace", "name": "shop"}, "retry": {}, "timeout": {"requestTimeout": "1s"},
        });
        let own = policy("p", spec, 2026);
        cluster.policies.push(own.clone());
        let targets = trellis_resilience::enact(&own, &cluster).targets;
        let text = message(&own, &targets, &cluster);
        assert!(text.contains("; policy shop/s00 sets retry; "), "{text}");
        assert_eq!(text.matches("sets retry").count(), MAX_LOSSES);
        assert!(text.contains("12 more in status.targets"), "{text}");
    }
}
