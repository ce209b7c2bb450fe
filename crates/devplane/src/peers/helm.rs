//! Helm 3.

use std::path::Path;

use tokio::process::Command;

use crate::{Binaries, BuildError, Peer};

/// The pinned release, stamped as the version.
const RELEASE: &str = "v3.22.0";
/// The Kubernetes minor of the pinned client-go, which `helm template` and `helm lint` assume, as in Helm's own build.
const KUBERNETES_MINOR: &str = "37";

/// The pinned Helm: one program, `helm`.
#[must_use]
pub fn peer() -> Peer {
    let peer = Peer::new(
        "helm",
        include_str!("../../../../devplane/helm/go.mod"),
        include_str!("../../../../devplane/helm/go.sum"),
    )
    .binary("helm", "helm.sh/helm/v3/cmd/helm")
    .stamp("helm.sh/helm/v3/internal/version.version", RELEASE);
    ["helm.sh/helm/v3/pkg/chartutil", "helm.sh/helm/v3/pkg/lint/rules"]
        .into_iter()
        .fold(peer, |peer, package| {
            peer.stamp(format!("{package}.k8sVersionMajor"), "1")
                .stamp(format!("{package}.k8sVersionMinor"), KUBERNETES_MINOR)
        })
}

/// The built program.
pub fn path(binaries: &Binaries) -> Result<&Path, BuildError> {
    binaries.path("helm")
}

/// Helm on the cluster of `kubeconfig`; add arguments and run. Killed when dropped.
///
/// Caches and settings lie beside the kubeconfig, apart from those of the person at the keyboard.
pub fn command(binaries: &Binaries, kubeconfig: &Path) -> Result<Command, BuildError> {
    let home = kubeconfig.with_extension("helm");
    let mut command = Command::new(path(binaries)?);
    command
        .env("KUBECONFIG", kubeconfig)
        .env("KUBECACHEDIR", kubeconfig.with_extension("cache"))
        .env("HELM_CACHE_HOME", home.join("cache"))
        .env("HELM_CONFIG_HOME", home.join("config"))
        .env("HELM_DATA_HOME", home.join("data"))
        .kill_on_drop(true);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stamps_are_the_pinned_versions() {
        let module = peer().go_mod;
        assert!(module.contains(&format!("helm.sh/helm/v3 {RELEASE}")));
        assert!(module.contains(&format!("k8s.io/client-go v0.{KUBERNETES_MINOR}.")));
    }
}
