//! `Proxy`: the layer, for another process.
//!
//! binary ─HTTP/1.1─▶ 127.0.0.1:port ─▶ `Disturb` ─▶ kube's HTTP client ─TLS─▶ API server
//!
//! The caller's own `Authorization` and `User-Agent` go through, so RBAC and the audit log see the caller. A call
//! that the script breaks, breaks the caller's connection. Plain HTTP: the token never leaves the loopback device.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use http::{
    HeaderMap, Request, Response, Uri,
    header::{ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE},
};
use http_body_util::BodyExt;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use kube::{
    Client, Config,
    client::Body,
    config::{AuthInfo, Kubeconfig},
};
use tokio::{net::TcpListener, task::JoinHandle};
use tower::BoxError;

use crate::{Recording, Script, background, layer::Disturb};

/// Headers that belong to one connection, and `Accept-Encoding`: events must be readable lines on their way.
const OWN: [http::HeaderName; 8] = [
    HOST,
    CONNECTION,
    CONTENT_LENGTH,
    TRANSFER_ENCODING,
    TE,
    TRAILER,
    UPGRADE,
    ACCEPT_ENCODING,
];

/// Why a proxy could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// No listening socket, or no file for the kubeconfig.
    #[error("proxy set-up")]
    Io(#[from] io::Error),
    /// The way to the API server cannot be configured.
    #[error("proxy's client of the API server")]
    Upstream(#[from] kube::Error),
    /// The kubeconfig cannot be written.
    #[error("proxy's kubeconfig")]
    Kubeconfig(#[from] serde_json::Error),
}

/// A disturbing reverse proxy in front of an API server; it ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    script: Script,
    recording: Recording,
    kubeconfig: PathBuf,
    _directory: tempfile::TempDir,
    accept: JoinHandle<()>,
}

impl Proxy {
    /// Starts a proxy in front of `upstream`. Its kubeconfig is `identity` (a ServiceAccount's, for instance) with the
    /// server replaced by the proxy; `upstream`'s own credentials are not used.
    pub async fn start(upstream: Config, identity: Kubeconfig, script: &Script) -> Result<Self, ProxyError> {
        let recording = Recording::new();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let listener = listener.into_std()?;
        let directory = tempfile::tempdir()?;
        let kubeconfig = directory.path().join("kubeconfig");
        std::fs::write(&kubeconfig, serde_json::to_vec_pretty(&pointing(identity, address))?)?;

        // The accept loop lives in the background runtime: a test that blocks must not stop the traffic.
        let runtime = background();
        let guard = runtime.enter();
        let client = Disturb::silent(script, &recording).client(anonymous(upstream))?;
        let listener = TcpListener::from_std(listener)?;
        let accept = runtime.spawn(accept(listener, client));
        drop(guard);
        Ok(Self {
            address,
            script: script.clone(),
            recording,
            kubeconfig,
            _directory: directory,
            accept,
        })
    }

    /// Where the proxy listens, plain HTTP.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The kubeconfig file that leads through the proxy.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The script that it applies.
    #[must_use]
    pub fn script(&self) -> &Script {
        &self.script
    }

    /// Every call so far.
    #[must_use]
    pub fn recording(&self) -> &Recording {
        &self.recording
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

/// The way to the API server without credentials, retries or time-outs of its own.
fn anonymous(mut upstream: Config) -> Config {
    upstream.auth_info = AuthInfo::default();
    upstream.headers = Vec::new();
    upstream.default_retry = false;
    upstream.read_timeout = None;
    upstream.write_timeout = None;
    upstream
}

async fn accept(listener: TcpListener, client: Client) {
    // Dropping the set, when the loop is aborted, ends every connection.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        let client = client.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| forward(client.clone(), request));
            let _ = socket.set_nodelay(true);
            // An error here is a connection that the script or the caller broke: the record shows which.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(socket), service)
                .await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn forward(client: Client, request: Request<Incoming>) -> Result<Response<Body>, BoxError> {
    let (mut parts, body) = request.into_parts();
    parts.headers = passed_on(&parts.headers);
    parts.uri = Uri::from(parts.uri.into_parts().path_and_query.ok_or("request without a path")?);
    parts.version = http::Version::HTTP_11;
    let body: Bytes = body.collect().await?.to_bytes();
    let mut response = client.send(Request::from_parts(parts, Body::from(body))).await?;
    for name in [CONNECTION, TRANSFER_ENCODING] {
        response.headers_mut().remove(name);
    }
    Ok(response)
}

fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    for name in OWN {
        headers.remove(name);
    }
    headers
}

fn pointing(mut identity: Kubeconfig, address: SocketAddr) -> Kubeconfig {
    for cluster in identity.clusters.iter_mut().filter_map(|named| named.cluster.as_mut()) {
        cluster.server = Some(format!("http://{address}"));
        cluster.certificate_authority = None;
        cluster.certificate_authority_data = None;
        cluster.tls_server_name = None;
        cluster.insecure_skip_tls_verify = None;
    }
    identity
}
