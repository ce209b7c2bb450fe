//! JSON in one spelling: keys sorted, nothing between tokens.
//!
//! Invariant: equal values give equal text, whatever order their fields were read or made in.

use serde_json::Value;

/// What becomes of fields that are null.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nulls {
    /// They stay.
    Keep,
    /// They are left out, as if they were absent.
    Drop,
}

/// The text. Numbers are as serde writes them, which is one way for each value that it reads.
pub(crate) fn text(value: &Value, nulls: Nulls) -> String {
    let mut out = String::new();
    write(value, nulls, &mut out);
    out
}

fn write(value: &Value, nulls: Nulls, out: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields
                .iter()
                .filter(|(_, value)| nulls == Nulls::Keep || !value.is_null())
                .collect();
            fields.sort_by_key(|(key, _)| key.as_str());
            out.push('{');
            for (place, (key, value)) in fields.into_iter().enumerate() {
                if place > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                write(value, nulls, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (place, item) in items.iter().enumerate() {
                if place > 0 {
                    out.push(',');
                }
                write(item, nulls, out);
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}
