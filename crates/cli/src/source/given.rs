//! `Given`: sources and Secrets, as manifests in files have them.
//!
//! Invariant: a value of a Secret is never shown.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    sync::Arc,
};

use anyhow::{Context as _, bail, ensure};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::ResourceExt as _;
use serde_json::Value;
use trellis_api::ExternalSource;
use trellis_core::Refusal;
use trellis_operator::external_source::{Order, Secrets, Settings, secrets};

use super::schema;

/// Manifests are written by people: more than this is a mistake.
const FILE_LIMIT: u64 = 4 << 20;

/// What files give.
#[derive(Default)]
pub(super) struct Given {
    sources: Vec<Value>,
    secrets: Vec<Arc<Secret>>,
}

/// A source as it was given.
pub(super) struct Source {
    pub(super) name: String,
    pub(super) object: ExternalSource,
    /// What its writer should know.
    pub(super) notes: Vec<String>,
    /// Why an API server does not take it.
    pub(super) refused: Vec<String>,
}

impl Given {
    /// Adds what a file has. Objects of other kinds are passed over.
    pub(super) fn add(&mut self, file: &Path) -> anyhow::Result<()> {
        let text = read(file)?;
        let documents: Vec<Value> =
            serde_saphyr::from_multiple(&text).with_context(|| format!("{} is no YAML", file.display()))?;
        for document in documents {
            match (text_of(&document, "apiVersion"), text_of(&document, "kind")) {
                (Some(version), Some("ExternalSource")) if version.starts_with("source.flux.oddkin.co/") => {
                    self.sources.push(document);
                }
                (Some("v1"), Some("Secret")) => {
                    // The values stay out of the message.
                    let secret = serde_json::from_value(document)
                        .map_err(|_| anyhow::anyhow!("{}: a Secret cannot be read", file.display()))?;
                    self.secrets.push(Arc::new(in_data(secret)));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The sources, in their order.
    ///
    /// # Errors
    /// When there is none, or one is not of the form of its kind.
    pub(super) fn sources(&self) -> anyhow::Result<Vec<Source>> {
        ensure!(
            !self.sources.is_empty(),
            "there is no ExternalSource (source.flux.oddkin.co/v1alpha1) in what was given"
        );
        self.sources.iter().map(source).collect()
    }

    /// The one source, or the one of this name.
    pub(super) fn one(&self, name: Option<&str>) -> anyhow::Result<Source> {
        let mut sources = self.sources()?;
        if let Some(name) = name {
            sources.retain(|source| source.name == name);
            ensure!(
                !sources.is_empty(),
                "there is no ExternalSource {name} in what was given"
            );
        }
        match (sources.pop(), sources.is_empty()) {
            (Some(source), true) => Ok(source),
            (Some(last), false) => bail!(
                "there are several sources; name one with --name, such as --name {}",
                last.name
            ),
            (None, _) => bail!("there is no ExternalSource in what was given"),
        }
    }

    /// What the source asks for.
    pub(super) fn order(&self, source: &ExternalSource, settings: &Settings) -> Result<Order, Refusal> {
        let named = |name: &str| {
            let found = self.secrets.iter().find(|secret| secret.name_any() == name);
            (name.to_owned(), found.cloned())
        };
        let secrets: Secrets = secrets(&source.spec).into_iter().map(named).collect();
        Order::of(source, &secrets, settings)
    }
}

fn read(file: &Path) -> anyhow::Result<String> {
    let reader: Box<dyn Read> = if file == Path::new("-") {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(file).with_context(|| format!("cannot read {}", file.display()))?)
    };
    let mut text = String::new();
    let read = reader.take(FILE_LIMIT + 1).read_to_string(&mut text);
    let read = read.with_context(|| format!("cannot read {}", file.display()))?;
    ensure!(
        u64::try_from(read).is_ok_and(|read| read <= FILE_LIMIT),
        "{} has more than {FILE_LIMIT} bytes",
        file.display()
    );
    Ok(text)
}

fn text_of<'a>(document: &'a Value, field: &str) -> Option<&'a str> {
    document.get(field).and_then(Value::as_str)
}

/// As the API server stores it: what is given as text is in `data` too.
fn in_data(mut secret: Secret) -> Secret {
    for (key, text) in secret.string_data.take().unwrap_or_default() {
        secret
            .data
            .get_or_insert_default()
            .insert(key, ByteString(text.into_bytes()));
    }
    secret
}

fn source(given: &Value) -> anyhow::Result<Source> {
    let name = given
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .unwrap_or("(no name)");
    let judged = schema::judge(given)?;
    let object: ExternalSource = serde_json::from_value(given.clone()).with_context(|| {
        let why = judged.refused.join("; ");
        format!(
            "ExternalSource {name} is not of its kind{}{why}",
            if why.is_empty() { "" } else { ": " }
        )
    })?;
    let understood = serde_json::to_value(&object.spec)?;
    let mut unknown = Vec::new();
    if let Some(spec) = given.get("spec") {
        differ("spec", spec, &understood, &mut unknown);
    }
    let notes = unknown
        .into_iter()
        .map(|field| format!("{field} is no field of the kind, and means nothing"));
    Ok(Source {
        name: name.to_owned(),
        object,
        notes: notes.chain(judged.open).collect(),
        refused: judged.refused,
    })
}

/// The fields that say something and were not understood.
fn differ(path: &str, given: &Value, understood: &Value, unknown: &mut Vec<String>) {
    match (given, understood) {
        (Value::Object(given), Value::Object(understood)) => {
            for (field, value) in given {
                let path = format!("{path}.{field}");
                match understood.get(field) {
                    Some(understood) => differ(&path, value, understood, unknown),
                    None if says_nothing(value) => {}
                    None => unknown.push(path),
                }
            }
        }
        (Value::Array(given), Value::Array(understood)) => {
            for (place, (given, understood)) in given.iter().zip(understood).enumerate() {
                differ(&format!("{path}[{place}]"), given, understood, unknown);
            }
        }
        _ => {}
    }
}

/// What is left out where it is the default.
fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(text: &str) -> Given {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let mut given = Given::default();
        given.add(file.path()).unwrap();
        given
    }

