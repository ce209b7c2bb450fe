//! What an API server would say to a manifest, by the definition of its kind.
//!
//! ```text
//!  manifest + defaults ─▶ form: types, lengths, sizes, enums, keys ─▶ rules in CEL (kube-cel) ─▶ refusals
//! ```
//!
//! Invariants: what is refused here is refused by an API server; a rule that cannot be judged here refuses nothing and is told.

use std::collections::HashSet;

use anyhow::Context as _;
use kube::CustomResourceExt as _;
use kube_cel::ErrorKind;
use serde_json::Value;
use trellis_api::ExternalSource;

/// What is wrong with a manifest.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Judged {
    /// What an API server refuses.
    pub(super) refused: Vec<String>,
    /// What only an API server can judge.
    pub(super) open: Vec<String>,
}

/// Judges an `ExternalSource`, whatever its status.
pub(super) fn judge(given: &Value) -> anyhow::Result<Judged> {
    let definition = ExternalSource::crd();
    let version = definition
        .spec
        .versions
        .first()
        .and_then(|version| version.schema.as_ref());
    let schema = version.and_then(|schema| schema.open_api_v3_schema.as_ref());
    let schema = serde_json::to_value(schema.context("the definition has no schema: a defect")?)?;
    let mut object = given.clone();
    if let Some(object) = object.as_object_mut() {
        object.remove("status");
    }
    let object = kube_cel::apply_defaults(&schema, &object);
    let mut judged = Judged::default();
    form("", &schema, &object, &mut judged.refused);
    if !judged.refused.is_empty() {
        // Rules take the form for granted.
        return Ok(judged);
    }
    let mut rules = schema;
    escape(&mut rules);
    let Err(errors) = kube_cel::validate(&rules, &object, None) else {
        return Ok(judged);
    };
    for error in errors.into_vec() {
        if error.kind == ErrorKind::ValidationFailure {
            judged.refused.push(error.to_string());
        } else {
            judged.open.push(format!(
                "{}: a rule is judged by the API server alone (kubectl apply --dry-run=server)",
                error.field_path
            ));
        }
    }
    Ok(judged)
}

/// Writes the field `as` as the library knows it: an API server takes the reserved word after a dot, the library only as
/// Kubernetes escapes it elsewhere.
fn escape(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::String(rule)) = fields.get_mut("rule") {
                *rule = rule.replace(".as ", ".__as__ ");
            }
            fields.values_mut().for_each(escape);
        }
        Value::Array(items) => items.iter_mut().for_each(escape),
        _ => {}
    }
}

/// The form of a value and of all below it.
fn form(path: &str, schema: &Value, value: &Value, refused: &mut Vec<String>) {
    let shown = if path.is_empty() { "the manifest" } else { path };
    if value.is_null() && schema.get("nullable") == Some(&Value::Bool(true)) {
        return;
    }
    let kind = schema.get("type").and_then(Value::as_str).unwrap_or_default();
    let fits = match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        _ => true,
    };
    if !fits {
        refused.push(format!("{shown}: must be of type {kind}"));
        return;
    }
    let listed = schema.get("enum").and_then(Value::as_array);
    if let Some(listed) = listed.filter(|listed| !listed.contains(value)) {
        let listed: Vec<String> = listed.iter().map(ToString::to_string).collect();
        refused.push(format!("{shown}: must be one of {}", listed.join(", ")));
    }
    bounds(shown, schema, value, refused);
    if let (Some(fields), Some(below)) = (value.as_object(), schema.get("properties")) {
        for missing in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
            if let Some(name) = missing.as_str().filter(|name| !fields.contains_key(*name)) {
                refused.push(format!("{shown}: {name} is required"));
            }
        }
        for (name, value) in fields {
            if let Some(schema) = below.get(name) {
                let dot = if path.is_empty() { "" } else { "." };
                form(&format!("{path}{dot}{name}"), schema, value, refused);
            }
        }
    } else if let (Some(fields), Some(schema)) = (value.as_object(), schema.get("additionalProperties")) {
        for (name, value) in fields {
            form(&format!("{path}.{name}"), schema, value, refused);
        }
    }
    if let (Some(items), Some(schema)) = (value.as_array(), schema.get("items")) {
        for (place, value) in items.iter().enumerate() {
            form(&format!("{path}[{place}]"), schema, value, refused);
        }
    }
    keys(shown, schema, value, refused);
}

