//! A payload that is data: wrapped into an object that Kubernetes takes.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use trellis_core::Refusal;

use super::yaml;
use crate::{path::EntryPath, reason::Reason, revision::is_dns_name};

/// Most data of a `ConfigMap` or Secret, in bytes (`MaxSecretSize` of `k8s.io/api/core/v1`).
pub const DATA_LIMIT: u64 = 1 << 20;

/// The object around the payload.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wrap {
    /// Its name.
    pub name: String,
    /// Its namespace; none: the one that the Kustomization says.
    pub namespace: Option<String>,
    /// The key that holds the payload; none: the payload's default name.
    pub key: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl Wrap {
    /// A `ConfigMap`: text under `data`, everything else under `binaryData`.
    pub(super) fn config_map(&self, payload: &[u8], default: &EntryPath) -> Result<Vec<u8>, Refusal> {
        let text = std::str::from_utf8(payload)
            .ok()
            .filter(|text| text.chars().all(is_text));
        let (field, value) = match text {
            Some(text) => ("data", text.to_owned()),
            None => ("binaryData", STANDARD.encode(payload)),
        };
        self.object("ConfigMap", field, value, default)
    }

    /// A Secret of the type `Opaque`.
    pub(super) fn secret(&self, payload: &[u8], default: &EntryPath) -> Result<Vec<u8>, Refusal> {
        self.object("Secret", "data", STANDARD.encode(payload), default)
    }

    fn object(&self, kind: &str, field: &str, value: String, default: &EntryPath) -> Result<Vec<u8>, Refusal> {
        valid_name(&self.name)?;
        let key = self.key.as_deref().unwrap_or(default.name());
        valid_key(key)?;
        let mut metadata = json!({ "name": self.name });
        if let (Some(namespace), Some(metadata)) = (&self.namespace, metadata.as_object_mut()) {
            if !is_dns_name(namespace, 63, false) {
                return Err(Reason::ConfigurationError.refuse(format!("{namespace:?} is no name of a namespace")));
            }
            metadata.insert("namespace".to_owned(), json!(namespace));
        }
        if let (false, Some(metadata)) = (self.labels.is_empty(), metadata.as_object_mut()) {
            metadata.insert("labels".to_owned(), json!(self.labels));
        }
        let mut object = json!({ "apiVersion": "v1", "kind": kind, "metadata": metadata });
        if let Some(object) = object.as_object_mut() {
            object.insert(
                field.to_owned(),
                Value::Object([(key.to_owned(), Value::String(value))].into_iter().collect()),
            );
        }
        Ok(yaml::document(&object).into_bytes())
    }
}

/// What an editor shows: no control characters but those of lines.
fn is_text(c: char) -> bool {
    !c.is_control() || matches!(c, '\n' | '\r' | '\t')
}

pub(super) fn valid_name(name: &str) -> Result<(), Refusal> {
    if is_dns_name(name, 253, true) {
        Ok(())
    } else {
        Err(Reason::ConfigurationError
            .refuse(format!("{name:?} is no name of an object"))
            .hint("use lower-case letters, digits, - and . (RFC 1123)"))
    }
}

/// `IsConfigMapKey` of `k8s.io/apimachinery`.
pub(super) fn valid_key(key: &str) -> Result<(), Refusal> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if (1..=253).contains(&key.len()) && key.chars().all(fits) && key != "." && !key.starts_with("..") {
        Ok(())
    } else {
        Err(Reason::ConfigurationError
            .refuse(format!("{key:?} is no key of a ConfigMap or Secret"))
            .hint("use letters, digits, -, _ and ."))
    }
}
