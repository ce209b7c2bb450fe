//! A payload that has to be Kubernetes objects.

use std::collections::BTreeSet;

use serde_json::Value;
use trellis_core::Refusal;

use super::{Content, yaml};
use crate::reason::Reason;

/// Checks the objects. YAML stays as it is, with its comments; JSON becomes YAML, one document for each object of a list at
/// the top.
pub(super) fn read(bytes: &[u8]) -> Result<Content, Refusal> {
    let text = std::str::from_utf8(bytes).map_err(|_| refuse("the payload is not UTF-8"))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let json = text.trim_start().starts_with(['{', '[']);
    let documents = match serde_json::from_str::<Value>(text) {
        Ok(Value::Array(objects)) if json => objects,
        Ok(object) if json => vec![object],
        _ => {
            let documents = parsed(text)?;
            check(&documents)?;
            return Ok(Content::Payload);
        }
    };
    check(&documents)?;
    let documents: Vec<String> = documents.iter().map(yaml::document).collect();
    Ok(Content::Bytes(documents.join("---\n").into_bytes()))
}

/// Every document but the empty ones.
fn parsed(text: &str) -> Result<Vec<Value>, Refusal> {
    // The error names a place; the line itself could hold a secret.
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|error| match error.location() {
        Some(place) => refuse(format!(
            "the payload is not YAML, at line {} column {}",
            place.line(),
            place.column()
        )),
        None => refuse("the payload is not YAML"),
    })?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

fn check(documents: &[Value]) -> Result<(), Refusal> {
    if documents.is_empty() {
        return Err(refuse("the payload holds no Kubernetes object"));
    }
    let mut seen = BTreeSet::new();
    documents.iter().enumerate().try_for_each(|(place, document)| {
        object(document, &mut seen).map_err(|what| refuse(format!("document {} of the payload {what}", place + 1)))
    })
}

/// Kustomize tells objects apart by group, kind, namespace and name.
type Identity = (String, String, String, String);

fn object(document: &Value, seen: &mut BTreeSet<Identity>) -> Result<(), String> {
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    if !document.is_object() {
        return Err("is no Kubernetes object".to_owned());
    }
    let (version, kind) = (text(document, "apiVersion"), text(document, "kind"));
    if version.is_empty() || kind.is_empty() {
        return Err("has no apiVersion or no kind, so it is no Kubernetes object".to_owned());
    }
    let group = version.split_once('/').map_or("", |(group, _)| group).to_owned();
    if kind.ends_with("List")
        && let Some(items) = document.get("items").and_then(Value::as_array)
    {
        return items.iter().try_for_each(|item| object(item, seen));
    }
    if matches!(group.as_str(), "kustomize.config.k8s.io") {
        return Ok(());
    }
    let metadata = document.get("metadata").unwrap_or(&Value::Null);
    let name = text(metadata, "name");
    if name.is_empty() {
        return if text(metadata, "generateName").is_empty() {
            Err(format!("is a {kind} without metadata.name"))
        } else {
            Err(format!(
                "is a {kind} with metadata.generateName, which cannot be applied twice; give it a name"
            ))
        };
    }
    if seen.insert((group, kind.clone(), text(metadata, "namespace"), name.clone())) {
        Ok(())
    } else {
        Err(format!("is {kind} {name} for the second time"))
    }
}

fn refuse(message: impl Into<String>) -> Refusal {
    Reason::PermanentError
        .refuse(message)
        .hint("shape the payload as ConfigMap, Secret or Raw, or make objects of it with a transform")
}
