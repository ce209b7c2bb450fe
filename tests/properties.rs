//! The properties of `ResiliencePolicy` as random stories on real Kubernetes: the operator is the shipped binary under
//! its generated permissions, what has to be true comes from an independent model of Linkerd, and what was written
//! from the API server's audit log.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

#[path = "properties/admission.rs"]
mod admission;
#[path = "properties/asked.rs"]
mod asked;
#[path = "properties/attention.rs"]
mod attention;
#[path = "properties/audited.rs"]
mod audited;
#[path = "properties/chronicle.rs"]
mod chronicle;
#[path = "properties/identity.rs"]
mod identity;
#[path = "properties/inert.rs"]
mod inert;
#[path = "properties/lifecycle.rs"]
mod lifecycle;
#[path = "properties/property.rs"]
mod property;
#[path = "properties/restarts.rs"]
mod restarts;
#[path = "properties/steps.rs"]
mod steps;
#[path = "properties/story.rs"]
mod story;
#[path = "properties/verdict.rs"]
mod verdict;

use std::future::{pending, ready};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::OnceCell;
use trellis_testkit::{
    operator::Operator,
    plane::{Credentials, Isolated, Plane, Shared},
};

use self::{lifecycle::Ran, property::Property};

static PLANE: Shared = trellis_tests::operator_plane();
/// For an operator that is killed: on [`PLANE`], another one serves every namespace.
static OTHER: Shared = trellis_tests::operator_plane();

/// The plane, and the operator that serves all of it as long as this process runs.
async fn served() -> (&'static Plane, &'static Operator) {
    static OPERATOR: OnceCell<(Operator, Credentials)> = OnceCell::const_new();
    let plane = PLANE.get().await.unwrap();
    let operator = OPERATOR.get_or_init(|| async {
        let account = trellis_tests::account(plane).await.unwrap();
        let operator = trellis_tests::launch(account.path(), "shared", &[])
            .start()
            .await
            .unwrap();
        operator.ready().await;
        (operator, account)
    });
    (plane, &operator.await.0)
}

/// Namespaces, many at once.
async fn namespaces(plane: &Plane, prefixes: Vec<String>) -> Vec<Isolated> {
    stream::iter(prefixes)
        .map(async |prefix| plane.isolated(&prefix).await)
        .buffered(8)
        .try_collect()
        .await
        .unwrap()
}

/// All random stories, told once for all properties, with one rest at their end.
async fn holds(property: Property) {
    static STORIES: OnceCell<Vec<Ran>> = OnceCell::const_new();
    let stories = STORIES.get_or_init(|| async {
        let (plane, _) = served().await;
        let cases = lifecycle::cases(&Property::ALL);
        let prefixes = cases
            .iter()
            .map(|case| format!("{:?}-{}", case.property, case.number).to_lowercase())
            .collect();
        let namespaces = namespaces(plane, prefixes).await;
        lifecycle::run(plane, cases, namespaces, pending(), ready(())).await
    });
    let of: Vec<&Ran> = stories
        .await
        .iter()
        .filter(|ran| ran.case.property == property)
        .collect();
    let failures: Vec<String> = of
        .iter()
        .filter_map(|ran| Some(format!("{}\n{}", ran.failure.as_ref()?, ran.case.describe())))
        .collect();
    assert!(
        failures.is_empty(),
        "{} of {} stories failed:\n{}",
        failures.len(),
        of.len(),
        failures.join("\n\n")
    );
    eprintln!("{property:?}: {} stories", of.len());
}

/// P1: reconciling again changes nothing, and the order of manifests does not matter.
#[tokio::test(flavor = "multi_thread")]
async fn p1_reconciling_is_idempotent() {
    holds(Property::P1).await;
}

/// P2: a deleted policy leaves nothing behind, however it was moved about before.
#[tokio::test(flavor = "multi_thread")]
async fn p2_a_deleted_policy_leaves_nothing_behind() {
    holds(Property::P2).await;
}

/// P3: an enabled breaker is exactly the asked one at every port.
#[tokio::test(flavor = "multi_thread")]
async fn p3_a_breaker_is_as_asked() {
    holds(Property::P3).await;
}

/// P4: retries are exactly the asked ones.
#[tokio::test(flavor = "multi_thread")]
async fn p4_retries_are_as_asked() {
    holds(Property::P4).await;
}

/// P5: timeouts are exactly the asked ones.
#[tokio::test(flavor = "multi_thread")]
async fn p5_timeouts_are_as_asked() {
    holds(Property::P5).await;
}

/// P7: Ready is True exactly when the effect is there, also while Services come, go and become such that Linkerd
/// ignores them.
#[tokio::test(flavor = "multi_thread")]
async fn p7_a_status_tells_the_truth() {
    holds(Property::P7).await;
}

/// P9: what is switched off goes, unless somebody else owns it too.
#[tokio::test(flavor = "multi_thread")]
async fn p9_what_is_switched_off_goes() {
    holds(Property::P9).await;
}

/// P13: nothing that users own ever changes.
#[tokio::test(flavor = "multi_thread")]
async fn p13_what_users_own_never_changes() {
    holds(Property::P13).await;
}