    const SOURCE: &str = "apiVersion: source.flux.oddkin.co/v1alpha1\nkind: ExternalSource\nmetadata: {name: app}\n\
        spec:\n  interval: 5m\n  generator:\n    type: http\n    http: {url: 'https://example.com/a.json', \
        headersSecretRef: {name: token}}\n";

    #[test]
    fn a_secret_beside_its_source_is_used_and_never_shown() {
        let secret = "---\napiVersion: v1\nkind: Secret\nmetadata: {name: token}\nstringData: {Authorization: hush}\n";
        let given = given(&format!("{SOURCE}{secret}"));
        let order = given
            .order(&given.one(None).unwrap().object, &Settings::new("http://h", "/tmp"))
            .unwrap();
        let rendered = serde_json::to_string(&order.rendered()).unwrap();
        assert!(rendered.to_lowercase().contains("authorization"), "{rendered}");
        assert!(!rendered.contains("hush"), "{rendered}");
    }

    #[test]
    fn a_secret_that_is_missing_is_named() {
        let given = given(SOURCE);
        let refused = given.order(&given.one(None).unwrap().object, &Settings::new("http://h", "/tmp"));
        assert!(refused.unwrap_err().to_string().contains("no Secret token"));
    }

    #[test]
    fn a_field_that_means_nothing_is_told() {
        let given = given(&format!("{SOURCE}  intervall: 5m\n  suspend: false\n"));
        let source = given.one(None).unwrap();
        assert_eq!(
            source.notes,
            ["spec.intervall is no field of the kind, and means nothing"]
        );
    }

    #[test]
    fn one_of_several_has_to_be_named() {
        let given = given(&format!("{SOURCE}---\n{}", SOURCE.replace("name: app", "name: web")));
        assert!(
            given
                .one(None)
                .is_err_and(|error| error.to_string().contains("--name web"))
        );
        assert_eq!(given.one(Some("app")).unwrap().name, "app");
        assert!(given.one(Some("none")).is_err());
        assert!(Given::default().sources().is_err());
    }
}
