//! What somebody else holds under our keys: nothing of the section is written there, and the others are.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use trellis_api::ResiliencePolicy;
use trellis_core::Refusal;

use crate::{Cluster, PolicyName, Reason, annotations::Annotations, owner};

/// Whether what one section asks for can be written beside what others hold.
///
/// Refuses with `ForeignOwner`. A policy that lost the section lets go by itself, and is no obstacle unless it is
/// suspended.
pub(super) fn check(
    written: &Annotations,
    meta: &ObjectMeta,
    policy: &ResiliencePolicy,
    cluster: &Cluster,
) -> Result<(), Refusal> {
    for (key, manager) in owner::conflicts(written, meta, &owner::manager(policy)) {
        if !owner::is_policys(manager) {
            return Err(Reason::ForeignOwner
                .refuse(format!("annotation {key} belongs to {manager}, with another value"))
                .hint("remove the annotation from the other manager's manifest, or the section from this policy"));
        }
        let holder = |other: &&ResiliencePolicy| other.spec.suspend && owner::manager(other) == manager;
        if let Some(holder) = cluster.policies.iter().find(holder) {
            let holder = PolicyName::of(holder);
            return Err(Reason::ForeignOwner
                .refuse(format!(
                    "annotation {key} belongs to policy {holder}, which is suspended and lets go of nothing"
                ))
                .hint("resume that policy, or delete it"));
        }
    }
    Ok(())
}
