//! `Route`: routes of both kinds, seen alike; and the rules by which Linkerd attaches and drops them.
//!
//! ```text
//!  HttpRoute │ GrpcRoute ─▶ parent? ─▶ accepted? ─▶ convertible? ─▶ served
//! ```
//!
//! Follows linkerd2, `policy-controller/k8s/index/src/outbound/index.rs` and `…/status/src/{index,service}.rs`.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource as _, ResourceExt as _};
use serde::{Serialize, Serializer};
use trellis_bindings::{
    gateway::{BackendRef, GROUP, GrpcRoute, GrpcRouteRule, HttpRoute, HttpRouteRule, ParentRef, RouteParentStatus},
    linkerd::policy::LinkerdHttpRoute,
};

use crate::{
    PolicyName,
    annotations::Place,
    effect::{Bad, Protocol, Retry, Stored, Timeouts},
    owner,
};

mod acceptance;
mod build;
mod expression;
mod request;

pub use acceptance::{Acceptance, CONTROLLER, accepted};
pub use build::{Built, Scope, build, is_asked, is_on_own, kind_of, name_of};
pub(crate) use request::Request;

/// Label of the routes that are made for a policy: the policy's name, shortened to 63 characters if it is longer.
pub const OWNER: &str = "resilience.trellis.dev/policy";

/// A route of any kind.
#[derive(Debug, Clone, Copy)]
pub enum Route<'a> {
    /// For HTTP.
    Http(&'a HttpRoute),
    /// For gRPC.
    Grpc(&'a GrpcRoute),
    /// Linkerd's own, for HTTP: only ever somebody else's.
    Linkerd(&'a LinkerdHttpRoute),
}

/// The name of a route, as `HTTPRoute namespace/name`, or `HTTPRoute.policy.linkerd.io namespace/name` for one of
/// Linkerd's own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteName {
    /// Kind.
    pub place: Place,
    /// Whether it is of Linkerd's own kind.
    pub linkerds: bool,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl fmt::Display for RouteName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let group = if self.linkerds { ".policy.linkerd.io" } else { "" };
        write!(out, "{}{group} {}/{}", self.place, self.namespace, self.name)
    }
}

impl Serialize for RouteName {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'a> Route<'a> {
    /// Its kind.
    #[must_use]
    pub fn place(self) -> Place {
        match self {
            Self::Http(_) | Self::Linkerd(_) => Place::HttpRoute,
            Self::Grpc(_) => Place::GrpcRoute,
        }
    }

    /// Its metadata.
    #[must_use]
    pub fn meta(self) -> &'a ObjectMeta {
        match self {
            Self::Http(route) => route.meta(),
            Self::Grpc(route) => route.meta(),
            Self::Linkerd(route) => route.meta(),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> String {
        self.meta().name.clone().unwrap_or_default()
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(self) -> String {
        self.meta().namespace.clone().unwrap_or_default()
    }

    /// Kind, namespace and name.
    #[must_use]
    pub fn full_name(self) -> RouteName {
        RouteName {
            place: self.place(),
            linkerds: matches!(self, Self::Linkerd(_)),
            namespace: self.namespace(),
            name: self.name(),
        }
    }

    /// Its labels.
    #[must_use]
    pub fn labels(self) -> &'a BTreeMap<String, String> {
        match self {
            Self::Http(route) => route.labels(),
            Self::Grpc(route) => route.labels(),
            Self::Linkerd(route) => route.labels(),
        }
    }

    /// Its annotations.
    #[must_use]
    pub fn annotations(self) -> &'a Stored {
        match self {
            Self::Http(route) => route.annotations(),
            Self::Grpc(route) => route.annotations(),
            Self::Linkerd(route) => route.annotations(),
        }
    }

    /// The policy that it was made for.
    #[must_use]
    pub fn owner(self) -> Option<PolicyName> {
        owner::made_for(self.meta())
    }

    /// What it is attached to.
    #[must_use]
    pub fn parents(self) -> &'a [ParentRef] {
        match self {
            Self::Http(route) => &route.spec.parent_refs,
            Self::Grpc(route) => &route.spec.parent_refs,
            Self::Linkerd(route) => &route.spec.parent_refs,
        }
    }

