//! A payload that has to be Kubernetes objects.
//!
//! ```text
//!  JSON ─▶ object ─▶ checked ─▶ YAML behind those before it        YAML ─▶ document ─▶ checked; the text stays
//! ```
//!
//! Invariant: one document at a time is in memory as a value, and its values are counted.

use std::{collections::BTreeSet, fmt};

use serde::de::{Deserializer as _, Error as _, SeqAccess, Visitor};
use serde_json::Value;
use trellis_core::Refusal;

use super::{Content, MANIFEST_LIMIT, yaml};
use crate::{
    reason::Reason,
    value::{self, Bounded, Room, Unread},
};

/// Most objects of a payload.
const OBJECTS: usize = 100_000;

/// Checks the objects. YAML stays as it is, with its comments; JSON becomes YAML, one document for each object of a list at
/// the top.
pub(super) fn read(bytes: &[u8]) -> Result<Content, Refusal> {
    let text = std::str::from_utf8(bytes).map_err(|_| refuse("the payload is not UTF-8"))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let begin = text.trim_start();
    if is_html(begin) {
        return Err(Reason::PermanentError
            .refuse("the payload looks like an HTML page")
            .hint("it may be a login page, or one that says what is wrong: open its address without credentials"));
    }
    let read = match begin.as_bytes().first() {
        Some(b'[') => list(begin),
        Some(b'{') => one(begin),
        _ => Err(Unread::Json),
    };
    match read {
        Ok(found) => {
            let text = found?.out;
            Ok(Content::Bytes(text.into_bytes()))
        }
        Err(Unread::TooMany) => Err(too_much(value::too_many())),
        Err(_) => documents(text).map(|()| Content::Payload),
    }
}

/// Whether the text begins as pages do.
fn is_html(text: &str) -> bool {
    let begins = |word: &str| {
        text.get(..word.len())
            .is_some_and(|begin| begin.eq_ignore_ascii_case(word))
    };
    begins("<!doctype html") || begins("<html")
}

/// Objects that were checked.
#[derive(Default)]
struct Found {
    documents: usize,
    seen: BTreeSet<Identity>,
    /// As YAML, where they came as JSON.
    out: String,
}

impl Found {
    fn check(&mut self, document: &Value) -> Result<(), Refusal> {
        self.documents += 1;
        let place = self.documents;
        object(document, &mut self.seen).map_err(|wrong| match wrong {
            Wrong::TooMany => too_much(format!("the payload has more than {OBJECTS} objects")),
            Wrong::Is(what) => refuse(format!("document {place} of the payload {what}")),
        })
    }

    fn convert(&mut self, document: &Value) -> Result<(), Refusal> {
        self.check(document)?;
        if self.documents > 1 {
            self.out.push_str("---\n");
        }
        let most = usize::try_from(MANIFEST_LIMIT).unwrap_or(usize::MAX);
        if yaml::append(document, most, &mut self.out) {
            Ok(())
        } else {
            Err(too_much(format!("the payload has more than {most} bytes as YAML")))
        }
    }

    fn done(self) -> Result<Self, Refusal> {
        if self.documents == 0 {
            return Err(refuse("the payload holds no Kubernetes object"));
        }
        Ok(self)
    }
}

/// The object that the JSON text is.
fn one(text: &str) -> Result<Result<Found, Refusal>, Unread> {
    let object = value::json(text)?;
    let mut found = Found::default();
    Ok(found.convert(&object).map(|()| found))
}

/// The objects of the list that the JSON text is.
fn list(text: &str) -> Result<Result<Found, Refusal>, Unread> {
    let room = Room::new();
    let mut objects = Objects {
        room: &room,
        found: Found::default(),
        refused: None,
    };
    let mut reader = serde_json::Deserializer::from_str(text);
    let read = reader.deserialize_seq(&mut objects).and_then(|()| reader.end());
    match (objects.refused, read) {
        (Some(refusal), _) => Ok(Err(refusal)),
        (None, Ok(())) => Ok(objects.found.done()),
        (None, Err(_)) if room.is_spent() => Err(Unread::TooMany),
        (None, Err(_)) => Err(Unread::Json),
    }
}

struct Objects<'a> {
    room: &'a Room,
    found: Found,
    refused: Option<Refusal>,
}

impl<'de> Visitor<'de> for &mut Objects<'_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a list of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while let Some(object) = items.next_element_seed(Bounded(self.room))? {
            self.room.renew();
            if let Err(refusal) = self.found.convert(&object) {
                self.refused = Some(refusal);
                return Err(A::Error::custom("refused"));
            }
        }
        Ok(())
    }
}

/// Checks every document of a YAML text but the empty ones.
fn documents(text: &str) -> Result<(), Refusal> {
    let mut found = Found::default();
    let mut bytes = text.as_bytes();
    for document in serde_saphyr::read_with_options::<_, Value>(&mut bytes, value::options()) {
        let document = document.map_err(|error| unread(&error))?;
        if !document.is_null() {
            found.check(&document)?;
        }
    }
    found.done().map(|_| ())
}

/// The error names a place; the line itself could hold a secret.
fn unread(error: &serde_saphyr::Error) -> Refusal {
    let place = error
        .location()
        .map(|place| format!(", at line {} column {}", place.line(), place.column()))
        .unwrap_or_default();
    if value::is_too_much(error) {
        too_much(format!(
            "a document of the payload expands beyond {} values{place}",
            value::DOCUMENT
        ))
    } else {
        refuse(format!("the payload is not YAML{place}"))
    }
}

fn too_much(message: impl Into<String>) -> Refusal {
    Reason::SizeLimitExceeded
        .refuse(message)
        .hint("shape it as Raw or Archive, or serve less")
}

/// Kustomize tells objects apart by group, kind, namespace and name.
type Identity = (String, String, String, String);

enum Wrong {
    TooMany,
    /// The rest of a sentence about the document.
    Is(String),
}

impl From<String> for Wrong {
    fn from(what: String) -> Self {
        Self::Is(what)
    }
}

fn object(document: &Value, seen: &mut BTreeSet<Identity>) -> Result<(), Wrong> {
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    if !document.is_object() {
        return Err("is no Kubernetes object".to_owned().into());
    }
    let (version, kind) = (text(document, "apiVersion"), text(document, "kind"));
    if version.is_empty() || kind.is_empty() {
        return Err("has no apiVersion or no kind, so it is no Kubernetes object"
            .to_owned()
            .into());
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
            Err(format!("is a {kind} without metadata.name").into())
        } else {
            Err(format!("is a {kind} with metadata.generateName, which cannot be applied twice; give it a name").into())
        };
    }
    if seen.len() >= OBJECTS {
        return Err(Wrong::TooMany);
    }
    if seen.insert((group, kind.clone(), text(metadata, "namespace"), name.clone())) {
        Ok(())
    } else {
        Err(format!("is {kind} {name} for the second time").into())
    }
}

fn refuse(message: impl Into<String>) -> Refusal {
    Reason::PermanentError
        .refuse(message)
        .hint("shape the payload as ConfigMap, Secret or Raw, or make objects of it with a transform")
}
