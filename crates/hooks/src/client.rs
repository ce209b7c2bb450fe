//! `Client`: asks a sidecar to run a hook.
//!
//! ```text
//!  Hook, body ─▶ run ─▶ Output: a stream of bytes whose last item says whether it was complete
//!  Hook, reader ─▶ pipe ─▶ writer: the same, from one file to another
//!  Hook, bytes ─▶ execute ─▶ Answer: whole, for what fits into 8 MiB
//! ```
//!
//! Invariants: a streamed run has a connection of its own, whose end is the run's; an output that was cut, failed or was too slow ends with an error,
//! never silently; a client that drops an output ends the run.

mod connect;
mod endpoint;
mod error;
mod line;
mod output;
mod pipe;

use std::{
    collections::BTreeMap,
    error::Error as StdError,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Collected, Full, Limited, combinators::UnsyncBoxBody};
use hyper::{
    body::{Body, Incoming},
    client::conn::http2,
};
use hyper_util::{
    client::legacy,
    rt::{TokioExecutor, TokioTimer},
};
use tokio::time::Instant;

use crate::{
    duration,
    server::{FRAME, WINDOW},
    wire::{self, EXECUTE_LIMIT, Executed, HEADER_LIMIT, HOOK, Word},
};
use connect::Connect;
pub use endpoint::{Endpoint, EndpointError};
pub use error::Error;
use line::Line;
pub use output::Output;

/// How much longer than its timeout a hook may take in all, for the queue of the sidecar and the way there and back.
const MARGIN: Duration = Duration::from_secs(45);
/// How long the sidecar has to say that it is healthy.
const HEALTH: Duration = Duration::from_secs(5);
/// Longest sentence of a refusal that is read, in bytes.
const SENTENCE: usize = 16 * 1024;

type Anything = Box<dyn StdError + Send + Sync>;
type Outgoing = UnsyncBoxBody<Bytes, Anything>;

/// A hook to run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hook {
    /// Bare name or absolute path.
    pub command: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Variables beside those that the sidecar sets.
    pub env: BTreeMap<String, String>,
    /// How long it may run; `None`: the sidecar's default, 30 s. At most 5 minutes.
    pub timeout: Option<Duration>,
    /// Namespace of the object whose hook it is.
    pub namespace: Option<String>,
}

/// What a hook said, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Standard output.
    pub stdout: Bytes,
    /// The end of standard error, at most 64 KiB.
    pub stderr: String,
}

/// Asks a sidecar to run hooks. Cheap to clone; clones share a connection for the JSON form.
#[derive(Debug, Clone)]
pub struct Client {
    http: legacy::Client<Connect, Outgoing>,
    endpoint: Arc<Endpoint>,
}

