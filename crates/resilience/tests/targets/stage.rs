//! A Service `shop/web`, a policy `shop/p` beside it, and what the policy does there.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail by panicking, like tests"
)]

use serde_json::{Value, json};
use trellis_api::ResiliencePolicy;
use trellis_resilience::{Cluster, Enactment, Mesh, enact};

fn merge(onto: &mut Value, changes: &Value) {
    match (onto, changes) {
        (Value::Object(onto), Value::Object(changes)) => {
            for (key, change) in changes {
                merge(onto.entry(key.clone()).or_insert(Value::Null), change);
            }
        }
        (onto, change) => *onto = change.clone(),
    }
}

pub(crate) fn policy(name: &str, spec: &Value) -> ResiliencePolicy {
    serde_json::from_value(json!({
        "apiVersion": "resilience.trellis.dev/v1alpha1", "kind": "ResiliencePolicy",
        "metadata": {"name": name, "namespace": "shop", "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": spec,
    }))
    .unwrap()
}

pub(crate) fn cluster(version: &str) -> Cluster {
    let service = json!({
        "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web"}},
        "spec": {
            "clusterIP": "10.0.0.1", "selector": {"app": "web"},
            "ports": [{"port": 80, "targetPort": "http"}, {"port": 81}],
        },
    });
    Cluster {
        services: vec![serde_json::from_value(service).unwrap()].into(),
        ..Cluster::of(Mesh::from_flag(version).unwrap())
    }
}

/// A route that somebody made, attached to `web` and accepted, with changes.
pub(crate) fn route(kind: &str, changes: &Value) -> Value {
    let mut whole = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": kind,
        "metadata": {"name": "web-search", "namespace": "shop", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "web"}], "rules": [{}]},
        "status": {"parents": [{
            "controllerName": "linkerd.io/policy-controller",
            "parentRef": {"group": "core", "kind": "Service", "namespace": "shop", "name": "web"},
            "conditions": [{"type": "Accepted", "status": "True"}],
        }]},
    });
    merge(&mut whole, changes);
    whole
}

pub(crate) fn with_route(mut cluster: Cluster, route: Value) -> Cluster {
    if route["apiVersion"]
        .as_str()
        .is_some_and(|version| version.starts_with("policy.linkerd.io/"))
    {
        cluster.linkerd_routes.push(serde_json::from_value(route).unwrap());
    } else if route["kind"] == "GRPCRoute" {
        cluster.grpc_routes.push(serde_json::from_value(route).unwrap());
    } else {
        cluster.http_routes.push(serde_json::from_value(route).unwrap());
    }
    cluster
}

pub(crate) fn done(cluster: &Cluster, spec: &Value) -> Enactment {
    let mut cluster = cluster.clone();
    let policy = policy("p", spec);
    cluster.policies.push(policy.clone());
    enact(&policy, &cluster)
}

pub(crate) fn reason(enactment: &Enactment) -> Option<&'static str> {
    enactment
        .refusal
        .as_ref()
        .or_else(|| enactment.targets.iter().find_map(|target| target.refusal()))
        .map(|refusal| refusal.reason)
}

pub(crate) const SEARCH: &str =
    r#"[{"name": "search", "http": {"matches": [{"path": {"value": "/search"}, "method": "GET"}]}}]"#;
pub(crate) const CARTS: &str = r#"[{"name": "carts", "grpc": {"matches": [{"service": "shop.v1.Carts"}]}}]"#;

pub(crate) fn entries(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}
