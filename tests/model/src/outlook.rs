//! A whole cluster: what a client of some namespace gets at a port of a Service.
//!
//! ```text
//!  1 Service? IP? port?  2 protocol  3 profile  4 routes that count  5 one kind wins  6 rule by rule  7 or the default
//!  8 breaker and bias: always of the Service
//! ```

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Service;

use crate::{
    Version,
    bias::{self, Bias},
    breaker::{self, Breaker},
    inert::{self, Inert, Profile},
    retry::{self, Block},
    route::{Kind, Route},
    timeouts::{self, Timeouts},
};

/// A cluster, as far as it decides what clients get.
#[derive(Debug, Clone)]
pub struct State<'a> {
    /// Linkerd.
    pub version: Version,
    /// Services.
    pub services: Vec<Service>,
    /// Routes, of both groups.
    pub routes: Vec<Route>,
    /// Legacy profiles.
    pub profiles: Vec<Profile<'a>>,
    /// Versions of `HTTPRoute` that are served.
    pub http: Vec<&'a str>,
    /// Versions of `GRPCRoute` that are served.
    pub grpc: Vec<&'a str>,
}

/// What a client gets.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outlook {
    /// Why nothing else here acts; then everything else is empty.
    pub inert: Option<Inert>,
    /// Whether the port serves gRPC only.
    pub grpc: bool,
    /// Circuit breaker.
    pub breaker: Option<Breaker>,
    /// Bias against endpoints that fail.
    pub bias: Option<Bias>,
    /// Rule by rule, in order.
    pub rules: Vec<RuleOutlook>,
    /// Whether requests that fit no rule get a 404.
    pub others_refused: bool,
}

/// What the requests of a rule get.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RuleOutlook {
    /// The route, as `HTTPRoute namespace/name`; absent: the one that Linkerd makes up.
    pub route: Option<String>,
    /// Index of the rule.
    pub index: usize,
    /// The route that gets all of its requests: of equal matches the first counts. Then no request takes the rule.
    pub taken_by: Option<String>,
    /// Retries.
    pub retry: Option<Block>,
    /// Timeouts.
    pub timeouts: Timeouts,
}

/// What clients in namespace `client` get at the port of a Service.
#[must_use]
pub fn outlook(state: &State<'_>, namespace: &str, name: &str, port: i32, client: &str) -> Outlook {
    let named = |service: &&Service| {
        service.metadata.namespace.as_deref() == Some(namespace) && service.metadata.name.as_deref() == Some(name)
    };
    let found = state.services.iter().find(named).ok_or(Inert::TargetServiceNotFound);
    found
        .and_then(|service| of(state, service, namespace, name, port, client))
        .unwrap_or_else(|inert| Outlook {
            inert: Some(inert),
            ..Outlook::default()
        })
}

fn of(
    state: &State<'_>,
    service: &Service,
    namespace: &str,
    name: &str,
    port: i32,
    client: &str,
) -> Result<Outlook, Inert> {
    let version = state.version;
    let read = |key: &str| service.metadata.annotations.as_ref()?.get(key).map(String::as_str);
    let http_1 = inert_or_http_1(service, version, port, read("config.linkerd.io/opaque-ports"))?;

    let dns = format!("{name}.{namespace}.svc.cluster.local");
    let in_namespace = |wanted: &str| {
        state
            .profiles
            .iter()
            .find(|profile| profile.name == dns && profile.namespace == wanted)
    };
    if in_namespace(client)
        .or_else(|| in_namespace(namespace))
        .is_some_and(|profile| profile.routes + profile.overrides > 0)
    {
        return Err(Inert::ServiceProfileShadowed);
    }

    let (breaker, bias) = (breaker::of(read, version), bias::of(read, version));
    if breaker.as_ref().is_some_and(Breaker::fails_in_the_proxy) || bias.as_ref().is_some_and(Bias::fails_in_the_proxy)
    {
        return Err(Inert::RejectedByProxy);
    }

    let newer = version >= (2, 18);
    let mut routes: Vec<&Route> = state
        .routes
        .iter()
        .filter(|route| match route.kind {
            Kind::Http if route.linkerds => true,
            Kind::Http => state.http.contains(if newer { &"v1" } else { &"v1beta1" }),
            Kind::Grpc => !http_1 && state.grpc.contains(if newer { &"v1" } else { &"v1alpha2" }),
        })
        .filter(|route| route.namespace == namespace || route.namespace == client)
        .filter(|route| route.counts(namespace, name, port))
        .collect();
    let grpc = routes.iter().any(|route| route.kind == Kind::Grpc);
    let kind = if grpc { Kind::Grpc } else { Kind::Http };
    routes.retain(|route| route.kind == kind);
    // What decides between equal names of the same second is not known; here, the namespace.
    routes.sort_by(|a, b| (&a.created, &a.name, &a.namespace).cmp(&(&b.created, &b.name, &b.namespace)));

    let services_retry = retry::block(read, kind).ok().flatten();
    let services_timeouts = timeouts::of(read);
    let mut rules = Vec::new();
    // Which route has a match first.
    let mut owners: BTreeMap<&str, String> = BTreeMap::new();
    for route in &routes {
        let Ok((own_retry, each)) = route.blocks(version) else {
            continue;
        };
        for ((index, own), matches) in each.into_iter().enumerate().zip(&route.matches) {
            let unset = own == Timeouts::default();
            let before: Option<Vec<String>> = matches.iter().map(|one| owners.get(one.as_str()).cloned()).collect();
            let taken_by = before.and_then(|routes| routes.into_iter().next());
            for one in matches {
                owners.entry(one).or_insert_with(|| route.title());
            }
            rules.push(RuleOutlook {
                route: Some(route.title()),
                index,
                taken_by,
                retry: own_retry.clone().or_else(|| services_retry.clone()),
                timeouts: if unset { services_timeouts } else { own },
            });
        }
    }
    if routes.is_empty() {
        rules.push(RuleOutlook {
            route: None,
            index: 0,
            taken_by: None,
            retry: services_retry,
            timeouts: services_timeouts,
        });
    }
    Ok(Outlook {
        inert: None,
        grpc,
        breaker,
        bias,
        rules,
        others_refused: !routes.is_empty(),
    })
}

/// Whether the port says that it speaks HTTP/1, if Linkerd looks into it at all.
fn inert_or_http_1(service: &Service, version: Version, port: i32, list: Option<&str>) -> Result<bool, Inert> {
    let spec = service.spec.as_ref().ok_or(Inert::Headless)?;
    let address = spec.cluster_ip.as_deref().unwrap_or("None");
    if spec.type_.as_deref() == Some("ExternalName") || matches!(address, "" | "None") {
        return Err(Inert::Headless);
    }
    let listed = spec.ports.iter().flatten().filter(|listed| listed.port == port);
    let mut verdict = Err(Inert::PortNotFound);
    for listed in listed {
        match inert::at(listed, list, version) {
            None => {
                let says = listed.app_protocol.as_deref().unwrap_or_default();
                return Ok(version >= (2, 18) && says.eq_ignore_ascii_case("http"));
            }
            Some(reason) if verdict == Err(Inert::PortNotFound) => verdict = Err(reason),
            Some(_) => {}
        }
    }
    verdict
}
