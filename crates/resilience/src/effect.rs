//! What annotations mean to Linkerd: each block whole, or nothing and the key that spoils it.
//!
//! ```text
//!  annotations ─▶ breaker │ retry (HTTP, gRPC) │ timeouts │ load bias ─▶ Ok(none) │ Ok(value) │ Err(Bad)
//! ```
//!
//! Follows the parsers of linkerd2, `policy-controller/k8s/index/src/outbound/index.rs` and `…/{http,grpc}.rs`.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use crate::shown::{VALUE, cut};

mod breaker;
mod load_bias;
mod retry;
mod timeouts;

pub use breaker::{Breaker, Mode, SuccessRate};
pub use load_bias::LoadBias;
pub use retry::{Protocol, Retry};
pub use timeouts::Timeouts;

/// Annotations as the API server has them.
pub type Stored = BTreeMap<String, String>;

/// A value that Linkerd does not take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bad {
    /// The annotation.
    pub key: String,
    /// Its value.
    pub value: String,
    /// What Linkerd would take, in words that follow 'must'.
    pub must: &'static str,
}

/// In a sentence, where a long value is cut.
impl fmt::Display for Bad {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {:?} must {}", self.key, cut(&self.value, VALUE), self.must)
    }
}

impl Bad {
    fn new(key: &str, value: &str, must: &'static str) -> Self {
        Self {
            key: key.into(),
            value: value.into(),
            must,
        }
    }
}

/// What must hold of every duration.
const DURATION: &str = "be a whole number with one unit of ms, s, m, h or d";

fn duration(stored: &Stored, key: &str) -> Result<Option<u64>, Bad> {
    read(stored, key, DURATION, crate::duration::linkerd)
}

fn read<T>(
    stored: &Stored,
    key: &str,
    must: &'static str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>, Bad> {
    let Some(text) = stored.get(key) else { return Ok(None) };
    parse(text).map(Some).ok_or_else(|| Bad::new(key, text, must))
}

/// What Go's `strconv.ParseBool` takes for true or false.
pub(crate) fn truth(text: &str) -> Option<bool> {
    match text.trim() {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}
