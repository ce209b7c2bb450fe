//! What differs from run to run, replaced by a word: uids, versions, times, ports, random names.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

/// Names that the caller wants replaced, longest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Redaction {
    names: Vec<(String, String)>,
}

impl Redaction {
    pub(super) fn name(&mut self, actual: &str, shown: &str) {
        self.names.push((actual.to_owned(), shown.to_owned()));
        self.names.sort_by_key(|(actual, _)| std::cmp::Reverse(actual.len()));
    }

    /// Replaces inside a text.
    pub(super) fn text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (actual, shown) in &self.names {
            text = replace_word(&text, actual, shown);
        }
        let mut shown = String::with_capacity(text.len());
        let mut word = String::new();
        for character in text.chars() {
            if character.is_ascii_alphanumeric() || matches!(character, '-' | ':' | '.' | '+') {
                word.push(character);
            } else {
                shown.push_str(&redacted(&word));
                shown.push(character);
                word.clear();
            }
        }
        shown + &redacted(&word)
    }

    /// Replaces inside a JSON value and sorts its keys.
    pub(super) fn json(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(&text)),
            Value::Array(items) => items.into_iter().map(|item| self.json(item)).collect(),
            Value::Object(fields) => {
                let fields: BTreeMap<String, Value> = fields.into_iter().collect();
                let shown = fields.into_iter().map(|(key, value)| {
                    let value = match (key.as_str(), value) {
                        ("uid", Value::String(_)) => Value::from("<uid>"),
                        ("resourceVersion", Value::String(_)) => Value::from("<version>"),
                        (_, value) => self.json(value),
                    };
                    (self.text(&key), value)
                });
                Value::Object(shown.collect())
            }
            value => value,
        }
    }
}

/// Replaces `actual` where neither neighbour is a letter or digit.
fn replace_word(text: &str, actual: &str, shown: &str) -> String {
    let mut pieces = text.split(actual).peekable();
    let mut replaced = String::with_capacity(text.len());
    while let Some(piece) = pieces.next() {
        replaced.push_str(piece);
        if let Some(next) = pieces.peek() {
            let alone = |neighbour: Option<char>| !neighbour.is_some_and(char::is_alphanumeric);
            let whole = alone(replaced.chars().next_back()) && alone(next.chars().next());
            replaced.push_str(if whole { shown } else { actual });
        }
    }
    replaced
}

/// One word: a time, a uid, an address with a port, or itself.
fn redacted(word: &str) -> String {
    let core = word.trim_end_matches(['.', ':']);
    let tail = word.get(core.len()..).unwrap_or_default();
    if core.parse::<Timestamp>().is_ok() {
        return format!("<time>{tail}");
    }
    if is_uid(core) {
        return format!("<uid>{tail}");
    }
    if let Some((host @ ("127.0.0.1" | "localhost"), port)) = core.split_once(':')
        && port.parse::<u16>().is_ok()
    {
        return format!("{host}:<port>{tail}");
    }
    word.to_owned()
}

fn is_uid(word: &str) -> bool {
    let groups: Vec<&str> = word.split('-').collect();
    groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
        && groups.concat().chars().all(|character| character.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_what_differs_between_runs() {
        let mut redaction = Redaction::default();
        redaction.name("p1-x7", "<ns>");
        let text =
            "p1-x7/web at 2026-01-02T03:04:05Z. by 0123abcd-0123-0123-0123-0123456789ab on 127.0.0.1:6443, 10:30";
        assert_eq!(
            redaction.text(text),
            "<ns>/web at <time>. by <uid> on 127.0.0.1:<port>, 10:30"
        );
        redaction.name("a", "<a>");
        assert_eq!(redaction.text("a/a-b/ab ba a"), "<a>/<a>-b/ab ba <a>");
        let value = serde_json::json!({"c": 1, "b": {"resourceVersion": "17", "uid": "x", "renewTime": "2026-01-02T03:04:05.000001Z"}});
        let expected = r#"{"b":{"renewTime":"<time>","resourceVersion":"<version>","uid":"<uid>"},"c":1}"#;
        assert_eq!(redaction.json(value).to_string(), expected);
    }
}
