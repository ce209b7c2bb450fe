//! What holds for the definition of every kind: structural, fully described, known formats, defaults that fit.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests fail by panicking, like tests"
)]

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use kube::ResourceExt;
use serde_json::{Value, json};

/// Formats that Kubernetes knows; any other makes the API server warn.
const FORMATS: [&str; 5] = ["int32", "int64", "float", "double", "date-time"];

fn schemas() -> Vec<(String, JSONSchemaProps)> {
    let schemas: Vec<_> = trellis_api::crds()
        .into_iter()
        .flat_map(|crd| {
            let name = crd.name_any();
            crd.spec.versions.into_iter().map(move |version| {
                let schema = version.schema.and_then(|schema| schema.open_api_v3_schema);
                (
                    format!("{name}/{}", version.name),
                    schema.expect("every version has a schema"),
                )
            })
        })
        .collect();
    assert!(!schemas.is_empty());
    schemas
}

/// Calls `see` with the path and schema of every property, at every depth.
fn walk(path: &str, schema: &Value, see: &mut impl FnMut(&str, &Value)) {
    if let Some(properties) = schema["properties"].as_object() {
        for (name, property) in properties {
            let path = format!("{path}.{name}");
            see(&path, property);
            walk(&path, property, see);
        }
    }
    for below in ["items", "additionalProperties"] {
        if schema[below].is_object() {
            walk(&format!("{path}[]"), &schema[below], see);
        }
    }
}

fn each_property(mut see: impl FnMut(&str, &Value)) {
    for (name, schema) in schemas() {
        let schema = serde_json::to_value(schema).unwrap();
        let mut count = 0;
        walk(&name, &schema, &mut |path, property| {
            count += 1;
            see(path, property);
        });
        assert!(count > 10, "{name} has only {count} properties");
    }
}

#[test]
fn every_property_is_described() {
    each_property(|path, property| {
        let text = property["description"].as_str().unwrap_or_default().trim();
        assert!(text.len() >= 10, "{path} has no description: {property}");
    });
    for (name, schema) in schemas() {
        assert!(
            schema.description.is_some_and(|text| text.len() > 20),
            "{name} has no description"
        );
    }
}

/// A structural schema gives a type to everything and keeps types out of junctors.
#[test]
fn every_schema_is_structural() {
    for (name, schema) in schemas() {
        assert_eq!(schema.type_.as_deref(), Some("object"), "{name}");
    }
    each_property(|path, property| {
        let type_ = property["type"].as_str().unwrap_or_default();
        assert!(
            ["object", "array", "string", "integer", "number", "boolean"].contains(&type_),
            "{path}: {property}"
        );
        if type_ == "array" {
            assert!(property["items"]["type"].is_string(), "{path}: items have no type");
            assert!(
                property["x-kubernetes-list-type"].is_string(),
                "{path}: say how lists merge"
            );
        }
        for junctor in ["anyOf", "oneOf", "allOf", "not", "$ref"] {
            assert_eq!(property[junctor], Value::Null, "{path}: {junctor}");
        }
        if let Some(format) = property["format"].as_str() {
            assert!(FORMATS.contains(&format), "{path}: unknown format {format}");
        }
    });
}

/// A null in a field that may not be null is dropped before CEL runs, so that `has()` means what it says.
#[test]
fn no_field_of_a_spec_is_nullable() {
    each_property(|path, property| {
        if path.contains(".spec.") {
            assert_ne!(property["nullable"], json!(true), "{path}");
            assert_ne!(property.get("default"), Some(&Value::Null), "{path}");
        }
    });
}

/// CEL cost is estimated from bounds: every string of a spec has one.
#[test]
fn every_string_of_a_spec_is_bounded() {
    each_property(|path, property| {
        if path.contains(".spec.") && property["type"] == "string" {
            assert!(
                property["maxLength"].is_u64() || property["enum"].is_array(),
                "{path} is unbounded"
            );
        }
    });
}

#[test]
fn every_rule_has_a_message_for_people() {
    let mut rules = 0;
    each_property(|path, property| {
        for rule in property["x-kubernetes-validations"].as_array().into_iter().flatten() {
            rules += 1;
            let message = rule["message"].as_str().unwrap_or_default();
            assert!(
                message.len() > 20 && !message.contains('\n') && !message.contains('^'),
                "{path}: {rule}"
            );
        }
        assert_eq!(
            property["pattern"],
            Value::Null,
            "{path}: a pattern has no message of its own; use a CEL rule"
        );
    });
    assert!(rules > 5);
}

#[test]
fn definitions_are_ordered() {
    let names: Vec<_> = trellis_api::crds().iter().map(ResourceExt::name_any).collect();
    assert!(names.is_sorted());
}

#[test]
fn definitions_are_the_same_every_time() {
    assert_eq!(
        serde_json::to_string(&trellis_api::crds()).unwrap(),
        serde_json::to_string(&trellis_api::crds()).unwrap()
    );
}