    /// What controllers say of it.
    #[must_use]
    pub fn verdicts(self) -> &'a [RouteParentStatus] {
        let parents = match self {
            Self::Http(route) => route.status.as_ref().map(|status| &status.parents),
            Self::Grpc(route) => route.status.as_ref().map(|status| &status.parents),
            Self::Linkerd(route) => route.status.as_ref().map(|status| &status.parents),
        };
        parents.map_or(&[], Vec::as_slice)
    }

    /// The number of its rules.
    #[must_use]
    pub fn rules(self) -> usize {
        match self {
            Self::Http(_) | Self::Linkerd(_) => self.http_rules().len(),
            Self::Grpc(route) => route.spec.rules.len(),
        }
    }

    /// Its rules, if it is for HTTP.
    #[must_use]
    pub fn http_rules(self) -> &'a [HttpRouteRule] {
        match self {
            Self::Http(route) => &route.spec.rules,
            Self::Linkerd(route) => &route.spec.rules,
            Self::Grpc(_) => &[],
        }
    }

    /// Its rules, if it is for gRPC.
    #[must_use]
    pub fn grpc_rules(self) -> &'a [GrpcRouteRule] {
        match self {
            Self::Grpc(route) => &route.spec.rules,
            Self::Http(_) | Self::Linkerd(_) => &[],
        }
    }

    /// The group that the API server writes into a parent without one.
    #[must_use]
    pub fn default_group(self) -> &'static str {
        match self {
            Self::Http(_) | Self::Grpc(_) => GROUP,
            Self::Linkerd(_) => "policy.linkerd.io",
        }
    }

    /// Whether some rule sends requests elsewhere than to this Service at this port, or changes them.
    pub(crate) fn redirects(self, namespace: &str, name: &str, port: u16) -> bool {
        let own = self.namespace();
        let here = |backend: &BackendRef| {
            backend.kind.as_deref().unwrap_or("Service") == "Service"
                && ["", "core"].contains(&backend.group.as_deref().unwrap_or_default())
                && backend.namespace.as_deref().unwrap_or(&own) == namespace
                && backend.name == name
                && backend.port == Some(port)
        };
        self.filters().next().is_some() || !self.backends().all(here)
    }

    fn backends(self) -> impl Iterator<Item = &'a BackendRef> {
        let http = self.http_rules().iter().flat_map(|rule| &rule.backend_refs);
        http.chain(self.grpc_rules().iter().flat_map(|rule| &rule.backend_refs))
    }

    /// The types of the filters of all its rules and backends, as far as they are read.
    pub fn filters(self) -> impl Iterator<Item = &'a str> {
        let http = self.http_rules().iter().flat_map(|rule| &rule.filters);
        let grpc = self.grpc_rules().iter().flat_map(|rule| &rule.filters);
        http.chain(grpc).map(|filter| filter.type_.as_str())
    }

    /// Whether this reference means that object, as Linkerd reads it: group and kind as stored, `core` for `""`.
    #[must_use]
    pub fn is_parent(self, parent: &ParentRef, kind: &str, namespace: &str, name: &str) -> bool {
        means(parent, &self.namespace(), kind, namespace, name)
    }

    /// Whether it names the Service as a parent at this port, or at all ports.
    #[must_use]
    pub fn attached(self, namespace: &str, service: &str, port: u16) -> bool {
        self.parents().iter().any(|parent| {
            self.is_parent(parent, "Service", namespace, service) && parent.port.is_none_or(|named| named == port)
        })
    }

    /// Whether Linkerd has accepted it for the Service at this port. Other controllers' verdicts do not count.
    #[must_use]
    pub fn accepted(self, namespace: &str, service: &str, port: u16) -> bool {
        self.verdicts().iter().any(|verdict| {
            verdict.controller_name == CONTROLLER
                && self.is_parent(&verdict.parent_ref, "Service", namespace, service)
                && verdict.parent_ref.port.is_none_or(|named| named == port)
                && verdict
                    .conditions
                    .iter()
                    .any(|condition| condition.type_ == "Accepted" && condition.status == "True")
        })
    }

    /// Why Linkerd cannot convert the route, and drops it, though its status may say Accepted.
    pub fn convertible(self) -> Result<(), Unconvertible> {
        const DROPPED: [&str; 3] = ["RequestMirror", "URLRewrite", "ExtensionRef"];
        if let Some(filter) = self.filters().find(|filter| DROPPED.contains(filter)) {
            return Err(Unconvertible::Filter(filter.into()));
        }
        let protocol = match self {
            Self::Http(_) | Self::Linkerd(_) => Protocol::Http,
            Self::Grpc(_) => Protocol::Grpc,
        };
        Retry::read(self.annotations(), protocol).map_err(Unconvertible::Annotation)?;
        Timeouts::read(self.annotations()).map_err(Unconvertible::Annotation)?;
        Ok(())
    }
}

/// Why Linkerd drops a route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Unconvertible {
    /// A filter of this type.
    Filter(String),
    /// An annotation that it does not take.
    Annotation(Bad),
}

impl fmt::Display for Unconvertible {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Filter(filter) => write!(out, "Linkerd drops routes with a filter {filter}"),
            Self::Annotation(bad) => {
                write!(
                    out,
                    "Linkerd drops the route, since annotation {}: {:?} must {}",
                    bad.key, bad.value, bad.must
                )
            }
        }
    }
}

/// Whether a reference, read from `from`, means that object.
pub(crate) fn means(parent: &ParentRef, from: &str, kind: &str, namespace: &str, name: &str) -> bool {
    let groups: &[&str] = match kind {
        "Service" => &["", "core"],
        "EgressNetwork" => &["policy.linkerd.io"],
        _ => &[GROUP],
    };
    let group = parent.group.as_deref();
    let grouped = group.map_or(kind == "Service", |group| groups.contains(&group));
    grouped
        && parent.kind.as_deref() == Some(kind)
        && parent.name == name
        && parent.namespace.as_deref().unwrap_or(from) == namespace
}
