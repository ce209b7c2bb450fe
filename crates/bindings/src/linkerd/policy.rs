//! Kinds of `policy.linkerd.io`: the server's side, destinations outside the cluster, and routes.

use k8s_openapi::{
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use kube::{CustomResource, CustomResourceExt as _};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    gateway::{Condition, HttpRouteRule, ParentRef, RouteParentStatus},
    lenient::list,
};

/// A port of some pods, as the proxies of these pods see it.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "policy.linkerd.io",
    version = "v1beta3",
    kind = "Server",
    plural = "servers",
    shortname = "srv",
    namespaced,
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct ServerSpec {
    /// Pods of the namespace; empty: all. Either this or externalWorkloadSelector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "selector")]
    pub pod_selector: Option<LabelSelector>,

    /// Workloads outside the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "object")]
    pub external_workload_selector: Option<Value>,

    /// Name or number of the pods' port.
    #[schemars(schema_with = "port")]
    pub port: Option<IntOrString>,

    /// `unknown`, `HTTP/1`, `HTTP/2`, `gRPC`, `opaque` or `TLS`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "protocol")]
    pub proxy_protocol: Option<String>,

    /// Who may call when no authorization says otherwise. The API server fills an absent one with `deny`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "access")]
    pub access_policy: Option<String>,
}

/// A limit of the rate of requests at the pods of a [`Server`], for each pod by itself.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "policy.linkerd.io",
    version = "v1alpha1",
    kind = "HTTPLocalRateLimitPolicy",
    root = "HttpLocalRateLimitPolicy",
    plural = "httplocalratelimitpolicies",
    namespaced,
    status = "PolicyStatus",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct HttpLocalRateLimitPolicySpec {
    /// The Server.
    pub target_ref: PolicyTargetRef,

    /// Of all clients together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Rate")]
    pub total: Option<Rate>,

    /// Of each client, told apart by its identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Rate")]
    pub identity: Option<Rate>,

    /// Of single clients; read, never written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "objects")]
    pub overrides: Option<Vec<Value>>,
}

/// Destinations outside the cluster, by address.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "policy.linkerd.io",
    version = "v1alpha1",
    kind = "EgressNetwork",
    plural = "egressnetworks",
    namespaced,
    status = "PolicyStatus",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct EgressNetworkSpec {
    /// `Allow` or `Deny`: what happens to traffic that no route is for.
    #[serde(default)]
    pub traffic_policy: String,

    /// Networks; absent: everything outside the cluster's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "objects")]
    pub networks: Option<Vec<Value>>,
}

/// Linkerd's own `HTTPRoute`, beside that of the Gateway API and of the same shape. Only read: timeouts of its rules are
/// in Go's grammar, and count in every version.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "policy.linkerd.io",
    version = "v1beta3",
    kind = "HTTPRoute",
    root = "LinkerdHttpRoute",
    plural = "httproutes",
    namespaced,
    status = "LinkerdRouteStatus",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct LinkerdHttpRouteSpec {
    /// What the route is attached to.
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "objects")]
    pub parent_refs: Vec<ParentRef>,

    /// What happens to which requests.
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "objects")]
    pub rules: Vec<HttpRouteRule>,
}

/// What Linkerd says of its own route.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LinkerdRouteStatus {
    /// One entry per parent.
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "objects")]
    pub parents: Vec<RouteParentStatus>,
}

/// Requests per second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rate {
    /// Above zero.
    pub requests_per_second: i64,
}

/// What a policy is for; only a Server counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyTargetRef {
    /// `policy.linkerd.io`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,

    /// `Server`.
    #[serde(default)]
    pub kind: String,

    /// Name, in the policy's namespace.
    #[serde(default)]
    pub name: String,
}

/// What Linkerd says of a policy.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStatus {
    /// `Accepted`, with a reason.
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "objects")]
    pub conditions: Vec<Condition>,

    /// Of a rate limit: the Server that the conditions speak of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "object")]
    pub target_ref: Option<PolicyTargetRef>,
}

impl PolicyStatus {
    /// The condition `Accepted`, if it was said.
    #[must_use]
    pub fn accepted(&self) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.type_ == "Accepted")
    }
}

/// Minimal definitions of these kinds for clusters without Linkerd, such as those of tests; Linkerd's own come with
/// Linkerd.
#[must_use]
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![
        Server::crd(),
        HttpLocalRateLimitPolicy::crd(),
        EgressNetwork::crd(),
        LinkerdHttpRoute::crd(),
    ]
}

fn port(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"x-kubernetes-int-or-string": true})
}

fn protocol(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "default": "unknown"})
}

fn access(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "default": "deny"})
}

fn object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

fn selector(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

fn objects(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    })
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt as _;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_definitions_serve_the_versions_that_linkerd_reads() {
        let found: Vec<(String, String)> = crds()
            .iter()
            .map(|crd| (crd.name_any(), crd.spec.versions[0].name.clone()))
            .collect();
        let expected = [
            ("servers.policy.linkerd.io", "v1beta3"),
            ("httplocalratelimitpolicies.policy.linkerd.io", "v1alpha1"),
            ("egressnetworks.policy.linkerd.io", "v1alpha1"),
            ("httproutes.policy.linkerd.io", "v1beta3"),
        ];
        assert_eq!(
            found,
            expected.map(|(name, version)| (name.to_owned(), version.to_owned()))
        );
    }

    /// The trap: a Server without an access policy denies.
    #[test]
    fn a_server_denies_by_default() {
        let schema = serde_json::to_value(&Server::crd().spec.versions[0].schema).unwrap();
        let spec = &schema["openAPIV3Schema"]["properties"]["spec"]["properties"];
        assert_eq!(spec["accessPolicy"]["default"], "deny");
        assert_eq!(spec["port"]["x-kubernetes-int-or-string"], true);
    }

    #[test]
    fn foreign_objects_are_read() {
        let server: Server = serde_json::from_value(json!({
            "apiVersion": "policy.linkerd.io/v1beta3", "kind": "Server", "metadata": {"name": "web"},
            "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "port": "http", "proxyProtocol": "HTTP/1"},
        }))
        .unwrap();
        assert_eq!(server.spec.port, Some(IntOrString::String("http".into())));
        let limit: HttpLocalRateLimitPolicy = serde_json::from_value(json!({
            "apiVersion": "policy.linkerd.io/v1alpha1", "kind": "HTTPLocalRateLimitPolicy", "metadata": {"name": "web"},
            "spec": {"targetRef": {"group": "policy.linkerd.io", "kind": "Server", "name": "web"}, "total": {"requestsPerSecond": 5}},
            "status": {
                "targetRef": {"name": "web"},
                "conditions": [{"type": "Accepted", "status": "False", "reason": "RateLimitReasonAlreadyExists"}],
            },
        }))
        .unwrap();
        assert_eq!(limit.spec.total.unwrap().requests_per_second, 5);
        let status = limit.status.unwrap();
        assert_eq!(
            status.accepted().unwrap().reason.as_deref(),
            Some("RateLimitReasonAlreadyExists")
        );
    }
}
