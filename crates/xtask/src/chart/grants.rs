//! What a set of roles and bindings permits, however it is cut into roles: so that two ways of cutting can be compared.

use std::collections::BTreeSet;

use serde_json::Value;

/// One verb on one resource in one place: `NAMESPACE or * | group/resource[names] | verb`.
pub(crate) fn of(objects: &[Value]) -> BTreeSet<String> {
    let mut grants = BTreeSet::new();
    for binding in objects
        .iter()
        .filter(|object| text(object, "/kind").ends_with("RoleBinding"))
    {
        let place = match text(binding, "/metadata/namespace") {
            "" => "*",
            namespace => namespace,
        };
        let (kind, name) = (text(binding, "/roleRef/kind"), text(binding, "/roleRef/name"));
        let bound = objects.iter().filter(|role| {
            text(role, "/kind") == kind
                && text(role, "/metadata/name") == name
                && (kind == "ClusterRole" || text(role, "/metadata/namespace") == place)
        });
        for rule in bound.flat_map(|role| list(role, "rules")) {
            let mut names: Vec<&str> = strings(rule, "resourceNames");
            names.sort_unstable();
            for group in strings(rule, "apiGroups") {
                for resource in strings(rule, "resources") {
                    for verb in strings(rule, "verbs") {
                        grants.insert(format!("{place} | {group}/{resource}{names:?} | {verb}"));
                    }
                }
            }
        }
    }
    grants
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(object: &'a Value, key: &str) -> &'a [Value] {
    object
        .get(key)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

fn strings<'a>(object: &'a Value, key: &str) -> Vec<&'a str> {
    list(object, key).iter().filter_map(Value::as_str).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn how_rules_are_cut_does_not_matter_but_where_they_hold_does() {
        let rule = |resources: &[&str]| json!({"apiGroups": [""], "resources": resources, "verbs": ["get"]});
        let role = |kind: &str, namespace: Option<&str>, rules: Vec<Value>| json!({"kind": kind, "metadata": {"name": "r", "namespace": namespace}, "rules": rules});
        let binding = |kind: &str, role: &str, namespace: Option<&str>| json!({"kind": kind, "metadata": {"name": "b", "namespace": namespace}, "roleRef": {"kind": role, "name": "r"}});
        let one = [
            role("Role", Some("a"), vec![rule(&["x", "y"])]),
            binding("RoleBinding", "Role", Some("a")),
        ];
        let two = [
            role("ClusterRole", None, vec![rule(&["y"]), rule(&["x"])]),
            binding("RoleBinding", "ClusterRole", Some("a")),
        ];
        assert_eq!(of(&one), of(&two));
        assert_eq!(of(&one).len(), 2);
        let everywhere = [
            role("ClusterRole", None, vec![rule(&["x", "y"])]),
            binding("ClusterRoleBinding", "ClusterRole", None),
        ];
        assert_ne!(of(&one), of(&everywhere));
        let elsewhere = [
            role("Role", Some("b"), vec![rule(&["x"])]),
            binding("RoleBinding", "Role", Some("a")),
        ];
        assert!(of(&elsewhere).is_empty(), "a Role binds only in its own namespace");
    }
}
