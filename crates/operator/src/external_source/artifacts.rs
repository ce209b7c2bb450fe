//! `Artifacts`: what a process has for its sources over all its terms: the storage, the file server, the connections.
//!
//! ```text
//!  Options ─ open ─▶ Artifacts ─ term ─▶ ExternalSources (what it remembers of rounds dies with the term)
//!                        └─ serve, while leading, or always when every replica has the same storage ─▶ files
//! ```
//!
//! Invariant: a replica serves only what every consumer may ask it for: its own files while it leads, shared ones always.

use std::{fmt, net::SocketAddr, path::PathBuf, sync::Arc};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use trellis_fetch::{Client, Generators};
use trellis_runtime::{controller, metrics::Metrics};
use trellis_sources::egress::EgressPolicy;
use trellis_store::{
    Cached, Disk, Limits, Memory, Quota, S3, S3Settings, Server, ServerError, ServerSettings, Storage,
};

use super::{ExternalSources, Policy, Settings, production::patience, sweep};

/// Where artifacts are kept.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Backend {
    /// In a folder that exists.
    Disk {
        /// The folder.
        path: PathBuf,
        /// Whether it is the same one for every replica.
        shared: bool,
        /// Most bytes of all artifacts together; none: as many as there is room for.
        limit: Option<u64>,
    },
    /// In this process: everything is fetched again after a restart.
    Memory {
        /// Most bytes of all artifacts together.
        limit: u64,
    },
    /// In a bucket.
    S3(Box<S3Settings>),
}

impl fmt::Display for Backend {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk { path, .. } => write!(out, "{}", path.display()),
            Self::Memory { .. } => out.write_str("memory"),
            Self::S3(settings) => write!(out, "bucket {}", settings.bucket),
        }
    }
}

/// What the operator is told about sources.
#[derive(Debug, Clone)]
pub struct Options {
    /// How sources are worked on.
    pub settings: Settings,
    /// How upstreams are asked.
    pub fetch: trellis_fetch::Settings,
    /// Which upstreams may be asked.
    pub egress: EgressPolicy,
    /// Where artifacts are kept.
    pub backend: Backend,
    /// Where they are served.
    pub listen: SocketAddr,
}

/// What a process has for its sources.
pub struct Artifacts {
    settings: Settings,
    generators: Generators,
    storage: Arc<dyn Storage>,
    listen: SocketAddr,
    shared: bool,
}

impl Artifacts {
    /// Opens the storage. Nothing is asked of upstreams or of a bucket, and nothing is served yet.
    pub async fn open(options: Options) -> trellis_store::Result<Self> {
        let (storage, shared): (Arc<dyn Storage>, bool) = match &options.backend {
            Backend::Disk { path, shared, limit } => {
                let disk = Arc::new(Disk::open(path).await?);
                let disk = match limit {
                    None => cached(disk),
                    Some(limit) => cached(Arc::new(Quota::new(disk, *limit))),
                };
                (disk, *shared)
            }
            Backend::Memory { limit } => (Arc::new(Memory::bounded(*limit)), false),
            Backend::S3(settings) => (cached(Arc::new(S3::new(settings)?)), true),
        };
        let fetch = trellis_fetch::Settings {
            patience,
            ..options.fetch
        };
        let client = Client::new(fetch, Arc::new(Policy(options.egress)));
        Ok(Self {
            settings: options.settings,
            generators: Generators::standard(&client),
            storage,
            listen: options.listen,
            shared,
        })
    }

    /// Shows what happens to sources.
    pub(crate) fn show(&self, metrics: &Metrics) {
        let measured = &self.settings.measured;
        metrics.add(|registry| {
            measured.register(registry);
            measured.register_for_flux(registry);
        });
    }

    /// Runs the controller for one term.
    pub(crate) fn run(
        &self,
        context: controller::Context,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + use<> {
        let storage = Arc::clone(&self.storage);
        let measured = self.settings.measured.clone();
        let sources = ExternalSources::new(self.settings.clone(), self.generators.clone(), Arc::clone(&storage));
        async move {
            let (client, namespaces) = (context.client.clone(), context.namespaces.clone());
            let sweeping = async {
                tokio::select! {
                    never = sweep::hourly(|| sweep::sweep(&*storage, &client, &namespaces)) => match never {},
                    () = stop.cancelled() => {}
                }
            };
            tokio::join!(controller::run(sources, context, stop.clone()), sweeping);
            measured.end();
        }
    }

    /// Serves the files until `stop`.
    pub(crate) async fn serve(
        &self,
        leading: watch::Receiver<bool>,
        stop: CancellationToken,
    ) -> Result<(), ServerError> {
        let server = Server::new(Arc::clone(&self.storage), ServerSettings::new(self.listen));
        if self.shared {
            let (_always, leading) = watch::channel(true);
            server.run(leading, stop).await
        } else {
            server.run(leading, stop).await
        }
    }
}

/// With the last small files held, for as long as the backend is away.
fn cached(backend: Arc<dyn Storage>) -> Arc<dyn Storage> {
    Arc::new(Cached::new(backend, Limits::default()))
}
