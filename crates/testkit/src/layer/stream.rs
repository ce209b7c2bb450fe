//! A watch stream that a script can end.
//!
//! server's chunks ─▶ whole lines (one event each) ─▶ caller, until the plan or a signal says how it ends

use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use futures::stream;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::json;
use tokio::sync::oneshot;
use tower::BoxError;

use super::{AnswerBody, cut};
use crate::script::WatchEnd;

type Source = Pin<Box<dyn http_body::Body<Data = Bytes, Error = BoxError> + Send>>;

struct Watched {
    source: Source,
    buffer: BytesMut,
    /// Events still to deliver, and how the stream ends after them.
    planned: Option<(u64, WatchEnd)>,
    signal: Option<oneshot::Receiver<WatchEnd>>,
    over: bool,
}

/// Wraps the body of a watch.
pub(super) fn watched<B>(body: B, planned: Option<(u64, WatchEnd)>, signal: oneshot::Receiver<WatchEnd>) -> AnswerBody
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let watched = Watched {
        source: Box::pin(body.map_err(Into::into)),
        buffer: BytesMut::new(),
        planned,
        signal: Some(signal),
        over: false,
    };
    StreamBody::new(stream::unfold(watched, |mut watched| async move {
        let frame = watched.next().await?;
        Some((frame.map(Frame::data), watched))
    }))
    .boxed_unsync()
}

impl Watched {
    async fn next(&mut self) -> Option<Result<Bytes, BoxError>> {
        loop {
            if self.over {
                return None;
            }
            if let Some((0, end)) = self.planned {
                return self.end(end).await;
            }
            if let Some(line) = self.line() {
                if let Some((left, _)) = &mut self.planned {
                    *left -= 1;
                }
                return Some(Ok(line));
            }
            tokio::select! {
                biased;
                end = signalled(&mut self.signal) => return self.end(end).await,
                frame = self.source.frame() => match frame {
                    Some(Ok(frame)) => self.buffer.extend(frame.into_data().unwrap_or_default()),
                    Some(Err(error)) => {
                        self.over = true;
                        return Some(Err(error));
                    }
                    None => {
                        self.over = true;
                        let rest = self.buffer.split().freeze();
                        return (!rest.is_empty()).then_some(Ok(rest));
                    }
                },
            }
        }
    }

    fn line(&mut self) -> Option<Bytes> {
        let end = self.buffer.iter().position(|byte| *byte == b'\n')?;
        Some(self.buffer.split_to(end + 1).freeze())
    }

    async fn end(&mut self, end: WatchEnd) -> Option<Result<Bytes, BoxError>> {
        self.over = true;
        match end {
            WatchEnd::Close => None,
            WatchEnd::Cut => {
                // Gives a server above the chance to send what it has: it drops its buffer together with a broken body.
                tokio::task::yield_now().await;
                Some(Err(cut()))
            }
            WatchEnd::Expire => Some(Ok(expired())),
        }
    }
}

/// Waits for the script's word; for ever when the script is gone.
async fn signalled(signal: &mut Option<oneshot::Receiver<WatchEnd>>) -> WatchEnd {
    if let Some(receiver) = signal
        && let Ok(end) = receiver.await
    {
        return end;
    }
    *signal = None;
    std::future::pending().await
}

/// The event with which the API server says that a watch's resourceVersion is too old.
fn expired() -> Bytes {
    let event = json!({
        "type": "ERROR",
        "object": {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": "too old resource version: expired by the script",
            "reason": "Expired",
            "code": 410,
        },
    });
    Bytes::from(format!("{event}\n"))
}
