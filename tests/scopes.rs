//! What a policy can be for, and with whom it shares it, on real Kubernetes: the shipped binary under its generated
//! permissions, the Gateway API's own definitions, and a stand-in where Linkerd's policy controller would speak.
//!
//! No Linkerd runs here: that its proxies do what they are told is not shown.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

#[path = "scopes/consumer.rs"]
mod consumer;
#[path = "scopes/contest.rs"]
mod contest;
#[path = "scopes/egress.rs"]
mod egress;
#[path = "scopes/gates.rs"]
mod gates;
#[path = "scopes/limits.rs"]
mod limits;
#[path = "scopes/many.rs"]
mod many;
#[path = "scopes/observed.rs"]
mod observed;
#[path = "scopes/routes.rs"]
mod routes;
#[path = "scopes/site.rs"]
mod site;
#[path = "scopes/stand_in.rs"]
mod stand_in;
#[path = "scopes/theirs.rs"]
mod theirs;

use trellis_testkit::plane::Shared;

/// A plane with the routes of the Gateway API and the kinds of Linkerd's policies.
static PLANE: Shared = Shared::new(|plane| {
    Box::pin(async move {
        trellis_tests::install(plane.clone()).await?;
        plane.apply(&trellis_bindings::gateway::crds()?).await?;
        plane.apply(&trellis_bindings::linkerd::policy::crds()).await
    })
});
/// A plane with the Gateway API as Linkerd 2.16 brings it: `HTTPRoute` as `v1beta1` only.
static BETA: Shared = Shared::new(|plane| {
    Box::pin(async move {
        trellis_tests::install(plane.clone()).await?;
        let mut crds = trellis_bindings::gateway::crds()?;
        crds.truncate(1);
        for crd in &mut crds {
            crd.spec.versions.retain(|version| version.name == "v1beta1");
            crd.spec.versions.iter_mut().for_each(|version| version.storage = true);
        }
        plane.apply(&crds).await
    })
});
/// A plane without the Gateway API.
static BARE: Shared = trellis_tests::operator_plane();
