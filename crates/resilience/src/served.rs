//! Which routes Linkerd serves at a port of a Service, for clients of one namespace.
//!
//! ```text
//!  routes of the Service's and the client's namespace ─▶ seen ─▶ attached ─▶ accepted ─▶ convertible ─▶ one kind
//! ```
//!
//! Any route for gRPC makes the port serve gRPC only, unless the port says that it speaks HTTP/1.
//! Linkerd's own `HTTPRoute` counts like that of the Gateway API. `TLSRoute` and `TCPRoute` are not looked at.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt as _;
use trellis_bindings::{gateway::ParentRef, linkerd::policy::EgressNetwork};
use trellis_core::Refusal;

use crate::{
    Cluster, Reason,
    annotations::Place,
    effect::{Breaker, LoadBias, Protocol, Retry, Stored, Timeouts},
    route::{Acceptance, Request, Route, accepted},
    siblings,
    target::{self, Spoken},
};

/// What Linkerd serves at a port.
#[derive(Debug, Clone)]
pub(crate) struct Served<'a> {
    /// Which retries count.
    pub(crate) protocol: Protocol,
    /// The routes, in Linkerd's order; none: all requests take a default route.
    pub(crate) routes: Vec<Route<'a>>,
}

/// The routes that are served at the port of the Service, to clients of this namespace; or why nothing is.
pub(crate) fn served<'a>(
    cluster: &'a Cluster,
    service: &Service,
    port: u16,
    client: &str,
) -> Result<Served<'a>, Refusal> {
    let spoken = spoken(cluster, service, port)?;
    let (namespace, name) = (service.namespace().unwrap_or_default(), service.name_any());
    let routes = followed(cluster, &namespace, &name, |route| {
        (route.place() == Place::HttpRoute || spoken != Spoken::Http1)
            && [namespace.as_str(), client].contains(&route.namespace().as_str())
            && route.attached(&namespace, &name, port)
            && route.accepted(&namespace, &name, port)
    });
    let grpc = routes.iter().any(|route| route.place() == Place::GrpcRoute);
    Ok(Served {
        protocol: if grpc { Protocol::Grpc } else { Protocol::Http },
        routes,
    })
}

/// Of the routes with this parent that are taken, those that Linkerd follows: seen, convertible, of one kind, in its order.
fn followed<'a>(
    cluster: &'a Cluster,
    namespace: &str,
    name: &str,
    taken: impl Fn(&Route<'_>) -> bool,
) -> Vec<Route<'a>> {
    let mut routes: Vec<Route<'_>> = cluster
        .routes_of(namespace, name)
        .filter(|route| cluster.sees(*route) && taken(route) && route.convertible().is_ok())
        .collect();
    let grpc = routes.iter().any(|route| route.place() == Place::GrpcRoute);
    routes.retain(|route| (route.place() == Place::GrpcRoute) == grpc);
    routes.sort_by_cached_key(|route| order(*route));
    routes
}

/// The routes that Linkerd serves for an EgressNetwork at a port, of either kind.
pub(crate) fn served_outside<'a>(cluster: &'a Cluster, network: &EgressNetwork, port: u16) -> Vec<Route<'a>> {
    let (namespace, name) = (network.namespace().unwrap_or_default(), network.name_any());
    let at = |route: Route<'_>, parent: &ParentRef| {
        route.is_parent(parent, "EgressNetwork", &namespace, &name) && parent.port.is_none_or(|named| named == port)
    };
    followed(cluster, &namespace, &name, |route| {
        let mut parents = route.parents().iter().filter(|parent| at(*route, parent));
        route.namespace() == namespace
            && parents.any(|parent| accepted(route.verdicts(), parent, &namespace) == Acceptance::Accepted)
    })
}

/// Whether the port says that it speaks HTTP/1, where routes for gRPC are ignored.
pub(crate) fn is_http_only(cluster: &Cluster, service: &Service, port: u16) -> bool {
    matches!(spoken(cluster, service, port), Ok(Spoken::Http1))
}

/// Linkerd's order of routes: the older one goes first.
pub(crate) fn order(route: Route<'_>) -> impl Ord + use<> {
    let created = route.meta().creation_timestamp.as_ref().map(|time| time.0);
    (created.is_none(), created, route.name(), route.namespace())
}

