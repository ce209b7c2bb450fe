//! A stand-in for Linkerd's admission webhook, which does not run here: the API server refuses routes to Services and
//! EgressNetworks with annotations that Linkerd does not read, by the grammars of the facts.
//!
//! ```text
//!  namespaces ─▶ ValidatingAdmissionPolicy, bound to them ─▶ every write of a route there: read, or refused with 422
//! ```
//!
//! Half of the stories about routes have it, as half of the clusters do: Linkerd's own is ignored when it fails. Whoever
//! writes a refused route is told so; that nothing of ours is ever refused is a law over the audit log.

use kube::{
    Api,
    api::{DynamicObject, PostParams},
};
use serde_json::{Value, json};
use trellis_testkit::{audit::Event, eventually, plane::Plane};

use crate::chronicle::route;

/// Its name, which the message of a refusal carries.
const NAME: &str = "stand-in-for-linkerds-webhook";

const STATUSES: &str = "^(?i)(5xx|gateway-error|[1-5][0-9]{2}(-[1-5][0-9]{2})?)\
    (,(5xx|gateway-error|[1-5][0-9]{2}(-[1-5][0-9]{2})?))*$";
const CODES: &str = "^(?i)(cancelled|deadline-exceeded|internal|resource-exhausted|unavailable)\
    (,(cancelled|deadline-exceeded|internal|resource-exhausted|unavailable))*$";
const TIME: &str = r"^\\s*(0|[0-9]{1,16}(ms|s|m|h|d))\\s*$";

/// Stands at the door of these namespaces; returns once it refuses.
pub(crate) async fn stand(plane: &Plane, namespaces: &[&str]) {
    let Some(first) = namespaces.first() else { return };
    let reads = |key: &str, pattern: &str, more: &str| {
        let value = format!("variables.said['{key}']");
        json!({
            "expression": format!("!('{key}' in variables.said) || ({value}.matches('{pattern}'){})", more.replace('@', &value)),
            "message": format!("annotation {key} is not one that Linkerd reads"),
        })
    };
    let ordered = " && @.split(',').all(item, !item.contains('-') || item.matches('^[A-Za-z]') || \
        int(item.split('-')[0]) <= int(item.split('-')[1]))";
    let mut validations = vec![
        reads("retry.linkerd.io/limit", "^[0-9]{1,5}$", " && int(@) <= 65535"),
        reads("retry.linkerd.io/http", STATUSES, ordered),
        reads("retry.linkerd.io/grpc", CODES, ""),
        reads("retry.linkerd.io/timeout", TIME, ""),
    ];
    validations
        .extend(["request", "response", "idle"].map(|which| reads(&format!("timeout.linkerd.io/{which}"), TIME, "")));
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": { "name": NAME },
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": { "resourceRules": [{
                "apiGroups": ["gateway.networking.k8s.io"], "apiVersions": ["*"],
                "operations": ["CREATE", "UPDATE"], "resources": ["httproutes", "grpcroutes"],
            }] },
            "matchConditions": [{
                "name": "attached",
                "expression": "has(object.spec.parentRefs) && object.spec.parentRefs.exists(parent, parent.kind in ['Service', 'EgressNetwork'])",
            }],
            "variables": [{
                "name": "said",
                "expression": "has(object.metadata.annotations) ? object.metadata.annotations : {}",
            }],
            "validations": validations,
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": { "name": NAME },
        "spec": {
            "policyName": NAME, "validationActions": ["Deny"],
            "matchResources": { "namespaceSelector": { "matchExpressions": [
                { "key": "kubernetes.io/metadata.name", "operator": "In", "values": namespaces },
            ] } },
        },
    });
    let mark = plane.audit().mark().unwrap();
    plane.apply(&[policy, binding]).await.unwrap();
    let routes: Api<DynamicObject> = Api::namespaced_with(plane.client().unwrap(), first, &route("HTTPRoute"));
    eventually("routes that Linkerd does not read are refused", async || {
        for (value, read) in [
            ("5xx,429", true),
            ("500-504", true),
            ("504-500", false),
            ("5xx, 429", false),
        ] {
            let found = routes.create(&dry(), &probe(value)).await;
            match found {
                Ok(_) if read => {}
                Err(error) if !read && refused(&error) => {}
                found => return Err(format!("{value:?}: {found:?}")),
            }
        }
        // The law over the audit log sees it too.
        let events = plane.audit().since(mark).unwrap();
        if events.iter().any(turned_away) {
            Ok(())
        } else {
            Err("the audit log shows no refusal".to_owned())
        }
    })
    .await;
}

/// Whether the stand-in refused this request.
pub(crate) fn turned_away(event: &Event) -> bool {
    let status = event.response_status.as_ref();
    status.is_some_and(|status| status.message.contains(NAME))
}

/// Whether the stand-in said so.
pub(crate) fn refused(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 422 && status.message.contains(NAME))
}

fn dry() -> PostParams {
    PostParams {
        dry_run: true,
        ..PostParams::default()
    }
}

fn probe(statuses: &str) -> DynamicObject {
    let manifest: Value = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": { "name": "probe", "annotations": { "retry.linkerd.io/http": statuses } },
        "spec": { "parentRefs": [{ "group": "", "kind": "Service", "name": "web" }] },
    });
    serde_json::from_value(manifest).unwrap()
}
