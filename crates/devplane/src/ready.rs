//! `Deadline`: waiting until started processes do what they are for.
//!
//! ```text
//! look ─▶ nothing missing: ready
//!         something: has a process ended? is it too late? ─▶ error with the end of its log · else look again
//! ```
//!
//! Invariant: an end of any of the processes ends the waiting at once.

use std::time::{Duration, Instant};

use kube::{Client, Config};
use tokio::net::TcpStream;

use crate::{PlaneError, Process};

/// Between two looks at whether something is ready.
const POLL: Duration = Duration::from_millis(10);
/// How long one look may take.
const LOOK: Duration = Duration::from_secs(2);

/// When waiting ends.
pub(crate) struct Deadline {
    since: Instant,
    limit: Duration,
}

impl Deadline {
    /// From now.
    pub(crate) fn of(limit: Duration) -> Self {
        Self {
            since: Instant::now(),
            limit,
        }
    }

    /// Looks until `look` finds nothing missing. Fails as soon as any process ends; at the deadline, the process at
    /// `index` is the one that was waited for.
    pub(crate) async fn until<F: Future<Output = Result<(), String>>>(
        &self,
        processes: &[Process],
        index: usize,
        look: impl Fn() -> F,
    ) -> Result<(), PlaneError> {
        loop {
            let missing = match tokio::time::timeout(LOOK, look()).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(missing)) => missing,
                Err(_) => "no answer".to_owned(),
            };
            if let Some(ended) = processes.iter().find(|process| !process.running()) {
                return Err(ended.died().await.into());
            }
            if self.since.elapsed() > self.limit
                && let Some(process) = processes.get(index)
            {
                return Err(PlaneError::NotReady {
                    process: process.name().to_owned(),
                    waited: self.limit,
                    reason: missing,
                    log: process.log().to_owned(),
                    tail: process.tail(),
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Whether something listens on a port of loopback.
pub(crate) async fn listening(port: u16) -> Result<(), String> {
    TcpStream::connect(("127.0.0.1", port))
        .await
        .map(drop)
        .map_err(|error| error.to_string())
}

/// A client of plain HTTP on a port of loopback, whatever the environment says about proxies.
pub(crate) fn local(port: u16) -> Result<Client, PlaneError> {
    let address = http::Uri::builder()
        .scheme("http")
        .authority(format!("127.0.0.1:{port}"))
        .path_and_query("/")
        .build()
        .map_err(kube::Error::HttpError)?;
    let mut config = Config::new(address);
    config.proxy_url = None;
    Ok(Client::try_from(config)?)
}

/// Whether `path` answers with success.
pub(crate) async fn answers(client: &Client, path: &str) -> Result<(), String> {
    let request = http::Request::get(path)
        .body(Vec::new())
        .map_err(|error| error.to_string())?;
    client
        .request_text(request)
        .await
        .map(drop)
        .map_err(|error| chain(&error))
}

/// An error and its causes, each once.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
