//! `Line`: what became of one object of an example.

use kube::{ResourceExt as _, api::DynamicObject};
use serde::Serialize;
use serde_json::Value;

/// What became of one object of an example.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Line {
    pub(crate) example: String,
    pub(crate) object: String,
    pub(crate) ready: String,
    pub(crate) reason: String,
    pub(crate) message: String,
    /// Whether nothing will change until somebody changes something.
    pub(crate) stalled: bool,
}

impl Line {
    pub(crate) fn is_ready(&self) -> bool {
        self.ready == "True"
    }

    /// Whether there is nothing to wait for.
    pub(crate) fn is_known(&self) -> bool {
        self.is_ready() || self.stalled
    }
}

/// What an object says about itself, if it has been looked at since it was `asked`.
pub(crate) fn line(example: &str, object: &DynamicObject, asked: &str) -> Line {
    let kind = object
        .types
        .as_ref()
        .map(|types| types.kind.clone())
        .unwrap_or_default();
    let conditions = object.data.pointer("/status/conditions").and_then(Value::as_array);
    let condition = |type_: &str| {
        conditions
            .into_iter()
            .flatten()
            .find(|condition| condition["type"] == type_)
    };
    let handled = object
        .data
        .pointer("/status/lastHandledReconcileAt")
        .and_then(Value::as_str)
        == Some(asked);
    let current =
        |condition: &&Value| handled && condition["observedGeneration"].as_i64() == object.metadata.generation;
    let ready = condition("Ready").filter(current);
    let text = |field: &str, missing: &str| {
        ready
            .and_then(|ready| ready[field].as_str())
            .unwrap_or(missing)
            .to_owned()
    };
    Line {
        example: example.to_owned(),
        object: format!("{kind}/{}", object.name_any()),
        ready: text("status", "Unknown"),
        reason: text("reason", "NotReported"),
        message: text("message", "no controller has reported on it yet"),
        stalled: condition("Stalled").as_ref().is_some_and(current),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// A policy with this status.
    pub(in crate::dev) fn object(status: &Value) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "resilience.trellis.dev/v1alpha1", "kind": "ResiliencePolicy",
            "metadata": { "name": "web", "namespace": "ns", "generation": 2 }, "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn a_ready_of_an_older_generation_or_an_earlier_look_does_not_count() {
        let ready = |generation: i64, handled: &str| {
            json!({ "lastHandledReconcileAt": handled, "conditions": [{ "type": "Ready", "status": "True",
                "reason": "Applied", "message": "m", "observedGeneration": generation }] })
        };
        assert!(line("e", &object(&ready(2, "now")), "now").is_ready());
        assert!(!line("e", &object(&ready(1, "now")), "now").is_ready());
        assert!(!line("e", &object(&ready(2, "before")), "now").is_ready());
        assert_eq!(line("e", &object(&json!({})), "now").reason, "NotReported");
    }
}
