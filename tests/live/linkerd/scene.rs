//! The objects that the story needs, as manifests.
//!
//! ```text
//!  retrying ─▶ Service failing ─▶ 1 × 503          policy failing: 2 retries on 5xx
//!  outside  ─▶ the same, without a sidecar
//!  breaking ─▶ Service mixed ─▶ 2 × 200, 1 × 503   policy mixed: breaker after 3 failures
//! ```

use serde_json::{Value, json};

/// Retries that the policy asks for.
pub(crate) const RETRIES: u32 = 2;
/// Failures after which an endpoint is out.
pub(crate) const THRESHOLD: u32 = 3;
/// Endpoints of `mixed` that answer well, and that do not.
pub(crate) const GOOD: u32 = 2;
/// See [`GOOD`].
pub(crate) const BAD: u32 = 1;
/// What a client writes when it has sent all.
pub(crate) const DONE: &str = "done";
/// Label of everything that is made.
pub(crate) const LABEL: &str = "live.trellis.dev/id";

/// The namespace; its Pods get sidecars.
pub(crate) fn namespace(name: &str, id: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {
            "name": name, "labels": { LABEL: id }, "annotations": { "linkerd.io/inject": "enabled" },
        },
    })
}

/// What the servers answer, whatever the request.
pub(crate) fn configuration(name: &str, status: u16) -> Value {
    let text = format!("server {{ listen 8080; location / {{ return {status}; }} }}\n");
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": { "default.conf": text } })
}

/// Servers of a Service that read this configuration.
pub(crate) fn server(name: &str, service: &str, configuration: &str, replicas: u32, image: &str) -> Value {
    let labels = json!({ "app": service, "server": name });
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name },
        "spec": {
            "replicas": replicas, "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels },
                "spec": {
                    "containers": [{
                        "name": "server", "image": image, "ports": [{ "containerPort": 8080 }],
                        "volumeMounts": [{ "name": "configuration", "mountPath": "/etc/nginx/conf.d" }],
                    }],
                    "volumes": [{ "name": "configuration", "configMap": { "name": configuration } }],
                },
            },
        },
    })
}

pub(crate) fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": name },
        "spec": { "selector": { "app": name }, "ports": [{ "name": "http", "port": 8080, "targetPort": 8080 }] },
    })
}

/// A policy for the Service of the same name.
pub(crate) fn policy(name: &str, section: &str, what: &Value) -> Value {
    json!({
        "apiVersion": "resilience.trellis.dev/v1alpha1", "kind": "ResiliencePolicy", "metadata": { "name": name },
        "spec": { "targetRef": { "name": name }, section: what },
    })
}

/// An endpoint that is out stays out for longer than the story takes.
pub(crate) fn breaker() -> Value {
    json!({ "failureThreshold": THRESHOLD, "minPenalty": "10m", "maxPenalty": "20m" })
}

/// Retries of every failure.
pub(crate) fn retries() -> Value {
    json!({ "maxAttempts": RETRIES, "retryableStatusCodes": "5xx" })
}

/// A client that sends its requests one after the other and writes the status of each. Then it waits to be asked: with
/// one more request a second where there is a breaker, because a proxy forgets endpoints that nobody asks for.
pub(crate) fn client(name: &str, service: &str, requests: u32, image: &str, inject: &str) -> Value {
    let curl = format!("curl --silent --output /dev/null http://{service}:8080/");
    let rest = if service == "mixed" {
        format!("while sleep 1; do {curl}; done")
    } else {
        "exec sleep 86400".to_owned()
    };
    let script = format!(
        "i=0; while [ $i -lt {requests} ]; do {curl} --write-out '%{{http_code}}\\n'; i=$((i+1)); done; echo {DONE}; {rest}"
    );
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "labels": { "client": name }, "annotations": { "linkerd.io/inject": inject } },
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{ "name": "client", "image": image, "command": ["sh", "-c", script] }],
        },
    })
}
