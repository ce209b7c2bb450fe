//! kubectl, from the same module as the control plane.

use std::path::Path;

use tokio::process::Command;

use crate::{Binaries, BuildError, Kubernetes, Peer};

/// kubectl of a Kubernetes minor: one program, `kubectl`.
#[must_use]
pub fn peer(version: Kubernetes) -> Peer {
    version
        .module("kubectl")
        .binary("kubectl", "k8s.io/kubernetes/cmd/kubectl")
}

/// The built program.
pub fn path(binaries: &Binaries) -> Result<&Path, BuildError> {
    binaries.path("kubectl")
}

/// kubectl on the cluster of `kubeconfig`; add arguments and run. Killed when dropped.
///
/// Its discovery cache lies beside the kubeconfig: planes reuse ports, and the usual cache is keyed by address.
pub fn command(binaries: &Binaries, kubeconfig: &Path) -> Result<Command, BuildError> {
    let mut command = Command::new(path(binaries)?);
    command
        .env("KUBECONFIG", kubeconfig)
        .env("KUBECACHEDIR", kubeconfig.with_extension("cache"))
        .kill_on_drop(true);
    Ok(command)
}
