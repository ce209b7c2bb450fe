//! Policies for destinations outside the cluster.

use kube::ResourceExt as _;
use trellis_bindings::linkerd::policy::EgressNetwork;
use trellis_core::Refusal;

use crate::{Mesh, Reason};

/// Whether Linkerd acts on the network at all.
///
/// Refuses with `FeatureNotInVersion` before 2.17, with `EgressNetworkNotAccepted` as long as Linkerd has not taken it.
pub fn check(network: &EgressNetwork, mesh: &Mesh) -> Result<(), Refusal> {
    if !mesh.version.at_least(2, 17) {
        return Err(Reason::FeatureNotInVersion
            .refuse(format!("EgressNetwork needs Linkerd 2.17; this is {}", mesh.version))
            .field("spec.targetRef.kind")
            .hint("upgrade Linkerd"));
    }
    let condition = network.status.as_ref().and_then(|status| status.accepted());
    match condition {
        Some(condition) if condition.status == "True" => Ok(()),
        Some(condition) => Err(Reason::EgressNetworkNotAccepted
            .refuse(format!(
                "Linkerd says of EgressNetwork {}: {}",
                network.name_any(),
                condition.reason.as_deref().unwrap_or("not accepted")
            ))
            .hint("networks of two EgressNetworks must not overlap")),
        None => Err(Reason::EgressNetworkNotAccepted
            .refuse(format!(
                "Linkerd has not said whether it takes EgressNetwork {}",
                network.name_any()
            ))
            .hint("Linkerd's policy controller must run")),
    }
}

/// Why a breaker does not act on the network's own traffic: the proxies forward it without a balancer.
#[must_use]
pub fn no_breaker() -> Refusal {
    Reason::NoBalancer
        .refuse(
            "traffic to an EgressNetwork has no balancer, so that its breaker acts only where routes lead to Services",
        )
        .field("spec.circuitBreaker")
        .hint("set retries and timeouts")
}
