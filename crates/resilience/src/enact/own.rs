//! A policy that makes routes of its own: for some requests, or for the clients of its namespace.

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt as _;
use trellis_api::{ResiliencePolicy, TargetKind, TargetRef};
use trellis_bindings::{gateway::ParentRef, linkerd::policy::EgressNetwork};
use trellis_core::Refusal;

use super::{Enacted, Standing, overlap, user_route};
use crate::{
    Cluster, PolicyName, Reason,
    annotations::Place,
    attach::Target,
    egress, owner,
    route::{self, Acceptance, Built, Route, Scope, accepted},
    served, siblings,
    target::{self, Spoken},
};

mod passed;
mod rivals;

/// What the routes are attached to.
struct Parent<'a> {
    object: Object<'a>,
    kind: TargetKind,
    namespace: String,
    name: String,
    port: Option<u16>,
    /// Who decides the sections of routes here.
    contest: Target,
}

#[derive(Clone, Copy)]
enum Object<'a> {
    Service(&'a Service),
    Network(&'a EgressNetwork),
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
    let parent = Parent::new(policy, Object::Service(service), named, &at, above);
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
    let parent = Parent::new(policy, Object::Network(network), named, &at, vec![at.clone()]);
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
    if let Some(versions) = cluster.gateway.only(place) {
        return enacted.all_inert(policy, &other_versions(place, &versions));
    }
    if let Err(refusal) = parent
        .uncontested(policy, cluster, &mut enacted)
        .and_then(|()| parent.confined(cluster, &enacted))
    {
        return enacted.all_inert(policy, &refusal);
    }
    let annotations = enacted.annotations_for(policy, place, cluster);
    let acting = parent.acting(cluster, &enacted);
    let scope = if policy.spec.routes.is_empty() {
        Scope::Consumer
    } else {
        Scope::Entries {
            rest: parent.rest(policy, cluster, &acting),
        }
    };
    if parent.denies() {
        enacted
            .notes
            .push("the EgressNetwork denies what no route is for: each entry of routes admits its requests".into());
    }
    let built = match route::build(policy, &scope, &annotations) {
        Ok(built) => built,
        Err(refusal) => return enacted.all_inert(policy, &refusal),
    };
    if let Some(refusal) = parent.redirected(policy, &built, &acting, cluster) {
        return enacted.all_inert(policy, &refusal);
    }
    let built = parent.outrun(policy, built, &acting, &mut enacted, cluster);
    if scope == Scope::Consumer && parent.foreign(policy, cluster).next().is_some() {
        enacted.notes.push(
            "requests of this namespace that fit no other route of the Service are sent on, and no longer refused"
                .into(),
        );
    }
    let passed = parent.passed(policy, &built, &acting, &annotations, cluster);
    enacted.notes.extend(passed);
    if let Some(standing) = built.iter().find_map(|route| standing(policy, parent, route, cluster)) {
        for section in enacted.acting(policy) {
            enacted.sections.insert(section, standing.clone());
        }
    }
    user_route::off(&mut enacted, policy);
    enacted.routes = built;
    enacted
}

/// Those ports of the Service at which Linkerd follows routes of this kind: for gRPC not those of HTTP/1 alone.
fn followed(place: Place, cluster: &Cluster, service: &Service, ports: &[i32]) -> Vec<u16> {
    let mut ports: Vec<u16> = ports.iter().filter_map(|port| u16::try_from(*port).ok()).collect();
    ports.retain(|port| place != Place::GrpcRoute || !served::is_http_only(cluster, service, *port));
    ports.dedup();
    ports
}

/// Whether routes for gRPC would be followed at more than one port.
fn spreads(named: Option<u16>, followed: &[u16]) -> bool {
    named.is_none() && followed.len() > 1
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
    let said = |parent: &ParentRef| accepted(living.verdicts(), parent, &own);
    let said: Vec<Acceptance> = wanted.parents().iter().map(said).collect();
    if let Some(refusal) = said.iter().find_map(|said| match said {
        Acceptance::Refused(refusal) => Some(refusal),
        _ => None,
    }) {
        return Some(Standing::Inert(refusal.clone()));
    }
    if said.contains(&Acceptance::Pending) {
        let refusal = Reason::RoutePending.refuse(format!(
            "Linkerd has not said yet whether it takes {} at {} {}",
            wanted.full_name(),
            parent.kind,
            parent.name
        ));
        return Some(Standing::Pending(refusal));
    }
    served::serves(cluster, living).err().map(Standing::Inert)
}

/// Why Linkerd sees no routes of this kind.
pub(super) fn unseen(place: Place, cluster: &Cluster) -> Refusal {
    let installed = match place {
        Place::GrpcRoute => !cluster.gateway.grpc.is_empty(),
        _ => !cluster.gateway.http.is_empty(),
    };
    let version = &cluster.mesh.version;
    if let Some(versions) = cluster.gateway.only(place).filter(|_| version.at_least(2, 18)) {
        return other_versions(place, &versions);
    }
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

/// The kind is there, but not as `v1`.
pub(super) fn other_versions(place: Place, versions: &str) -> Refusal {
    Reason::GatewayApiMissing
        .refuse(format!(
            "the cluster serves {place} only as {versions}, and a policy reads and writes it as v1"
        ))
        .hint(
            "install the Gateway API 1.1, which serves v1 beside the versions of older Linkerds (they bring 0.7: \
             enableHttpRoutes=false leaves it out), and restart Linkerd's policy controller",
        )
}

impl<'a> Parent<'a> {
    fn new(policy: &ResiliencePolicy, object: Object<'a>, named: &TargetRef, at: &Target, above: Vec<Target>) -> Self {
        let own = policy.namespace().unwrap_or_default();
        Self {
            object,
            kind: named.kind,
            namespace: at.namespace.clone(),
            name: at.name.clone(),
            port: named.port,
            contest: Target {
                parents: above,
                owner: Some(PolicyName::of(policy)),
                ..Target::new(route::kind_of(policy), &own, &policy.name_any())
            },
        }
    }

    /// The ports on which the routes act: not those of HTTP/1 alone, where Linkerd ignores routes for gRPC.
    fn acting(&self, cluster: &Cluster, enacted: &Enacted) -> Vec<u16> {
        match self.object {
            Object::Service(service) => {
                let mut ports = followed(self.contest.place, cluster, service, &enacted.ports);
                ports.retain(|port| self.port.is_none_or(|named| named == *port));
                ports
            }
            Object::Network(_) => self.port.into_iter().collect(),
        }
    }

    /// Routes for gRPC that name no port are for one port at most: HTTP would end at every other one.
    fn confined(&self, cluster: &Cluster, enacted: &Enacted) -> Result<(), Refusal> {
        let Object::Service(service) = self.object else {
            return Ok(());
        };
        let ports = self.acting(cluster, enacted);
        if self.contest.place != Place::GrpcRoute || !spreads(self.port, &ports) {
            return Ok(());
        }
        let listed: Vec<String> = ports.iter().map(ToString::to_string).collect();
        let speaks = |port: &&u16| served::spoken(cluster, service, **port).ok() == Some(Spoken::Http2);
        let known: Vec<&u16> = ports.iter().filter(speaks).collect();
        let such = match known.as_slice() {
            [one] => format!(", such as {one}"),
            _ => String::new(),
        };
        Err(Reason::GrpcNeedsPort
            .refuse(format!(
                "routes for gRPC without a port would make Linkerd serve gRPC only at ports {} of Service {}, where \
                 retries and timeouts of HTTP would end",
                listed.join(", "),
                self.name
            ))
            .field("spec.targetRef.port")
            .hint(format!("name the port that speaks gRPC{such}")))
    }

    /// The ports where requests that fit no entry would get 404: nobody else's route is served there. Under `Deny` they
    /// are refused without us, too.
    fn rest(&self, policy: &ResiliencePolicy, cluster: &Cluster, acting: &[u16]) -> Vec<Option<u16>> {
        if self.denies() {
            return Vec::new();
        }
        let own = policy.namespace().unwrap_or_default();
        let foreign = |route: &Route<'_>| route.owner().is_none() && route.place() == self.contest.place;
        let open: Vec<Option<u16>> = acting
            .iter()
            .filter(|port| !self.served(cluster, **port, &own).iter().any(foreign))
            .map(|port| Some(*port))
            .collect();
        if open.len() == acting.len() {
            return vec![self.port];
        }
        // At a port that a GRPCRoute names, Linkerd takes none for HTTP, and without one nothing there is refused.
        let grpc = |port: Option<u16>| {
            let named = |route: Route<'_>| {
                let mut parents = self.ports(route);
                route.place() == Place::GrpcRoute && parents.any(|parent| parent.port == port)
            };
            self.contest.place == Place::HttpRoute && cluster.routes_of(&self.namespace, &self.name).any(named)
        };
        open.into_iter().filter(|port| !grpc(*port)).collect()
    }

    /// The routes that Linkerd serves here at a port.
    fn served<'c>(&self, cluster: &'c Cluster, port: u16, client: &str) -> Vec<Route<'c>> {
        match self.object {
            Object::Service(service) => {
                served::served(cluster, service, port, client).map_or_else(|_| Vec::new(), |served| served.routes)
            }
            Object::Network(network) => served::served_outside(cluster, network, port),
        }
    }

    /// Whether traffic that no route is for is refused.
    fn denies(&self) -> bool {
        matches!(self.object, Object::Network(network) if network.spec.traffic_policy == "Deny")
    }

    /// Routes that no policy made, and that the same clients see at a port of ours.
    fn foreign<'c>(&'c self, policy: &'c ResiliencePolicy, cluster: &'c Cluster) -> impl Iterator<Item = Route<'c>> {
        let own = policy.namespace().unwrap_or_default();
        cluster
            .routes_of(&self.namespace, &self.name)
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
}
