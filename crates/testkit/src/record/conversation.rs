//! `Conversation`: recorded calls as a readable text that is the same in every run, for `insta`.

use std::fmt;

use serde_json::Value;

use super::{Call, redact::Redaction};
use crate::Calls;

/// Query parameters that say what was meant; the others carry versions and time-outs.
const TELLING: [&str; 7] = [
    "fieldManager",
    "force",
    "dryRun",
    "fieldValidation",
    "labelSelector",
    "fieldSelector",
    "propagationPolicy",
];

/// Recorded calls, ready to be shown.
///
/// One line per call, `verb resource namespace/name?parameters → answer`, with the request body under it. Uids,
/// resourceVersions, times and loopback ports are replaced; [`naming`](Self::naming) replaces random names.
#[derive(Clone, Debug, Default)]
pub struct Conversation {
    calls: Vec<Call>,
    redaction: Redaction,
}

impl Conversation {
    /// These calls, in their order.
    #[must_use]
    pub fn of(calls: Vec<Call>) -> Self {
        Self {
            calls,
            redaction: Redaction::default(),
        }
    }

    /// Only the calls among `which`. Calls of concurrent tasks have no stable order: filter until one task remains.
    #[must_use]
    pub fn only(mut self, which: &Calls) -> Self {
        self.calls.retain(|call| which.matches(&call.info));
        self
    }

    /// Shows `shown` wherever `actual` stands, for instance a random namespace.
    #[must_use]
    pub fn naming(mut self, actual: &str, shown: &str) -> Self {
        self.redaction.name(actual, shown);
        self
    }

    fn line(&self, call: &Call) -> String {
        let info = &call.info;
        let object = match (&info.namespace, &info.name) {
            (Some(namespace), Some(name)) => format!(" {namespace}/{name}"),
            (Some(namespace), None) => format!(" {namespace}/"),
            (None, Some(name)) => format!(" {name}"),
            (None, None) => String::new(),
        };
        let parameters: Vec<String> = TELLING
            .iter()
            .filter_map(|key| info.parameter(key).map(|value| format!("{key}={value}")))
            .collect();
        let query = if parameters.is_empty() {
            String::new()
        } else {
            format!(" ({})", parameters.join(", "))
        };
        let line = format!("{} {}{object}{query} → {}", info.verb, info.resource, call.answer);
        self.redaction.text(&line)
    }

    fn body(&self, call: &Call) -> String {
        match serde_json::from_slice::<Value>(&call.body) {
            Ok(value) => format!("{:#}", self.redaction.json(value)),
            Err(_) => self.redaction.text(&String::from_utf8_lossy(&call.body)),
        }
    }
}

impl fmt::Display for Conversation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for call in &self.calls {
            writeln!(f, "{}", self.line(call))?;
            if !call.body.is_empty() {
                for line in self.body(call).lines() {
                    writeln!(f, "  {line}")?;
                }
            }
        }
        Ok(())
    }
}
