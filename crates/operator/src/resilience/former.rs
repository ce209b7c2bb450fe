//! What a policy wrote and does not ask for any more: given up also while the rest of it is refused or waits.
//!
//! Invariant: what the spec still names stays, though it could not be written anew.

use std::collections::HashSet;

use trellis_api::{ResiliencePolicy, Section, status::InventoryEntry};
use trellis_resilience::{Enacted, Standing, route};

/// Of what is recorded for the policy, what its spec does not name, or what another policy decides instead.
pub(super) fn former(policy: &ResiliencePolicy, targets: &[Enacted]) -> Vec<InventoryEntry> {
    let inventory = policy.status.iter().flat_map(|status| &status.common.inventory);
    let parts: HashSet<Part<'_>> = targets.iter().map(part).collect();
    let limits = limits(policy, targets);
    inventory
        .filter(|entry| !is_asked(policy, &parts, limits, entry))
        .cloned()
        .collect()
}

/// Kind, namespace and name of something that annotations are written to.
type Part<'a> = (&'a str, &'a str, &'a str);

fn part(enacted: &Enacted) -> Part<'_> {
    let target = &enacted.target;
    (target.place.as_str(), &target.namespace, &target.name)
}

fn is_asked(policy: &ResiliencePolicy, parts: &HashSet<Part<'_>>, limits: bool, entry: &InventoryEntry) -> bool {
    if entry.part {
        let namespace = entry.namespace.as_deref();
        return namespace.is_some_and(|namespace| parts.contains(&(entry.kind.as_str(), namespace, &entry.name)));
    }
    match entry.kind.as_str() {
        "HTTPRoute" | "GRPCRoute" => route::is_asked(policy, &entry.kind, &entry.name),
        "HTTPLocalRateLimitPolicy" => limits,
        "Server" => {
            let limit = policy.spec.rate_limit.as_ref();
            limits && limit.is_some_and(|limit| limit.create_server.is_some())
        }
        // What is unknown here is left to the prune after a full success.
        _ => true,
    }
}

fn limits(policy: &ResiliencePolicy, targets: &[Enacted]) -> bool {
    let lost = |target: &Enacted| matches!(target.sections.get(&Section::RateLimit), Some(Standing::Overridden(_)));
    policy.spec.enables(Section::RateLimit) && !targets.iter().any(lost)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names of what is given up by a policy with this spec, of everything that such policies may have made.
    fn given_up(spec: &serde_json::Value) -> Vec<String> {
        let entry = |kind: &str, name: &str, part: bool| serde_json::json!({"apiVersion": "v1", "kind": kind, "namespace": "shop", "name": name, "part": part});
        let inventory = serde_json::json!([
            entry("HTTPRoute", "p-search", false),
            entry("HTTPRoute", "p-pay", false),
            entry("HTTPRoute", "p-rest", false),
            entry("GRPCRoute", "p-search", false),
            entry("HTTPRoute", "p-all", false),
            entry("HTTPLocalRateLimitPolicy", "p", false),
            entry("Server", "p", false),
            entry("HTTPRoute", "r1", true),
        ]);
        let policy: ResiliencePolicy = serde_json::from_value(serde_json::json!({
            "apiVersion": "resilience.trellis.dev/v1alpha1", "kind": "ResiliencePolicy",
            "metadata": {"name": "p", "namespace": "shop"}, "spec": spec, "status": {"inventory": inventory},
        }))
        .expect("a policy");
        former(&policy, &[])
            .iter()
            .map(|entry| format!("{} {}", entry.kind, entry.name))
            .collect()
    }

    #[test]
    fn what_the_spec_names_stays() {
        let search = serde_json::json!([{"name": "search", "http": {"matches": [{"path": {"value": "/search"}}]}}]);
        let spec = serde_json::json!({"targetRef": {"name": "web"}, "retry": {}, "routes": search});
        assert_eq!(
            given_up(&spec),
            [
                "HTTPRoute p-pay",
                "GRPCRoute p-search",
                "HTTPRoute p-all",
                "HTTPLocalRateLimitPolicy p",
                "Server p",
                "HTTPRoute r1"
            ]
        );
        let outside = serde_json::json!({"targetRef": {"name": "web", "namespace": "bank"}, "retry": {}});
        assert!(!given_up(&outside).contains(&"HTTPRoute p-all".to_owned()));
        let limit = serde_json::json!({"enabled": true, "requestsPerSecond": 1, "serverRef": {"name": "s"}});
        let limited = given_up(&serde_json::json!({"targetRef": {"name": "web"}, "rateLimit": limit}));
        assert!(limited.contains(&"Server p".to_owned()));
        assert!(!limited.contains(&"HTTPLocalRateLimitPolicy p".to_owned()));
    }
}
