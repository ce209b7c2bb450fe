//! `ExternalSource` on real Kubernetes: what the API server itself admits, refuses and stores.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

#[path = "sources/admission.rs"]
mod admission;
#[path = "sources/stored.rs"]
mod stored;

use trellis_testkit::plane::Shared;

/// A plane that serves the kind, and runs nothing for it.
static PLANE: Shared = Shared::new(|plane| Box::pin(async move { plane.apply(&trellis_api::crds()).await }));
