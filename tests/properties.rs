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
#[path = "properties/doorman.rs"]
mod doorman;
#[path = "properties/explained.rs"]
mod explained;
#[path = "properties/grammar.rs"]
mod grammar;
#[path = "properties/identity.rs"]
mod identity;
#[path = "properties/inert.rs"]
mod inert;
#[path = "properties/laws.rs"]
mod laws;
#[path = "properties/lifecycle.rs"]
mod lifecycle;
#[path = "properties/property.rs"]
mod property;
#[path = "properties/restarts.rs"]
mod restarts;
#[path = "properties/routed.rs"]
mod routed;
#[path = "scopes/stand_in.rs"]
mod stand_in;
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

use self::{
    lifecycle::Ran,
    property::{Case, Plot, Property},
};

static PLANE: Shared = Shared::new(|plane| Box::pin(install(plane)));
/// For an operator that is killed: on [`PLANE`], another one serves every namespace.
static OTHER: Shared = Shared::new(|plane| Box::pin(install(plane)));

/// With the routes of the Gateway API and the kinds of Linkerd's policies.
async fn install(plane: Plane) -> Result<(), trellis_tests::Error> {
    trellis_tests::install(plane.clone()).await?;
    plane.apply(&trellis_bindings::gateway::crds()?).await?;
    plane.apply(&trellis_bindings::linkerd::policy::crds()).await
}

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

/// The namespaces of each case, named after it.
async fn places(plane: &Plane, prefix: &str, cases: &[Case]) -> Vec<Vec<Isolated>> {
    let sizes: Vec<usize> = cases
        .iter()
        .map(|case| match case.plot {
            Plot::Whole(_) => 1,
            Plot::Routed(_) => 3,
        })
        .collect();
    let prefixes = cases.iter().zip(&sizes).flat_map(|(case, size)| {
        let name = format!("{prefix}{:?}-{}", case.property, case.number).to_lowercase();
        std::iter::repeat_n(name, *size)
    });
    let mut all = namespaces(plane, prefixes.collect()).await.into_iter();
    sizes
        .into_iter()
        .map(|size| all.by_ref().take(size).collect())
        .collect()
}

/// All random stories, told once for all properties, with one rest at their end.
async fn holds(property: Property) {
    static STORIES: OnceCell<Vec<Ran>> = OnceCell::const_new();
    let stories = STORIES.get_or_init(|| async {
        let (plane, _) = served().await;
        let cases = lifecycle::cases(&Property::ALL);
        let places = places(plane, "", &cases).await;
        let guarded = |(case, _): &(&Case, _)| matches!(case.plot, Plot::Routed(_)) && case.number.is_multiple_of(2);
        let guarded = cases.iter().zip(&places).filter(guarded).flat_map(|(_, places)| places);
        doorman::stand(plane, &guarded.map(Isolated::name).collect::<Vec<_>>()).await;
        lifecycle::run(plane, cases, places, pending(), ready(())).await
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
    let routed = of.iter().filter(|ran| matches!(ran.case.plot, Plot::Routed(_))).count();
    eprintln!("{property:?}: {} stories, {routed} of them about routes", of.len());
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

/// P4: retries are exactly the asked ones, also on routes, for the clients of every namespace.
#[tokio::test(flavor = "multi_thread")]
async fn p4_retries_are_as_asked() {
    holds(Property::P4).await;
}

/// P5: timeouts are exactly the asked ones.
#[tokio::test(flavor = "multi_thread")]
async fn p5_timeouts_are_as_asked() {
    holds(Property::P5).await;
}

/// P6: what policies make belongs to them alone, goes with them and not before, and nothing else has an owner.
#[tokio::test(flavor = "multi_thread")]
async fn p6_routes_belong_to_their_policies() {
    holds(Property::P6).await;
}

/// P7: Ready is True exactly when the effect is there, also while Services come, go and become such that Linkerd
/// ignores them, and while Linkerd speaks late, not at all or against the truth.
#[tokio::test(flavor = "multi_thread")]
async fn p7_a_status_tells_the_truth() {
    holds(Property::P7).await;
}

/// P9: what is switched off goes, unless somebody else owns it too.
#[tokio::test(flavor = "multi_thread")]
async fn p9_what_is_switched_off_goes() {
    holds(Property::P9).await;
}

/// P11: `trellis explain` says what the model says, for the clients of every namespace.
#[tokio::test(flavor = "multi_thread")]
async fn p11_explain_is_true() {
    holds(Property::P11).await;
}

/// P12: no value that stands anywhere under our managers, or ever stood there, is outside the grammars.
#[tokio::test(flavor = "multi_thread")]
async fn p12_nothing_is_ever_stored_outside_the_grammars() {
    holds(Property::P12).await;
}

/// P13: nothing that users own ever changes.
#[tokio::test(flavor = "multi_thread")]
async fn p13_what_users_own_never_changes() {
    holds(Property::P13).await;
}
