//! `Event`: one finished request, `audit.k8s.io/v1`.

use std::fmt;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use crate::{RequestInfo, Verb};

/// One audit event. Fields that nobody here reads are left out.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Unique per request.
    #[serde(rename = "auditID")]
    pub audit_id: String,
    /// `RequestReceived`, `ResponseStarted`, `ResponseComplete` or `Panic`.
    pub stage: String,
    /// Verb in Kubernetes' words; a lower-case HTTP method for a path without a resource.
    pub verb: String,
    /// Path and query.
    #[serde(rename = "requestURI")]
    pub request_uri: String,
    /// Who asked.
    pub user: User,
    /// The client's `User-Agent`.
    #[serde(default)]
    pub user_agent: String,
    /// About which object; absent for a path without a resource.
    pub object_ref: Option<ObjectRef>,
    /// The answer's status.
    pub response_status: Option<ResponseStatus>,
    /// Request body, at level `Request` and above.
    pub request_object: Option<Value>,
    /// Response body, at level `RequestResponse`.
    pub response_object: Option<Value>,
    /// When the request reached the API server.
    pub request_received_timestamp: Timestamp,
    /// When the stage was reached.
    pub stage_timestamp: Timestamp,
}

/// Who asked.
#[derive(Clone, Debug, Deserialize)]
pub struct User {
    /// For a ServiceAccount `system:serviceaccount:<namespace>:<name>`.
    #[serde(default)]
    pub username: String,
}

/// The object of a request.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectRef {
    /// API group; empty for the core group.
    pub api_group: String,
    /// Plural resource.
    pub resource: String,
    /// Subresource; empty for the object itself.
    pub subresource: String,
    /// Namespace; empty outside of one.
    pub namespace: String,
    /// Name; empty for a collection.
    pub name: String,
}

/// The answer's status.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ResponseStatus {
    /// HTTP status code.
    pub code: u16,
    /// Why, when the server refused.
    pub message: String,
}

impl Event {
    /// Whether the request is over.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        matches!(self.stage.as_str(), "ResponseComplete" | "Panic")
    }

    /// HTTP status code; 0 when the server gave none.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.response_status.as_ref().map_or(0, |status| status.code)
    }

    /// Whether the server did what it was asked.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        (200..300).contains(&self.code())
    }

    /// Which replica of ours asked: the parenthesis of a user agent `trellis/<version> (<identity>)`.
    #[must_use]
    pub fn identity(&self) -> Option<&str> {
        let agent = self.user_agent.strip_prefix("trellis/")?;
        Some(agent.split_once(" (")?.1.split_once(')')?.0)
    }

    /// The request in the words of rules and filters.
    #[must_use]
    pub fn info(&self) -> RequestInfo {
        let query = self
            .request_uri
            .split_once('?')
            .map_or("", |(_, query)| query)
            .to_owned();
        let Some(object) = &self.object_ref else {
            let path = self.request_uri.split('?').next().unwrap_or_default().to_owned();
            return RequestInfo {
                verb: Verb::Other,
                group: String::new(),
                resource: path,
                namespace: None,
                name: None,
                query,
            };
        };
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let body_name = || {
            let object = self.request_object.as_ref()?;
            Some(object.get("metadata")?.get("name")?.as_str()?.to_owned())
        };
        let verb = [Verb::Get, Verb::List, Verb::Watch].into_iter().chain(Verb::WRITES);
        RequestInfo {
            verb: verb
                .into_iter()
                .find(|verb| verb.as_str() == self.verb)
                .unwrap_or(Verb::Other),
            group: object.api_group.clone(),
            resource: if object.subresource.is_empty() {
                object.resource.clone()
            } else {
                format!("{}/{}", object.resource, object.subresource)
            },
            namespace: some(&object.namespace),
            name: some(&object.name).or_else(body_name),
            query,
        }
    }
}

impl fmt::Display for Event {
    /// One line: when, who, what, answer.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let info = self.info();
        write!(
            f,
            "{} {} {} {}",
            self.request_received_timestamp, self.user_agent, info.verb, info.resource
        )?;
        if let Some(namespace) = &info.namespace {
            write!(f, " {namespace}/")?;
        }
        write!(f, "{} → {}", info.name.as_deref().unwrap_or_default(), self.code())
    }
}
