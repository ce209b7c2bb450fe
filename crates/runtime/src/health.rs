//! What probes and Prometheus ask: `/livez`, `/readyz`, `/metrics`.
//!
//! Alive: the process answers. Ready: it has reached the API server and is a candidate for the Lease, or leads with
//! every watch listed. A standby is ready, so that a rollout can go on.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router, extract::State, http::StatusCode, http::header::CONTENT_TYPE, response::IntoResponse, routing::get,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// The endpoint could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub struct Error {
    address: SocketAddr,
    #[source]
    source: std::io::Error,
}

/// How much has to happen before this process is ready. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Readiness {
    awaited: Arc<AtomicUsize>,
}

impl Readiness {
    /// Not ready until [`Readiness::synced`] was called as often as `awaited` says.
    #[must_use]
    pub fn awaiting(awaited: usize) -> Self {
        Self {
            awaited: Arc::new(AtomicUsize::new(awaited)),
        }
    }

    /// Starts to wait anew, for that many.
    pub fn await_again(&self, awaited: usize) {
        self.awaited.store(awaited, Ordering::SeqCst);
    }

    /// One of what was awaited is there.
    pub fn synced(&self) {
        let _ = self
            .awaited
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
    }

    fn is_ready(&self) -> bool {
        self.awaited.load(Ordering::SeqCst) == 0
    }
}

#[derive(Clone)]
struct Shared {
    metrics: Metrics,
    readiness: Readiness,
}

/// Serves until `stop`. Returns the address, which tells the port when 0 was asked for.
///
/// # Errors
/// [`Error`] when the address cannot be bound.
pub async fn serve(
    address: SocketAddr,
    metrics: Metrics,
    readiness: Readiness,
    stop: CancellationToken,
) -> Result<SocketAddr, Error> {
    let failed = |source| Error { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let router = Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(scrape))
        .with_state(Arc::new(Shared { metrics, readiness }));
    tokio::spawn(async move {
        let served = axum::serve(listener, router)
            .with_graceful_shutdown(stop.cancelled_owned())
            .await;
        if let Err(error) = served {
            tracing::error!(%error, "the health endpoint ended");
        }
    });
    Ok(bound)
}

async fn readyz(State(shared): State<Arc<Shared>>) -> (StatusCode, &'static str) {
    if shared.readiness.is_ready() {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "starting\n")
    }
}

async fn scrape(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    let content = [(
        CONTENT_TYPE,
        "application/openmetrics-text; version=1.0.0; charset=utf-8",
    )];
    match shared.metrics.render() {
        Ok(text) => (StatusCode::OK, content, text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, content, error.to_string()),
    }
}