/// Whether clients of this namespace follow no profile for the Service: their own, or else the Service's.
///
/// Refuses with `ServiceProfileShadowed`.
pub(crate) fn unshadowed(cluster: &Cluster, service: &Service, client: &str) -> Result<(), Refusal> {
    let profiles = cluster.profiles_of(service);
    let in_namespace = |namespace: &str| {
        let found = profiles
            .iter()
            .find(|profile| profile.namespace().as_deref() == Some(namespace));
        found.copied()
    };
    let followed = in_namespace(client).or_else(|| in_namespace(&service.namespace().unwrap_or_default()));
    match followed.filter(|profile| profile.spec.shadows()) {
        None => Ok(()),
        Some(profile) => Err(Reason::ServiceProfileShadowed
            .refuse(format!(
                "ServiceProfile {} in namespace {} rules instead",
                profile.name_any(),
                profile.namespace().unwrap_or_default()
            ))
            .hint("delete the ServiceProfile, or move what it says into policies and routes")),
    }
}

/// What the Service says of its endpoints; a block that Linkerd cannot read is none.
///
/// Refuses with `RejectedByProxy` what the proxies refuse, failing every request.
pub(crate) fn balancer(cluster: &Cluster, service: &Service) -> Result<(Option<Breaker>, Option<LoadBias>), Refusal> {
    let (stored, version) = (service.annotations(), &cluster.mesh.version);
    let breaker = Breaker::read(stored, version).unwrap_or_default();
    let bias = LoadBias::read(stored, version).unwrap_or_default();
    let refused = breaker
        .and_then(|breaker| breaker.refused_by_proxies(stored))
        .or_else(|| bias.and_then(|bias| bias.refused_by_proxies(stored)));
    match refused {
        None => Ok((breaker, bias)),
        Some(bad) => Err(Reason::RejectedByProxy.refuse(format!(
            "every request fails, since the proxies refuse annotation {}: {:?}; it must {}",
            bad.key, bad.value, bad.must
        ))),
    }
}

/// Whether some call gets what the route says: some port of some Service that it is attached to serves it, to clients
/// of its own namespace, or it is attached to an EgressNetwork that Linkerd takes.
pub(crate) fn serves(cluster: &Cluster, route: Route<'_>) -> Result<(), Refusal> {
    if route.rules() == 0 {
        return Err(Reason::RouteNotConvertible.refuse("the route has no rule"));
    }
    let client = route.namespace();
    let mut first = None;
    for service in &cluster.services {
        let (namespace, name) = (service.namespace().unwrap_or_default(), service.name_any());
        let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
        let ports = ports.filter_map(|port| u16::try_from(port.port).ok());
        let mut parents = route.parents().iter();
        if !parents.any(|parent| route.is_parent(parent, "Service", &namespace, &name)) {
            continue;
        }
        for port in ports.filter(|port| route.attached(&namespace, &name, *port)) {
            match at_port(cluster, service, port, &client, route) {
                Ok(()) => return Ok(()),
                Err(refusal) => first = first.or(Some(refusal)),
            }
        }
        first = first.or_else(|| {
            let message = format!("Service {name} does not list the port that the route is attached to");
            Some(Reason::PortNotFound.refuse(message))
        });
    }
    for network in &cluster.egress_networks {
        let (namespace, name) = (network.namespace().unwrap_or_default(), network.name_any());
        let mut parents = route.parents().iter();
        if parents.any(|parent| route.is_parent(parent, "EgressNetwork", &namespace, &name)) {
            let inherited = inherited(cluster, route, network.annotations());
            match crate::egress::check(network, &cluster.mesh).and(inherited) {
                Ok(()) => return Ok(()),
                Err(refusal) => first = first.or(Some(refusal)),
            }
        }
    }
    Err(first.unwrap_or_else(|| {
        Reason::TargetServiceNotFound
            .refuse("there is none of the Services that the route is attached to")
            .hint("create the Service, or correct parentRefs")
    }))
}

