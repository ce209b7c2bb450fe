//! What real Flux does with an `ExternalArtifact`: kustomize-, helm- and source-controller of the development plane, on
//! real Kubernetes, beside artifacts that are written by hand.
//!
//! No controller of ours runs here. These are the facts that one which publishes artifacts has to keep to.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

#[path = "flux/archive.rs"]
mod archive;
#[path = "flux/bucket.rs"]
mod bucket;
#[path = "flux/charts.rs"]
mod charts;
#[path = "flux/files.rs"]
mod files;
#[path = "flux/manifests.rs"]
mod manifests;
#[path = "flux/site.rs"]
mod site;
#[path = "flux/triggers.rs"]
mod triggers;

use std::sync::Arc;

use tokio::sync::OnceCell;
use trellis_devplane::peers::flux::{Controller, Flux, Options};
use trellis_devplane::progress::Lines;
use trellis_testkit::plane::Shared;

/// A plane with nothing of ours.
static PLANE: Shared = Shared::new(|_| Box::pin(async { Ok(()) }));
/// Flux on [`PLANE`].
static FLUX: OnceCell<Flux> = OnceCell::const_new();

/// The controllers; the first test that asks starts them, the others wait.
async fn flux() -> &'static Flux {
    let start = || async {
        let plane = PLANE.get().await.unwrap();
        let options = Flux::options(plane.control().kubeconfig()).progress(Arc::new(Lines));
        let all = Controller::ALL.iter().copied();
        all.fold(options, Options::controller).start().await.unwrap()
    };
    FLUX.get_or_init(start).await
}
