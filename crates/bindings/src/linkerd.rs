//! Linkerd's own kinds, written by hand from `charts/linkerd-crds/templates/` of linkerd/linkerd2: the legacy
//! `ServiceProfile`, and in [`policy`] the kinds of `policy.linkerd.io`.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{CustomResource, CustomResourceExt as _};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub mod policy;

/// Legacy per-route settings of a service. Where one with routes or destination overrides exists, Linkerd's proxies
/// ignore the annotations of the Service.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "linkerd.io",
    version = "v1alpha2",
    kind = "ServiceProfile",
    plural = "serviceprofiles",
    shortname = "sp",
    namespaced,
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct ServiceProfileSpec {
    /// Routes of the service. Whether there are any decides what the proxies follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "anything")]
    pub routes: Option<Vec<Value>>,

    /// Other destinations for the service's traffic; again only whether there are any matters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "anything")]
    pub dst_overrides: Option<Vec<Value>>,

    /// Share of requests that may be retries, which has no counterpart in annotations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "one")]
    pub retry_budget: Option<Value>,
}

impl ServiceProfileSpec {
    /// Whether the proxies follow this profile instead of the Service's annotations (linkerd2-proxy,
    /// `linkerd/app/outbound/src/http/logical/profile.rs`).
    #[must_use]
    pub fn shadows(&self) -> bool {
        let some = |list: &Option<Vec<Value>>| list.as_ref().is_some_and(|list| !list.is_empty());
        some(&self.routes) || some(&self.dst_overrides)
    }
}

/// A minimal definition of `ServiceProfile` for clusters without Linkerd, such as those of tests; it admits any
/// content. Linkerd's own definition comes with Linkerd.
#[must_use]
pub fn service_profile_crd() -> CustomResourceDefinition {
    ServiceProfile::crd()
}

fn one(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

fn anything(_: &mut SchemaGenerator) -> Schema {
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

    fn profile(spec: &Value) -> ServiceProfile {
        serde_json::from_value(json!({
            "apiVersion": "linkerd.io/v1alpha2",
            "kind": "ServiceProfile",
            "metadata": {"name": "web.shop.svc.cluster.local", "namespace": "shop"},
            "spec": spec,
        }))
        .unwrap()
    }

    #[test]
    fn only_routes_and_overrides_shadow() {
        assert!(!profile(&json!({})).spec.shadows());
        assert!(!profile(&json!({"routes": [], "dstOverrides": null})).spec.shadows());
        assert!(
            !profile(&json!({"retryBudget": {"retryRatio": 0.2, "ttl": "10s"}}))
                .spec
                .shadows()
        );
        assert!(
            profile(&json!({"routes": [{"name": "GET /", "condition": {"method": "GET"}}]}))
                .spec
                .shadows()
        );
        assert!(
            profile(&json!({"dstOverrides": [{"authority": "web-v2", "weight": 1}]}))
                .spec
                .shadows()
        );
    }

    #[test]
    fn the_definition_serves_the_version_that_linkerd_reads() {
        let crd = service_profile_crd();
        assert_eq!(crd.name_any(), "serviceprofiles.linkerd.io");
        assert_eq!(crd.spec.versions[0].name, "v1alpha2");
        let schema = serde_json::to_value(&crd.spec.versions[0].schema).unwrap();
        let routes = &schema["openAPIV3Schema"]["properties"]["spec"]["properties"]["routes"];
        assert_eq!(routes["items"]["x-kubernetes-preserve-unknown-fields"], true);
    }
}
