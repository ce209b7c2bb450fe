//! `Server`: files over HTTP, while this process leads.
//!
//! ```text
//!  leading ─▶ bind ─▶ accept (bounded) ─▶ GET/HEAD /a/b/<hex>.tar.gz ─▶ Storage ─▶ pieces of 64 KiB
//!  not any more ─▶ close the port ─▶ let what runs end, for a while
//! ```
//!
//! The port is open only while this process leads, so that a readiness probe on it (`/readyz`) routes a Service to the
//! leader, and a client of another replica is refused at once instead of being told that files do not exist.
//!
//! A client that reads slowly is never cut: there is no limit on the time of an answer, only on that in which a request
//! has to be there, which is that of idle connections too. A peer that died is noticed by TCP.
//!
//! Invariants: nothing is served that is no [`Key`]: no directory, no temporary file, no path out of the storage;
//! nothing is changed by a request; a file is never in memory as a whole.

mod answer;
mod condition;
mod range;

use std::{convert::Infallible, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{Router, extract::Request, routing::get};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::storage::Storage;

/// How much an answer buffers besides the piece that is being read, in bytes.
const BUFFER: usize = 64 * 1024;

/// The server could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve files on {address}")]
pub struct ServerError {
    address: SocketAddr,
    #[source]
    source: io::Error,
}

/// Where the bytes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Delivery {
    /// Through this server, whatever the storage.
    #[default]
    Proxy,
    /// From the storage itself, if it gives out URLs: `302` to one that anybody may use for that long. Consumers must
    /// reach the storage then, and trust its certificate.
    Redirect {
        /// How long the URL works.
        valid: Duration,
    },
}

/// How the files are served.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// Where; port 0: any.
    pub address: SocketAddr,
    /// How many connections are open at once; default 256. More wait to be accepted.
    pub connections: usize,
    /// How long a connection may take to send a request, the first or the next; default 30 s.
    pub patience: Duration,
    /// How long answers go on when the server closes; default 20 s.
    pub grace: Duration,
    /// Where the bytes come from; default: through this server.
    pub delivery: Delivery,
}

impl ServerSettings {
    /// The defaults for that address.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            connections: 256,
            patience: Duration::from_secs(30),
            grace: Duration::from_secs(20),
            delivery: Delivery::default(),
        }
    }
}

/// What answers requests for files.
#[derive(Debug)]
pub struct Server {
    storage: Arc<dyn Storage>,
    settings: ServerSettings,
    serving: watch::Sender<Option<SocketAddr>>,
}

impl Server {
    /// A server of these files. Nothing is open yet.
    #[must_use]
    pub fn new(storage: Arc<dyn Storage>, settings: ServerSettings) -> Self {
        Self {
            storage,
            settings,
            serving: watch::Sender::new(None),
        }
    }

    /// The address on which files are served right now: ready is who has one.
    #[must_use]
    pub fn serving(&self) -> watch::Receiver<Option<SocketAddr>> {
        self.serving.subscribe()
    }

    /// What answers, without a port.
    pub fn router(&self) -> Router {
        let (storage, delivery) = (Arc::clone(&self.storage), self.settings.delivery);
        let files = move |request: Request| {
            let storage = Arc::clone(&storage);
            async move { answer::answer(&*storage, delivery, &request.into_parts().0).await }
        };
        Router::new().route("/readyz", get(async || "ok\n")).fallback(files)
    }

    /// Serves whenever and as long as `leading` says so, until `stop`, or until nobody can say it any more.
    ///
    /// # Errors
    /// [`ServerError`] when the address cannot be bound.
    pub async fn run(self, mut leading: watch::Receiver<bool>, stop: CancellationToken) -> Result<(), ServerError> {
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                led = leading.wait_for(|leads| *leads) => if led.is_err() { return Ok(()) },
            }
            let failed = |source| ServerError {
                address: self.settings.address,
                source,
            };
            let listener = TcpListener::bind(self.settings.address).await.map_err(failed)?;
            let address = listener.local_addr().map_err(failed)?;
            let closing = CancellationToken::new();
            let running = TaskTracker::new();
            self.serving.send_replace(Some(address));
            tracing::info!(%address, "serving files");
            let may_lead_again = tokio::select! {
                () = stop.cancelled() => false,
                // When nobody can say any more whether this process leads, it does not.
                told = leading.wait_for(|leads| !*leads) => told.is_ok(),
                never = self.accept(&listener, &closing, &running) => match never {},
            };
            self.serving.send_replace(None);
            drop(listener);
            closing.cancel();
            running.close();
            running.wait().await;
            tracing::info!(%address, "not serving files any more");
            if !may_lead_again {
                return Ok(());
            }
        }
    }

    /// Takes connections, as many at once as are allowed.
    async fn accept(&self, listener: &TcpListener, closing: &CancellationToken, running: &TaskTracker) -> Infallible {
        let router = self.router();
        let room = Arc::new(Semaphore::new(self.settings.connections));
        loop {
            let Ok(place) = Arc::clone(&room).acquire_owned().await else {
                // Nobody closes the semaphore.
                std::future::pending::<()>().await;
                continue;
            };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let (patience, grace) = (self.settings.patience, self.settings.grace);
                    let (router, closing) = (router.clone(), closing.clone());
                    running.spawn(async move {
                        connection(stream, router, &closing, patience, grace).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    // Most often there are no descriptors left: some become free.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// Answers the requests of one connection until its end.
async fn connection(
    stream: TcpStream,
    router: Router,
    closing: &CancellationToken,
    patience: Duration,
    grace: Duration,
) {
    // The head of an answer and its first bytes should not wait for each other.
    let _ = stream.set_nodelay(true);
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut serving = pin!(serving);
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = closing.cancelled() => {
            serving.as_mut().graceful_shutdown();
            match timeout(grace, serving).await {
                Ok(ended) => ended,
                Err(_) => return tracing::warn!("an answer was cut: the server closes"),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}
