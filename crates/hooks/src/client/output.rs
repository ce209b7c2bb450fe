//! `Output`: what a hook writes, as it comes, with its end judged.

use std::{
    fmt,
    future::Future as _,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures::{Stream, TryStreamExt as _};
use http::HeaderMap;
use http_body_util::StreamBody;
use hyper::body::{Body, Frame, Incoming};
use tokio::time::{Instant, Sleep, sleep_until};

use super::{Error, error::judge, line::Line};
use crate::wire::{self, END, EXIT_CODE, MESSAGE, STDERR, Word};

/// What a hook writes: a stream of bytes. It is complete only when it ends without an error, so a reader must go to
/// its end before it uses any of it. Dropping it earlier ends the hook.
pub struct Output {
    body: Incoming,
    deadline: Pin<Box<Sleep>>,
    broken: Arc<OnceLock<String>>,
    state: State,
    stderr: String,
    _line: Line,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Flowing,
    /// The trailers were good.
    Judged,
    Over,
}

impl Output {
    pub(super) fn new(body: Incoming, deadline: Instant, broken: Arc<OnceLock<String>>, line: Line) -> Self {
        let deadline = Box::pin(sleep_until(deadline));
        Self {
            body,
            deadline,
            broken,
            state: State::Flowing,
            stderr: String::new(),
            _line: line,
        }
    }

    /// The last bytes of standard error of a hook that went well, once the stream has ended; empty before.
    #[must_use]
    pub fn stderr(&self) -> &str {
        &self.stderr
    }

    /// The output as a body: the input of the next hook.
    pub fn into_body(self) -> impl Body<Data = Bytes, Error = Error> + Send + 'static {
        StreamBody::new(self.map_ok(Frame::data))
    }

    /// All of it, at most `limit` bytes.
    pub async fn collect(mut self, limit: usize) -> Result<Bytes, Error> {
        let mut all = Vec::new();
        while let Some(bytes) = self.try_next().await? {
            if all.len() + bytes.len() > limit {
                return Err(Error::TooLarge(format!("hook: stdout has more than {limit} bytes")));
            }
            all.extend_from_slice(&bytes);
        }
        Ok(all.into())
    }

    fn judge(&mut self, trailers: &HeaderMap) -> Result<(), Error> {
        let text = |name| {
            trailers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default()
        };
        let decoded = |name| String::from_utf8_lossy(&wire::decode(text(name)).unwrap_or_default()).into_owned();
        let Some(word) = Word::read(text(END)) else {
            return Err(cut());
        };
        let code = text(EXIT_CODE).parse().unwrap_or(-1);
        self.stderr = decoded(STDERR);
        judge(word, code, decoded(MESSAGE), &self.stderr)
    }

    fn fail(&mut self, error: Error) -> Poll<Option<Result<Bytes, Error>>> {
        self.state = State::Over;
        let error = self.broken.get().map_or(error, |why| Error::Input(why.clone()));
        Poll::Ready(Some(Err(error)))
    }
}

fn cut() -> Error {
    Error::Unreachable {
        why: "its answer was cut off".to_owned(),
        source: None,
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Output")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl Stream for Output {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if self.state == State::Over {
                return Poll::Ready(None);
            }
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
                ready!(self.deadline.as_mut().poll(cx));
                let why = "it did not answer in time".to_owned();
                return self.fail(Error::Unreachable { why, source: None });
            };
            match frame {
                None if self.state == State::Judged => self.state = State::Over,
                None => return self.fail(cut()),
                Some(Err(error)) => return self.fail(Error::unreachable(error.into())),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => return Poll::Ready(Some(Ok(data))),
                    Err(frame) => {
                        let trailers = frame.into_trailers().unwrap_or_default();
                        match self.judge(&trailers) {
                            Ok(()) => self.state = State::Judged,
                            Err(error) => return self.fail(error),
                        }
                    }
                },
            }
        }
    }
}
