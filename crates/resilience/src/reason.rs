//! `Reason`: the closed set of reasons that a `ResiliencePolicy` gives.
//!
//! The comments of the variants are what the spec page says.

use strum::{EnumIter, EnumMessage, IntoEnumIterator as _, IntoStaticStr};
use trellis_core::Refusal;

/// Why a policy is in force, or is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, EnumIter, EnumMessage, IntoStaticStr)]
#[non_exhaustive]
pub enum Reason {
    /// The annotations are written, owned by this policy, and act on at least one port.
    Applied,
    /// The spec contradicts itself in a way that the API server cannot see. Change the field that the message names.
    Invalid,
    /// There is no such Service. The policy applies as soon as it appears.
    TargetServiceNotFound,
    /// There is no such target. The policy applies as soon as it appears.
    TargetNotFound,
    /// No Service has the labels that the selector asks for, or the namespace has none.
    NoTargets,
    /// The policy is for more Services than its status has room for. Those that carry it keep it, and none is added.
    TooManyServices,
    /// Other policies set everything that this one would set on its targets; the status names them.
    Overridden,
    /// Other policies set some of what this one would set; the rest is in force.
    PartiallyOverridden,
    /// The feature needs a newer Linkerd than the one found. The other sections of the policy apply.
    FeatureNotInVersion,
    /// The route is written; Linkerd has not said yet whether it takes it.
    RoutePending,
    /// Linkerd does not take the route; the message says why.
    RouteNotAccepted,
    /// Linkerd follows a route of somebody else: one of the other kind at the same port, or an older one for the same
    /// requests; or a route of a user leads elsewhere, and this policy's would pass it by. The message names it.
    RouteConflicted,
    /// The route is not attached to a Service, or has a part that makes Linkerd drop it.
    RouteNotConvertible,
    /// The kinds of the Gateway API that this policy needs are not served by the cluster, or not as `v1`.
    GatewayApiMissing,
    /// gRPC statuses are retried only where a `GRPCRoute` is attached to the Service; none is.
    GrpcNeedsGRPCRoute,
    /// Routes for gRPC without a port would make Linkerd serve gRPC only at several ports of the Service, where HTTP would
    /// lose its retries and timeouts. Name the port in `targetRef.port`.
    GrpcNeedsPort,
    /// Every route of the Service sets this itself, and Linkerd then ignores what the Service says.
    ShadowedByRoutes,
    /// The Server that the rate limit names does not exist.
    ServerNotFound,
    /// A Server would be made for a port that has one already, and Linkerd takes one for each. Name that one in
    /// `serverRef`.
    ServerConflicted,
    /// The Server that the rate limit names is for other pods than those of the Service, or for a port to which none of
    /// the Service's leads. The message says which.
    ServerMismatch,
    /// The rate limit is written; Linkerd has not said yet whether it takes it.
    RateLimitPending,
    /// Linkerd does not take the rate limit; the message says why.
    RateLimitNotAccepted,
    /// Linkerd does not take the EgressNetwork, or has not said so.
    EgressNetworkNotAccepted,
    /// A breaker counts endpoints, and traffic to this target has none that Linkerd knows.
    NoBalancer,
    /// The proxies refuse what the annotations add up to, and then fail every request to the Service.
    RejectedByProxy,
    /// The Service does not list the port. Linkerd forbids traffic to such ports since 2.19.
    PortNotFound,
    /// The target is in another namespace than the policy, where the policy may not set this. Create it beside the
    /// target.
    CrossNamespaceTarget,
    /// The Service has no cluster IP (headless or `ExternalName`), so clients bypass what Linkerd knows of it.
    Headless,
    /// Linkerd treats the port as opaque bytes: it is in the opaque list, or its appProtocol says so.
    Opaque,
    /// The port's appProtocol is one that Linkerd does not know, and therefore treats as opaque bytes.
    UnknownAppProtocol,
    /// The port's appProtocol is http, where Linkerd ignores routes for gRPC.
    HttpOnlyPort,
    /// The port is not TCP, which is all that Linkerd carries.
    NotTcp,
    /// The Service is a copy from another cluster; its annotations are replaced whenever the original changes.
    MirroredService,
    /// A `ServiceProfile` with routes or destination overrides makes Linkerd ignore the Service's annotations.
    ServiceProfileShadowed,
    /// Every section of the policy is disabled: there is nothing to write, and nothing is written.
    NothingEnabled,
    /// Another field manager owns an annotation of this policy with another value. Nothing is overwritten.
    ForeignOwner,
    /// What the policy asks for here could not be written yet; `Ready` says why.
    NotWritten,
    /// An annotation of somebody else makes Linkerd drop the whole block that this policy writes to.
    ForeignAnnotation,
    /// No Linkerd was found, and no version was given with `--linkerd-version`.
    LinkerdNotFound,
    /// Linkerd is older than 2.16, which cannot read these annotations.
    LinkerdTooOld,
    /// The version of Linkerd is not one that can be compared. Give it with `--linkerd-version`.
    LinkerdVersionUnknown,
    /// The cluster's domain that `linkerd-config` names is not the one that the operator was started with.
    ClusterDomainMismatch,
    /// Whether the proxies enforce the policy has not been observed: the version was given, or only read.
    LinkerdNotObserved,
}

impl Reason {
    /// As written in conditions and Events.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// What it means and what to do, for the spec page.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        self.get_documentation().unwrap_or_default()
    }

    /// All reasons, in the order of the spec page.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::iter()
    }

    /// Refuses for this reason.
    #[must_use]
    pub fn refuse(self, message: impl Into<String>) -> Refusal {
        Refusal::new(self.as_str(), message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_camel_case_unique_and_explained() {
        let names: Vec<&str> = Reason::all().map(Reason::as_str).collect();
        for (name, reason) in names.iter().zip(Reason::all()) {
            assert!(name.starts_with(|c: char| c.is_ascii_uppercase()), "{name}");
            assert!(name.chars().all(|c| c.is_ascii_alphanumeric()), "{name}");
            assert!(reason.meaning().len() > 30, "{name} is not explained");
        }
        let mut unique = names.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), names.len());
    }

    #[test]
    fn a_refusal_carries_the_name() {
        assert_eq!(Reason::Headless.refuse("no cluster IP").reason, "Headless");
    }
}
