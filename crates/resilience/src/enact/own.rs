//! A policy that makes routes of its own: for some requests, or for the clients of its namespace.

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt as _;
use trellis_api::{ResiliencePolicy, TargetKind, TargetRef};
use trellis_bindings::{gateway::ParentRef, linkerd::policy::EgressNetwork};
use trellis_core::Refusal;

use super::{Enacted, Standing, age, makes_routes, overlap, user_route};
use crate::{
    Cluster, PolicyName, Reason,
    annotations::Place,
    attach::Target,
    egress, owner,
    route::{self, Acceptance, Built, Route, Scope, accepted},
    served, siblings,
    target::{self, Spoken},
};

/// What the routes are attached to.
struct Parent<'a> {
    kind: TargetKind,
    namespace: String,
    name: String,
    port: Option<u16>,
    /// Who decides the sections of routes here.
    contest: Target,
    named: &'a TargetRef,
}

pub(super) fn for_service(
    policy: &ResiliencePolicy,
    service: &Service,
    named: &TargetRef,
    cluster: &Cluster,
) -> Enacted {
    let at = Cluster::service_target(service);
    let own = policy.namespace().unwrap_or_default();
    // Overrides are of the namespace of the Service; clients elsewhere decide for themselves.
    let above = if own == at.namespace {
        vec![at.clone()]
    } else {
        Vec::new()
    };
    let parent = Parent::new(policy, named, &at, above);
    let mut enacted = Enacted::at(at);
    enacted.contest(policy, &parent.contest, cluster);
    elsewhere(&mut enacted, policy);
    let profiles = cluster.profiles_of(service);
    let effective = match target::reachable(service, named.port, &profiles, &cluster.mesh) {
        Ok(effective) => effective,
        Err(refusal) => return enacted.all_inert(policy, &refusal),
    };
    if parent.contest.place == Place::GrpcRoute {
        let named = |port: &u16| named.port.is_none_or(|named| named == *port);
        let ports: Vec<u16> = effective
            .ports
            .iter()
            .filter_map(|port| u16::try_from(*port).ok())
            .collect();
        let mut ports = ports.into_iter().filter(named).peekable();
        let first = ports.peek().copied().unwrap_or_default();
        if ports.all(|port| served::spoken(cluster, service, port).ok() == Some(Spoken::Http1)) {
            return enacted.all_inert(policy, &served::http_only(first));
        }
    }
    if let Err(refusal) = served::unshadowed(cluster, service, &own) {
        return enacted.all_inert(policy, &refusal);
    }
    enacted.ports = effective.ports;
    enacted.notes.extend(effective.notes);
    make(enacted, policy, &parent, cluster)
}

pub(super) fn for_network(
    policy: &ResiliencePolicy,
    network: &EgressNetwork,
    named: &TargetRef,
    cluster: &Cluster,
) -> Enacted {
    let namespace = network.namespace().unwrap_or_default();
    let at = Target::new(Place::EgressNetwork, &namespace, &network.name_any());
    let parent = Parent::new(policy, named, &at, vec![at.clone()]);
    let mut enacted = Enacted::at(at);
    enacted.contest(policy, &parent.contest, cluster);
    let unfit = egress::check(network, &cluster.mesh).and_then(|()| match named.port {
        Some(_) => Ok(()),
        None => Err(Reason::Invalid
            .refuse("routes to an EgressNetwork need a port")
            .field("spec.targetRef.port")),
    });
    if let Err(refusal) = unfit {
        return enacted.all_inert(policy, &refusal);
    }
    make(enacted, policy, &parent, cluster)
}

/// What a policy cannot set for a Service of another namespace.
fn elsewhere(enacted: &mut Enacted, policy: &ResiliencePolicy) {
    for section in policy.spec.sections() {
        if Place::HttpRoute.sections().contains(&section) || !policy.spec.enables(section) {
            continue;
        }
        let refusal = Reason::CrossNamespaceTarget
            .refuse(format!(
                "{section} is read from the Service itself, which is in another namespace or has routes here"
            ))
            .field(format!("spec.{section}"))
            .hint("put it into a policy for the whole Service, in the Service's namespace");
        enacted.inert(section, refusal);
    }
}

fn make(mut enacted: Enacted, policy: &ResiliencePolicy, parent: &Parent<'_>, cluster: &Cluster) -> Enacted {
    let place = parent.contest.place;
    if !cluster.gateway.seen(place, &cluster.mesh) {
        return enacted.all_inert(policy, &unseen(place, cluster));
    }
    if let Err(refusal) = parent.uncontested(policy, cluster, &mut enacted.notes) {
        return enacted.all_inert(policy, &refusal);
    }
    let annotations = enacted.annotations_for(policy, place, cluster);
    let scope = if policy.spec.routes.is_empty() {
        Scope::Consumer
    } else {
        Scope::Entries {
            rest: !parent.foreign(policy, cluster).any(|route| route.place() == place),
        }
    };
    let built = match route::build(policy, scope, &annotations) {
        Ok(built) => built,
        Err(refusal) => return enacted.all_inert(policy, &refusal),
    };
    if scope == Scope::Consumer && parent.foreign(policy, cluster).next().is_some() {
        enacted.notes.push(
            "requests of this namespace that fit no other route of the Service are sent on, and no longer refused"
                .into(),
        );
    }
    if let Some(standing) = built.iter().find_map(|route| standing(policy, parent, route, cluster)) {
        for section in enacted.acting(policy) {
            enacted.sections.insert(section, standing.clone());
        }
    }
    user_route::off(&mut enacted, policy);
    enacted.routes = built;
    enacted
}

