//! `RequestInfo`: what one HTTP request asks of the API server.
//!
//! method + path + query (+ body, for the name of a new object) ─▶ verb, resource, namespace, name
//!
//! Follows Kubernetes' own reading, `k8s.io/apiserver/pkg/endpoints/request/requestinfo.go`, so that a rule in a
//! test, an RBAC rule and an audit event name a call in the same words.

use std::fmt;

use http::{Method, Uri};

/// What a request does to a resource, in the words of RBAC and of the audit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// Read one object.
    Get,
    /// Read a collection.
    List,
    /// Follow a collection.
    Watch,
    /// POST of a new object (or of a subresource such as `token`).
    Create,
    /// PUT of a whole object.
    Update,
    /// PATCH, server-side apply included.
    Patch,
    /// DELETE of one object.
    Delete,
    /// DELETE of a collection.
    DeleteCollection,
    /// A path that names no resource: `/version`, `/apis`, `/readyz`.
    Other,
}

impl Verb {
    /// Every verb that can change what is stored.
    pub const WRITES: [Self; 5] = [
        Self::Create,
        Self::Update,
        Self::Patch,
        Self::Delete,
        Self::DeleteCollection,
    ];

    /// The verb as Kubernetes writes it; `other` for a path without a resource.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Other => "other",
        }
    }

    /// Whether the verb can change what is stored.
    #[must_use]
    pub fn writes(self) -> bool {
        Self::WRITES.contains(&self)
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One request, read as Kubernetes reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestInfo {
    /// What is done.
    pub verb: Verb,
    /// API group; empty for the core group.
    pub group: String,
    /// Plural resource, with its subresource after a slash (`resiliencepolicies/status`); the path when `verb` is
    /// [`Verb::Other`].
    pub resource: String,
    /// Namespace, when the request is inside one.
    pub namespace: Option<String>,
    /// Object name: from the path, from the body of a create, or from a `metadata.name=` field selector.
    pub name: Option<String>,
    /// Raw query string, empty when there is none.
    pub query: String,
}

impl RequestInfo {
    /// Reads a request. `body` is only looked at for the name of a created object.
    #[must_use]
    pub fn of(method: &Method, uri: &Uri, body: &[u8]) -> Self {
        let query = uri.query().unwrap_or_default().to_owned();
        let parts: Vec<&str> = uri.path().split('/').filter(|part| !part.is_empty()).collect();
        let (group, rest) = match parts.as_slice() {
            ["api", _version, rest @ ..] => ("", rest),
            ["apis", group, _version, rest @ ..] => (*group, rest),
            _ => ("", [].as_slice()),
        };
        let (namespace, rest) = match rest {
            // `namespaces/x`, `namespaces/x/status` and `namespaces/x/finalize` are about the namespace itself.
            ["namespaces", name] | ["namespaces", name, "status" | "finalize"] => (Some(*name), rest),
            ["namespaces", name, rest @ ..] => (Some(*name), rest),
            _ => (None, rest),
        };
        let Some((resource, rest)) = rest.split_first() else {
            return Self {
                verb: Verb::Other,
                group: group.to_owned(),
                resource: uri.path().to_owned(),
                namespace: None,
                name: None,
                query,
            };
        };
        let mut name = rest.first().map(|name| decode(name));
        let subresource = rest.get(1..).unwrap_or_default().join("/");
        if name.is_none() {
            name = selected_name(&query);
        }
        let one = !rest.is_empty();
        let verb = match *method {
            Method::POST => Verb::Create,
            Method::PUT => Verb::Update,
            Method::PATCH => Verb::Patch,
            Method::DELETE if one => Verb::Delete,
            Method::DELETE => Verb::DeleteCollection,
            _ if one => Verb::Get,
            _ if is_watch(&query) => Verb::Watch,
            _ => Verb::List,
        };
        if verb == Verb::Create && name.is_none() {
            name = created_name(body);
        }
        Self {
            verb,
            group: group.to_owned(),
            resource: if subresource.is_empty() {
                (*resource).to_owned()
            } else {
                format!("{resource}/{subresource}")
            },
            namespace: namespace.map(decode),
            name,
            query,
        }
    }

    /// The decoded value of a query parameter.
    #[must_use]
    pub fn parameter(&self, key: &str) -> Option<String> {
        parameters(&self.query)
            .find(|(name, _)| name == key)
            .map(|(_, value)| value)
    }
}

fn is_watch(query: &str) -> bool {
    parameters(query).any(|(key, value)| key == "watch" && matches!(value.as_str(), "" | "1" | "true"))
}

fn selected_name(query: &str) -> Option<String> {
    let (_, selector) = parameters(query).find(|(key, _)| key == "fieldSelector")?;
    selector.split(',').find_map(|term| {
        term.strip_prefix("metadata.name=")
            .map(|name| name.trim_start_matches('=').to_owned())
    })
}

fn created_name(body: &[u8]) -> Option<String> {
    let object: serde_json::Value = serde_json::from_slice(body).ok()?;
    Some(object.get("metadata")?.get("name")?.as_str()?.to_owned())
}

fn parameters(query: &str) -> impl Iterator<Item = (String, String)> + '_ {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(&key.replace('+', " ")), decode(&value.replace('+', " ")))
    })
}

