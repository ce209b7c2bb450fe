use serde_json::json;

use super::*;

fn objects() -> Vec<Value> {
    let labels = json!({"a": "b"});
    vec![
        json!({"kind": "Service", "metadata": {"name": "t-artifacts", "namespace": "n"},
               "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": "artifacts"}]}}),
        json!({"kind": "Deployment", "spec": {
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": labels},
            "template": {"spec": {
                "automountServiceAccountToken": false,
                "volumes": [{"name": "account"}],
                "initContainers": [{"name": "hooks", "restartPolicy": "Always"}],
                "containers": [{
                    "args": ["operator", "--controllers=external-source", "--cluster-domain=d", "--storage-backend=disk",
                             "--storage-addr=0.0.0.0:9090", "--storage-adv-addr=t-artifacts.n.svc.d."],
                    "ports": [{"name": "artifacts", "containerPort": 9090}],
                    "volumeMounts": [{"name": "account", "mountPath": TOKEN}],
                }],
            }},
        }}),
    ]
}

/// The objects with one thing changed.
fn with(object: usize, pointer: &str, value: Value) -> Vec<Value> {
    let mut objects = objects();
    let (parent, last) = pointer.rsplit_once('/').unwrap();
    let parent = objects[object].pointer_mut(parent).unwrap();
    match parent.as_array_mut() {
        Some(list) => list[last.parse::<usize>().unwrap()] = value,
        None => parent[last] = value,
    }
    objects
}

#[test]
fn an_address_that_leads_nowhere_is_named() {
    judge(&objects()).unwrap();
    let pod = "/spec/template/spec";
    let argument = |place: usize, text: &str| with(1, &format!("{pod}/containers/0/args/{place}"), json!(text));
    for (wrong, named) in [
        (argument(5, "--storage-adv-addr=t-artifacts.n.svc.d"), "no dot"),
        (argument(5, "--storage-adv-addr=t-artifacts.n.svc.d.:81"), "port 81"),
        (
            argument(5, "--storage-adv-addr=other.n.svc.d."),
            "no Service is other.n.svc.d",
        ),
        (argument(2, "--cluster-domain=e"), "domain e"),
        (argument(4, "--storage-addr=0.0.0.0:9091"), "9091"),
        (argument(3, "--storage-backend=s3"), "one after the other"),
        (with(0, "/spec/selector", json!({"a": "c"})), "is for"),
        (
            with(0, "/spec/ports/0", json!({"port": 80, "targetPort": "metrics"})),
            "does not lead",
        ),
        (
            with(1, "/spec/strategy", json!({"type": "RollingUpdate"})),
            "one after the other",
        ),
    ] {
        let error = judge(&wrong).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
}

#[test]
fn a_token_in_reach_of_hooks_and_a_loose_volume_are_named() {
    let pod = "/spec/template/spec";
    let mounts = json!([{"name": "account", "mountPath": TOKEN}]);
    let hooks = |field: &str, value: Value| {
        let mut container = json!({"name": "hooks", "restartPolicy": "Always"});
        container[field] = value;
        with(1, &format!("{pod}/initContainers/0"), container)
    };
    for (wrong, named) in [
        (
            with(1, &format!("{pod}/automountServiceAccountToken"), json!(true)),
            "every container",
        ),
        (hooks("volumeMounts", mounts), "hooks has the operator's token"),
        (hooks("env", json!([{"name": "A", "valueFrom": {}}])), "a secret"),
        (hooks("restartPolicy", Value::Null), "before the operator starts"),
        (with(1, &format!("{pod}/volumes"), json!([])), "mounts of"),
        (
            with(
                1,
                &format!("{pod}/volumes"),
                json!([{"name": "account"}, {"name": "b"}]),
            ),
            "mounts of",
        ),
    ] {
        let error = judge(&wrong).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
}

#[test]
fn metrics_and_fields_are_those_that_there_are() {
    let known = documented(
        "| `trellis_leader` | `resilience_operator_policies_total{status,namespace}` `resilience_operator_writes_total`",
    );
    for metric in metrics("sum by (status) (rate(external_source_operator_sources_total[5m])) + trellis_leader") {
        assert!(known.contains(&metric), "{metric}");
    }
    assert_eq!(
        metrics("rate(external_source_operator_wrong_seconds_bucket[5m])"),
        ["external_source_operator_wrong_seconds"]
    );
    let resource = json!({"groupVersionKind": {"group": "source.flux.oddkin.co", "version": "v1alpha1", "kind": "ExternalSource"}});
    for (path, there) in [
        (json!(["metadata", "namespace"]), true),
        (json!(["status", "artifact", "revision"]), true),
        (json!(["status", "conditions", "[type=Ready]", "status"]), true),
        (json!(["status", "artefact"]), false),
        (json!(["spec", "suspended"]), false),
    ] {
        assert_eq!(is_a_field(&resource, &path), there, "{path}");
    }
}
