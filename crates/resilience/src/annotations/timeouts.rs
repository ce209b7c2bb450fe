//! `spec.timeout` as annotations.

use trellis_api::Timeout;
use trellis_core::Refusal;

use super::{Annotations, TIMEOUT_IDLE, TIMEOUT_REQUEST, TIMEOUT_RESPONSE, time};
use crate::Reason;

pub(super) fn write(asked: &Timeout, annotations: &mut Annotations) -> Result<(), Refusal> {
    let fields = [
        ("spec.timeout.requestTimeout", TIMEOUT_REQUEST, &asked.request_timeout),
        (
            "spec.timeout.responseTimeout",
            TIMEOUT_RESPONSE,
            &asked.response_timeout,
        ),
        ("spec.timeout.idleTimeout", TIMEOUT_IDLE, &asked.idle_timeout),
    ];
    let mut any = false;
    for (path, key, text) in fields {
        any |= time(path, key, text.as_deref(), annotations)?.is_some();
    }
    if any {
        return Ok(());
    }
    Err(Reason::Invalid
        .refuse("an enabled timeout needs at least one of requestTimeout, responseTimeout and idleTimeout")
        .field("spec.timeout"))
}