impl Client {
    /// A client of the sidecar there. Connects when it is first used, and again when the connection was lost.
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        let http = legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .http2_only(true)
            .build(Connect(endpoint.clone()));
        Self {
            http,
            endpoint: Arc::new(endpoint),
        }
    }

    /// Whether the sidecar answers.
    pub async fn healthy(&self) -> Result<(), Error> {
        let request = self.request(Method::GET, "/health", nothing())?;
        let answer = within(Instant::now() + HEALTH, self.http.request(request)).await?;
        match answer.status() {
            StatusCode::OK => Ok(()),
            status => Err(Error::Unreachable {
                why: format!("its health is {status}"),
                source: None,
            }),
        }
    }

    /// Runs a hook on a few bytes and gives back all it said. A non-zero exit code is [`Error::Failed`].
    pub async fn execute(&self, hook: &Hook, stdin: &[u8]) -> Result<Answer, Error> {
        let deadline = deadline(hook);
        let asked = wire::Request {
            stdin: wire::encode(stdin),
            ..asked(hook)
        };
        let text = serde_json::to_vec(&asked).map_err(|error| Error::Refused(error.to_string()))?;
        if text.len() > EXECUTE_LIMIT {
            return Err(Error::TooLarge(format!(
                "the request has more than {EXECUTE_LIMIT} bytes"
            )));
        }
        let body = Full::new(Bytes::from(text))
            .map_err(|never| match never {})
            .boxed_unsync();
        let mut request = self.request(Method::POST, "/execute", body)?;
        request
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let answer = accepted(within(deadline, self.http.request(request)).await?).await?;
        let body = within(deadline, Limited::new(answer.into_body(), EXECUTE_LIMIT).collect())
            .await?
            .to_bytes();
        let executed: Executed = serde_json::from_slice(&body).map_err(|error| Error::Unreachable {
            why: "its answer is not the JSON that is expected".to_owned(),
            source: Some(error.into()),
        })?;
        let stderr = wire::decode(&executed.stderr).unwrap_or_default();
        let stderr = String::from_utf8_lossy(&stderr).into_owned();
        let word = executed.end.unwrap_or(Word::Exited);
        error::judge(word, executed.exit_code, executed.message.unwrap_or_default(), &stderr)?;
        let stdout = wire::decode(&executed.stdout).ok_or_else(|| Error::Unreachable {
            why: "its answer is not base64".to_owned(),
            source: None,
        })?;
        Ok(Answer {
            stdout: stdout.into(),
            stderr,
        })
    }

    /// Runs a hook on a body of any length. The output flows while the body is still being sent; both have
    /// backpressure, so a slow reader slows the hook, whose timeout goes on.
    ///
    /// Hooks that stream into each other run at the same time and take one slot of the sidecar each: with fewer slots
    /// than hooks the chain would wait for itself until its timeout.
    pub async fn run<B>(&self, hook: &Hook, stdin: B) -> Result<Output, Error>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Anything>,
    {
        let deadline = deadline(hook);
        let text = serde_json::to_vec(&asked(hook)).map_err(|error| Error::Refused(error.to_string()))?;
        let text = wire::encode(&text);
        if text.len() > HEADER_LIMIT {
            return Err(Error::TooLarge(
                "arguments and variables have more than 144 KiB together".to_owned(),
            ));
        }
        // A body that breaks is seen by the connection as a reset; the reason is kept for who reads the output.
        let broken = Arc::new(OnceLock::new());
        let keep = Arc::clone(&broken);
        let body = stdin.map_err(move |error| {
            let error: Anything = error.into();
            let _ = keep.set(error.to_string());
            error
        });
        let mut request = self.request(Method::POST, "/run", body.boxed_unsync())?;
        let value = HeaderValue::try_from(text).map_err(|error| Error::Refused(error.to_string()))?;
        request.headers_mut().insert(HOOK, value);
        request
            .headers_mut()
            .insert(header::TE, HeaderValue::from_static("trailers"));
        let (mut sender, line) = within(deadline, self.line()).await?;
        let answer = match within(deadline, sender.send_request(request)).await {
            Ok(answer) => accepted(answer).await?,
            Err(error) => return Err(broken.get().map_or(error, |why| Error::Input(why.clone()))),
        };
        Ok(Output::new(answer.into_body(), deadline, broken, line))
    }

    /// A connection for one run. Its end is the one sign that reaches the sidecar in every state: a stream of a shared
    /// connection whose input is held up by flow control is not reset when only its output is dropped.
    async fn line(&self) -> Result<(http2::SendRequest<Outgoing>, Line), Anything> {
        let wire = connect::connect((*self.endpoint).clone()).await?;
        let (tied, line) = line::tied();
        let also = tied.clone();
        let (sender, connection) = http2::Builder::new(tied)
            .timer(TokioTimer::new())
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_frame_size(FRAME)
            .max_send_buf_size(FRAME as usize)
            .handshake(wire)
            .await?;
        hyper::rt::Executor::execute(&also, async { drop(connection.await) });
        Ok((sender, line))
    }

    fn request(&self, method: Method, path: &str, body: Outgoing) -> Result<Request<Outgoing>, Error> {
        let mut request = Request::builder().method(method).uri(format!("http://localhost{path}"));
        if let Some(token) = self.endpoint.token() {
            let mut value = HeaderValue::try_from(token.header()).map_err(|error| Error::Refused(error.to_string()))?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        request.body(body).map_err(|error| Error::Refused(error.to_string()))
    }
}

fn nothing() -> Outgoing {
    Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync()
}

fn asked(hook: &Hook) -> wire::Request {
    wire::Request {
        command: hook.command.clone(),
        args: hook.args.clone(),
        timeout: hook.timeout.map(duration::text).unwrap_or_default(),
        env: hook.env.clone(),
        stdin: String::new(),
        namespace: hook.namespace.clone(),
    }
}

fn deadline(hook: &Hook) -> Instant {
    Instant::now() + hook.timeout.unwrap_or(wire::MAX_TIMEOUT).min(wire::MAX_TIMEOUT) + MARGIN
}

async fn within<T, E>(deadline: Instant, work: impl Future<Output = Result<T, E>>) -> Result<T, Error>
where
    E: Into<Anything>,
{
    match tokio::time::timeout_at(deadline, work).await {
        Ok(done) => done.map_err(|error| Error::unreachable(error.into())),
        Err(_) => Err(Error::Unreachable {
            why: "it did not answer in time".to_owned(),
            source: None,
        }),
    }
}

/// The answer, when the hook was started.
async fn accepted(answer: Response<Incoming>) -> Result<Response<Incoming>, Error> {
    let status = answer.status();
    if status == StatusCode::OK {
        return Ok(answer);
    }
    let read = Limited::new(answer.into_body(), SENTENCE).collect();
    let body = tokio::time::timeout(HEALTH, read)
        .await
        .ok()
        .and_then(Result::ok)
        .map(Collected::to_bytes);
    let sentence = String::from_utf8_lossy(&body.unwrap_or_default()).trim().to_owned();
    Err(match status {
        StatusCode::FORBIDDEN => Error::NotAllowed(sentence),
        StatusCode::PAYLOAD_TOO_LARGE => Error::TooLarge(sentence),
        StatusCode::BAD_REQUEST => Error::Refused(sentence),
        StatusCode::SERVICE_UNAVAILABLE => Error::Busy(sentence),
        _ => Error::Unreachable {
            why: format!("it answers {status}: {sentence}"),
            source: None,
        },
    })
}
