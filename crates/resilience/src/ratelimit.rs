//! Rate limits: an object of Linkerd's own, for a Server, enforced by each pod of the Service for itself.
//!
//! ```text
//!  rateLimit.serverRef    ─▶ HTTPLocalRateLimitPolicy ─▶ that Server
//!  rateLimit.createServer ─▶ HTTPLocalRateLimitPolicy ─▶ Server of our own: the Service's pods, the port behind its port
//! ```
//!
//! Invariant: a Server is made only where the policy says who may call; Linkerd's default would deny everybody.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Service, ServicePort},
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};
use kube::ResourceExt as _;
use serde::Serialize;
use trellis_api::{RateLimit, ResiliencePolicy, Section};
use trellis_bindings::linkerd::policy::{
    HttpLocalRateLimitPolicy, HttpLocalRateLimitPolicySpec, PolicyTargetRef, Rate, Server, ServerSpec,
};
use trellis_core::Refusal;

use crate::{Cluster, PolicyName, Reason, owner, route::OWNER, served, shortened, target};

/// What is made for a rate limit.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Limit {
    /// The Server, if the policy asks for one; it comes first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<Server>,
    /// The rate limit.
    pub policy: HttpLocalRateLimitPolicy,
    /// What the user should know besides, one sentence each.
    #[serde(skip)]
    pub notes: Vec<String>,
}

/// What the policy's rate limit needs; none if it is absent or disabled.
///
/// Refuses with `FeatureNotInVersion` before 2.17, with `ServerNotFound`, with `Opaque` a Server whose port Linkerd does
/// not read, as [`target::check`] a port for which a Server would be made, with `ServerConflicted` if that port has one,
/// with `PortNotFound`, with `ServerMismatch` a Server for other pods or another port, and with `Invalid` what the API server should have refused.
pub fn limit(policy: &ResiliencePolicy, service: &Service, cluster: &Cluster) -> Result<Option<Limit>, Refusal> {
    let Some(asked) = policy
        .spec
        .rate_limit
        .as_ref()
        .filter(|_| policy.spec.enables(Section::RateLimit))
    else {
        return Ok(None);
    };
    let version = &cluster.mesh.version;
    if !version.at_least(2, 17) {
        return Err(Reason::FeatureNotInVersion
            .refuse(format!("rateLimit needs Linkerd 2.17; this is {version}"))
            .field("spec.rateLimit")
            .hint("upgrade Linkerd, or leave it out"));
    }
    if asked.burst_size.is_some() {
        return Err(invalid("Linkerd's rate limit has no bursts; remove burstSize"));
    }
    let namespace = policy.namespace().unwrap_or_default();
    let mut notes = vec!["each pod of the Service counts for itself".to_owned()];
    let (server, name) = match (&asked.server_ref, &asked.create_server) {
        (Some(named), None) => {
            let server = cluster.server(&namespace, &named.name).ok_or_else(|| {
                Reason::ServerNotFound
                    .refuse(format!("there is no Server {} in namespace {namespace}", named.name))
                    .field("spec.rateLimit.serverRef.name")
            })?;
            notes.extend(fits(server, service)?);
            (None, named.name.clone())
        }
        (None, Some(create)) => {
            let server = made(policy, service, create.access_policy.as_str(), cluster)?;
            notes.extend(unrivalled(&server, policy, cluster)?);
            let name = server.name_any();
            (Some(server), name)
        }
        _ => return Err(invalid("a rate limit needs exactly one of serverRef and createServer")),
    };
    let mut limit = HttpLocalRateLimitPolicy::new(&shortened(&policy.name_any()), rates(asked, name)?);
    limit.metadata = metadata(policy);
    Ok(Some(Limit {
        server,
        policy: limit,
        notes,
    }))
}

/// What Linkerd says of the rate limit, as it stands in the cluster.
///
/// Refuses with `RateLimitPending` or `RateLimitNotAccepted`. What Linkerd said while the limit was for another Server
/// does not count.
pub fn accepted(limit: &Limit, cluster: &Cluster) -> Result<(), Refusal> {
    let living = cluster
        .rate_limits
        .iter()
        .find(|living| living.namespace() == limit.policy.namespace() && living.name_any() == limit.policy.name_any());
    let server = &limit.policy.spec.target_ref.name;
    let condition = living
        .and_then(|living| living.status.as_ref())
        .filter(|status| status.target_ref.as_ref().is_some_and(|about| about.name == *server))
        .and_then(|status| status.accepted());
    match condition.map(|condition| {
        (
            condition.status.as_str(),
            condition.reason.as_deref().unwrap_or_default(),
        )
    }) {
        Some(("True", _)) => Ok(()),
        Some((_, "RateLimitReasonAlreadyExists")) => Err(Reason::RateLimitNotAccepted
            .refuse(format!("Server {server} has an older rate limit, which wins"))
            .hint("remove the other HTTPLocalRateLimitPolicy")),
        Some(("False", reason)) => {
            Err(Reason::RateLimitNotAccepted.refuse(format!("Linkerd says of the rate limit: {reason}")))
        }
        _ => Err(Reason::RateLimitPending.refuse("Linkerd has not said yet whether it takes the rate limit")),
    }
}

