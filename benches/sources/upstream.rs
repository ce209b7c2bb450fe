//! `Upstream`: the server that sources are fetched from, a process of its own, so that what it takes is not counted.
//!
//! ```text
//!  /now/… /late/… ─▶ a manifest, or 304; late: after 200 ms        /large/random/N /large/text/N ─▶ N MiB
//!  /counters ─▶ requests, connections
//! ```

use std::{
    process::{Child, Command, Stdio},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
    serve::ListenerExt as _,
};
use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use trellis_benches::Error;

/// What this program is told to be the upstream, until its standard input ends.
pub(crate) const FLAG: &str = "--upstream";
/// How long the late one takes.
pub(crate) const LATENCY: Duration = Duration::from_millis(200);
/// Its validator.
pub(crate) const ETAG: &str = "\"1\"";
/// Bytes of a large body that are made once.
const PIECE: usize = 1 << 20;
const MANIFEST: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: bench\ndata:\n  word: bench\n";

/// A bare HTTP client.
pub(crate) type Bare = Client<HttpConnector, Empty<Bytes>>;

/// A bare HTTP client that keeps as many connections as ours.
pub(crate) fn bare() -> Bare {
    Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(10)
        .build_http()
}

/// Asks with a bare client, with a validator or without. Returns the status.
pub(crate) async fn asked(client: &Bare, url: &str, etag: Option<&str>) -> Result<u16, Error> {
    let mut request = http::Request::get(url);
    if let Some(etag) = etag {
        request = request.header(header::IF_NONE_MATCH, etag);
    }
    let response = client.request(request.body(Empty::new())?).await?;
    let status = response.status().as_u16();
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        frame?;
    }
    Ok(status)
}

/// What it counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counted {
    pub(crate) requests: u64,
    pub(crate) connections: u64,
}

/// The running process; it ends with this value.
pub(crate) struct Upstream {
    child: Child,
    origin: String,
}

impl Upstream {
    pub(crate) fn start() -> Result<Self, Error> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.arg(FLAG).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().ok_or("no output")?;
        let mut line = String::new();
        let mut output = std::io::BufReader::new(output);
        tokio::task::block_in_place(|| std::io::BufRead::read_line(&mut output, &mut line))?;
        Ok(Self {
            child,
            origin: line.trim().to_owned(),
        })
    }

    /// The address of something that it serves.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.origin)
    }

    pub(crate) async fn counted(&self) -> Result<Counted, Error> {
        let request = http::Request::get(self.url("counters")).body(Empty::<Bytes>::new())?;
        let text = bare().request(request).await?.into_body().collect().await?.to_bytes();
        let text = String::from_utf8_lossy(&text);
        let (requests, connections) = text.split_once(' ').ok_or("no counters")?;
        Ok(Counted {
            requests: requests.parse()?,
            connections: connections.parse()?,
        })
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        // It also ends by itself, when its standard input does.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Default)]
struct Counters {
    requests: AtomicU64,
    connections: AtomicU64,
}

/// Serves until standard input ends.
pub(crate) async fn serve() -> Result<(), Error> {
    let counters: Arc<Counters> = Arc::default();
    let counted = Arc::clone(&counters);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let mut out = tokio::io::stdout();
    out.write_all(format!("http://{}\n", listener.local_addr()?).as_bytes())
        .await?;
    out.flush().await?;
    let listener = listener.tap_io(move |stream| {
        let _ = stream.set_nodelay(true);
        counted.connections.fetch_add(1, Ordering::Relaxed);
    });
    let router = Router::new()
        .route("/now/{*rest}", get(now))
        .route("/late/{*rest}", get(late))
        .route("/large/{kind}/{mebibytes}", get(large))
        .route("/counters", get(count))
        .with_state(counters);
    let mut input = tokio::io::stdin();
    let mut rest = Vec::new();
    tokio::select! {
        served = axum::serve(listener, router) => served?,
        ended = input.read_to_end(&mut rest) => { ended?; }
    }
    Ok(())
}

async fn now(State(counters): State<Arc<Counters>>, headers: HeaderMap) -> Response {
    counters.requests.fetch_add(1, Ordering::Relaxed);
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|known| known == ETAG);
    let told = [(header::ETAG, ETAG), (header::CONTENT_TYPE, "application/yaml")];
    if known {
        (StatusCode::NOT_MODIFIED, told).into_response()
    } else {
        (told, MANIFEST).into_response()
    }
}

async fn late(counters: State<Arc<Counters>>, headers: HeaderMap) -> Response {
    tokio::time::sleep(LATENCY).await;
    now(counters, headers).await
}

/// Counters do not count themselves, but for the connection.
async fn count(State(counters): State<Arc<Counters>>) -> String {
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    format!("{} {}", read(&counters.requests), read(&counters.connections))
}

/// One piece of numbers, or of lines of JSON, again and again: farther apart than gzip looks back.
async fn large(Path((kind, mebibytes)): Path<(String, u64)>) -> Response {
    static RANDOM: LazyLock<Bytes> = LazyLock::new(random);
    static TEXT: LazyLock<Bytes> = LazyLock::new(text);
    let piece = if kind == "random" { &RANDOM } else { &TEXT };
    let pieces = (0..mebibytes).map(|_| Ok::<_, std::io::Error>(Bytes::clone(piece)));
    let told = [
        (header::ETAG, format!("\"{kind}-{mebibytes}\"")),
        (header::CONTENT_LENGTH, (mebibytes << 20).to_string()),
    ];
    (told, Body::from_stream(stream::iter(pieces))).into_response()
}

fn random() -> Bytes {
    let mut bytes = vec![0; PIECE];
    fastrand::Rng::with_seed(1).fill(&mut bytes);
    bytes.into()
}

fn text() -> Bytes {
    let mut numbers = fastrand::Rng::with_seed(1);
    let mut bytes = Vec::with_capacity(PIECE + 100);
    while bytes.len() < PIECE {
        let (id, zone, ready) = (numbers.u32(..), numbers.u8(0..16), numbers.bool());
        let line = format!("{{\"id\": {id}, \"zone\": \"zone-{zone}\", \"ready\": {ready}}}\n");
        bytes.extend_from_slice(line.as_bytes());
    }
    bytes.truncate(PIECE);
    bytes.into()
}
