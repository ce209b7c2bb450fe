//! Runs the chosen controllers while this process holds the Lease.

use std::{net::SocketAddr, time::Duration};

use futures::{StreamExt as _, future::try_join_all, stream::FuturesUnordered};
use kube::{Client, Config};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use trellis_runtime::{
    client,
    controller::Context,
    fence::Fence,
    health::{self, Readiness},
    lease,
    metrics::Metrics,
};

use crate::{Controller, external_source, registry::Prepared, resilience};

/// How the operator runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// The controllers to run.
    pub controllers: Vec<Controller>,
    /// The namespaces to serve; empty: all.
    pub namespaces: Vec<String>,
    /// The Lease, and the name of this replica.
    pub lease: lease::Options,
    /// Where health and metrics are served; port 0: any free one, told in the log.
    pub listen: SocketAddr,
    /// What is known about Linkerd.
    pub linkerd: resilience::Linkerd,
    /// How external sources are served.
    pub sources: external_source::Options,
}

/// The operator could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration of the client is unusable.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// The health endpoint could not be opened.
    #[error(transparent)]
    Health(#[from] health::Error),
    /// The storage of artifacts cannot be used.
    #[error(
        "artifacts cannot be kept in {place}; name another place with --storage-path or --storage-backend, or run without \
         external-source (--controllers)"
    )]
    Storage {
        /// The folder or bucket.
        place: String,
        /// What happened.
        source: trellis_store::Error,
    },
    /// Artifacts cannot be served.
    #[error(transparent)]
    Files(#[from] trellis_store::ServerError),
}

/// How often the API server is tried at start.
const KNOCK: Duration = Duration::from_secs(1);

/// Runs until `stop`, then lets reconciles finish and gives the Lease back.
///
/// # Errors
/// [`Error`] when the operator cannot start. An API server that does not answer is waited for.
pub async fn run(config: Config, options: Options, stop: CancellationToken) -> Result<(), Error> {
    let prepared = options
        .controllers
        .iter()
        .map(|controller| controller.prepare(&options));
    let prepared = try_join_all(prepared).await?;
    let metrics = Metrics::default();
    for controller in &prepared {
        controller.show(&metrics);
    }
    let readiness = Readiness::awaiting(1);
    let address = health::serve(options.listen, metrics.clone(), readiness.clone(), stop.clone()).await?;
    tracing::info!(%address, "listening");

    let unfenced = client::connect(&config, &options.lease.identity, None)?;
    if !reached(&unfenced, &stop).await {
        return Ok(());
    }
    let elector = lease::Elector::new(unfenced, options.lease.clone());
    if !elector.readable(&stop).await {
        return Ok(());
    }
    readiness.synced();
    let leads = watch::Sender::new(false);
    let serving = try_join_all(prepared.iter().map(|one| one.serve(leads.subscribe(), stop.clone())));
    let leading = elector.lead(&stop, |fence, halt| {
        let term = Term::new(&metrics, &readiness, &leads);
        serve(&config, &options, &prepared, term, fence, halt)
    });
    tokio::try_join!(serving, async {
        leading.await;
        Ok(())
    })?;
    tracing::info!("stopped");
    Ok(())
}

/// What a term of leadership shows to the outside, until it is dropped.
struct Term {
    metrics: Metrics,
    readiness: Readiness,
    leads: watch::Sender<bool>,
}

impl Term {
    fn new(metrics: &Metrics, readiness: &Readiness, leads: &watch::Sender<bool>) -> Self {
        metrics.leads(true);
        leads.send_replace(true);
        Self {
            metrics: metrics.clone(),
            readiness: readiness.clone(),
            leads: leads.clone(),
        }
    }
}

impl Drop for Term {
    fn drop(&mut self) {
        self.metrics.leads(false);
        self.leads.send_replace(false);
        // A standby is ready.
        self.readiness.await_again(0);
    }
}

async fn serve(
    config: &Config,
    options: &Options,
    prepared: &[Prepared],
    term: Term,
    fence: Fence,
    halt: CancellationToken,
) {
    let client = match client::connect(config, &options.lease.identity, Some(fence)) {
        Ok(client) => client,
        Err(error) => {
            tracing::error!(%error, "no client for this term");
            return;
        }
    };
    term.readiness.await_again(prepared.len());
    let context = Context {
        client,
        namespaces: options.namespaces.clone(),
        identity: options.lease.identity.clone(),
        metrics: term.metrics.clone(),
        readiness: term.readiness.clone(),
    };
    // Tasks of their own: what one controller computes delays neither the others nor the renewal of the Lease.
    let running = prepared
        .iter()
        .map(|controller| AbortOnDropHandle::new(tokio::spawn(controller.run(context.clone(), halt.clone()))));
    let mut running: FuturesUnordered<_> = running.collect();
    while let Some(ended) = running.next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a controller failed");
        }
        if !halt.is_cancelled() {
            tracing::error!("a controller ended unasked; so does this term");
            return;
        }
    }
}

/// Waits until the API server answers. Returns false when stopped before.
async fn reached(client: &Client, stop: &CancellationToken) -> bool {
    loop {
        match client.apiserver_version().await {
            Ok(version) => {
                tracing::info!(kubernetes = version.git_version, "connected");
                return true;
            }
            Err(error) => tracing::warn!(%error, "the API server does not answer; trying again"),
        }
        tokio::select! {
            () = stop.cancelled() => return false,
            () = tokio::time::sleep(KNOCK) => {}
        }
    }
}
