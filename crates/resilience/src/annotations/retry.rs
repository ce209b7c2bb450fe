//! `spec.retry` as annotations. HTTP and gRPC share limit and timeout; each has statuses of its own.

use trellis_api::Retry;
use trellis_core::Refusal;

use super::{Annotations, Place, RETRY_GRPC, RETRY_HTTP, RETRY_LIMIT, RETRY_TIMEOUT, time, within};
use crate::{Reason, codes};

pub(super) fn write(asked: &Retry, place: Place, annotations: &mut Annotations) -> Result<(), Refusal> {
    within("spec.retry.maxAttempts", asked.max_attempts, 1, 10)?;
    annotations.insert(RETRY_LIMIT, asked.max_attempts.to_string());

    let http = codes::canonical("spec.retry.retryableStatusCodes", &asked.retryable_status_codes)?;
    if place != Place::GrpcRoute {
        annotations.insert(RETRY_HTTP, http);
    }
    let path = "spec.retry.retryableGrpcCodes";
    match (&asked.retryable_grpc_codes, place) {
        (Some(_), Place::HttpRoute) => {
            return Err(Reason::Invalid
                .refuse("Linkerd ignores gRPC statuses on an HTTP route")
                .field(path)
                .hint("use grpc routes"));
        }
        (None, Place::GrpcRoute) => {
            return Err(Reason::Invalid
                .refuse("retries of gRPC routes need gRPC statuses")
                .field(path)
                .hint("list some of cancelled, deadline-exceeded, internal, resource-exhausted, unavailable"));
        }
        (Some(list), _) => {
            annotations.insert(RETRY_GRPC, codes::canonical_grpc(path, list)?);
        }
        (None, _) => {}
    }
    time(
        "spec.retry.retryTimeout",
        RETRY_TIMEOUT,
        asked.retry_timeout.as_deref(),
        annotations,
    )?;
    Ok(())
}