/// Undoes percent-encoding; a broken escape stays as it is.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = (first == b'%').then(|| tail.get(..2)).flatten().and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 16).ok()
        });
        if let Some(byte) = escaped {
            bytes.push(byte);
            rest = tail.get(2..).unwrap_or_default();
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(method: &str, uri: &str, body: &str) -> String {
        let info = RequestInfo::of(&method.parse().unwrap(), &uri.parse().unwrap(), body.as_bytes());
        let (namespace, name) = (info.namespace.unwrap_or_default(), info.name.unwrap_or_default());
        format!("{} {} {} [{namespace}/{name}]", info.verb, info.group, info.resource)
    }

    #[test]
    fn reads_requests_as_kubernetes_does() {
        let table = [
            ("GET", "/api/v1/namespaces/a/services/web", "", "get  services [a/web]"),
            ("GET", "/api/v1/namespaces/a/services", "", "list  services [a/]"),
            (
                "GET",
                "/api/v1/services?watch=true&resourceVersion=1",
                "",
                "watch  services [/]",
            ),
            ("GET", "/api/v1/services?watch=false", "", "list  services [/]"),
            (
                "GET",
                "/api/v1/services?fieldSelector=metadata.name%3Dweb",
                "",
                "list  services [/web]",
            ),
            (
                "POST",
                "/api/v1/namespaces/a/services?",
                r#"{"metadata":{"name":"web"}}"#,
                "create  services [a/web]",
            ),
            (
                "PUT",
                "/apis/x.dev/v1/namespaces/a/things/t/status",
                "",
                "update x.dev things/status [a/t]",
            ),
            ("PATCH", "/apis/x.dev/v1/things/t", "", "patch x.dev things [/t]"),
            ("DELETE", "/apis/x.dev/v1/things/t", "", "delete x.dev things [/t]"),
            (
                "DELETE",
                "/apis/x.dev/v1/things",
                "",
                "deletecollection x.dev things [/]",
            ),
            ("GET", "/api/v1/namespaces/a", "", "get  namespaces [a/a]"),
            (
                "PUT",
                "/api/v1/namespaces/a/finalize",
                "",
                "update  namespaces/finalize [a/a]",
            ),
            ("GET", "/api/v1/namespaces", "", "list  namespaces [/]"),
            (
                "POST",
                "/api/v1/namespaces/a/serviceaccounts/s/token",
                "{}",
                "create  serviceaccounts/token [a/s]",
            ),
            ("GET", "/apis/x.dev/v1", "", "other x.dev /apis/x.dev/v1 [/]"),
            ("GET", "/version", "", "other  /version [/]"),
        ];
        for (method, uri, body, expected) in table {
            assert_eq!(read(method, uri, body), expected, "{method} {uri}");
        }
    }

    #[test]
    fn decodes_parameters() {
        let info = RequestInfo::of(
            &Method::PATCH,
            &"/api/v1/nodes/n?fieldManager=a%2Fb&force=true".parse().unwrap(),
            &[],
        );
        assert_eq!(info.parameter("fieldManager").as_deref(), Some("a/b"));
        assert_eq!(info.parameter("dryRun"), None);
        assert_eq!(decode("50%"), "50%");
    }
}
