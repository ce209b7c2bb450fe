//! Whether an object already is what we would apply: the reason why nothing is written at rest.
//!
//! Server-side apply records per manager which fields it set (`managedFields`, format `FieldsV1`, see the API
//! reference of `meta/v1`). An apply changes nothing exactly when our recorded fields are the fields of what we
//! would send, and each has the value that we would send.
//!
//! ```text
//!  desired ─┐
//!  fields  ─┼─ walked together ─▶ settled?
//!  living  ─┘
//! ```
//!
//! Invariant: `true` is proof; `false` only costs one apply that changes nothing.

use serde_json::{Map, Value};

/// Whether applying `desired` as `manager` would change nothing about `living`.
#[must_use]
pub fn settled(desired: &Value, living: &Value, manager: &str) -> bool {
    settled_in("", desired, living, manager)
}

/// The same of the status, which is applied by itself and recorded apart: `desired` has nothing but `status`.
#[must_use]
pub fn status_settled(desired: &Value, living: &Value, manager: &str) -> bool {
    settled_in("status", desired, living, manager)
}

fn settled_in(subresource: &str, desired: &Value, living: &Value, manager: &str) -> bool {
    let Some(fields) = fields_of(living, manager, subresource) else {
        return is_nothing(desired);
    };
    match_fields(fields, desired, living, true)
}

/// Whether an object says nothing but which object it is.
#[must_use]
pub fn is_nothing(desired: &Value) -> bool {
    let only = |map: &Map<String, Value>, root: bool| {
        map.iter()
            .all(|(field, _)| (root && field == "metadata") || is_identity(root, !root, field))
    };
    let metadata = desired.get("metadata").and_then(Value::as_object);
    desired.as_object().is_some_and(|map| only(map, true)) && metadata.is_none_or(|metadata| only(metadata, false))
}

/// Whether `manager` owns any field of `living`.
#[must_use]
pub fn owns_any(living: &Value, manager: &str) -> bool {
    fields_of(living, manager, "").is_some()
}

fn fields_of<'a>(living: &'a Value, manager: &str, subresource: &str) -> Option<&'a Map<String, Value>> {
    let text = |entry: &'a Value, field: &str| entry.get(field).and_then(Value::as_str);
    living
        .pointer("/metadata/managedFields")?
        .as_array()?
        .iter()
        .find(|entry| {
            text(entry, "manager") == Some(manager)
                && text(entry, "operation") == Some("Apply")
                && text(entry, "subresource").unwrap_or_default() == subresource
        })?
        .get("fieldsV1")?
        .as_object()
}

/// Identity, not state: server-side apply never records these.
fn is_identity(path_is_root: bool, parent_is_metadata: bool, field: &str) -> bool {
    (path_is_root && matches!(field, "apiVersion" | "kind"))
        || (parent_is_metadata && matches!(field, "name" | "namespace" | "uid"))
}

fn match_fields(fields: &Map<String, Value>, desired: &Value, living: &Value, root: bool) -> bool {
    match desired {
        Value::Object(map) => match_map(fields, map, living, root, false),
        Value::Array(list) => match_list(fields, list, living),
        _ => false,
    }
}

fn match_map(
    fields: &Map<String, Value>,
    desired: &Map<String, Value>,
    living: &Value,
    root: bool,
    metadata: bool,
) -> bool {
    let recorded = fields.keys().filter(|key| key.as_str() != ".").count();
    let mut wanted = 0;
    for (name, value) in desired {
        if value.is_null() || is_identity(root, metadata, name) {
            continue;
        }
        wanted += 1;
        let Some(Value::Object(below)) = fields.get(&format!("f:{name}")) else {
            return false;
        };
        let Some(now) = living.get(name) else { return false };
        let same = match value {
            Value::Object(map) if !below.is_empty() => match_map(below, map, now, false, root && name == "metadata"),
            Value::Array(list) if !below.is_empty() => match_list(below, list, now),
            leaf => leaf == now,
        };
        if !same {
            return false;
        }
    }
    wanted == recorded
}

