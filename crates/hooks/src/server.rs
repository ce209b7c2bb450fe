//! `Sidecar`: listens, knows its three paths, and ends cleanly.
//!
//! ```text
//!  accept ─▶ HTTP/1.1 or HTTP/2 ─▶ token? ─▶ GET /health │ POST /execute │ POST /run
//! ```
//!
//! Invariants: it listens on a socket file or on 127.0.0.1, nothing else; it serves no process of a run; it is over only
//! when every tree has ended.

mod execute;
mod listener;
mod peer;
mod refused;
mod shop;
mod stream;

use std::{convert::Infallible, io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use rustix::process::DumpableBehavior;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use crate::{Allow, Isolation, Network, Settings};
use listener::{Incomer, Listener};
use refused::Refused;
use shop::Shop;

/// How long a client may take to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long connections may take to end at shutdown.
const SHUTDOWN: Duration = Duration::from_secs(5);
/// Flow control window of one streamed run, in bytes.
pub(crate) const WINDOW: u32 = 512 * 1024;
/// Largest frame, in bytes.
pub(crate) const FRAME: u32 = 256 * 1024;

/// Largest head of a request, in bytes: twice the header that carries a hook.
const HEADERS: u32 = 384 * 1024;

/// The body of every answer.
type Answer = UnsyncBoxBody<Bytes, io::Error>;

/// Why a sidecar cannot serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// It cannot listen there.
    #[error("cannot listen on {at}")]
    Listen {
        /// The socket file or address.
        at: String,
        /// The cause.
        source: io::Error,
    },
    /// Another sidecar listens there.
    #[error("another executor already listens on {}", .0.display())]
    InUse(PathBuf),
    /// Runs cannot have directories there.
    #[error("cannot use {} for the directories of runs", folder.display())]
    Work {
        /// The directory.
        folder: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The inner steps do not work, so nothing can be run.
    #[error("this program does not lead to its hook steps: {0}")]
    Step(String),
    /// The network must be kept off and the kernel does not allow it.
    #[error("hooks must not reach the network, and it cannot be kept off: {0}")]
    Network(String),
}

/// A sidecar that listens.
#[derive(Debug)]
pub struct Sidecar {
    listener: Listener,
    shop: Arc<Shop>,
    isolation: Isolation,
}

/// Binds and serves until `shutdown`: what the subcommand `trellis hooks` does.
///
/// # Errors
/// When it cannot start; once it serves, it ends only by `shutdown`.
pub async fn serve(settings: Settings, allow: impl Allow, shutdown: CancellationToken) -> Result<(), ServeError> {
    Sidecar::bind(settings, allow).await?.serve(shutdown).await;
    Ok(())
}

impl Sidecar {
    /// Listens, removes what runs of a crashed sidecar left, and asks the kernel what runs can be kept apart from.
    pub async fn bind(settings: Settings, allow: impl Allow) -> Result<Self, ServeError> {
        shop::sweep(&settings.work).map_err(|source| ServeError::Work {
            folder: settings.work.clone(),
            source,
        })?;
        let isolation = shop::probe(&settings).await?;
        if settings.network == Network::Off && !isolation.network {
            return Err(ServeError::Network(isolation.refused.unwrap_or_default()));
        }
        if rustix::process::geteuid().is_root() {
            tracing::warn!("hooks run as root, whose processes the kernel does not count; run as another user");
        }
        let listener = Listener::bind(&settings.listen).await?;
        // A run of the same user could read the token, and the input of other runs, in this process's memory.
        if let Err(error) = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable) {
            tracing::warn!(%error, "the memory of this process may be open to hooks");
        }
        warn(&settings, &isolation);
        tracing::info!(
            at = %listener,
            processes_apart = isolation.processes,
            files_apart = isolation.files,
            network_off = isolation.network,
            "serving hooks"
        );
        let fenced = isolation.files;
        Ok(Self {
            listener,
            shop: Arc::new(Shop::new(settings, Box::new(allow), fenced)),
            isolation,
        })
    }

    /// What the kernel lets runs be kept apart from, here.
    #[must_use]
    pub fn isolation(&self) -> &Isolation {
        &self.isolation
    }

    /// The address on loopback; `None` for a socket file.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.listener.address()
    }

    /// Serves until `shutdown`; then ends all runs and returns when their trees have ended.
    pub async fn serve(self, shutdown: CancellationToken) {
        let Self { listener, shop, .. } = self;
        loop {
            let incomer = tokio::select! {
                incomer = listener.accept() => incomer,
                () = shutdown.cancelled() => break,
            };
            match incomer {
                Ok(Incomer::Socket(stream)) if peer::is_of_a_run(&stream) => {
                    tracing::warn!("a hook asked the executor itself; its connection is closed");
                }
                Ok(Incomer::Socket(stream)) => connect(&shop, stream),
                Ok(Incomer::Loopback(stream)) => connect(&shop, stream),
                Err(error) => {
                    // Out of file descriptors, most likely: others must end first.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        drop(listener);
        shop.stop.cancel();
        shop.runs.close();
        shop.runs.wait().await;
        shop.connections.close();
        if tokio::time::timeout(SHUTDOWN, shop.connections.wait()).await.is_err() {
            tracing::warn!("a client did not end its connection");
        }
    }
}

/// Says what runs are not kept apart from.
fn warn(settings: &Settings, isolation: &Isolation) {
    let refused = isolation.refused.as_deref().unwrap_or("no reason given");
    if !isolation.processes {
        tracing::warn!(refused, "hooks see the process list of this container");
    }
    if !isolation.files {
        tracing::warn!(
            refused,
            "hooks can read and change the files of other runs of this container: the kernel has no Landlock"
        );
    }
    if settings.network == Network::OffWherePossible && !isolation.network {
        tracing::warn!(
            refused,
            "hooks reach the network of the Pod: the kernel does not let it be off, and --network=off-where-possible goes \
             on without"
        );
    }
}

fn connect<S>(shop: &Arc<Shop>, stream: S)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (shop, stop) = (Arc::clone(shop), shop.stop.clone());
    let tasks = shop.connections.clone();
    tasks.spawn(async move {
        let streams = u32::try_from(shop.settings.at_once.saturating_add(shop.settings.queue)).unwrap_or(u32::MAX);
        let streams = streams.clamp(16, 1024);
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT);
        builder
            .http2()
            .timer(TokioTimer::new())
            .initial_stream_window_size(WINDOW)
            // A run that does not read its input must not hold up the others of its connection.
            .initial_connection_window_size(WINDOW.saturating_mul(streams).min(i32::MAX as u32))
            .max_concurrent_streams(streams)
            .max_frame_size(FRAME)
            .max_send_buf_size(FRAME as usize)
            .max_header_list_size(HEADERS);
        let service = service_fn(|request| answer(Arc::clone(&shop), request));
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(error, "a connection ended early");
        }
    });
}

async fn answer(shop: Arc<Shop>, request: Request<Incoming>) -> Result<Response<Answer>, Infallible> {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let answer = match (path.as_str(), method) {
        ("/health", Method::GET | Method::HEAD) => Ok(json(Bytes::from_static(b"{\"status\":\"healthy\"}"))),
        ("/health", _) => Err(Refused::Method("GET, HEAD")),
        ("/execute" | "/run", _) if !shop.knows(request.headers()) => Err(Refused::Stranger),
        ("/execute", Method::POST) => execute::answer(&shop, request).await,
        ("/run", Method::POST) => stream::answer(&shop, request).await,
        ("/execute" | "/run", _) => Err(Refused::Method("POST")),
        _ => Err(Refused::Path),
    };
    Ok(answer.unwrap_or_else(|refused| {
        refused.tell(&path);
        refused.answer()
    }))
}

fn json(text: Bytes) -> Response<Answer> {
    whole(StatusCode::OK, HeaderValue::from_static("application/json"), text)
}

fn whole(status: StatusCode, kind: HeaderValue, text: Bytes) -> Response<Answer> {
    let mut answer = Response::new(Full::new(text).map_err(|never| match never {}).boxed_unsync());
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}
