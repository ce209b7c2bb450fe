//! Timeouts, as Linkerd reads them.

use serde::Serialize;

use super::{Bad, Stored, duration};
use crate::annotations::{TIMEOUT_IDLE, TIMEOUT_REQUEST, TIMEOUT_RESPONSE};

/// Timeouts, in milliseconds. Zero is real: it ends every request at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    /// Life of the whole request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<u64>,
    /// From the end of the request to the end of the response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<u64>,
    /// Without anything sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<u64>,
}

impl Timeouts {
    /// The timeouts that these annotations give.
    pub fn read(stored: &Stored) -> Result<Self, Bad> {
        Ok(Self {
            request: duration(stored, TIMEOUT_REQUEST)?,
            response: duration(stored, TIMEOUT_RESPONSE)?,
            idle: duration(stored, TIMEOUT_IDLE)?,
        })
    }

    /// Whether none is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
