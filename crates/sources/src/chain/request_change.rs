//! What preRequest hooks get and give: a description of the request, and what they change of it.
//!
//! ```text
//!  Description ─▶ JSON on stdin ─▶ hook ─▶ stdout: empty, or { query?, headers?, body? } ─▶ Change
//!       ▲                                                                                     │
//!       └── what the next hook gets: the description with the change ◀────────────────────────┘
//! ```
//!
//! Method and URL are not a hook's to change; the changed request passes validation and the egress policy again.
//!
//! Invariant: each part that is given replaces that part whole; a part that is absent stays.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trellis_core::Refusal;

/// Reason of every refusal here.
pub const REASON: &str = "HookFailed";
/// Most bytes of standard output that are read as a change: 1 MiB.
pub const LIMIT: usize = 1024 * 1024;
/// Most query parameters, and most headers.
const ENTRIES: usize = 128;
/// Longest name and value together, in bytes.
const ENTRY: usize = 16 * 1024;

/// Headers that the client itself decides on.
const OURS: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "if-modified-since",
    "if-none-match",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Names with their values, in order.
pub type Entries = Vec<(String, String)>;

/// The request before the hooks, as they see it. Values of headers may be secrets of the source; its hooks may see them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Description {
    /// `GET`, `POST` or `PUT`.
    pub method: String,
    /// The URL without its query.
    pub url: String,
    /// Query parameters.
    #[serde(serialize_with = "grouped")]
    pub query: Entries,
    /// Headers.
    #[serde(serialize_with = "grouped")]
    pub headers: Entries,
    /// The body, when the request has one that is text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

impl Description {
    /// The same with a change.
    #[must_use]
    pub fn with(self, change: &Change) -> Self {
        Self {
            query: change.query.clone().unwrap_or(self.query),
            headers: change.headers.clone().unwrap_or(self.headers),
            body: change.body.clone().or(self.body),
            ..self
        }
    }

    /// The JSON that a hook gets: `{"method", "url", "query": {name: [value]}, "headers": {…}, "body"?}`.
    #[must_use]
    pub fn render(&self) -> Vec<u8> {
        // Strings and maps of strings always serialise.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// What the hooks change. `None`: that part stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// All query parameters.
    pub query: Option<Entries>,
    /// All headers, their names in lower case.
    pub headers: Option<Entries>,
    /// The body.
    pub body: Option<String>,
}

impl Change {
    /// This change, and a later one after it.
    #[must_use]
    pub fn then(self, later: Self) -> Self {
        Self {
            query: later.query.or(self.query),
            headers: later.headers.or(self.headers),
            body: later.body.or(self.body),
        }
    }

    /// Reads what a hook wrote. Nothing, or white space, changes nothing.
    ///
    /// # Errors
    /// When it is not such a JSON object, has other fields, is too large, or has a header that cannot be sent.
    pub fn parse(stdout: &[u8]) -> Result<Self, Refusal> {
        let refused = |why: String| {
            Refusal::new(REASON, format!("its output is no change of a request: {why}"))
                .hint("write nothing, or a JSON object with query, headers or body")
        };
        if stdout.len() > LIMIT {
            return Err(refused(format!("it has more than {LIMIT} bytes")));
        }
        if stdout.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        // A list would be read as the fields in their order.
        if stdout.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
            return Err(refused("it is a list".to_owned()));
        }
        // The text itself is not quoted: it may hold secrets.
        let raw: Raw = serde_json::from_slice(stdout).map_err(|error| refused(sentence(&error)))?;
        let query = raw.query.map(flat);
        let headers = raw.headers.map(|headers| {
            flat(headers)
                .into_iter()
                .map(|(name, value)| (name.to_ascii_lowercase(), value))
                .collect::<Entries>()
        });
        for (what, entries) in [("query parameters", &query), ("headers", &headers)] {
            let Some(entries) = entries else { continue };
            if entries.len() > ENTRIES {
                return Err(refused(format!("it has more than {ENTRIES} {what}")));
            }
            if entries.iter().any(|(name, value)| name.len() + value.len() > ENTRY) {
                return Err(refused(format!("one of its {what} has more than {ENTRY} bytes")));
            }
        }
        for (name, value) in headers.iter().flatten() {
            if name.is_empty() || !name.bytes().all(token) {
                return Err(refused(format!("{name:?} is no name of a header")));
            }
            if OURS.contains(&name.as_str()) {
                return Err(refused(format!("header {name} is not a hook's to set")));
            }
            if value.bytes().any(|byte| byte != b'\t' && (byte < b' ' || byte == 127)) {
                return Err(refused(format!("the value of header {name} holds a control character")));
            }
        }
        Ok(Self {
            query,
            headers,
            body: raw.body,
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default)]
    query: Option<BTreeMap<String, Values>>,
    #[serde(default)]
    headers: Option<BTreeMap<String, Values>>,
    #[serde(default)]
    body: Option<String>,
}

/// One value, or several in order.
#[derive(Deserialize)]
#[serde(untagged)]
enum Values {
    One(String),
    Many(Vec<String>),
}

fn flat(map: BTreeMap<String, Values>) -> Entries {
    let values = |values| match values {
        Values::One(value) => vec![value],
        Values::Many(values) => values,
    };
    map.into_iter()
        .flat_map(|(name, all)| values(all).into_iter().map(move |value| (name.clone(), value)))
        .collect()
}

fn grouped<S: serde::Serializer>(entries: &Entries, out: S) -> Result<S::Ok, S::Error> {
    let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, value) in entries {
        groups.entry(name).or_default().push(value);
    }
    groups.serialize(out)
}

