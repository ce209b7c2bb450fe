//! What the service answered, kept apart where `object_store` folds it into one.
//!
//! ```text
//!  request ─▶ Keeper ─▶ HTTP client        status that no retry mends ─▶ HttpError { Answered } ─▶ typed again
//! ```
//!
//! `object_store` has variants for 401, 403, 404, 409 and 412, and one for everything else, whose source is private.
//! Statuses that it retries stay with it, as does 404 of an object.
//!
//! Invariants: told apart by status codes and types, never by words; of the body of a refusal only the error code is
//! kept, as the rest echoes what was signed.

use std::error::Error as StdError;

use async_trait::async_trait;
use futures::StreamExt as _;
use http::{Method, StatusCode};
use object_store::{
    ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
    },
};

use crate::error::Error;

/// How much of the body of a refusal is looked at, in bytes.
const LOOKED_AT: usize = 4096;

/// An answer that no retry mends.
#[derive(Debug, thiserror::Error)]
#[error("the service answered {status}{}{code}", if .code.is_empty() { "" } else { ": " })]
struct Answered {
    status: StatusCode,
    /// The error code of S3, such as `SignatureDoesNotMatch`; empty if it said none. For people only.
    code: String,
}

impl Answered {
    async fn read(response: HttpResponse) -> HttpError {
        let status = response.status();
        let mut body = response.into_body().bytes_stream();
        let mut start = Vec::new();
        while start.len() < LOOKED_AT
            && let Some(Ok(bytes)) = body.next().await
        {
            start.extend_from_slice(&bytes);
        }
        start.truncate(LOOKED_AT);
        let text = String::from_utf8_lossy(&start);
        let code = text
            .split_once("<Code>")
            .and_then(|(_, rest)| rest.split_once("</Code>"));
        let code = code.map_or("", |(code, _)| code);
        let code = if code.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            code
        } else {
            ""
        };
        let code = code.to_owned();
        HttpError::new(HttpErrorKind::Unknown, Self { status, code })
    }
}

/// Makes clients that keep statuses.
#[derive(Debug, Default)]
pub(super) struct Connector(ReqwestConnector);

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Keeper(self.0.connect(options)?)))
    }
}

#[derive(Debug)]
struct Keeper(HttpClient);

#[async_trait]
impl HttpService for Keeper {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let wants_bucket = wants_bucket(&request);
        let response = self.0.execute(request).await?;
        match response.status() {
            StatusCode::NOT_FOUND if wants_bucket => Err(Answered::read(response).await),
            StatusCode::BAD_REQUEST
            | StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::RANGE_NOT_SATISFIABLE
            // MinIO and others say it of a full disk; it would be retried as any 5xx.
            | StatusCode::INSUFFICIENT_STORAGE => Err(Answered::read(response).await),
            // Another region or endpoint is meant.
            status if status.is_redirection() && status != StatusCode::NOT_MODIFIED => {
                Err(Answered::read(response).await)
            }
            _ => Ok(response),
        }
    }
}

/// Whether the request needs nothing but its bucket, so that what is not found is that. Lists, and the starts of uploads.
fn wants_bucket(request: &HttpRequest) -> bool {
    let query = request.uri().query().unwrap_or_default();
    let starts = matches!(*request.method(), Method::PUT | Method::POST) && !query.contains("uploadId=");
    starts || query.contains("list-type=")
}

/// The kept status of an answer, if it is one of those.
pub(super) fn status(error: &object_store::Error) -> Option<StatusCode> {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(found) = cause {
        if let Some(answered) = found.downcast_ref::<Answered>() {
            return Some(answered.status);
        }
        cause = found.source();
    }
    None
}

/// What an error means for a file, apart from its absence.
pub(super) fn mapped(subject: &(impl ToString + ?Sized), error: object_store::Error) -> Error {
    use object_store::Error as Theirs;
    let subject = subject.to_string();
    match (status(&error), &error) {
        (Some(StatusCode::INSUFFICIENT_STORAGE), _) => Error::NoSpace {
            subject,
            source: error.into(),
        },
        (Some(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN), _)
        | (None, Theirs::PermissionDenied { .. } | Theirs::Unauthenticated { .. }) => Error::Denied {
            subject,
            source: error.into(),
        },
        (Some(StatusCode::NOT_FOUND), _) => Error::Settings {
            what: "the bucket does not exist".to_owned(),
            source: Some(error.into()),
        },
        (Some(_), _) => Error::Settings {
            what: format!("the service refuses the request for {subject}; are endpoint, region and bucket right?"),
            source: Some(error.into()),
        },
        (None, Theirs::UnknownConfigurationKey { .. } | Theirs::NotSupported { .. } | Theirs::InvalidPath { .. }) => {
            Error::Settings {
                what: "the S3 client refuses its settings".to_owned(),
                source: Some(error.into()),
            }
        }
        _ => Error::Unreachable {
            subject,
            source: error.into(),
        },
    }
}
