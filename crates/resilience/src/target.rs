//! Whether a policy on this Service would do anything: Linkerd itself never says.
//!
//! ```text
//!  Service: cluster IP? original? ─▶ profile in the way? ─▶ per port: TCP? opaque? known appProtocol? ─▶ Effective
//! ```
//!
//! Invariant: `Ok` names at least one port on which the policy acts.

use std::fmt;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use kube::ResourceExt as _;
use trellis_bindings::linkerd::ServiceProfile;
use trellis_core::Refusal;

use crate::{Mesh, Ports, Reason};

/// Annotation of a Service that replaces Linkerd's list of opaque ports.
pub const OPAQUE_PORTS: &str = "config.linkerd.io/opaque-ports";

/// Labels and annotations of Services that Linkerd's service mirror writes, and overwrites.
const MIRRORED: [(&str, Option<&str>); 3] = [
    ("mirror.linkerd.io/mirrored-service", Some("true")),
    ("multicluster.linkerd.io/remote-discovery", None),
    ("multicluster.linkerd.io/local-discovery", None),
];

/// On which ports of the Service a policy acts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effective {
    /// Ports on which the policy acts, ascending; at least one.
    pub ports: Vec<i32>,
    /// The other ports of the Service, in its order.
    pub inert: Vec<Inert>,
    /// What the user should know besides, one sentence each.
    pub notes: Vec<String>,
}

/// What Linkerd takes a port to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spoken {
    /// It looks at each connection.
    Detected,
    /// HTTP/1, because the port says so; routes for gRPC do not count then.
    Http1,
    /// HTTP/2, because the port says so.
    Http2,
}

/// A port on which a policy has no effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inert {
    /// The port.
    pub port: i32,
    /// Why.
    pub reason: Reason,
    /// Why, in words that follow 'port N'.
    pub message: String,
}

impl fmt::Display for Inert {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "port {} {}", self.port, self.message)
    }
}

/// Whether a policy would act on the Service, and on which ports; `port` is the one that it names.
///
/// `profiles` may be those of the whole cluster: only ones named like the Service count; one in the Service's namespace
/// shadows the policy, one elsewhere shadows it for the clients there, which is noted.
///
/// Refuses with `Headless`, `MirroredService`, `ServiceProfileShadowed`, `PortNotFound`; and, when no port that counts
/// is left, with the first port's `NotTcp`, `Opaque` or `UnknownAppProtocol`.
pub fn check(
    service: &Service,
    port: Option<u16>,
    profiles: &[&ServiceProfile],
    mesh: &Mesh,
) -> Result<Effective, Refusal> {
    original(service)?;
    reachable(service, port, profiles, mesh)
}

/// The same for a route that is attached to the Service, which a copy from another cluster can have too: routes are not
/// overwritten.
///
/// Refuses as [`check`], without `MirroredService`.
pub fn reachable(
    service: &Service,
    port: Option<u16>,
    profiles: &[&ServiceProfile],
    mesh: &Mesh,
) -> Result<Effective, Refusal> {
    addressable(service)?;
    let notes = unshadowed(service, profiles, mesh)?;
    let name = service.name_any();

    let spec = service.spec.clone().unwrap_or_default();
    let ports = spec.ports.unwrap_or_default();
    let opaque = opaque(service, mesh);

    let mut effective = Effective {
        notes,
        ..Effective::default()
    };
    for port in &ports {
        match protocol(port, &opaque, mesh) {
            Ok(_) => effective.ports.push(port.port),
            Err((reason, message)) => effective.inert.push(Inert {
                port: port.port,
                reason,
                message,
            }),
        }
    }
    effective.ports.sort_unstable();

    let wanted = port.map(i32::from);
    let counts = |port: &i32| wanted.is_none_or(|wanted| wanted == *port);
    if effective.ports.iter().any(counts) {
        return Ok(effective);
    }
    let refusal = match (effective.inert.iter().find(|inert| counts(&inert.port)), wanted) {
        (Some(inert), _) => inert.reason.refuse(inert.to_string()).hint(hint(inert.reason)),
        (None, Some(wanted)) => {
            let listed: Vec<String> = ports.iter().map(|port| port.port.to_string()).collect();
            Reason::PortNotFound
                .refuse(format!("Service {name} does not list port {wanted}"))
                .hint(format!("it lists {}", listed.join(", ")))
        }
        (None, None) => Reason::PortNotFound.refuse(format!("Service {name} lists no port")),
    };
    Err(refusal.field(if wanted.is_some() {
        "spec.targetRef.port"
    } else {
        "spec.targetRef"
    }))
}

/// The ports that Linkerd treats as opaque on this Service. A list that is not one counts as empty.
pub(crate) fn opaque(service: &Service, mesh: &Mesh) -> Ports {
    let list = service.annotations().get(OPAQUE_PORTS);
    list.map_or_else(|| mesh.opaque_ports.clone(), |list| list.parse().unwrap_or_default())
}

