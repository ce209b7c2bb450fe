//! From an HTTP server to what Flux applies: the controller of `ExternalSource` in this process, real Kubernetes, real
//! kustomize- and helm-controller, an upstream whose answers a test chooses.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

#[path = "artifacts/again.rs"]
mod again;
#[path = "artifacts/allowed.rs"]
mod allowed;
#[path = "artifacts/applied.rs"]
mod applied;
#[path = "flux/archive.rs"]
mod archive;
#[path = "artifacts/collected.rs"]
mod collected;
#[path = "artifacts/failing.rs"]
mod failing;
#[path = "artifacts/hooked.rs"]
mod hooked;
#[path = "artifacts/hooks.rs"]
mod hooks;
#[path = "artifacts/hostile.rs"]
mod hostile;
#[path = "artifacts/interrupted.rs"]
mod interrupted;
#[path = "artifacts/news.rs"]
mod news;
#[path = "artifacts/production.rs"]
mod production;
#[path = "artifacts/published.rs"]
mod published;
#[path = "artifacts/replicas.rs"]
mod replicas;
#[path = "artifacts/scale.rs"]
mod scale;
#[path = "artifacts/site.rs"]
mod site;
#[path = "artifacts/storage.rs"]
mod storage;
#[path = "artifacts/taken.rs"]
mod taken;
#[path = "artifacts/told.rs"]
mod told;
#[path = "artifacts/transforms.rs"]
mod transforms;
#[path = "artifacts/upstream.rs"]
mod upstream;
#[path = "artifacts/wire.rs"]
mod wire;

use std::sync::Arc;

use kube::CustomResourceExt as _;
use tokio::sync::OnceCell;
use trellis_api::ExternalSource;
use trellis_devplane::peers::flux::{Controller, Flux};
use trellis_devplane::progress::Lines;
use trellis_testkit::plane::Shared;

/// A plane with the kind of sources; Flux brings its own.
static PLANE: Shared = Shared::new(|plane| Box::pin(async move { plane.apply(&[ExternalSource::crd()]).await }));
/// Flux on [`PLANE`].
static FLUX: OnceCell<Flux> = OnceCell::const_new();

/// The consumers; the first test that asks starts them, the others wait.
async fn flux() -> &'static Flux {
    let start = || async {
        let plane = PLANE.get().await.unwrap();
        let options = Flux::options(plane.control().kubeconfig()).progress(Arc::new(Lines));
        let consumers = options.controller(Controller::Kustomize).controller(Controller::Helm);
        consumers.start().await.unwrap()
    };
    FLUX.get_or_init(start).await
}
