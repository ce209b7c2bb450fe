//! `Transform`: a pure function over the payload, in the operator's own process, for users who want no sidecar.
//!
//! ```text
//!  payload (JSON or YAML) ─▶ value ─▶ CEL ─▶ text as it is │ everything else as JSON in one spelling
//! ```
//!
//! Invariants: what an expression could cost is estimated before it runs, so that no tenant holds a worker; equal payloads
//! give equal results; a message names the transform and never repeats the payload.

mod cost;

use std::{collections::HashMap, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use kube_cel::{
    KubeCelExt as _,
    cel::{Context, ExecutionError, Program, Value as CelValue},
};
use serde_json::Value;
use trellis_core::Refusal;

use crate::{
    canonical::{self, Nulls},
    reason::Reason,
    value::{self, Room, Unread},
};

/// Longest expression, in bytes.
pub const LENGTH_LIMIT: usize = 16 * 1024;
/// Most bytes that an expression without loops may copy. What a loop may, its steps bound.
const COPIED_LIMIT: u64 = 128 << 20;
/// How often an expression with loops is evaluated, each time with the fields of its maps in another order.
const TRIALS: usize = 4;

/// How much a transform may read, work and write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of payload.
    pub input: u64,
    /// Estimated steps.
    pub steps: u64,
    /// Bytes of the result.
    pub output: u64,
}

impl Default for Bounds {
    /// 16 MiB in and out, and 200 million estimated steps: a loop over some hundred objects passes, one over many thousands
    /// does not, because the library's loops take the square of their length.
    fn default() -> Self {
        Self {
            input: 16 << 20,
            steps: 200_000_000,
            output: 16 << 20,
        }
    }
}

/// A transform, read and ready to run.
#[derive(Debug)]
pub struct Transform {
    name: String,
    program: Program,
    weight: cost::Weight,
}

impl Transform {
    /// Reads a CEL expression over `body`, the payload as JSON value. Kubernetes' CEL functions are there, without
    /// `lists.range`.
    ///
    /// # Errors
    /// `ConfigurationError`: it is too long, does not parse, or calls a function that is not available.
    pub fn cel(name: &str, expression: &str) -> Result<Self, Refusal> {
        let refuse = |message: String| {
            Reason::ConfigurationError
                .refuse(format!("transform {name}: {message}"))
                .hint("the expression is CEL over `body`, such as body.items.map(i, i.name)")
        };
        if expression.len() > LENGTH_LIMIT {
            return Err(refuse(format!("the expression is longer than {LENGTH_LIMIT} bytes")));
        }
        let program = Program::compile(expression).map_err(|errors| {
            let first = errors
                .errors
                .first()
                .map_or("cannot be read", |error| error.msg.as_str());
            let line: String = first.lines().next().unwrap_or_default().chars().take(200).collect();
            refuse(format!("the expression does not parse: {line}"))
        })?;
        let weight = cost::of(&program.expression().expr);
        if let Some(function) = weight.denied {
            return Err(refuse(format!("the function {function} is not available")));
        }
        Ok(Self {
            name: name.to_owned(),
            program,
            weight,
        })
    }

    /// The result for a payload.
    ///
    /// # Errors
    /// `PermanentError`: the payload is neither JSON nor YAML. `SizeLimitExceeded`: payload, its values, estimated work or
    /// result exceed the bounds. `TransformFailed`: the expression fails for this payload, or its result depends on the order of a map's fields.
    pub fn run(&self, payload: &[u8], bounds: &Bounds) -> Result<Vec<u8>, Refusal> {
        let too_much = |what: String| {
            Reason::SizeLimitExceeded
                .refuse(format!("transform {}: {what}", self.name))
                .hint("select less, or use a hook, which runs in a process of its own")
        };
        if payload.len() as u64 > bounds.input {
            return Err(too_much(format!("the payload has more than {} bytes", bounds.input)));
        }
        let body = self.parsed(payload, too_much)?;
        let size = cost::Size::of(&body);
        if self.weight.copied(size) > COPIED_LIMIT {
            return Err(too_much(
                "the expression could copy too much of this payload".to_owned(),
            ));
        }
        let steps = self.weight.steps(size);
        if steps > bounds.steps {
            return Err(too_much(format!(
                "the expression could take more than {} steps over this payload",
                bounds.steps
            )));
        }
        let first = self.evaluated(&body, bounds, too_much)?;
        // The library's maps have no order; what depends on it would give a new revision at every round.
        let trials = if self.weight.loops() { TRIALS } else { 1 };
        for _ in 1..trials {
            if self.evaluated(&body, bounds, too_much)? != first {
                return Err(Reason::TransformFailed
                    .refuse(format!(
                        "transform {}: the result depends on the order of a map's fields",
                        self.name
                    ))
                    .hint("sort what is made from a map, such as body.map(k, k).sort()"));
            }
        }
        Ok(first.into_bytes())
    }