fn rates(asked: &RateLimit, server: String) -> Result<HttpLocalRateLimitPolicySpec, Refusal> {
    let rate = |rate: Option<u32>| match rate {
        Some(0) => Err(invalid("a rate must be above 0")),
        rate => Ok(rate.map(|rate| Rate {
            requests_per_second: rate.into(),
        })),
    };
    let (total, identity) = (
        rate(asked.requests_per_second)?,
        rate(asked.per_client_requests_per_second)?,
    );
    match (total, identity) {
        (None, None) => {
            return Err(invalid(
                "a rate limit needs requestsPerSecond, perClientRequestsPerSecond or both",
            ));
        }
        (Some(total), Some(each)) if each.requests_per_second > total.requests_per_second => {
            return Err(invalid("perClientRequestsPerSecond must not exceed requestsPerSecond"));
        }
        _ => {}
    }
    Ok(HttpLocalRateLimitPolicySpec {
        target_ref: PolicyTargetRef {
            group: "policy.linkerd.io".into(),
            kind: "Server".into(),
            name: server,
        },
        total,
        identity,
        overrides: None,
    })
}

/// Whether a rate limit of this Server would concern the Service: what speaks against it, as far as can be seen.
fn fits(server: &Server, service: &Service) -> Result<Vec<String>, Refusal> {
    let name = server.name_any();
    if let Some(protocol) = server
        .spec
        .proxy_protocol
        .as_deref()
        .filter(|it| ["opaque", "TLS"].contains(it))
    {
        return Err(Reason::Opaque
            .refuse(format!(
                "Server {name} says that its port speaks {protocol}, and rates are of HTTP requests"
            ))
            .field("spec.rateLimit.serverRef.name"));
    }
    let mismatch = |message: String| {
        Reason::ServerMismatch
            .refuse(message)
            .field("spec.rateLimit.serverRef.name")
            .hint("name the Server of the Service's pods and port, or let one be made with createServer")
    };
    let mut notes = Vec::new();
    let pods = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    match selects(server, pods) {
        Some(true) => {}
        // Of workloads outside the cluster no labels are known here.
        Some(false) if server.spec.pod_selector.is_some() => {
            return Err(mismatch(format!(
                "Server {name} is for other pods than those of the Service"
            )));
        }
        _ => notes.push(format!("Server {name} may be for other pods than those of the Service")),
    }
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let behind: Vec<IntOrString> = ports.map(behind).collect();
    let number = |port: &IntOrString| matches!(port, IntOrString::Int(_));
    if !server.spec.port.iter().any(|port| behind.contains(port)) {
        // A name may be that of any number.
        if server.spec.port.as_ref().is_some_and(number) && !behind.is_empty() && behind.iter().all(number) {
            return Err(mismatch(format!(
                "no port of the Service leads to the port of Server {name}"
            )));
        }
        notes.push(format!(
            "no port of the Service leads to the port of Server {name} by its name or number"
        ));
    }
    Ok(notes)
}

/// Whether a Server is for all pods with these labels, or for none of them; nothing where other labels decide.
fn selects(server: &Server, pods: Option<&BTreeMap<String, String>>) -> Option<bool> {
    let Some(selector) = &server.spec.pod_selector else {
        return Some(false);
    };
    let of = |key: &str| pods.and_then(|pods| pods.get(key));
    let labels = selector.match_labels.iter().flatten();
    let labels = labels.map(|(key, value)| of(key).map(|label| label == value));
    let expressions = selector.match_expressions.iter().flatten().map(|wanted| {
        let within = |label: &String| wanted.values.iter().flatten().any(|value| value == label);
        of(&wanted.key).and_then(|label| match wanted.operator.as_str() {
            "In" => Some(within(label)),
            "NotIn" => Some(!within(label)),
            "Exists" => Some(true),
            "DoesNotExist" => Some(false),
            _ => None,
        })
    });
    let parts: Vec<Option<bool>> = labels.chain(expressions).collect();
    if parts.contains(&Some(false)) {
        Some(false)
    } else {
        (!parts.contains(&None)).then_some(true)
    }
}

