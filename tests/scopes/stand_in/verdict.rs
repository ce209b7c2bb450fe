//! What Linkerd's policy controller says of a route at each of its parents, by the facts about it.

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt as _;
use serde_json::{Value, json};
use trellis_bindings::linkerd::policy::EgressNetwork;

use super::{NAME, SINCE, Says, condition, no};

/// What decides over routes.
pub(super) struct Seen {
    pub(super) services: Vec<Service>,
    pub(super) networks: Vec<EgressNetwork>,
    /// Namespace of the parent, and the parent, of every GRPCRoute.
    pub(super) grpc: Vec<(String, Value)>,
}

impl Seen {
    /// The status of a route: entries of others stay, unknown parents get none.
    pub(super) fn verdicts(&self, route: &Value, http: bool, says: Says) -> Value {
        let others = route["status"]["parents"].as_array().cloned().unwrap_or_default();
        let mut all: Vec<Value> = others
            .into_iter()
            .filter(|entry| entry["controllerName"] != NAME)
            .collect();
        // The types here keep neither, and the definition asks for both.
        for condition in all
            .iter_mut()
            .filter_map(|entry| entry["conditions"].as_array_mut())
            .flatten()
        {
            condition["lastTransitionTime"] = SINCE.into();
            condition["message"] = condition.get("message").cloned().unwrap_or_else(|| "".into());
        }
        for (namespace, parent) in parents(route) {
            let Some(found) = self.verdict(&namespace, &parent, http) else {
                continue;
            };
            let (accepted, message) = match no(says) {
                Some(no) => (no, ""),
                None => found,
            };
            let group = if parent["kind"] == "Service" {
                json!("core")
            } else {
                parent["group"].clone()
            };
            let mut about =
                json!({ "group": group, "kind": parent["kind"], "namespace": namespace, "name": parent["name"] });
            if let Some(port) = parent.get("port").filter(|port| port.is_number()) {
                about["port"] = port.clone();
            }
            all.push(json!({
                "controllerName": NAME, "parentRef": about,
                "conditions": [condition("Accepted", accepted, message), condition("ResolvedRefs", Ok("ResolvedRefs"), "")],
            }));
        }
        json!({ "parents": all })
    }

    fn verdict(
        &self,
        namespace: &str,
        parent: &Value,
        http: bool,
    ) -> Option<(Result<&'static str, &'static str>, &'static str)> {
        let is =
            |object: (Option<String>, String)| object.0.as_deref() == Some(namespace) && parent["name"] == object.1;
        match (parent["group"].as_str()?, parent["kind"].as_str()?) {
            ("" | "core", "Service") => {
                let service = self
                    .services
                    .iter()
                    .find(|service| is((service.namespace(), service.name_any())));
                let address = service.and_then(|service| service.spec.as_ref()?.cluster_ip.as_deref());
                if address.is_none_or(|address| address.is_empty() || address == "None") {
                    return Some((Err("NoMatchingParent"), "parent service must have a ClusterIP"));
                }
            }
            ("policy.linkerd.io", "EgressNetwork") => {
                let network = self
                    .networks
                    .iter()
                    .find(|network| is((network.namespace(), network.name_any())));
                if network.is_none() {
                    return Some((Err("NoMatchingParent"), ""));
                }
            }
            _ => return None,
        }
        let identical = |(other, taken): &(String, Value)| {
            other == namespace && taken["name"] == parent["name"] && taken["port"] == parent["port"]
        };
        if http && self.grpc.iter().any(identical) {
            return Some((Err("RouteReasonConflicted"), ""));
        }
        Some((Ok("Accepted"), ""))
    }
}

/// The parents of a route, each with its namespace.
pub(super) fn parents(route: &Value) -> Vec<(String, Value)> {
    let parents = route["spec"]["parentRefs"].as_array().cloned().unwrap_or_default();
    let own = route["metadata"]["namespace"].as_str().unwrap_or_default();
    let placed = parents.into_iter().map(|parent| {
        let namespace = parent["namespace"].as_str().unwrap_or(own).to_owned();
        (namespace, parent)
    });
    placed.collect()
}