/// What keeps a route of ours from acting, as it stands in the cluster.
fn standing(policy: &ResiliencePolicy, parent: &Parent<'_>, built: &Built, cluster: &Cluster) -> Option<Standing> {
    let wanted = built.as_route();
    let living = cluster
        .routes()
        .find(|route| route.full_name() == wanted.full_name() && route.owner() == Some(PolicyName::of(policy)));
    let Some(living) = living else {
        let refusal = Reason::RoutePending.refuse(format!("{} is about to be written", wanted.full_name()));
        return Some(Standing::Pending(refusal));
    };
    let desired = wanted.annotations();
    let known = crate::annotations::RETRY.iter().chain(&crate::annotations::TIMEOUTS);
    let desired = known
        .filter_map(|key| Some((*key, desired.get(*key)?.clone())))
        .collect();
    let (manager, version) = (owner::manager(policy), &cluster.mesh.version);
    if let Err(refusal) = siblings::check(&desired, living.meta(), &manager, wanted.place(), version) {
        return Some(Standing::Inert(refusal));
    }
    let own = policy.namespace().unwrap_or_default();
    match accepted(living.verdicts(), wanted.parents().first()?, &own) {
        Acceptance::Accepted => served::serves(cluster, living).err().map(Standing::Inert),
        Acceptance::Pending => {
            let refusal = Reason::RoutePending.refuse(format!(
                "Linkerd has not said yet whether it takes {} at {} {}",
                wanted.full_name(),
                parent.kind,
                parent.name
            ));
            Some(Standing::Pending(refusal))
        }
        Acceptance::Refused(refusal) => Some(Standing::Inert(refusal)),
    }
}

/// Why Linkerd sees no routes of this kind.
pub(super) fn unseen(place: Place, cluster: &Cluster) -> Refusal {
    let installed = match place {
        Place::GrpcRoute => !cluster.gateway.grpc.is_empty(),
        _ => !cluster.gateway.http.is_empty(),
    };
    let version = &cluster.mesh.version;
    if installed {
        return Reason::FeatureNotInVersion
            .refuse(format!(
                "Linkerd {version} does not read {place} in a version that this cluster serves"
            ))
            .hint("upgrade Linkerd to 2.18 or newer");
    }
    Reason::GatewayApiMissing
        .refuse(format!("the cluster has no {place}"))
        .hint("install the Gateway API, 1.1 or newer, and restart Linkerd's policy controller")
}

impl<'a> Parent<'a> {
    fn new(policy: &ResiliencePolicy, named: &'a TargetRef, at: &Target, above: Vec<Target>) -> Self {
        let own = policy.namespace().unwrap_or_default();
        Self {
            kind: named.kind,
            namespace: at.namespace.clone(),
            name: at.name.clone(),
            port: named.port,
            contest: Target {
                parents: above,
                owner: Some(PolicyName::of(policy)),
                ..Target::new(route::kind_of(policy), &own, &policy.name_any())
            },
            named,
        }
    }

    /// Routes that no policy made, and that the same clients see at a port of ours.
    fn foreign<'c>(&'c self, policy: &'c ResiliencePolicy, cluster: &'c Cluster) -> impl Iterator<Item = Route<'c>> {
        let own = policy.namespace().unwrap_or_default();
        cluster
            .routes()
            .filter(|route| route.owner().is_none())
            .filter(move |route| [&self.namespace, &own].contains(&&route.namespace()))
            .filter(|route| self.ports(*route).next().is_some())
    }

    /// The references of a route to this parent that overlap with ours.
    fn ports<'r>(&'r self, route: Route<'r>) -> impl Iterator<Item = &'r ParentRef> {
        let kind = self.kind.to_string();
        route
            .parents()
            .iter()
            .filter(move |parent| route.is_parent(parent, &kind, &self.namespace, &self.name))
            .filter(|parent| overlap(parent.port, self.port))
    }

    /// At one port Linkerd serves only one kind. Ours must not push out somebody else's routes, nor be pushed out.
    fn uncontested(
        &self,
        policy: &ResiliencePolicy,
        cluster: &Cluster,
        notes: &mut Vec<String>,
    ) -> Result<(), Refusal> {
        let place = self.contest.place;
        for route in self.foreign(policy, cluster).filter(|route| route.place() != place) {
            let elsewhere =
                |parent: &ParentRef| place == Place::HttpRoute && parent.port.is_some() && self.port.is_none();
            if self.ports(route).all(elsewhere) {
                notes.push(format!(
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
                clients && target.is_some_and(|target| overlap(target.port, self.port))
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
                self.named.kind, self.name
            ))
            .field("spec.routes")
            .hint(format!("name another port, or do without routes for {ours}"))
    }
}
