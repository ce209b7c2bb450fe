//! YAML that every reader understands alike: strings are quoted as in JSON, so that none is a boolean, a date or a number of
//! some version of YAML, and keys come sorted.

use std::fmt::Write as _;

use serde_json::Value;

/// One document, ended by a line break.
pub(super) fn document(value: &Value) -> String {
    let mut out = String::new();
    block(value, 0, usize::MAX, &mut out);
    out
}

/// Writes one document behind what is there. Returns whether all of it is within so many bytes; what is deep is much
/// longer as YAML than as JSON.
#[must_use]
pub(super) fn append(value: &Value, most: usize, out: &mut String) -> bool {
    block(value, 0, most, out);
    out.len() <= most
}

/// A value that starts on a line of its own.
fn block(value: &Value, depth: usize, most: usize, out: &mut String) {
    if out.len() > most {
        return;
    }
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(key, _)| key.as_str());
            for (place, (key, value)) in fields.into_iter().enumerate() {
                if place > 0 {
                    indent(depth, out);
                }
                if is_plain(key) {
                    out.push_str(key);
                } else {
                    quoted(key, out);
                }
                out.push(':');
                after_key(value, depth, most, out);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (place, item) in items.iter().enumerate() {
                if place > 0 {
                    indent(depth, out);
                }
                out.push_str("- ");
                block(item, depth + 1, most, out);
            }
        }
        scalar => {
            flow(scalar, out);
            out.push('\n');
        }
    }
}

fn after_key(value: &Value, depth: usize, most: usize, out: &mut String) {
    let nested = match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    if nested {
        out.push('\n');
        indent(depth + 1, out);
        block(value, depth + 1, most, out);
    } else {
        out.push(' ');
        block(value, depth, most, out);
    }
}

fn indent(depth: usize, out: &mut String) {
    out.extend(std::iter::repeat_n("  ", depth));
}

fn flow(value: &Value, out: &mut String) {
    match value {
        Value::String(text) => quoted(text, out),
        Value::Object(_) => out.push_str("{}"),
        Value::Array(_) => out.push_str("[]"),
        other => {
            // Writing to a String does not fail.
            let _ = write!(out, "{other}");
        }
    }
}

/// Letters first, and none of the words that YAML 1.1 takes for something else.
fn is_plain(key: &str) -> bool {
    const WORDS: &[&str] = &["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    key.starts_with(|c: char| c.is_ascii_alphabetic())
        && key
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/'))
        && !WORDS.contains(&key.to_ascii_lowercase().as_str())
}

/// Double quotes, with the escapes that JSON and YAML share; what YAML does not print is escaped.
fn quoted(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{feff}' | '\u{2028}' | '\u{2029}' | '\u{fffe}' | '\u{ffff}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