/// Whether the Service has an address that Linkerd knows.
pub(crate) fn addressable(service: &Service) -> Result<(), Refusal> {
    let spec = service.spec.as_ref();
    let message = if spec.and_then(|spec| spec.type_.as_deref()) == Some("ExternalName") {
        "an ExternalName Service has no cluster IP, so Linkerd never acts on it"
    } else if spec
        .and_then(|spec| spec.cluster_ip.as_deref())
        .is_none_or(|ip| ip.is_empty() || ip == "None")
    {
        "a headless Service has no cluster IP, and its clients bypass what Linkerd knows of it"
    } else {
        return Ok(());
    };
    Err(Reason::Headless
        .refuse(message)
        .field("spec.targetRef.name")
        .hint("put the policy on a Service with a cluster IP"))
}

/// Whether the Service is no copy, which would be overwritten.
pub(crate) fn original(service: &Service) -> Result<(), Refusal> {
    let marked = MIRRORED.iter().find(|(key, value)| {
        [service.labels(), service.annotations()]
            .into_iter()
            .filter_map(|map| map.get(*key))
            .any(|found| value.is_none_or(|value| value == found))
    });
    let Some((key, _)) = marked else { return Ok(()) };
    Err(Reason::MirroredService
        .refuse(format!(
            "the Service is a copy from another cluster ({key}); what is written to it is overwritten"
        ))
        .field("spec.targetRef.name")
        .hint("put the policy on the original Service; its annotations are copied here"))
}

fn unshadowed(service: &Service, profiles: &[&ServiceProfile], mesh: &Mesh) -> Result<Vec<String>, Refusal> {
    let own = service.namespace().unwrap_or_default();
    let name = format!("{}.{own}.svc.{}", service.name_any(), mesh.cluster_domain);
    let mut notes = Vec::new();
    for profile in profiles.iter().filter(|profile| profile.name_any() == name) {
        let namespace = profile.namespace().unwrap_or_default();
        match (profile.spec.shadows(), namespace == own) {
            (true, true) => {
                return Err(Reason::ServiceProfileShadowed
                    .refuse(format!("ServiceProfile {name} makes Linkerd ignore the Service's annotations"))
                    .field("spec.targetRef.name")
                    .hint("delete the ServiceProfile, or move what it says into policies and routes"));
            }
            (true, false) => {
                notes.push(format!("clients in namespace {namespace} follow their own ServiceProfile {name} instead"));
            }
            (false, _) => notes.push(format!(
                "ServiceProfile {name} in namespace {namespace} will shadow the policy once it has routes or dstOverrides"
            )),
        }
    }
    notes.sort();
    Ok(notes)
}

/// Whether Linkerd sees requests on the port. A known appProtocol beats the opaque list; before 2.18 it is not read. Of an
/// edge version that may read it or not, only what is true either way is said.
pub(crate) fn protocol(port: &ServicePort, opaque: &Ports, mesh: &Mesh) -> Result<Spoken, (Reason, String)> {
    if let Some(protocol) = port.protocol.as_deref().filter(|protocol| *protocol != "TCP") {
        return Err((Reason::NotTcp, format!("is {protocol}, and Linkerd carries only TCP")));
    }
    let version = &mesh.version;
    let named = port.app_protocol.as_deref().filter(|_| version.may_be(2, 18));
    let spoken = named.map_or(Ok(Spoken::Detected), declared)?;
    let listed = u16::try_from(port.port).is_ok_and(|port| opaque.contains(port));
    if listed && (named.is_none() || !version.at_least(2, 18)) {
        return Err((Reason::Opaque, "is in Linkerd's list of opaque ports".into()));
    }
    Ok(spoken)
}

/// What a port with this appProtocol speaks.
fn declared(named: &str) -> Result<Spoken, (Reason, String)> {
    match named.to_ascii_lowercase().as_str() {
        "http" => Ok(Spoken::Http1),
        "kubernetes.io/h2c" => Ok(Spoken::Http2),
        "linkerd.io/tcp" | "linkerd.io/opaque" => Err((
            Reason::Opaque,
            format!("is opaque to Linkerd, since its appProtocol is {named}"),
        )),
        _ => Err((
            Reason::UnknownAppProtocol,
            format!("has appProtocol {named}, which Linkerd treats as opaque"),
        )),
    }
}

/// What can be done about such a port.
pub(crate) fn hint(reason: Reason) -> &'static str {
    match reason {
        Reason::NotTcp => "name a TCP port",
        Reason::UnknownAppProtocol => "use appProtocol http or kubernetes.io/h2c, or none",
        _ => {
            "if the port speaks HTTP, set its appProtocol to http or kubernetes.io/h2c (Linkerd 2.18 and newer) or \
              set config.linkerd.io/opaque-ports on the Service"
        }
    }
}