/// Whether some request takes a route of somebody else: [`serves`], and not all of its matches are those of older routes.
pub(crate) fn acts(cluster: &Cluster, route: Route<'_>) -> Result<(), Refusal> {
    serves(cluster, route)?;
    let client = route.namespace();
    let mut rival = None;
    let mut lists = Vec::new();
    for service in &cluster.services {
        let (namespace, name) = (service.namespace().unwrap_or_default(), service.name_any());
        let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
        let ports = ports.filter_map(|port| u16::try_from(port.port).ok());
        let ports = ports.filter(|port| route.attached(&namespace, &name, *port));
        lists.extend(ports.filter_map(|port| served(cluster, service, port, &client).ok().map(|served| served.routes)));
    }
    for network in &cluster.egress_networks {
        let ports = route.parents().iter().filter_map(|parent| parent.port);
        lists.extend(ports.map(|port| served_outside(cluster, network, port)));
    }
    for routes in lists {
        let takers = routes.iter().zip(takers(&routes));
        let mut own = takers.filter(|(other, _)| other.full_name() == route.full_name());
        let Some((_, rules)) = own.next() else { continue };
        let taken: Option<Vec<Route<'_>>> = rules.into_iter().collect();
        let Some(by) = taken else { return Ok(()) };
        rival = rival.or(by.first().copied());
    }
    match rival {
        Some(rival) => Err(outrun(&route.full_name().to_string(), rival)),
        None => Ok(()),
    }
}

/// For each rule of each route, in Linkerd's order, the route that takes all of its requests: of equal matches the first
/// counts. None: some request takes the rule.
pub(crate) fn takers<'a>(routes: &[Route<'a>]) -> Vec<Vec<Option<Route<'a>>>> {
    let mut first: HashMap<Request, Route<'a>> = HashMap::new();
    let mut takers = Vec::new();
    for route in routes {
        let mut rules = Vec::new();
        for requests in Request::of(*route) {
            let taken: Option<Vec<Route<'a>>> = requests.iter().map(|request| first.get(request).copied()).collect();
            rules.push(taken.and_then(|by| by.first().copied()));
            for request in requests {
                first.entry(request).or_insert(*route);
            }
        }
        takers.push(rules);
    }
    takers
}

/// Requests go to somebody else's route.
pub(crate) fn outrun(what: &str, rival: Route<'_>) -> Refusal {
    let by = rival.owner().map(|owner| format!("policy {owner}, by "));
    Reason::RouteConflicted
        .refuse(format!(
            "{what} is for the same requests as an older route, which Linkerd follows: {}{}",
            by.unwrap_or_default(),
            rival.full_name()
        ))
        .hint("name other requests, or say it where the older route comes from")
}

fn at_port(cluster: &Cluster, service: &Service, port: u16, client: &str, route: Route<'_>) -> Result<(), Refusal> {
    target::addressable(service)?;
    unshadowed(cluster, service, client)?;
    balancer(cluster, service)?;
    spoken(cluster, service, port)?;
    if let Err(why) = route.convertible() {
        return Err(Reason::RouteNotConvertible.refuse(why.to_string()));
    }
    if let Some(refusal) = displaced(cluster, service, port, client, route) {
        return Err(refusal);
    }
    let served = served(cluster, service, port, client)?;
    if served.routes.iter().any(|other| other.full_name() == route.full_name()) {
        return inherited(cluster, route, service.annotations());
    }
    Err(Reason::RouteNotAccepted.refuse(format!("Linkerd does not serve the route at port {port}")))
}

/// Whether what the route's parent says lets its requests live: where a route has no timeouts of its own, those are in
/// force.
fn inherited(cluster: &Cluster, route: Route<'_>, parent: &Stored) -> Result<(), Refusal> {
    let inherits = rule_timeouts(route, cluster).iter().any(|(own, _)| own.is_empty());
    if inherits && Timeouts::read(parent).is_ok() {
        siblings::none_is_zero(parent)
    } else {
        Ok(())
    }
}

/// Why the port is for routes of the other kind, if it is.
///
/// Refuses with `HttpOnlyPort` or `RouteConflicted`.
pub(crate) fn displaced(
    cluster: &Cluster,
    service: &Service,
    port: u16,
    client: &str,
    route: Route<'_>,
) -> Option<Refusal> {
    if route.place() == Place::GrpcRoute {
        return is_http_only(cluster, service, port).then(|| http_only(port));
    }
    let served = served(cluster, service, port, client).ok()?;
    let winner = served.routes.first().filter(|other| other.place() != route.place())?;
    let message = format!("port {port} serves gRPC only, because of {}", winner.full_name());
    Some(
        Reason::RouteConflicted
            .refuse(message)
            .hint("at one port Linkerd serves HTTP routes or gRPC routes, not both"),
    )
}

