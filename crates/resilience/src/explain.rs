//! What happens to calls: the effective policy at a port of a Service, for clients of one namespace, with its origin.
//!
//! ```text
//!  Cluster ─▶ inert? ─▶ breaker, load bias: of the Service ─▶ per route and rule: its own blocks, or the Service's
//! ```
//!
//! Invariants: only what is stored counts, not what policies ask for; a value is given exactly if Linkerd acts on it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt as _;
use serde::Serialize;
use trellis_core::Refusal;

use crate::{
    Cluster, Reason,
    effect::{Bad, Breaker, LoadBias, Protocol},
    route::{RouteName, Unconvertible},
    served::{self, Served},
    target,
};

mod origin;
mod rules;
mod text;

pub use origin::Origin;
pub use rules::Rule;

/// The effective policy at a port.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The Service, as namespace/name.
    pub service: String,
    /// The port.
    pub port: u16,
    /// The namespace of the clients.
    pub from: String,
    /// The Linkerd that this is true for.
    pub linkerd: String,
    /// Why nothing acts; then there is neither breaker nor bias nor rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inert: Option<Inert>,
    /// Which retries count.
    pub protocol: Protocol,
    /// The breaker, of the Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breaker: Option<From<Breaker>>,
    /// The load bias, of the Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_bias: Option<From<LoadBias>>,
    /// What requests get, rule by rule, in Linkerd's order.
    pub rules: Vec<Rule>,
    /// Whether a request that fits no rule is refused with 404. Without routes, one rule takes every request.
    pub others_refused: bool,
    /// What else should be known, one sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Why nothing acts at a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inert {
    /// One of the reasons of a `ResiliencePolicy`.
    pub reason: String,
    /// The same in words.
    pub message: String,
    /// What can be done about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// A block of values, each with its origin.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct From<T> {
    /// The values.
    #[serde(flatten)]
    pub values: T,
    /// Where each was read, by the name of its field.
    pub origins: BTreeMap<&'static str, Origin>,
}

/// What calls to the Service get, at this port, from clients in this namespace.
///
/// Refuses with `TargetServiceNotFound`.
pub fn explain(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    port: u16,
    client: &str,
) -> Result<Explanation, Refusal> {
    let service = cluster.service(namespace, name).ok_or_else(|| {
        Reason::TargetServiceNotFound.refuse(format!("there is no Service {name} in namespace {namespace}"))
    })?;
    let mut explanation = Explanation {
        service: format!("{namespace}/{name}"),
        port,
        from: client.into(),
        linkerd: cluster.mesh.version.to_string(),
        inert: None,
        protocol: Protocol::Http,
        breaker: None,
        load_bias: None,
        rules: Vec::new(),
        others_refused: false,
        notes: notes(cluster, service, port, client),
    };
    match acting(cluster, service, port, client) {
        Err(refusal) => {
            explanation.inert = Some(Inert {
                reason: refusal.reason.into(),
                message: refusal.message,
                hint: refusal.hint,
            });
        }
        Ok((served, breaker, bias)) => {
            explanation.protocol = served.protocol;
            explanation.breaker = breaker.map(|values| From {
                origins: origin::of_service(cluster, service, &origin::BREAKER)
                    .into_iter()
                    .filter(|(field, _)| values.success_rate.is_some() || !origin::UNIFIED.contains(field))
                    .collect(),
                values,
            });
            explanation.load_bias = bias.map(|values| From {
                values,
                origins: origin::of_service(cluster, service, &origin::LOAD_BIAS),
            });
            explanation.others_refused = !served.routes.is_empty();
            explanation.rules = rules::rules(cluster, service, &served);
        }
    }
    Ok(explanation)
}

type Acting<'a> = (Served<'a>, Option<Breaker>, Option<LoadBias>);

/// The routes and what the Service says of its endpoints, or why nothing acts.
fn acting<'a>(cluster: &'a Cluster, service: &Service, port: u16, client: &str) -> Result<Acting<'a>, Refusal> {
    target::addressable(service)?;
    let served = served::served(cluster, service, port, client)?;
    served::unshadowed(cluster, service, client)?;
    let (breaker, bias) = served::balancer(cluster, service)?;
    Ok((served, breaker, bias))
}

/// What is written and does not act.
fn notes(cluster: &Cluster, service: &Service, port: u16, client: &str) -> Vec<String> {
    let (stored, version) = (service.annotations(), &cluster.mesh.version);
    let bad = [
        Breaker::read(stored, version).err(),
        LoadBias::read(stored, version).err(),
        crate::effect::Retry::read(stored, Protocol::Http).err(),
        crate::effect::Retry::read(stored, Protocol::Grpc).err(),
        crate::effect::Timeouts::read(stored).err(),
    ];
    let mut notes: Vec<String> = bad.into_iter().flatten().map(|bad| dropped(&bad)).collect();
    // A limit and a time for one try are of both protocols.
    notes.dedup();
    if let Err(refusal) = target::original(service) {
        notes.push(refusal.message);
    }
    notes.extend(cluster.gateway.overlooked(&cluster.mesh));
    let (namespace, name) = (service.namespace().unwrap_or_default(), service.name_any());
    for route in cluster.routes_of(&namespace, &name) {
        if ![namespace.as_str(), client].contains(&route.namespace().as_str())
            || !route.attached(&namespace, &name, port)
        {
            continue;
        }
        let route_name: RouteName = route.full_name();
        if !cluster.sees(route) {
            notes.push(format!(
                "{route_name} is of a version that Linkerd {version} does not read"
            ));
        } else if !route.accepted(&namespace, &name, port) {
            notes.push(format!("{route_name} is not accepted, and has no effect"));
        } else if let Err(why) = route.convertible() {
            let before = match why {
                Unconvertible::Annotation(_) => "; what it said before may still be in force until Linkerd restarts",
                Unconvertible::Filter(_) => "",
            };
            notes.push(format!("{route_name} has no effect: {why}{before}"));
        } else if let Some(refusal) = served::displaced(cluster, service, port, client, route) {
            notes.push(format!("{route_name} has no effect: {}", refusal.message));
        }
    }
    notes
}

fn dropped(bad: &Bad) -> String {
    format!("annotation {bad}; Linkerd drops it and the others of its block")
}