    fn parsed(&self, payload: &[u8], too_much: impl Fn(String) -> Refusal) -> Result<Value, Refusal> {
        let neither = || {
            Reason::PermanentError.refuse(format!(
                "transform {}: the payload is neither JSON nor one YAML document",
                self.name
            ))
        };
        let text = std::str::from_utf8(payload).map_err(|_| neither())?;
        let read = match value::json(text) {
            Err(Unread::Json) => value::yaml(text),
            read => read,
        };
        read.map_err(|error| match error {
            Unread::TooMany => too_much(value::too_many()),
            _ => neither(),
        })
    }

    fn evaluated(
        &self,
        body: &Value,
        bounds: &Bounds,
        too_much: impl Fn(String) -> Refusal,
    ) -> Result<String, Refusal> {
        let failed = |what: &str| Reason::TransformFailed.refuse(format!("transform {}: {what}", self.name));
        let too_long = || too_much(format!("the result has more than {} bytes", bounds.output));
        let mut context = Context::default().with_all();
        context.add_variable_from_value("body", cel(body));
        let result = self
            .program
            .execute(&context)
            .map_err(|error| failed(&explained(&error)))?;
        let text = match &result {
            CelValue::String(text) if text.len() as u64 > bounds.output => return Err(too_long()),
            CelValue::String(text) => text.to_string(),
            other => {
                // A value that stands in the result often is there once; as text it is as often.
                let mut written = Written::new(bounds.output);
                let json = json(other, &mut written).map_err(|error| match error {
                    Unwritten::NoJson => failed("the result is no JSON value; string() makes text of it"),
                    Unwritten::TooMuch => too_much("the result has too many values or bytes".to_owned()),
                })?;
                canonical::text(&json, Nulls::Keep) + "\n"
            }
        };
        if text.len() as u64 > bounds.output {
            return Err(too_long());
        }
        Ok(text)
    }
}

/// Why a result is no text.
enum Unwritten {
    /// JSON has no such value, or two keys become one.
    NoJson,
    /// There is more than may be.
    TooMuch,
}

/// How much of a result may still come.
struct Written {
    room: Room,
    bytes: u64,
}

impl Written {
    fn new(bytes: u64) -> Self {
        Self {
            room: Room::new(),
            bytes,
        }
    }

    fn count(&mut self, values: usize, bytes: usize) -> Result<(), Unwritten> {
        let left = self.bytes.checked_sub(bytes as u64);
        self.bytes = left.ok_or(Unwritten::TooMuch)?;
        if self.room.take(values) {
            Ok(())
        } else {
            Err(Unwritten::TooMuch)
        }
    }
}

/// JSON as CEL sees it: whole numbers are `int` where they fit, as in the literals of an expression.
fn cel(value: &Value) -> CelValue {
    match value {
        Value::Null => CelValue::Null,
        Value::Bool(truth) => CelValue::Bool(*truth),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(int), _) => CelValue::Int(int),
            (None, Some(uint)) => CelValue::UInt(uint),
            (None, None) => CelValue::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => CelValue::String(Arc::new(text.clone())),
        Value::Array(items) => CelValue::List(Arc::new(items.iter().map(cel).collect())),
        Value::Object(fields) => {
            let fields: HashMap<String, CelValue> =
                fields.iter().map(|(key, value)| (key.clone(), cel(value))).collect();
            CelValue::Map(fields.into())
        }
    }
}

/// The value as JSON; bytes in base64, as in protobuf's mapping.
fn json(value: &CelValue, written: &mut Written) -> Result<Value, Unwritten> {
    written.count(1, 1)?;
    Ok(match value {
        CelValue::List(items) => {
            let items = items.iter().map(|item| json(item, written));
            Value::Array(items.collect::<Result<_, _>>()?)
        }
        CelValue::Map(map) => {
            let mut fields = serde_json::Map::new();
            for (key, value) in map.map.iter() {
                let key = key.to_string();
                written.count(if fields.is_empty() { 9 } else { 1 }, key.len())?;
                if fields.insert(key, json(value, written)?).is_some() {
                    return Err(Unwritten::NoJson);
                }
            }
            Value::Object(fields)
        }
        CelValue::Int(number) => (*number).into(),
        CelValue::UInt(number) => (*number).into(),
        CelValue::Float(number) => Value::Number(serde_json::Number::from_f64(*number).ok_or(Unwritten::NoJson)?),
        CelValue::String(text) => {
            written.count(0, text.len())?;
            text.as_str().into()
        }
        CelValue::Bytes(bytes) => {
            written.count(0, bytes.len())?;
            STANDARD.encode(bytes.as_slice()).into()
        }
        CelValue::Bool(truth) => (*truth).into(),
        CelValue::Null => Value::Null,
        _ => return Err(Unwritten::NoJson),
    })
}

/// What went wrong, without the values that it went wrong with.
fn explained(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchKey(key) => format!("there is no field {key:?}; ask for it with has() first"),
        ExecutionError::UndeclaredReference(name) => format!("there is no variable or function {name}"),
        ExecutionError::InvalidArgumentCount { expected, actual } => {
            format!("a function takes {expected} arguments and is given {actual}")
        }
        ExecutionError::FunctionError { function, .. } => format!("the function {function} fails for these arguments"),
        _ => "an operator or function does not take values of these types, or the result is out of range".to_owned(),
    }
}

#[cfg(test)]
mod tests;
