//! The operator runtime on the real API server, with a toy controller: what it promises to every controller.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "runtime/crds.rs"]
mod crds;
#[path = "runtime/disturbed.rs"]
mod disturbed;
#[path = "runtime/errand.rs"]
mod errand;
#[path = "runtime/lease.rs"]
mod lease;
#[path = "runtime/objects.rs"]
mod objects;
#[path = "runtime/stage.rs"]
mod stage;
#[path = "runtime/watched.rs"]
mod watched;
#[path = "runtime/widget.rs"]
mod widget;

use trellis_testkit::plane::Shared;

static PLANE: Shared = Shared::new(|plane| {
    Box::pin(async move {
        plane.apply(&[widget::lax_crd()]).await?;
        plane.apply(&errand::crds()).await
    })
});