fn match_list(fields: &Map<String, Value>, desired: &[Value], living: &Value) -> bool {
    let Some(living) = living.as_array() else { return false };
    let mut recorded = 0;
    for (key, below) in fields {
        if key == "." {
            continue;
        }
        recorded += 1;
        if let Some(keys) = key
            .strip_prefix("k:")
            .and_then(|keys| serde_json::from_str::<Map<String, Value>>(keys).ok())
        {
            let is_it = |item: &&Value| keys.iter().all(|(name, value)| item.get(name) == Some(value));
            let (Some(wanted), Some(now)) = (desired.iter().find(is_it), living.iter().find(is_it)) else {
                return false;
            };
            let Some(below) = below.as_object() else { return false };
            // An item without fields is atomic, such as an owner reference.
            let same = if below.is_empty() {
                wanted == now
            } else {
                match_fields(below, wanted, now, false)
            };
            if !same {
                return false;
            }
        } else if let Some(value) = key
            .strip_prefix("v:")
            .and_then(|value| serde_json::from_str::<Value>(value).ok())
        {
            if !desired.contains(&value) || !living.contains(&value) {
                return false;
            }
        } else {
            return false;
        }
    }
    recorded == desired.len()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    const ME: &str = "trellis-test/ns/name";

    fn living(fields: &Value, rest: &Value) -> Value {
        let mut object = rest.clone();
        object["metadata"]["managedFields"] = json!([
            { "manager": "kubectl", "operation": "Update", "fieldsV1": { "f:spec": {} } },
            { "manager": ME, "operation": "Apply", "subresource": "status", "fieldsV1": { "f:status": {} } },
            { "manager": ME, "operation": "Apply", "fieldsV1": fields },
        ]);
        object
    }

    fn annotated(annotations: &Value) -> Value {
        json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web", "uid": "u", "annotations": annotations } })
    }

    #[rstest]
    #[case::same(json!({ "a": "1" }), json!({ "a": "1", "foreign": "x" }), json!({ "f:a": {} }), true)]
    #[case::other_value(json!({ "a": "2" }), json!({ "a": "1" }), json!({ "f:a": {} }), false)]
    #[case::not_recorded(json!({ "a": "1" }), json!({ "a": "1" }), json!({ "f:b": {} }), false)]
    #[case::one_too_many(json!({ "a": "1" }), json!({ "a": "1", "b": "1" }), json!({ "f:a": {}, "f:b": {} }), false)]
    #[case::removed_by_another(json!({ "a": "1" }), json!({}), json!({ "f:a": {} }), false)]
    fn annotations(#[case] desired: Value, #[case] now: Value, #[case] fields: Value, #[case] expected: bool) {
        let living = living(&json!({ "f:metadata": { "f:annotations": fields } }), &annotated(&now));
        assert_eq!(settled(&annotated(&desired), &living, ME), expected);
    }

    #[rstest]
    #[case::same(json!({ "a": 1, "list": [1] }), true)]
    #[case::other(json!({ "a": 2, "list": [1] }), false)]
    #[case::less(json!({ "list": [1] }), false)]
    fn a_status_is_recorded_apart(#[case] status: Value, #[case] expected: bool) {
        let mut now = living(&json!({}), &json!({ "status": { "a": 1, "list": [1], "foreign": 1 } }));
        now["metadata"]["managedFields"][1]["fieldsV1"] = json!({ "f:status": { "f:a": {}, "f:list": {} } });
        assert_eq!(status_settled(&json!({ "status": status }), &now, ME), expected);
    }

    #[rstest]
    #[case::same(8080, json!(["a", "b"]), true)]
    #[case::port_differs(8081, json!(["a", "b"]), false)]
    #[case::set_differs(8080, json!(["a"]), false)]
    fn lists(#[case] port: i64, #[case] finalizers: Value, #[case] expected: bool) {
        let fields = json!({
            "f:metadata": { "f:finalizers": { ".": {}, "v:\"a\"": {}, "v:\"b\"": {} } },
            "f:spec": { "f:ports": { ".": {}, "k:{\"port\":80,\"protocol\":\"TCP\"}": {
                ".": {}, "f:port": {}, "f:protocol": {}, "f:targetPort": {} } } },
        });
        let shape = |target: i64, finalizers: &Value| {
            json!({ "metadata": { "name": "x", "finalizers": finalizers },
                    "spec": { "ports": [{ "port": 80, "protocol": "TCP", "targetPort": target }] } })
        };
        let mut now = shape(8080, &json!(["a", "b", "foreign"]));
        now["spec"]["ports"]
            .as_array_mut()
            .unwrap()
            .insert(0, json!({ "port": 81, "protocol": "TCP" }));
        assert_eq!(settled(&shape(port, &finalizers), &living(&fields, &now), ME), expected);
    }

    #[rstest]
    #[case::same("u1", true)]
    #[case::other_owner("u2", false)]
    fn owner_references(#[case] uid: &str, #[case] expected: bool) {
        let fields = json!({ "f:metadata": { "f:ownerReferences": { ".": {}, "k:{\"uid\":\"u1\"}": {} } } });
        let shape = |uid: &str| json!({ "metadata": { "name": "x", "ownerReferences": [{ "uid": uid, "kind": "Widget", "controller": true }] } });
        assert_eq!(settled(&shape(uid), &living(&fields, &shape("u1")), ME), expected);
        let mut lost = shape("u1");
        lost["metadata"]["ownerReferences"][0]["controller"] = json!(false);
        assert!(!settled(&shape(uid), &living(&fields, &lost), ME));
    }

    #[test]
    fn an_unknown_manager_owns_nothing() {
        let object = living(&json!({}), &annotated(&json!({})));
        assert!(!settled(&annotated(&json!({ "a": "1" })), &object, "somebody"));
        let nothing = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web", "uid": "u" } });
        assert!(settled(&nothing, &object, "somebody"), "nothing to give up");
        assert!(!settled(
            &nothing,
            &living(&json!({ "f:metadata": {} }), &annotated(&json!({}))),
            ME
        ));
        assert!(!owns_any(&object, "somebody"));
        assert!(owns_any(&object, ME));
    }
}
