//! `POST /run`: raw body in, raw body out, the end in trailers. See [`crate::wire`] for the format.
//!
//! Invariant: an answer that ends without trailers, on a protocol version or for a client that has none, is complete
//! only when the command exited with 0; else the connection is cut, so that a part is never taken for the whole.

use std::{io, sync::Arc};

use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, HeaderValue, Request, Response, Version, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::DropGuard;

use super::{Answer, Refused, shop::Shop};
use crate::{
    run::{self, End, Finished, Started},
    wire::{self, END, EXIT_CODE, HEADER_LIMIT, HOOK, MESSAGE, STDERR, STDERR_TRAILER},
};

pub(super) async fn answer(shop: &Arc<Shop>, request: Request<Incoming>) -> Result<Response<Answer>, Refused> {
    let asked = asked(request.headers())?;
    let trailers = request.version() == Version::HTTP_2
        || request
            .headers()
            .get(header::TE)
            .is_some_and(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
    let job = shop.admit(asked, shop.settings.limits).await?;
    let Started {
        output,
        finished,
        guard,
    } = run::start(job, request.into_body(), &shop.runs, &shop.stop)?;
    let state = Running {
        output,
        finished: Some(finished),
        trailers,
        _guard: guard,
    };
    let body = StreamBody::new(stream::unfold(state, |mut state| async {
        let frame = state.next().await?;
        Some((frame, state))
    }));
    let mut answer = Response::new(body.boxed_unsync());
    answer.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    if trailers {
        let names = HeaderValue::from_static("trellis-end, trellis-exit-code, trellis-message, trellis-stderr");
        answer.headers_mut().insert(header::TRAILER, names);
    }
    Ok(answer)
}

/// The request in the header.
fn asked(headers: &HeaderMap) -> Result<wire::Request, Refused> {
    let bad = |why: &str| Refused::Bad(format!("header {HOOK} {why}"));
    let text = headers.get(HOOK).ok_or_else(|| bad("is missing"))?;
    if text.len() > HEADER_LIMIT {
        return Err(bad("is too long"));
    }
    let text = text
        .to_str()
        .ok()
        .and_then(wire::decode)
        .ok_or_else(|| bad("is not base64"))?;
    let asked: wire::Request =
        serde_json::from_slice(&text).map_err(|error| bad(&format!("is not the JSON that is expected: {error}")))?;
    if !asked.stdin.is_empty() {
        return Err(bad("has stdin; it is the body here"));
    }
    Ok(asked)
}

/// A run whose output is being sent. Dropped with the connection, and the run ends with it.
struct Running {
    output: mpsc::Receiver<Bytes>,
    finished: Option<oneshot::Receiver<Finished>>,
    trailers: bool,
    _guard: DropGuard,
}

impl Running {
    async fn next(&mut self) -> Option<io::Result<Frame<Bytes>>> {
        if let Some(bytes) = self.output.recv().await {
            return Some(Ok(Frame::data(bytes)));
        }
        let Ok(finished) = self.finished.take()?.await else {
            return Some(Err(io::Error::other("the run was lost")));
        };
        if self.trailers {
            Some(Ok(Frame::trailers(trailers(&finished))))
        } else if finished.end == End::Exited(0) {
            None
        } else {
            Some(Err(io::Error::other(finished.end)))
        }
    }
}

fn trailers(finished: &Finished) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert(END, HeaderValue::from_static(finished.end.word().text()));
    if let End::Exited(code) = finished.end {
        trailers.insert(EXIT_CODE, HeaderValue::from(u16::from(code)));
    }
    let texts = [
        (MESSAGE, wire::encode(finished.end.to_string().as_bytes())),
        (STDERR, wire::encode(&finished.stderr.last(STDERR_TRAILER))),
    ];
    for (name, text) in texts {
        // Base64 is always a header's value.
        if let Ok(value) = HeaderValue::try_from(text) {
            trailers.insert(name, value);
        }
    }
    trailers
}
