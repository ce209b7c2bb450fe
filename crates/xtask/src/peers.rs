//! The peers that tests need: how long each takes to build, and whether it is built.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::Notify;
use trellis_devplane::peers::{flux::Controller, s3::Product};
use trellis_devplane::{Builder, Kubernetes, Progress, cache_directory, peers, progress};

/// A program of somebody else's that the development plane builds.
pub(crate) struct Peer {
    /// For people.
    pub name: &'static str,
    /// Recorded time of a build from nothing on two cores.
    pub building: Duration,
    /// How the development plane knows it.
    pub module: fn() -> trellis_devplane::Peer,
}

pub(crate) const KUBERNETES: Peer = Peer {
    name: "kubernetes-1.34",
    building: Duration::from_mins(5),
    module: || peers::kubernetes::peer(Kubernetes::V1_34),
};
pub(crate) const KUBECTL: Peer = Peer {
    name: "kubectl-1.34",
    building: Duration::from_secs(30),
    module: || peers::kubectl::peer(Kubernetes::V1_34),
};
pub(crate) const ETCD: Peer = Peer {
    name: "etcd",
    building: Duration::from_secs(30),
    module: peers::etcd::peer,
};
pub(crate) const HELM: Peer = Peer {
    name: "helm",
    building: Duration::from_secs(150),
    module: peers::helm::peer,
};

pub(crate) const FLUX_KUSTOMIZE: Peer = Peer {
    name: "flux-kustomize",
    building: Duration::from_mins(5),
    module: || peers::flux::peer(Controller::Kustomize),
};
pub(crate) const FLUX_HELM: Peer = Peer {
    name: "flux-helm",
    building: Duration::from_secs(30),
    module: || peers::flux::peer(Controller::Helm),
};
pub(crate) const FLUX_SOURCE: Peer = Peer {
    name: "flux-source",
    building: Duration::from_secs(90),
    module: || peers::flux::peer(Controller::Source),
};
pub(crate) const VERSITYGW: Peer = Peer {
    name: "versitygw",
    building: Duration::from_mins(1),
    module: || peers::s3::peer(Product::Versitygw),
};

/// Whether the peer is built, for exactly the modules, flags and compiler of this checkout. When that cannot be told,
/// it is not: the group that needs it will say why.
pub(crate) fn built(peer: &Peer) -> bool {
    let ask = async {
        let work = Arc::new(Work::default());
        let builder = Builder::new(cache_directory()?, work.clone());
        let module = (peer.module)();
        // A builder that starts to work, or waits for one that does, has not found it; dropping it ends the work.
        tokio::select! {
            biased;
            () = work.0.notified() => anyhow::Ok(false),
            built = builder.build(&module) => Ok(built.is_ok()),
        }
    };
    block_on(ask).and_then(|built| built).unwrap_or(false)
}

/// Helm, built when it is not.
pub(crate) fn helm() -> Result<PathBuf> {
    let build = async {
        let builder = Builder::new(cache_directory()?, Arc::new(progress::Lines));
        let binaries = builder.build(&(HELM.module)()).await?;
        anyhow::Ok(peers::helm::path(&binaries)?.to_owned())
    };
    block_on(build)?.context("helm could not be built")
}

/// Tells that a builder has work to do.
#[derive(Default)]
struct Work(Notify);

impl Progress for Work {
    fn started(&self, _: &str) {
        self.0.notify_one();
    }
    fn finished(&self, _: &str, _: Duration) {}
    fn note(&self, _: &str) {
        self.0.notify_one();
    }
}

/// Runs a future to its end on this thread.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no async runtime")?;
    Ok(runtime.block_on(future))
}