/// A port that says it speaks HTTP/1 has no routes for gRPC.
pub(crate) fn http_only(port: u16) -> Refusal {
    Reason::HttpOnlyPort
        .refuse(format!(
            "port {port} has appProtocol http, where Linkerd ignores GRPCRoutes"
        ))
        .hint("use appProtocol kubernetes.io/h2c, or none")
}

/// What the port speaks; refused like [`target::check`] when Linkerd would not look into it.
pub(crate) fn spoken(cluster: &Cluster, service: &Service, port: u16) -> Result<Spoken, Refusal> {
    let opaque = target::opaque(service, &cluster.mesh);
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let mut first = None;
    for listed in ports.filter(|listed| listed.port == i32::from(port)) {
        match target::protocol(listed, &opaque, &cluster.mesh) {
            Ok(spoken) => return Ok(spoken),
            Err((reason, message)) => {
                first.get_or_insert_with(|| {
                    reason
                        .refuse(format!("port {port} {message}"))
                        .hint(target::hint(reason))
                });
            }
        }
    }
    Err(first.unwrap_or_else(|| {
        Reason::PortNotFound.refuse(format!("Service {} does not list port {port}", service.name_any()))
    }))
}

/// The timeouts of each rule of a route, before those of the Service come in: annotations, and below them the field
/// `timeouts.request` of HTTP rules. Linkerd reads that of the Gateway API since 2.20, in its own grammar, and that of
/// its own routes in every version, in Go's.
pub(crate) fn rule_timeouts(route: Route<'_>, cluster: &Cluster) -> Vec<(Timeouts, bool)> {
    timeouts(route, cluster.mesh.version.at_least(2, 20))
}

/// The same with what a version in doubt may read: the Service's timeouts may then not be in force.
pub(crate) fn possible_timeouts(route: Route<'_>, cluster: &Cluster) -> Vec<(Timeouts, bool)> {
    timeouts(route, cluster.mesh.version.may_be(2, 20))
}

/// `fields`: whether Linkerd reads the field of the Gateway API.
fn timeouts(route: Route<'_>, fields: bool) -> Vec<(Timeouts, bool)> {
    let annotated = Timeouts::read(route.annotations()).unwrap_or_default();
    match route {
        Route::Grpc(route) => vec![(annotated, false); route.spec.rules.len()],
        Route::Http(_) | Route::Linkerd(_) => route
            .http_rules()
            .iter()
            .map(|rule| {
                let field = rule.timeouts.as_ref().and_then(|timeouts| timeouts.request.as_deref());
                let read = |text: &str| match route {
                    Route::Linkerd(_) => crate::migrate::go_milliseconds(text),
                    _ if fields => crate::duration::linkerd(text),
                    _ => None,
                };
                let request = field
                    .filter(|_| annotated.request.is_none())
                    .and_then(read)
                    .filter(|request| *request != 0);
                let mut timeouts = annotated;
                timeouts.request = annotated.request.or(request);
                (timeouts, request.is_some())
            })
            .collect(),
    }
}

/// The same as [`possible_timeouts`] for those rules of each route that some request takes.
pub(crate) fn reached_timeouts(routes: &[Route<'_>], cluster: &Cluster) -> Vec<Vec<(Timeouts, bool)>> {
    let reached = |(route, takers): (&Route<'_>, Vec<Option<Route<'_>>>)| {
        let rules = possible_timeouts(*route, cluster).into_iter().zip(takers);
        rules
            .filter(|(_, taker)| taker.is_none())
            .map(|(rule, _)| rule)
            .collect()
    };
    routes.iter().zip(takers(routes)).map(reached).collect()
}

/// The retries of all rules of a route, before those of the Service come in. A limit of 0 alone, and statuses of the
/// other protocol alone, are none.
pub(crate) fn route_retry(route: Route<'_>) -> Option<Retry> {
    let protocol = match route {
        Route::Http(_) | Route::Linkerd(_) => Protocol::Http,
        Route::Grpc(_) => Protocol::Grpc,
    };
    Retry::read(route.annotations(), protocol).unwrap_or_default()
}
