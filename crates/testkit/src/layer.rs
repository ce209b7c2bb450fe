//! `Disturb`: a tower layer for `kube::Client` that records every call and applies a script to it.
//!
//! client ─▶ record ─▶ script ─▶ server ─▶ crash point ─▶ record ─▶ client
//!
//! The layer lies outside kube's own stack: it sees a request before kube adds headers, and kube's own retries of
//! 429, 503 and 504 happen below it, so an injected answer always reaches the caller.

mod stream;

use std::{
    future::{self, Future},
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Request, Response, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER, USER_AGENT},
};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use jiff::Timestamp;
use kube::{
    Client, Config,
    client::{Body, ClientBuilder},
};
use serde_json::json;
use tower::{BoxError, Layer, Service, ServiceExt, buffer::Buffer};

use crate::{
    RequestInfo, Script, Verb,
    record::{Answer, Call, Recording},
    script::Kind,
};

/// How many requests may wait for the service underneath.
const WAITING: usize = 1024;

/// The body of a disturbed answer.
pub type AnswerBody = UnsyncBoxBody<Bytes, BoxError>;

/// Records every call and applies a script to it; see the module.
#[derive(Clone, Debug)]
pub struct Disturb {
    script: Script,
    recording: Recording,
    afterlife: Afterlife,
}

/// What a caller meets after the crash.
#[derive(Clone, Copy, Debug)]
enum Afterlife {
    /// An error at once: the task in this process goes on to its own error handling, whose calls fail too.
    Fails,
    /// Silence: the process that is about to be killed cannot react.
    Hangs,
}

impl Disturb {
    /// A layer whose callers meet errors after a crash.
    #[must_use]
    pub fn new(script: &Script, recording: &Recording) -> Self {
        Self {
            script: script.clone(),
            recording: recording.clone(),
            afterlife: Afterlife::Fails,
        }
    }

    /// A layer whose callers hear nothing after a crash.
    pub(crate) fn silent(script: &Script, recording: &Recording) -> Self {
        Self {
            afterlife: Afterlife::Hangs,
            ..Self::new(script, recording)
        }
    }

    /// A client for `config` whose calls are disturbed and recorded.
    pub fn client(&self, config: Config) -> Result<Client, kube::Error> {
        Ok(ClientBuilder::try_from(config)?.with_layer(self).build())
    }
}

impl<S, B> Layer<S> for Disturb
where
    S: Service<Request<Body>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError> + Send + Sync,
{
    type Service = Disturbed<S::Future>;

    fn layer(&self, inner: S) -> Self::Service {
        Disturbed {
            disturb: self.clone(),
            inner: Buffer::new(inner, WAITING),
        }
    }
}

/// A service under [`Disturb`].
#[derive(Debug)]
pub struct Disturbed<F> {
    disturb: Disturb,
    inner: Buffer<Request<Body>, F>,
}

impl<F, B, E> Service<Request<Body>> for Disturbed<F>
where
    F: Future<Output = Result<Response<B>, E>> + Send + 'static,
    E: Into<BoxError> + Send + Sync + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<AnswerBody>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // Readiness of the inner service is awaited per request, after the script has decided.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (disturb, inner) = (self.disturb.clone(), self.inner.clone());
        Box::pin(async move { disturb.carry(inner, request).await })
    }
}

impl Disturb {
    async fn carry<F, B, E>(
        self,
        inner: Buffer<Request<Body>, F>,
        request: Request<Body>,
    ) -> Result<Response<AnswerBody>, BoxError>
    where
        F: Future<Output = Result<Response<B>, E>> + Send + 'static,
        E: Into<BoxError> + Send + Sync + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let info = RequestInfo::of(&parts.method, &parts.uri, &body);
        let header = |name: HeaderName| {
            parts
                .headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .map(ToOwned::to_owned)
        };
        let entry = self.recording.begun(Call {
            at: Timestamp::now(),
            info: info.clone(),
            sent: (
                parts.method.clone(),
                parts.uri.path_and_query().map_or_else(String::new, ToString::to_string),
            ),
            user_agent: header(USER_AGENT),
            content_type: header(CONTENT_TYPE).unwrap_or_default(),
            body: body.clone(),
            answer: Answer::Pending,
        });

