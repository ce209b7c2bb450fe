//! The condition of a profile's route as matches of a policy: any of them.

use regex::Regex;
use serde::Deserialize as _;
use serde_json::{Map, Value, json};
use trellis_api::HttpMethod;

/// Most matches that a condition may come to: more are a profile that nobody would write as policies.
const LIMIT: usize = 64;

/// Most characters of a path in a policy.
const LONGEST: usize = 512;

/// Paths that a policy takes, and what they must not have, as in the schema of `ResiliencePolicy`.
const LEGAL: &str = r"^/([-A-Za-z0-9/._~!$&()*+,;=:@']|%[0-9A-Fa-f]{2})*$";
const ILLEGAL: &str = r"//|/\.\.?(/|$)|%2[fF]";

/// Matches, any of which must fit; or why there are none.
pub(super) fn matches(condition: &Value) -> Result<Vec<Value>, String> {
    let fields = condition.as_object().ok_or("it has no condition")?;
    let mut all = vec![Map::new()];
    for (name, value) in fields {
        let alternatives = match name.as_str() {
            "method" => {
                HttpMethod::deserialize(value).map_err(|_| format!("its method {value} has no counterpart"))?;
                vec![single("method", json!(value))]
            }
            "pathRegex" => vec![single("path", path(value.as_str().unwrap_or_default())?)],
            "any" => value
                .as_array()
                .into_iter()
                .flatten()
                .map(matches)
                .collect::<Result<Vec<_>, _>>()?
                .into_iter()
                .flatten()
                .filter_map(|found| found.as_object().cloned())
                .collect(),
            "all" => {
                for part in value.as_array().into_iter().flatten() {
                    let part = matches(part)?;
                    let part: Vec<_> = part.iter().filter_map(|found| found.as_object().cloned()).collect();
                    all = product(&all, &part)?;
                }
                continue;
            }
            other => return Err(format!("its condition {other} has no counterpart")),
        };
        all = product(&all, &alternatives)?;
    }
    Ok(all.into_iter().map(Value::Object).collect())
}

fn single(name: &str, value: Value) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert(name.into(), value);
    fields
}

/// Every pair of both, together.
fn product(a: &[Map<String, Value>], b: &[Map<String, Value>]) -> Result<Vec<Map<String, Value>>, String> {
    let mut both = Vec::new();
    for left in a {
        for right in b {
            let mut merged = left.clone();
            for (name, value) in right {
                if merged.get(name).is_some_and(|there| there != value) {
                    return Err(format!("its condition asks for two values of {name} at once"));
                }
                merged.insert(name.clone(), value.clone());
            }
            if both.len() == LIMIT {
                return Err(format!("its condition comes to more than {LIMIT} matches"));
            }
            both.push(merged);
        }
    }
    Ok(both)
}

/// Whether a request may fit one match of each: it is not known of two expressions, so they may.
pub(super) fn meet(a: &[Value], b: &[Value]) -> bool {
    let apart = |left: &Value, right: &Value, name: &str| {
        let (left, right) = (left.get(name), right.get(name));
        left.is_some() && right.is_some() && left != right
    };
    let exact = |one: &Value| one.pointer("/path/type") == Some(&json!("Exact"));
    let disjoint = |left: &Value, right: &Value| {
        apart(left, right, "method") || (exact(left) && exact(right) && apart(left, right, "path"))
    };
    a.iter().any(|left| b.iter().any(|right| !disjoint(left, right)))
}

/// A profile's expressions are for the whole path. One without special characters is a path, if the Gateway API takes it.
fn path(expression: &str) -> Result<Value, String> {
    let bare = expression.strip_prefix('^').unwrap_or(expression);
    let bare = bare.strip_suffix('$').unwrap_or(bare);
    let (kind, value) = match literal(bare) {
        Some(path) if path.starts_with('/') => ("Exact", path),
        _ => ("RegularExpression", format!("^(?:{bare})$")),
    };
    if kind == "Exact" && !is_legal(&value) {
        return Err("its path is none that a route can name".into());
    }
    if value.chars().count() > LONGEST {
        return Err(format!("its path is longer than {LONGEST} characters"));
    }
    Ok(json!({"type": kind, "value": value}))
}

/// Whether a policy takes it as a path, by the rule of its schema.
fn is_legal(path: &str) -> bool {
    let fits = |rule: &str| Regex::new(rule).is_ok_and(|rule| rule.is_match(path));
    fits(LEGAL) && !fits(ILLEGAL)
}

/// The text that an expression without special characters stands for.
fn literal(expression: &str) -> Option<String> {
    let mut text = String::new();
    let mut characters = expression.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => text.push(characters.next().filter(|escaped| ".-/_~".contains(*escaped))?),
            '.' | '*' | '+' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '|' | '^' | '$' => return None,
            other => text.push(other),
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("/cart", json!({"type": "Exact", "value": "/cart"}))]
    #[case("^/cart\\.json$", json!({"type": "Exact", "value": "/cart.json"}))]
    #[case("/items/[^/]*", json!({"type": "RegularExpression", "value": "^(?:/items/[^/]*)$"}))]
    #[case(".*", json!({"type": "RegularExpression", "value": "^(?:.*)$"}))]
    fn a_path_is_whole(#[case] expression: &str, #[case] expected: Value) {
        assert_eq!(path(expression).unwrap(), expected);
    }

    #[rstest]
    #[case(json!({"method": "GET", "pathRegex": "/"}), json!([{"method": "GET", "path": {"type": "Exact", "value": "/"}}]))]
    #[case(json!({"any": [{"method": "GET"}, {"method": "PUT"}]}), json!([{"method": "GET"}, {"method": "PUT"}]))]
    #[case(
        json!({"all": [{"pathRegex": "/a"}, {"any": [{"method": "GET"}, {"method": "PUT"}]}]}),
        json!([{"method": "GET", "path": {"type": "Exact", "value": "/a"}}, {"method": "PUT", "path": {"type": "Exact", "value": "/a"}}]),
    )]
    fn a_condition_becomes_matches(#[case] condition: Value, #[case] expected: Value) {
        assert_eq!(json!(matches(&condition).unwrap()), expected);
    }

    #[rstest]
    #[case(json!({"not": {"method": "GET"}}), "not")]
    #[case(json!({"all": [{"method": "GET"}, {"method": "PUT"}]}), "two values of method")]
    #[case(json!(null), "no condition")]
    #[case(json!({"method": "PURGE"}), "method \"PURGE\" has no counterpart")]
    #[case(
        json!({"all": [
            {"any": (0..9).map(|n| json!({"pathRegex": format!("/{n}")})).collect::<Vec<_>>()},
            {"any": (["GET", "PUT", "POST", "HEAD", "PATCH", "TRACE", "DELETE", "OPTIONS"].map(|name| json!({"method": name})))},
        ]}),
        "more than 64 matches",
    )]
    fn what_cannot_be_said_is_told(#[case] condition: Value, #[case] words: &str) {
        assert!(matches(&condition).unwrap_err().contains(words));
    }
}
