//! One request, one answer.
//!
//! ```text
//!  method ─▶ path is a key ─▶ there ─▶ conditions ─▶ range ─▶ 200 · 206 · 302      405 · 404 · 412/304 · 416 · 503
//! ```
//!
//! Invariants: an error tells the client what it is, not how the storage is made; a `HEAD` says what the `GET` would.

use axum::{
    body::Body,
    response::{IntoResponse as _, Response},
};
use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{
        ACCEPT_RANGES, ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_MATCH,
        IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE, LAST_MODIFIED, LOCATION, RANGE, RETRY_AFTER,
    },
    request::Parts,
};

use super::{
    Delivery,
    condition::{Outcome, Validators},
    range::{Wanted, wanted},
};
use crate::{
    error::{Class, Error, Result},
    key::Key,
    storage::{Opened, Stat, Storage},
};

/// When a client should ask again while the storage is away, in seconds.
const AGAIN: HeaderValue = HeaderValue::from_static("5");

/// Answers a request for a file.
pub(super) async fn answer(storage: &dyn Storage, delivery: Delivery, request: &Parts) -> Response {
    if !matches!(request.method, Method::GET | Method::HEAD) {
        let allow = [(ALLOW, HeaderValue::from_static("GET, HEAD"))];
        return (StatusCode::METHOD_NOT_ALLOWED, allow, "only GET and HEAD\n").into_response();
    }
    // No key has to be encoded in a URL: what is encoded is none.
    let key = request.uri.path().strip_prefix('/').and_then(|path| path.parse().ok());
    let Some(key): Option<Key> = key else {
        return not_found();
    };
    match file(storage, delivery, request, &key).await {
        Ok(response) => response,
        Err(error) => refused(&key, &error),
    }
}

async fn file(storage: &dyn Storage, delivery: Delivery, request: &Parts, key: &Key) -> Result<Response> {
    let headers = &request.headers;
    let is_get = request.method == Method::GET;
    let redirects = is_get && delivery != Delivery::Proxy;
    if is_get && !redirects && !asks_first(headers) {
        let opened = storage.open(key, None).await?;
        return Ok(whole(key, opened));
    }
    let Some(stat) = storage.head(key).await? else {
        return Ok(not_found());
    };
    let validators = validators(key, stat);
    match validators.evaluate(headers) {
        Outcome::Proceed => {}
        Outcome::NotModified => return Ok(described(StatusCode::NOT_MODIFIED, &validators).body_of(Body::empty())),
        Outcome::Failed => return Ok((StatusCode::PRECONDITION_FAILED, "it is another file\n").into_response()),
    }
    if !is_get {
        return Ok(described(StatusCode::OK, &validators)
            .sized(stat.size)
            .body_of(Body::empty()));
    }
    if let Delivery::Redirect { valid } = delivery
        && let Some(url) = storage.presigned(key, valid).await?
        && let Ok(location) = HeaderValue::from_str(&url)
    {
        let headers = [
            (LOCATION, location),
            (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        ];
        return Ok((StatusCode::FOUND, headers).into_response());
    }
    match part(headers, &validators, stat.size) {
        Wanted::Whole => Ok(whole(key, storage.open(key, None).await?)),
        Wanted::Part(range) => {
            let opened = storage.open(key, Some(range)).await?;
            let content = format!(
                "bytes {}-{}/{}",
                opened.range.start,
                opened.range.end - 1,
                opened.stat.size
            );
            let length = opened.range.end - opened.range.start;
            Ok(described(StatusCode::PARTIAL_CONTENT, &validators)
                .with(CONTENT_RANGE, &content)
                .sized(length)
                .body_of(Body::from_stream(opened.body)))
        }
        Wanted::Unsatisfiable => Ok(unsatisfiable(stat.size)),
    }
}

/// Whether the answer depends on more than the path.
fn asks_first(headers: &HeaderMap) -> bool {
    [RANGE, IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE]
        .iter()
        .any(|name| headers.contains_key(name))
}

fn validators(key: &Key, stat: Stat) -> Validators {
    Validators::new(format!("\"{}\"", key.digest()), stat.modified)
}

/// The part of the file that is asked for, if it is still this file.
fn part(headers: &HeaderMap, validators: &Validators, size: u64) -> Wanted {
    let mut ranges = headers.get_all(RANGE).iter();
    let (Some(range), None) = (ranges.next(), ranges.next()) else {
        return Wanted::Whole;
    };
    match range.to_str() {
        Ok(range) if validators.range_holds(headers) => wanted(range, size),
        _ => Wanted::Whole,
    }
}

fn whole(key: &Key, opened: Opened) -> Response {
    described(StatusCode::OK, &validators(key, opened.stat))
        .sized(opened.stat.size)
        .body_of(Body::from_stream(opened.body))
}

/// An answer that says which file it is about.
fn described(status: StatusCode, validators: &Validators) -> Head {
    let mut head = Head(Response::new(Body::empty()));
    *head.0.status_mut() = status;
    head.with(ETAG, &validators.tag)
        .with(LAST_MODIFIED, &httpdate::fmt_http_date(validators.modified))
        .with(ACCEPT_RANGES, "bytes")
}

struct Head(Response);

impl Head {
    fn with(mut self, name: http::HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.0.headers_mut().insert(name, value);
        }
        self
    }

    fn sized(self, size: u64) -> Self {
        self.with(CONTENT_TYPE, "application/gzip")
            .with(CONTENT_LENGTH, &size.to_string())
    }

    fn body_of(mut self, body: Body) -> Response {
        *self.0.body_mut() = body;
        self.0
    }
}

fn not_found() -> Response {
    (StatusCode::NOT_FOUND, "no such file\n").into_response()
}

fn unsatisfiable(size: u64) -> Response {
    let range = HeaderValue::from_str(&format!("bytes */{size}")).map(|range| [(CONTENT_RANGE, range)]);
    match range {
        Ok(range) => (StatusCode::RANGE_NOT_SATISFIABLE, range, "the file is shorter\n").into_response(),
        Err(_) => StatusCode::RANGE_NOT_SATISFIABLE.into_response(),
    }
}

fn refused(key: &Key, error: &Error) -> Response {
    match error {
        Error::NotFound { .. } => return not_found(),
        Error::OutOfRange { .. } => return StatusCode::RANGE_NOT_SATISFIABLE.into_response(),
        _ => tracing::warn!(%key, reason = error.reason(), error = error.chain(), "a file was not served"),
    }
    match error.class() {
        Class::Refused => (StatusCode::INTERNAL_SERVER_ERROR, "the storage is not usable\n").into_response(),
        Class::Transient | Class::Waiting => {
            let again = [(RETRY_AFTER, AGAIN)];
            (StatusCode::SERVICE_UNAVAILABLE, again, "the storage is not available\n").into_response()
        }
    }
}
