//! Routes, read from the JSON that the API server stores.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    Version,
    parse::{Bad, duration, optional},
    retry::{self, Block},
    timeouts::{self, Timeouts},
};

/// Which kind of route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the two kinds")]
pub enum Kind {
    Http,
    Grpc,
}

/// What a route is attached to, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parent {
    group: Option<String>,
    kind: Option<String>,
    namespace: String,
    name: String,
    port: Option<u64>,
}

/// A route, as far as it decides anything.
#[derive(Debug, Clone)]
pub struct Route {
    pub(crate) kind: Kind,
    /// Of `policy.linkerd.io`, and not of the Gateway API.
    pub(crate) linkerds: bool,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) created: String,
    parents: Vec<Parent>,
    accepted: Vec<Parent>,
    annotations: BTreeMap<String, String>,
    /// For each rule, the field `timeouts.request`.
    rules: Vec<Option<String>>,
    /// For each rule, the matches: equal texts, equal requests.
    pub(crate) matches: Vec<Vec<String>>,
    filters: Vec<String>,
}

impl Route {
    /// Reads a stored `HTTPRoute` or `GRPCRoute` of the Gateway API, or an `HTTPRoute` of `policy.linkerd.io`.
    #[must_use]
    pub fn read(stored: &Value) -> Self {
        let text = |path: &str| {
            stored
                .pointer(path)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let namespace = text("/metadata/namespace");
        let parent = |value: &Value| Parent {
            group: string(value, "/group"),
            kind: string(value, "/kind"),
            namespace: string(value, "/namespace").unwrap_or_else(|| namespace.clone()),
            name: string(value, "/name").unwrap_or_default(),
            port: value.get("port").and_then(Value::as_u64),
        };
        let says_yes = |verdict: &&Value| {
            let accepted = |condition: &Value| {
                string(condition, "/type").as_deref() == Some("Accepted")
                    && string(condition, "/status").as_deref() == Some("True")
            };
            string(verdict, "/controllerName").as_deref() == Some("linkerd.io/policy-controller")
                && list(verdict, "/conditions").iter().any(accepted)
        };
        let rules = list(stored, "/spec/rules");
        let filters = rules.iter().flat_map(|rule| list(rule, "/filters"));
        let annotations = stored.pointer("/metadata/annotations").and_then(Value::as_object);
        Self {
            kind: if text("/kind") == "GRPCRoute" {
                Kind::Grpc
            } else {
                Kind::Http
            },
            linkerds: text("/apiVersion").starts_with("policy.linkerd.io/"),
            matches: rules
                .iter()
                .map(|rule| matches(rule, text("/kind") == "GRPCRoute"))
                .collect(),
            name: text("/metadata/name"),
            created: text("/metadata/creationTimestamp"),
            parents: list(stored, "/spec/parentRefs").iter().map(parent).collect(),
            accepted: list(stored, "/status/parents")
                .iter()
                .filter(says_yes)
                .filter_map(|verdict| verdict.get("parentRef"))
                .map(parent)
                .collect(),
            annotations: annotations
                .into_iter()
                .flatten()
                .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
                .collect(),
            filters: filters.filter_map(|filter| string(filter, "/type")).collect(),
            rules: rules.iter().map(|rule| string(rule, "/timeouts/request")).collect(),
            namespace,
        }
    }

    /// As `HTTPRoute namespace/name`.
    pub(crate) fn title(&self) -> String {
        let kind = match self.kind {
            Kind::Http if self.linkerds => "HTTPRoute.policy.linkerd.io",
            Kind::Http => "HTTPRoute",
            Kind::Grpc => "GRPCRoute",
        };
        format!("{kind} {}/{}", self.namespace, self.name)
    }

    /// Whether Linkerd serves the route at a port of a Service.
    pub(crate) fn counts(&self, namespace: &str, service: &str, port: i32) -> bool {
        let here = |parent: &Parent| {
            parent.kind.as_deref() == Some("Service")
                && matches!(parent.group.as_deref(), None | Some("" | "core"))
                && parent.namespace == namespace
                && parent.name == service
                && parent
                    .port
                    .is_none_or(|named| i64::try_from(named) == Ok(i64::from(port)))
        };
        let dropped = ["RequestMirror", "URLRewrite", "ExtensionRef"];
        self.parents.iter().any(here)
            && self.accepted.iter().any(here)
            && !self.filters.iter().any(|filter| dropped.contains(&filter.as_str()))
            && self.blocks((2, 20)).is_ok()
    }

    /// The retries of the route and the timeouts of each of its rules; any bad annotation and there is no route.
    pub(crate) fn blocks(&self, version: Version) -> Result<(Option<Block>, Vec<Timeouts>), Bad> {
        let read = |key: &str| self.annotations.get(key).map(String::as_str);
        let retry = retry::block(read, self.kind)?;
        let annotated = timeouts::block(read)?;
        let rules = self.rules.iter().map(|field| {
            // Milder than an annotation: what cannot be read, and zero, count as not there.
            let field = field
                .as_deref()
                .filter(|_| self.linkerds || version >= (2, 20) && self.kind == Kind::Http);
            let grammar = if self.linkerds { as_go } else { duration };
            let field = optional(field, grammar).ok().flatten().filter(|request| *request > 0);
            Timeouts {
                request: annotated.request.or(field),
                ..annotated
            }
        });
        Ok((retry, rules.collect()))
    }
}

/// Each match as a text in which what the API server fills in is filled in, and the order of headers is lost. A rule
/// without matches is for everything.
fn matches(rule: &Value, grpc: bool) -> Vec<String> {
    let conditions = |one: &Value, path: &str| {
        let mut all: Vec<String> = list(one, path)
            .iter()
            .map(|condition| {
                let kind = string(condition, "/type").unwrap_or_else(|| "Exact".into());
                let name = string(condition, "/name").unwrap_or_default().to_ascii_lowercase();
                format!("{name} {kind} {}", string(condition, "/value").unwrap_or_default())
            })
            .collect();
        all.sort();
        all.dedup();
        all
    };
    let text = |one: &Value| {
        let or = |path: &str, filled: &str| string(one, path).unwrap_or_else(|| filled.into());
        let what = if grpc {
            let (service, method) = (or("/method/service", ""), or("/method/method", ""));
            let kind = if service.is_empty() && method.is_empty() {
                "Exact".into()
            } else {
                or("/method/type", "Exact")
            };
            [kind, service, method]
        } else {
            [
                or("/path/type", "PathPrefix"),
                or("/path/value", "/"),
                or("/method", ""),
            ]
        };
        format!(
            "{what:?} {:?} {:?}",
            conditions(one, "/headers"),
            conditions(one, "/queryParams")
        )
    };
    match list(rule, "/matches") {
        [] => vec![text(&Value::Null)],
        some => some.iter().map(text).collect(),
    }
}

/// Milliseconds of a text like `1m30s`: numbers with a unit each, added up.
fn as_go(text: &str) -> Result<u64, Bad> {
    let mut left = text;
    let mut sum = 0;
    while !left.is_empty() {
        let digits = left.len() - left.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, rest) = left.split_at(digits);
        let letters = rest.len() - rest.trim_start_matches(char::is_alphabetic).len();
        let (unit, rest) = rest.split_at(letters);
        // As above, but for days, which Go has not.
        if unit == "d" || (unit.is_empty() && text != "0") {
            return Err(Bad);
        }
        sum += duration(&format!("{number}{unit}"))?;
        left = rest;
    }
    if text.is_empty() { Err(Bad) } else { Ok(sum) }
}

fn string(value: &Value, path: &str) -> Option<String> {
    value.pointer(path)?.as_str().map(Into::into)
}

fn list<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    value.pointer(path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}