/// Whether the Server would be the only one for its port: of two Linkerd takes one. What may be a second one is noted.
fn unrivalled(made: &Server, policy: &ResiliencePolicy, cluster: &Cluster) -> Result<Option<String>, Refusal> {
    let pods = made.spec.pod_selector.as_ref();
    let pods = pods.and_then(|selector| selector.match_labels.as_ref());
    let mut unsure = Vec::new();
    let own = PolicyName::of(policy);
    let others = cluster.servers.iter().filter(|other| {
        other.namespace() == policy.namespace() && owner::made_for(&other.metadata).as_ref() != Some(&own)
    });
    for other in others {
        let name = other.name_any();
        // A name and a number may be those of one port.
        let port = match (&other.spec.port, &made.spec.port) {
            (Some(IntOrString::Int(theirs)), Some(IntOrString::Int(ours))) => Some(theirs == ours),
            (Some(IntOrString::String(theirs)), Some(IntOrString::String(ours))) => Some(theirs == ours),
            _ => None,
        };
        match (selects(other, pods), port) {
            (Some(false), _) | (_, Some(false)) => {}
            (Some(true), Some(true)) => {
                return Err(Reason::ServerConflicted
                    .refuse(format!(
                        "Server {name} is for this port of these pods, and Linkerd takes one for each"
                    ))
                    .field("spec.rateLimit.createServer")
                    .hint(format!("name {name} in serverRef, or delete it")));
            }
            _ => unsure.push(name),
        }
    }
    Ok(unsure.iter().min().map(|name| {
        let more = match unsure.len() - 1 {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        format!("Server {name}{more} may be for this port of these pods, too, and Linkerd takes one for each")
    }))
}

fn made(policy: &ResiliencePolicy, service: &Service, access: &str, cluster: &Cluster) -> Result<Server, Refusal> {
    let wanted = policy.spec.target_ref.as_ref().and_then(|target| target.port);
    let Some(wanted) = wanted else {
        return Err(invalid("createServer needs targetRef.port"));
    };
    // Rates are of HTTP requests, which Linkerd sees only where it looks into the bytes.
    served::spoken(cluster, service, wanted).map_err(|refusal| refusal.field("spec.targetRef.port"))?;
    let opaque = target::opaque(service, &cluster.mesh);
    let read = |port: &&ServicePort| target::protocol(port, &opaque, &cluster.mesh).is_ok();
    let spec = service.spec.as_ref();
    let mut ports = spec.and_then(|spec| spec.ports.as_ref()).into_iter().flatten();
    let port = ports
        .find(|port| port.port == i32::from(wanted) && read(port))
        .ok_or_else(|| {
            Reason::PortNotFound
                .refuse(format!("Service {} does not list port {wanted}", service.name_any()))
                .field("spec.targetRef.port")
        })?;
    let Some(pods) = spec
        .and_then(|spec| spec.selector.clone())
        .filter(|pods| !pods.is_empty())
    else {
        return Err(Reason::Invalid
            .refuse(format!(
                "Service {} selects no pods, for which a Server could be made",
                service.name_any()
            ))
            .field("spec.rateLimit.createServer")
            .hint("make a Server, and name it in serverRef"));
    };
    let mut server = Server::new(
        &shortened(&policy.name_any()),
        ServerSpec {
            pod_selector: Some(LabelSelector {
                match_labels: Some(pods),
                ..LabelSelector::default()
            }),
            port: Some(behind(port)),
            access_policy: Some(access.into()),
            ..ServerSpec::default()
        },
    );
    server.metadata = metadata(policy);
    Ok(server)
}

/// The port of the pods behind a port of a Service.
fn behind(port: &ServicePort) -> IntOrString {
    port.target_port.clone().unwrap_or(IntOrString::Int(port.port))
}

fn metadata(policy: &ResiliencePolicy) -> ObjectMeta {
    let name = shortened(&policy.name_any());
    ObjectMeta {
        name: Some(name.clone()),
        namespace: policy.namespace(),
        labels: Some([(OWNER.to_owned(), name)].into()),
        ..ObjectMeta::default()
    }
}

fn invalid(message: &str) -> Refusal {
    Reason::Invalid.refuse(message).field("spec.rateLimit")
}
