//! What is written in a cluster and does not do what its author meant.
//!
//! ```text
//!  annotations: not taken, not known, not here, dead   routes: not attached, not accepted, dropped, fields ignored
//!  policies: without effect, overridden                retries: multiplied, of POST, that do not fit into a timeout
//! ```

use std::{collections::BTreeSet, fmt};

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt as _;
use serde::Serialize;

use crate::{
    Cluster,
    route::Route,
    shown::{FIELD, cut},
};

mod annotations;
mod policies;
mod retries;
mod routes;

/// How bad it is, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// Something has no effect, or breaks calls.
    Error,
    /// Something does more or less than it seems to.
    Warning,
    /// Something to know.
    Hint,
}

/// What is wrong.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    strum::Display,
    strum::EnumIter,
    strum::EnumMessage,
    Serialize,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
#[non_exhaustive]
pub enum Rule {
    /// Linkerd does not take a value, and drops all of its block.
    InvalidAnnotation,
    /// The key is one of an earlier tool, which no Linkerd has ever read.
    LegacyAnnotation,
    /// The key looks like one of Linkerd's, and is none.
    UnknownAnnotation,
    /// Linkerd does not read the key from this kind of object.
    MisplacedAnnotation,
    /// The key needs a newer Linkerd.
    NotInVersion,
    /// The key does nothing without another one.
    DeadAnnotation,
    /// A timeout of zero ends every request at once.
    ZeroTimeout,
    /// The proxies refuse what the annotations add up to, and fail every request.
    RejectedByProxy,
    /// The Service is one on which Linkerd does not act.
    InertService,
    /// A ServiceProfile makes Linkerd ignore the annotations.
    ServiceProfile,
    /// A parent is not what its author meant, since the API server fills in an absent group.
    InertParent,
    /// Linkerd has not accepted the route.
    RouteNotAccepted,
    /// Linkerd drops the route, though it may say Accepted.
    RouteDropped,
    /// No request takes a rule of a route: an older route is for the same.
    UnreachedRule,
    /// Linkerd ignores a field of a route.
    IgnoredField,
    /// A policy has no effect on a target, or no target.
    InertPolicy,
    /// Another policy decides.
    OverriddenPolicy,
    /// A failing call is multiplied.
    RetryAmplification,
    /// Requests are retried that may not be repeatable.
    PostRetries,
    /// Tries do not fit into the whole.
    RetryTimeout,
    /// A part of the cluster could not be read.
    NotLookedAt,
}

/// One thing to look at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong.
    pub rule: Rule,
    /// Where, as `Kind namespace/name`.
    pub object: String,
    /// What exactly.
    pub message: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Finding {
    fn new(severity: Severity, rule: Rule, object: &str, message: impl Into<String>) -> Self {
        Self {
            severity,
            rule,
            object: object.into(),
            message: cut(&message.into(), FIELD),
            hint: None,
        }
    }

    fn hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {} [{}]", self.object, self.message, self.rule)?;
        if let Some(hint) = &self.hint {
            write!(out, "; hint: {hint}")?;
        }
        Ok(())
    }
}

/// Everything that is found in the cluster, worst first, then by rule and object.
#[must_use]
pub fn lint(cluster: &Cluster) -> Vec<Finding> {
    let mut findings = Vec::new();
    annotations::lint(cluster, &mut findings);
    routes::lint(cluster, &mut findings);
    policies::lint(cluster, &mut findings);
    retries::lint(cluster, &mut findings);
    findings.sort();
    findings.dedup();
    findings
}

/// The ports of a Service, each with the namespaces of the clients that may get something else there: its own, and those
/// with routes of their own. Clients elsewhere get what those of the Service's namespace do.
fn clients<'a>(cluster: &'a Cluster, service: &'a Service) -> impl Iterator<Item = (u16, BTreeSet<String>)> + use<'a> {
    let (namespace, name) = (service.namespace().unwrap_or_default(), service.name_any());
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let ports = ports.filter_map(|port| u16::try_from(port.port).ok());
    ports.map(move |port| {
        let routes = cluster.routes_of(&namespace, &name);
        let attached = routes.filter(|route| route.attached(&namespace, &name, port));
        (
            port,
            attached.map(Route::namespace).chain([namespace.clone()]).collect(),
        )
    })
}