/// What is wrong and where, without the text.
fn sentence(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        serde_json::error::Category::Data if error.to_string().starts_with("unknown field") => {
            "it has a field other than query, headers and body"
        }
        serde_json::error::Category::Data => "a field has the wrong type",
        _ => "it is not JSON",
    };
    format!("{what} (line {}, column {})", error.line(), error.column())
}

/// RFC 9110, section 5.6.2.
fn token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn entries(all: &[(&str, &str)]) -> Entries {
        all.iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn changes_follow_each_other_part_by_part() {
        let change = |text: &str| Change::parse(text.as_bytes()).unwrap();
        let (first, second) = (change(r#"{"query":{"a":"1"},"body":"x"}"#), change(r#"{"query":{}}"#));
        let before = Description {
            method: "POST".into(),
            url: "https://a.example/x".into(),
            query: entries(&[("b", "1")]),
            headers: entries(&[("accept", "*/*")]),
            body: None,
        };
        let after = before.clone().with(&first).with(&second);
        assert_eq!(after, before.clone().with(&first.then(second)));
        let expected = Description {
            query: vec![],
            body: Some("x".into()),
            ..before
        };
        assert_eq!(after, expected);
    }

    #[test]
    fn the_description_is_sorted_json() {
        let description = Description {
            method: "GET".into(),
            url: "https://a.example/x".into(),
            query: entries(&[("b", "1"), ("a", "2"), ("b", "3")]),
            headers: entries(&[("accept", "*/*")]),
            body: None,
        };
        let text = String::from_utf8(description.render()).unwrap();
        let expected = r#"{"method":"GET","url":"https://a.example/x","query":{"a":["2"],"b":["1","3"]},"headers":{"accept":["*/*"]}}"#;
        assert_eq!(text, expected);
    }

    #[rstest]
    #[case::nothing("", Change::default())]
    #[case::a_line_end(" \n", Change::default())]
    #[case::an_empty_object("{}", Change::default())]
    #[case::a_query(r#"{"query":{"page":"2","tag":["a","b"]}}"#, Change { query: Some(entries(&[("page", "2"), ("tag", "a"), ("tag", "b")])), ..Change::default() })]
    #[case::no_query(r#"{"query":{}}"#, Change { query: Some(vec![]), ..Change::default() })]
    #[case::headers(r#"{"headers":{"X-Signature":"abc"}}"#, Change { headers: Some(entries(&[("x-signature", "abc")])), ..Change::default() })]
    #[case::a_body(r#"{"body":"{}"}"#, Change { body: Some("{}".into()), ..Change::default() })]
    #[case::nulls(r#"{"query":null,"body":null}"#, Change::default())]
    fn changes_are_read(#[case] text: &str, #[case] change: Change) {
        assert_eq!(Change::parse(text.as_bytes()).unwrap(), change);
    }

    #[rstest]
    #[case::no_json("token=secret", "not JSON")]
    #[case::a_list(r"[]", "it is a list")]
    #[case::another_url(r#"{"url":"http://169.254.169.254/secret"}"#, "other than query, headers and body")]
    #[case::a_number(r#"{"query":{"a":1}}"#, "wrong type")]
    #[case::host(r#"{"headers":{"Host":"secret"}}"#, "header host is not")]
    #[case::length(r#"{"headers":{"Content-Length":"1"}}"#, "header content-length is not")]
    #[case::validators(r#"{"headers":{"If-None-Match":"x"}}"#, "header if-none-match is not")]
    #[case::a_bad_name(r#"{"headers":{"a b":"secret"}}"#, "no name of a header")]
    #[case::a_line_in_a_value(r#"{"headers":{"a":"secret\r\nHost: x"}}"#, "control character")]
    fn all_else_is_refused_without_quoting_it(#[case] text: &str, #[case] part: &str) {
        let refusal = Change::parse(text.as_bytes()).unwrap_err();
        assert_eq!(refusal.reason, REASON);
        let text = refusal.to_string();
        assert!(text.contains(part) && !text.contains("secret"), "{text}");
    }

    #[test]
    fn sizes_are_bounded() {
        let many: BTreeMap<String, String> = (0..=ENTRIES).map(|n| (format!("n{n}"), String::new())).collect();
        for text in [
            " ".repeat(LIMIT + 1),
            serde_json::json!({ "query": many }).to_string(),
            serde_json::json!({ "headers": { "a": "x".repeat(ENTRY) } }).to_string(),
        ] {
            assert!(
                Change::parse(text.as_bytes())
                    .unwrap_err()
                    .to_string()
                    .contains("more than")
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// A hook that writes back what it got, without method and URL, changes nothing.
        #[test]
        fn what_is_described_is_read_back(
            query in proptest::collection::btree_map("[a-z]{1,4}", "\\PC{0,8}", 0..5),
            headers in proptest::collection::btree_map("x-[a-z]{1,4}", "[ -~]{0,8}", 0..5),
            body in proptest::option::of("\\PC{0,20}"),
        ) {
            let description = Description {
                query: query.into_iter().collect(),
                headers: headers.into_iter().collect(),
                body: body.clone(),
                ..Description::default()
            };
            let mut value: serde_json::Value = serde_json::from_slice(&description.render()).unwrap();
            let object = value.as_object_mut().unwrap();
            object.remove("method");
            object.remove("url");
            let change = Change::parse(value.to_string().as_bytes()).unwrap();
            prop_assert_eq!(change, Change { query: Some(description.query), headers: Some(description.headers), body });
        }

        #[test]
        fn no_output_is_too_much(output in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Change::parse(&output);
        }
    }
}
