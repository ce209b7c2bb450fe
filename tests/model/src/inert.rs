//! When annotations of a Service do nothing at all at a port.

use std::{collections::BTreeSet, ops::RangeInclusive};

use k8s_openapi::api::core::v1::{Service, ServicePort};

use crate::Version;

/// Why nothing acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Inert {
    /// No cluster IP.
    Headless,
    /// A copy that is overwritten.
    MirroredService,
    /// A profile rules.
    ServiceProfileShadowed,
    /// The Service does not list the port.
    PortNotFound,
    /// The port is not TCP.
    NotTcp,
    /// The port is in the opaque list, or said to be opaque.
    Opaque,
    /// The appProtocol is unknown, so opaque.
    UnknownAppProtocol,
    /// There is no such Service.
    TargetServiceNotFound,
    /// The proxy rejects what the control plane sends, and fails every request.
    RejectedByProxy,
}

/// A `ServiceProfile`, as far as it decides anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name: the full DNS name of a service.
    pub name: &'a str,
    /// Number of routes.
    pub routes: usize,
    /// Number of destination overrides.
    pub overrides: usize,
}

pub(crate) fn of(service: &Service, profiles: &[Profile<'_>], version: Version, port: i32) -> Option<Inert> {
    let meta = &service.metadata;
    let spec = service.spec.clone().unwrap_or_default();
    let addressed = spec.cluster_ip.is_some_and(|ip| !ip.is_empty() && ip != "None");
    if spec.type_.is_some_and(|type_| type_ == "ExternalName") || !addressed {
        return Some(Inert::Headless);
    }
    let labelled = |key: &str| meta.labels.as_ref().and_then(|labels| labels.get(key));
    if labelled("mirror.linkerd.io/mirrored-service").is_some_and(|value| value == "true") {
        return Some(Inert::MirroredService);
    }
    let (namespace, name) = (
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    );
    let dns = format!("{name}.{namespace}.svc.cluster.local");
    let in_the_way = |profile: &Profile<'_>| profile.routes + profile.overrides > 0;
    if profiles
        .iter()
        .any(|profile| profile.namespace == namespace && profile.name == dns && in_the_way(profile))
    {
        return Some(Inert::ServiceProfileShadowed);
    }
    let list = meta
        .annotations
        .as_ref()
        .and_then(|annotations| annotations.get("config.linkerd.io/opaque-ports"));
    let same: Vec<ServicePort> = spec
        .ports
        .unwrap_or_default()
        .into_iter()
        .filter(|p| p.port == port)
        .collect();
    let reasons: Vec<Option<Inert>> = same.iter().map(|p| at(p, list.map(String::as_str), version)).collect();
    if reasons.contains(&None) {
        return None;
    }
    reasons.into_iter().next().unwrap_or(Some(Inert::PortNotFound))
}

pub(crate) fn at(port: &ServicePort, list: Option<&str>, version: Version) -> Option<Inert> {
    if !matches!(port.protocol.as_deref(), None | Some("TCP")) {
        return Some(Inert::NotTcp);
    }
    match port
        .app_protocol
        .as_ref()
        .map(|protocol| protocol.to_lowercase())
        .filter(|_| version >= (2, 18))
    {
        Some(protocol) if protocol == "http" || protocol == "kubernetes.io/h2c" => None,
        Some(protocol) if protocol == "linkerd.io/opaque" || protocol == "linkerd.io/tcp" => Some(Inert::Opaque),
        Some(_) => Some(Inert::UnknownAppProtocol),
        None => opaque(list.unwrap_or("25,587,3306,4444,5432,6379,9300,11211"), port.port).then_some(Inert::Opaque),
    }
}

/// A list with anything wrong in it is empty.
fn opaque(list: &str, port: i32) -> bool {
    let mut found = BTreeSet::new();
    for item in list.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let ends: Vec<Option<u16>> = item.splitn(2, '-').map(|end| end.trim().parse().ok()).collect();
        let range: RangeInclusive<u16> = match ends.as_slice() {
            [Some(one)] => *one..=*one,
            [Some(low), Some(high)] => *low..=*high,
            _ => return false,
        };
        if range.is_empty() || range.contains(&0) {
            return false;
        }
        found.insert((*range.start(), *range.end()));
    }
    found
        .iter()
        .any(|(low, high)| (i32::from(*low)..=i32::from(*high)).contains(&port))
}
