//! Our CRDs as JSON, and the fields of their schemas as rows.

use anyhow::{Context, Result};
use serde_json::Value;

/// A CRD in the form in which it is applied.
pub(crate) struct Crd {
    manifest: Value,
    name: String,
    kind: String,
}

/// A field of a kind: a row of the table in its spec page.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Field {
    /// Dotted, from `spec` or `status`; `[]` marks the items of a list.
    pub path: String,
    /// Type and bounds, as a reader would say them.
    pub kind: String,
    /// The default, `required`, or nothing.
    pub default: String,
    /// From the CRD.
    pub description: String,
}

/// Every kind of ours.
pub(crate) fn crds() -> Result<Vec<Crd>> {
    trellis_api::crds().iter().map(Crd::new).collect()
}

impl Crd {
    fn new(crd: &impl serde::Serialize) -> Result<Self> {
        let manifest = serde_json::to_value(crd).context("the CRD is not JSON")?;
        let text = |pointer: &str| {
            manifest
                .pointer(pointer)
                .and_then(Value::as_str)
                .map(str::to_owned)
                .with_context(|| format!("the CRD lacks {pointer}"))
        };
        let (name, kind) = (text("/metadata/name")?, text("/spec/names/kind")?);
        Ok(Self { manifest, name, kind })
    }

    /// `<plural>.<group>`.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// As in a manifest.
    pub(crate) fn kind(&self) -> &str {
        &self.kind
    }

    /// The whole object.
    pub(crate) fn manifest(&self) -> &Value {
        &self.manifest
    }

    /// The fields below `spec` or `status`, a parent before its children, otherwise by name.
    pub(crate) fn fields(&self, top: &str) -> Vec<Field> {
        let mut fields = Vec::new();
        if let Some(schema) = self.schema(top) {
            walk(top, schema, &mut fields);
        }
        fields
    }

    /// What the API server refuses beyond types and bounds: where, and its message.
    pub(crate) fn rules(&self, top: &str) -> Vec<(String, String)> {
        let mut rules = Vec::new();
        if let Some(schema) = self.schema(top) {
            collect_rules(top, schema, &mut rules);
        }
        rules
    }

    fn schema(&self, top: &str) -> Option<&Value> {
        self.manifest
            .pointer(&format!("/spec/versions/0/schema/openAPIV3Schema/properties/{top}"))
    }
}

fn children(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
}

fn walk(path: &str, schema: &Value, fields: &mut Vec<Field>) {
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    for (name, child) in children(schema) {
        let path = format!("{path}.{name}");
        let default = match child.get("default") {
            Some(value) => format!("`{value}`"),
            None if required.contains(&name.as_str()) => "required".to_owned(),
            None => String::new(),
        };
        let description = child
            .get("description")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        fields.push(Field {
            path: path.clone(),
            kind: kind(child),
            default,
            description,
        });
        match child.get("items") {
            Some(items) => walk(&format!("{path}[]"), items, fields),
            None => walk(&path, child, fields),
        }
    }
}

fn collect_rules(path: &str, schema: &Value, rules: &mut Vec<(String, String)>) {
    for rule in schema
        .get("x-kubernetes-validations")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        if let Some(message) = rule.get("message").and_then(Value::as_str) {
            rules.push((path.to_owned(), message.to_owned()));
        }
    }
    for (name, child) in children(schema) {
        collect_rules(&format!("{path}.{name}"), child, rules);
    }
    if let Some(items) = schema.get("items") {
        collect_rules(&format!("{path}[]"), items, rules);
    }
}

/// The type in words, with its bounds.
fn kind(schema: &Value) -> String {
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        let values: Vec<String> = values
            .iter()
            .filter(|value| !value.is_null())
            .map(|value| format!("`{}`", plain(value)))
            .collect();
        return values.join(" or ");
    }
    if schema.get("x-kubernetes-int-or-string").is_some() {
        return "number or string".to_owned();
    }
    let name = schema.get("type").and_then(Value::as_str).unwrap_or("any");
    let name = match (name, schema.get("items")) {
        ("array", Some(items)) => format!("list of {}", kind(items)),
        _ => schema
            .get("format")
            .and_then(Value::as_str)
            .filter(|format| *format == "date-time")
            .unwrap_or(name)
            .to_owned(),
    };
    let mut parts = vec![name];
    for (low, high, unit) in [
        ("minimum", "maximum", ""),
        ("minLength", "maxLength", " characters"),
        ("minItems", "maxItems", " items"),
    ] {
        match (schema.get(low).map(plain), schema.get(high).map(plain)) {
            (Some(low), Some(high)) => parts.push(format!("{low} to {high}{unit}")),
            (Some(low), None) => parts.push(format!("at least {low}{unit}")),
            (None, Some(high)) => parts.push(format!("at most {high}{unit}")),
            (None, None) => {}
        }
    }
    parts.extend(
        schema
            .get("pattern")
            .and_then(Value::as_str)
            .map(|pattern| format!("`{pattern}`")),
    );
    parts.join(", ")
}

/// A scalar as a reader writes it: no quotes, no `.0`.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string().trim_end_matches(".0").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn crd() -> Crd {
        Crd::new(&json!({
            "metadata": {"name": "lamps.light.dev"},
            "spec": {"names": {"kind": "Lamp"}, "versions": [{"schema": {"openAPIV3Schema": {"properties": {"spec": {
                "required": ["room"],
                "properties": {
                    "room": {"type": "string", "minLength": 1, "maxLength": 63, "description": "Where it hangs."},
                    "watts": {"type": "integer", "minimum": 1.0, "maximum": 100.0, "default": 5, "description": "How bright."},
                    "mode": {"type": "string", "enum": ["on", "off"], "description": "What it does."},
                    "bulbs": {"type": "array", "description": "What is in it.", "items": {
                        "type": "object",
                        "x-kubernetes-validations": [{"rule": "true", "message": "a bulb is round"}],
                        "properties": {"size": {"type": "string", "pattern": "^E[0-9]+$", "description": "Its thread."}},
                    }},
                },
            }}}}}]},
        }))
        .unwrap()
    }

    #[test]
    fn fields_carry_type_bounds_and_default() {
        let rows: Vec<(String, String, String)> = crd()
            .fields("spec")
            .into_iter()
            .map(|field| (field.path, field.kind, field.default))
            .collect();
        let row = |path: &str, kind: &str, default: &str| (path.to_owned(), kind.to_owned(), default.to_owned());
        assert_eq!(
            rows,
            [
                row("spec.bulbs", "list of object", ""),
                row("spec.bulbs[].size", "string, `^E[0-9]+$`", ""),
                row("spec.mode", "`on` or `off`", ""),
                row("spec.room", "string, 1 to 63 characters", "required"),
                row("spec.watts", "integer, 1 to 100", "`5`"),
            ]
        );
    }

    #[test]
    fn rules_say_where() {
        assert_eq!(
            crd().rules("spec"),
            [("spec.bulbs[]".to_owned(), "a bulb is round".to_owned())]
        );
        assert!(crd().fields("status").is_empty());
    }

    #[test]
    fn every_kind_describes_every_field() {
        for crd in crds().unwrap() {
            for top in ["spec", "status"] {
                let fields = crd.fields(top);
                assert!(!fields.is_empty(), "{} has no {top}", crd.kind());
                for field in fields {
                    assert!(!field.description.trim().is_empty(), "{} {}", crd.kind(), field.path);
                }
            }
        }
    }
}
