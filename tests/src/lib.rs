//! Stories across capabilities, on real Kubernetes. Here is what they share: a plane with the operator's CRDs, account
//! and permissions, and how its binary is started there.
//!
//! ```text
//!  operator_plane() ─▶ Plane ─▶ account(plane) ─▶ launch(kubeconfig, identity, namespaces) ─▶ start() ─▶ Operator
//! ```
//!
//! Invariant: the operator of a story never has more permissions than those that the chart ships.

use std::{env, path::Path, sync::LazyLock};

use serde_json::{Value, json};
use trellis_operator::{Controller, rbac};
use trellis_testkit::{
    operator::Launch,
    plane::{Credentials, Plane, Shared},
};

/// Any error of a test's set-up.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// Where the operator lives: its account and its Leases.
pub const NAMESPACE: &str = "trellis-system";
/// As whom it runs.
pub const ACCOUNT: &str = "trellis";
/// The Linkerd that [`launch`] tells the operator about, as `TRELLIS_LINKERD` names it; 2.18 by default.
pub static LINKERD: LazyLock<String> = LazyLock::new(|| env::var("TRELLIS_LINKERD").unwrap_or_else(|_| "2.18".into()));
/// The S3 server that tests start, as `TRELLIS_S3` names it: `versitygw`, the default, or `minio`.
pub static S3: LazyLock<String> = LazyLock::new(|| env::var("TRELLIS_S3").unwrap_or_else(|_| "versitygw".into()));
/// [`LINKERD`] as the independent model names it.
#[expect(clippy::panic, reason = "nothing may run on another Linkerd than was asked for")]
pub static LINKERD_RELEASE: LazyLock<(u32, u32)> = LazyLock::new(|| {
    let numbers = LINKERD
        .split_once('.')
        .map(|(major, minor)| (major.parse(), minor.parse()));
    match numbers {
        Some((Ok(major), Ok(minor))) => (major, minor),
        _ => panic!("TRELLIS_LINKERD is a release such as 2.20, not {}", *LINKERD),
    }
});

/// A plane, shared by the tests of one binary, with every CRD, `ServiceProfile`, and the operator's account with
/// exactly the generated permissions in every namespace.
///
/// ```no_run
/// static PLANE: trellis_testkit::plane::Shared = trellis_tests::operator_plane();
/// ```
#[must_use]
pub const fn operator_plane() -> Shared {
    Shared::new(|plane| Box::pin(install(plane)))
}

/// What [`operator_plane`] puts into a plane; for tests with a plane of their own.
///
/// # Errors
/// When the API server refuses something of it.
pub async fn install(plane: Plane) -> Result<(), Error> {
    plane.apply(&manifests()?).await
}

/// The same as objects, in their order.
///
/// # Errors
/// When one does not serialise.
pub fn manifests() -> Result<Vec<Value>, serde_json::Error> {
    let mut manifests = Vec::new();
    for crd in trellis_api::crds() {
        manifests.push(serde_json::to_value(crd)?);
    }
    manifests.push(serde_json::to_value(trellis_bindings::linkerd::service_profile_crd())?);
    manifests.push(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } }));
    manifests.extend(rbac::manifests(Controller::ALL, ACCOUNT, NAMESPACE, &[]));
    Ok(manifests)
}

/// A token of the operator's account, as a kubeconfig file that lasts as long as the returned value.
///
/// # Errors
/// When no token is issued.
pub async fn account(plane: &Plane) -> Result<Credentials, Error> {
    plane.service_account(NAMESPACE, ACCOUNT).await
}

/// The operator with this kubeconfig (of [`account`], or of a proxy for it) for these namespaces, or for all when
/// there are none. Its Lease is [`NAMESPACE`]`/trellis`; give each group of replicas its own with
/// [`Launch::lease`].
#[must_use]
pub fn launch(kubeconfig: &Path, identity: &str, namespaces: &[&str]) -> Launch {
    let launch = Launch::new(kubeconfig, identity)
        .lease(NAMESPACE, "trellis")
        .linkerd_version(&LINKERD);
    if namespaces.is_empty() {
        launch
    } else {
        launch.namespaces(&namespaces.join(","))
    }
}