/// Sizes and lengths.
fn bounds(shown: &str, schema: &Value, value: &Value, refused: &mut Vec<String>) {
    #[expect(clippy::cast_precision_loss, reason = "lengths are far below 2^52")]
    let (size, least, most, of) = match value {
        Value::Number(number) => (number.as_f64(), "minimum", "maximum", ""),
        Value::String(text) => (
            Some(text.chars().count() as f64),
            "minLength",
            "maxLength",
            "the length ",
        ),
        Value::Array(items) => (Some(items.len() as f64), "minItems", "maxItems", "the number of items "),
        _ => return,
    };
    let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
    if let (Some(size), Some(least)) = (size, bound(least))
        && size < least
    {
        refused.push(format!("{shown}: {of}must be at least {least}"));
    }
    if let (Some(size), Some(most)) = (size, bound(most))
        && size > most
    {
        refused.push(format!("{shown}: {of}must be at most {most}"));
    }
}

/// A list that is a map holds each key once, and a set each value.
fn keys(shown: &str, schema: &Value, value: &Value, refused: &mut Vec<String>) {
    let Some(items) = value.as_array() else { return };
    let names: Vec<&str> = match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("map") => {
            let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
            keys.into_iter().flatten().filter_map(Value::as_str).collect()
        }
        Some("set") => Vec::new(),
        _ => return,
    };
    let mut seen = HashSet::new();
    for item in items {
        let key = if names.is_empty() {
            item.to_string()
        } else {
            let parts = names
                .iter()
                .map(|name| item.get(*name).unwrap_or(&Value::Null).to_string());
            parts.collect::<Vec<_>>().join(", ")
        };
        if !seen.insert(key.clone()) {
            refused.push(format!("{shown}: {key} is there twice"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn source(change: impl FnOnce(&mut Value)) -> Value {
        let mut source = json!({
            "apiVersion": "source.flux.oddkin.co/v1alpha1", "kind": "ExternalSource",
            "metadata": { "name": "app", "namespace": "shop" },
            "spec": {
                "interval": "5m",
                "generator": { "type": "http", "http": { "url": "https://example.com/a.json" } },
                "hooks": { "postRequest": [{ "name": "one", "command": "jq" }, { "name": "two", "command": "jq" }] },
            },
        });
        change(&mut source);
        source
    }

    /// The words of the refusals; none of the rules may be one that cannot be judged here.
    fn refused(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let judged = judge(&source(change)).unwrap();
        assert_eq!(judged.open, Vec::<String>::new());
        judged.refused
    }

    #[test]
    fn what_an_api_server_takes_is_taken() {
        assert_eq!(refused(|_| {}), Vec::<String>::new());
        let status = json!({ "conditions": "not looked at" });
        assert_eq!(refused(|source| source["status"] = status), Vec::<String>::new());
    }

    #[test]
    fn what_an_api_server_refuses_is_named() {
        type Change = Box<dyn FnOnce(&mut Value)>;
        let set = |pointer: &'static str, value: Value| -> Change {
            Box::new(move |source| {
                let (parent, last) = pointer.rsplit_once('/').unwrap();
                source.pointer_mut(parent).unwrap()[last] = value;
            })
        };
        let s3 = json!({ "bucket": "abc", "key": "a.yaml" });
        for (change, place, words) in [
            (set("/spec/maxRetries", json!(99)), "spec.maxRetries", "at most"),
            (set("/spec/maxRetries", json!(-1)), "spec.maxRetries", "at least"),
            (set("/spec/maxRetries", json!("3")), "spec.maxRetries", "type integer"),
            (set("/spec/suspend", json!("yes")), "spec.suspend", "type boolean"),
            (set("/spec/interval", json!("soon")), "spec.interval", ""),
            (
                set("/spec/generator/type", json!("ftp")),
                "spec.generator.type",
                "\"http\"",
            ),
            (set("/spec/generator/s3", s3), "spec.generator", "no other"),
            (
                set("/spec/generator/http/url", json!("ftp://a")),
                "spec.generator.http.url",
                "http",
            ),
            (
                set("/spec/generator/http", json!({})),
                "spec.generator.http",
                "url is required",
            ),
            (
                set(
                    "/spec/hooks/postRequest",
                    json!([{ "name": "a", "command": "x" }, { "name": "a", "command": "y" }]),
                ),
                "spec.hooks.postRequest",
                "\"a\" is there twice",
            ),
            (
                set("/spec/destinationPath", json!("../a")),
                "spec.destinationPath",
                "inside",
            ),
        ] {
            let found = refused(change);
            let hit = |one: &String| one.starts_with(place) && one.contains(words);
            assert!(found.iter().any(hit), "{place} {words}: {found:?}");
        }
    }

    #[test]
    fn a_config_map_has_no_file_of_another_kind() {
        let found = refused(|source| {
            source["spec"]["destinationPath"] = json!("foo.json");
            source["spec"]["output"] = json!({ "as": "ConfigMap", "object": { "name": "app" } });
        });
        assert!(found.iter().any(|one| one.contains("destinationPath")), "{found:?}");
    }
}
