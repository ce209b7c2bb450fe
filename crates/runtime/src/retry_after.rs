//! `Retry-After`, kept: the client library drops headers, so the header is moved to where the API keeps the same value.
//!
//! ```text
//!  429, Retry-After: 3, "Too many requests" ─▶ 429, Status { details: { retryAfterSeconds: 3 } }
//! ```
//!
//! The API server's fairness filter and proxies before it answer 429 and 503 in plain text with only the header.

use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Response, StatusCode, header::RETRY_AFTER};
use http_body_util::{Either, Full};
use serde_json::json;

/// Longest wait that is believed.
const LIMIT: u64 = 300;

/// Turns answers that ask to wait into ones that the client library understands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RetryAfterLayer;

/// See [`RetryAfterLayer`].
#[derive(Debug, Clone)]
pub(crate) struct RetryAfter<S> {
    inner: S,
}

impl<S> tower::Layer<S> for RetryAfterLayer {
    type Service = RetryAfter<S>;

    fn layer(&self, inner: S) -> RetryAfter<S> {
        RetryAfter { inner }
    }
}

impl<S, R, B> tower::Service<R> for RetryAfter<S>
where
    S: tower::Service<R, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    B: Send + 'static,
{
    type Response = Response<Told<B>>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let answer = self.inner.call(request);
        Box::pin(async move { Ok(understood(answer.await?)) })
    }
}

/// The body as it came, or what it means.
type Told<B> = Either<B, Full<Bytes>>;

fn understood<B>(answer: Response<B>) -> Response<Told<B>> {
    let code = answer.status();
    let asks = matches!(code, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    let header = answer.headers().get(RETRY_AFTER).filter(|_| asks);
    let seconds = header
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.trim().parse::<u64>().ok());
    let Some(seconds) = seconds else {
        return answer.map(Either::Left);
    };
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code.as_u16(),
        "reason": if code == StatusCode::TOO_MANY_REQUESTS { "TooManyRequests" } else { "ServiceUnavailable" },
        "message": "the API server asks to wait", "details": { "retryAfterSeconds": seconds.min(LIMIT) },
    });
    let (parts, _) = answer.into_parts();
    let mut told = Response::new(Either::Right(Full::from(status.to_string())));
    *told.status_mut() = parts.status;
    told
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::fairness(429, Some("3"), Some(3))]
    #[case::proxy(503, Some("7"), Some(7))]
    #[case::bounded(429, Some("86400"), Some(LIMIT))]
    #[case::no_header(429, None, None)]
    #[case::a_date(503, Some("Wed, 21 Oct 2026 07:28:00 GMT"), None)]
    #[case::other_code(500, Some("3"), None)]
    #[tokio::test]
    async fn the_header_becomes_a_detail(
        #[case] code: u16,
        #[case] header: Option<&str>,
        #[case] seconds: Option<u64>,
    ) {
        let mut answer = Response::builder().status(code);
        if let Some(header) = header {
            answer = answer.header(RETRY_AFTER, header);
        }
        let told = understood(answer.body(Full::from("plain")).unwrap());
        assert_eq!(told.status().as_u16(), code);
        let body = told.into_body().collect().await.unwrap().to_bytes();
        match seconds {
            None => assert_eq!(body.as_ref(), b"plain"),
            Some(seconds) => {
                let status: serde_json::Value = serde_json::from_slice(&body).unwrap();
                assert_eq!(status["details"]["retryAfterSeconds"], seconds);
                assert_eq!(status["code"], code);
            }
        }
    }
}
