//! Routes of the Gateway API, `gateway.networking.k8s.io/v1`: the part that Linkerd reads, written by hand from the
//! definitions under `crds/`.
//!
//! ```text
//!  HttpRoute │ GrpcRoute ─▶ parentRefs, rules ─▶ status.parents[]: one verdict per parent and controller
//! ```

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_json::Value;

mod matches;
mod status;

pub use matches::{GrpcMethodMatch, GrpcRouteMatch, HeaderMatch, HttpRouteMatch, PathMatch};
pub use status::{Condition, RouteParentStatus, RouteStatus};

use crate::lenient::list;

/// API group of the routes, and what an absent group of a parent means to the API server.
pub const GROUP: &str = "gateway.networking.k8s.io";

/// HTTP requests on their way to a parent.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1",
    kind = "HTTPRoute",
    root = "HttpRoute",
    plural = "httproutes",
    namespaced,
    schema = "disabled",
    status = "RouteStatus",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct HttpRouteSpec {
    /// What the route is attached to.
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub parent_refs: Vec<ParentRef>,

    /// Host names that the route is for; for a Service, Linkerd ignores them.
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub hostnames: Vec<String>,

    /// What happens to which requests.
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<HttpRouteRule>,
}

/// gRPC requests on their way to a parent.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1",
    kind = "GRPCRoute",
    root = "GrpcRoute",
    plural = "grpcroutes",
    namespaced,
    schema = "disabled",
    status = "RouteStatus",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct GrpcRouteSpec {
    /// What the route is attached to.
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub parent_refs: Vec<ParentRef>,

    /// Host names that the route is for; for a Service, Linkerd ignores them.
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub hostnames: Vec<String>,

    /// What happens to which requests.
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<GrpcRouteRule>,
}

/// What a route is attached to. As stored: the API server fills an absent group with [`GROUP`] and an absent kind with
/// `Gateway`, so that a Service is meant only when both are written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParentRef {
    /// API group; `""` or `core` for a Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,

    /// Kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,

    /// Namespace; the route's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,

    /// Name.
    pub name: String,

    /// Port; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// One rule of an [`HttpRoute`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRouteRule {
    /// Requests that any of these fits; the API server fills an absent list with the path prefix `/`.
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<HttpRouteMatch>,

    /// What else is done to the request.
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,

    /// Where requests go; absent: to the parent.
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub backend_refs: Vec<BackendRef>,

    /// The timeouts of the Gateway API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<RuleTimeouts>,

    /// Retries in the form of GEP-1731, which Linkerd ignores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Value>,
}

/// One rule of a [`GrpcRoute`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GrpcRouteRule {
    /// Requests that any of these fits; absent: all.
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<GrpcRouteMatch>,

    /// What else is done to the request.
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,

    /// Where requests go; absent: to the parent.
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub backend_refs: Vec<BackendRef>,
}

/// Something done to requests; only its type matters here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// Such as `RequestHeaderModifier`.
    #[serde(default, rename = "type")]
    pub type_: String,
}

/// Where requests go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendRef {
    /// API group; absent: core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,

    /// Kind; absent: Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,

    /// Namespace; the route's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,

    /// Name.
    #[serde(default)]
    pub name: String,

    /// Port of the Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// Timeouts of a rule, as GEP-1742 has them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleTimeouts {
    /// Longest life of a request. Linkerd reads it since 2.20, below its own annotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,

    /// Longest time of one try, which Linkerd ignores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_request: Option<String>,
}

/// The real definitions of both routes, for clusters without the Gateway API, such as those of tests: their defaults
/// and rules decide what is stored.
///
/// # Errors
/// When the text that is part of this crate is not a definition, which its tests rule out.
pub fn crds() -> Result<Vec<CustomResourceDefinition>, serde_saphyr::Error> {
    [
        include_str!("../crds/gateway.networking.k8s.io_httproutes.yaml"),
        include_str!("../crds/gateway.networking.k8s.io_grpcroutes.yaml"),
    ]
    .into_iter()
    .map(serde_saphyr::from_str)
    .collect()
}

#[cfg(test)]
mod tests {
    use kube::{CustomResourceExt as _, ResourceExt};
    use serde_json::json;

    use super::*;

    #[test]
    fn the_definitions_are_those_of_the_types() {
        let crds = crds().unwrap();
        let names: Vec<String> = crds.iter().map(ResourceExt::name_any).collect();
        assert_eq!(
            names,
            [
                "httproutes.gateway.networking.k8s.io",
                "grpcroutes.gateway.networking.k8s.io"
            ]
        );
        assert_eq!(names[0], HttpRoute::crd_name());
        assert_eq!(names[1], GrpcRoute::crd_name());
        for crd in &crds {
            assert!(
                crd.spec
                    .versions
                    .iter()
                    .any(|version| version.name == "v1" && version.storage)
            );
            let schema = serde_json::to_value(&crd.spec.versions[0].schema).unwrap();
            let parent =
                &schema["openAPIV3Schema"]["properties"]["spec"]["properties"]["parentRefs"]["items"]["properties"];
            assert_eq!(parent["group"]["default"], GROUP);
            assert_eq!(parent["kind"]["default"], "Gateway");
        }
    }

    #[test]
    fn what_is_not_used_does_not_hinder() {
        let route: HttpRoute = serde_json::from_value(json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {
                "parentRefs": [{"group": "", "kind": "Service", "name": "web", "sectionName": "x"}],
                "rules": [{
                    "matches": null,
                    "filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": []}}],
                    "backendRefs": [{"name": "web", "port": 80, "weight": 1, "filters": []}],
                    "timeouts": {"request": "10s"},
                    "sessionPersistence": {"type": "Cookie"},
                }],
            },
            "status": {"parents": [{
                "controllerName": "linkerd.io/policy-controller",
                "parentRef": {"group": "core", "kind": "Service", "name": "web", "namespace": "shop"},
                "conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted", "message": ""}],
            }]},
        }))
        .unwrap();
        assert_eq!(route.spec.rules[0].filters[0].type_, "RequestHeaderModifier");
        assert_eq!(route.spec.rules[0].backend_refs[0].port, Some(80));
        assert_eq!(route.status.unwrap().parents[0].conditions[0].status, "True");
    }

    #[test]
    fn nothing_is_written_that_is_not_set() {
        let route = HttpRoute::new("web", HttpRouteSpec::default());
        let written = serde_json::to_value(route).unwrap();
        assert_eq!(written["spec"], json!({}));
    }
}