        if self.script.is_crashed() {
            entry.finish(Answer::Dead);
            return self.afterlife().await;
        }
        let decision = self.script.decide(&info);
        for delay in decision.delays {
            match delay {
                Kind::Hold(gate) => gate.pass().await,
                Kind::Delay(time) => tokio::time::sleep_until(tokio::time::Instant::now() + time).await,
                _ => {}
            }
        }
        if self.script.is_crashed() {
            entry.finish(Answer::Dead);
            return self.afterlife().await;
        }
        match decision.fault {
            Some(Kind::Fail { code, retry_after }) => {
                entry.finish(Answer::Injected(code));
                return failure(&info, code, retry_after);
            }
            Some(Kind::CutBefore) => {
                entry.finish(Answer::CutBefore);
                return Err(cut());
            }
            Some(Kind::Hang) => {
                entry.finish(Answer::Hung);
                return future::pending().await;
            }
            _ => {}
        }

        let request = Request::from_parts(parts, Body::from(body));
        let response = match inner.oneshot(request).await {
            Ok(response) => response,
            Err(error) => {
                entry.finish(Answer::Failed(error.to_string()));
                return Err(error);
            }
        };
        let status = response.status();
        if self.script.answered(&info, status.is_success()) {
            entry.finish(Answer::Withheld(status.as_u16()));
            return self.afterlife().await;
        }
        match &decision.fault {
            Some(Kind::CutAfter) => {
                entry.finish(Answer::CutAfter(status.as_u16()));
                return Err(cut());
            }
            Some(Kind::HoldAnswer(gate)) => gate.pass().await,
            _ => {}
        }
        entry.finish(Answer::Status(status.as_u16()));
        if info.verb != Verb::Watch || !status.is_success() {
            return Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()));
        }
        let planned = match decision.fault {
            Some(Kind::EndWatch { after, end }) => Some((after, end)),
            _ => None,
        };
        let signal = self.script.opened(&info);
        let response = response.map(|body| stream::watched(body, planned, signal));
        Ok(response)
    }

    async fn afterlife(&self) -> Result<Response<AnswerBody>, BoxError> {
        match self.afterlife {
            Afterlife::Fails => Err(cut()),
            Afterlife::Hangs => future::pending().await,
        }
    }
}

/// The error of a connection that the script broke.
fn cut() -> BoxError {
    io::Error::new(io::ErrorKind::ConnectionReset, "connection cut by the script").into()
}

/// An answer as the API server writes it: `metav1.Status`.
fn failure(info: &RequestInfo, code: u16, retry_after: Option<u32>) -> Result<Response<AnswerBody>, BoxError> {
    let mut details = json!({ "group": info.group, "kind": info.resource });
    if let Some(details) = details.as_object_mut() {
        details.extend(info.name.iter().map(|name| ("name".to_owned(), json!(name))));
        details.extend(retry_after.map(|seconds| ("retryAfterSeconds".to_owned(), json!(seconds))));
    }
    let status = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": format!("{} {} {}: injected by the script", info.verb, info.resource, info.name.as_deref().unwrap_or("")),
        "reason": reason(code),
        "details": details,
        "code": code,
    });
    let body = Full::new(Bytes::from(status.to_string()))
        .map_err(|never| match never {})
        .boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(code)?;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    Ok(response)
}

/// The reason that goes with a status, `k8s.io/apimachinery/pkg/apis/meta/v1` `StatusReason`.
fn reason(code: u16) -> &'static str {
    match code {
        400 => "BadRequest",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        405 => "MethodNotAllowed",
        409 => "Conflict",
        410 => "Expired",
        413 => "RequestEntityTooLarge",
        422 => "Invalid",
        429 => "TooManyRequests",
        500 => "InternalError",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "",
    }
}
