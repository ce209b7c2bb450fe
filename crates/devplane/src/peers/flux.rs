//! Flux: kustomize-controller, helm-controller and source-controller as peers of a plane.
//!
//! ```text
//! Options ─▶ build ─▶ definitions (Established), namespace flux-system ─▶ controllers ─▶ workers started: Flux
//! ```
//!
//! Invariants: a controller starts after the definitions that it watches, since a missing one keeps it from ever
//! working; ready means that its workers run; everything listens on loopback; it ends with its owner.

mod options;
mod start;

use std::fmt;

use crate::plane::home::Home;
use crate::{Binaries, Peer, PlaneError, Process};
pub use options::Options;

/// Where `config/crd/bases` of a controller's module is.
const DEFINITIONS: &str = "config/crd/bases";

/// A controller of Flux.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Controller {
    /// kustomize-controller v1.9.5: `Kustomization`.
    Kustomize,
    /// helm-controller v1.6.4: `HelmRelease`.
    Helm,
    /// source-controller v1.9.6: `GitRepository`, `OCIRepository`, `Bucket`, `HelmRepository`, `HelmChart`. It does not
    /// reconcile `ExternalArtifact`, and is needed only for sources beside those.
    Source,
}

impl Controller {
    /// Every controller.
    pub const ALL: &'static [Self] = &[Self::Kustomize, Self::Helm, Self::Source];

    /// Its program, for example `kustomize-controller`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kustomize => "kustomize-controller",
            Self::Helm => "helm-controller",
            Self::Source => "source-controller",
        }
    }

    /// The exact release, for example `v1.9.5`.
    #[must_use]
    pub fn release(self) -> &'static str {
        match self {
            Self::Kustomize => "v1.9.5",
            Self::Helm => "v1.6.4",
            Self::Source => "v1.9.6",
        }
    }

    fn module(self) -> String {
        format!("github.com/fluxcd/{}", self.name())
    }

    /// The definitions that it watches, with the controller whose module has them.
    fn definitions(self) -> Vec<(Self, String)> {
        let source = |plural: &str| (Self::Source, format!("source.toolkit.fluxcd.io_{plural}.yaml"));
        let (own, sources): (_, &[&str]) = match self {
            Self::Kustomize => (
                Some("kustomize.toolkit.fluxcd.io_kustomizations.yaml"),
                &["gitrepositories", "ocirepositories", "buckets", "externalartifacts"],
            ),
            Self::Helm => (
                Some("helm.toolkit.fluxcd.io_helmreleases.yaml"),
                &["helmcharts", "ocirepositories", "externalartifacts"],
            ),
            Self::Source => (
                None,
                &[
                    "gitrepositories",
                    "ocirepositories",
                    "buckets",
                    "helmrepositories",
                    "helmcharts",
                    "externalartifacts",
                ],
            ),
        };
        own.map(|file| (self, file.to_owned()))
            .into_iter()
            .chain(sources.iter().copied().map(source))
            .collect()
    }

    /// How many kinds it works on, each with workers of its own.
    fn kinds(self) -> usize {
        match self {
            Self::Kustomize | Self::Helm => 1,
            Self::Source => 5,
        }
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A pinned controller: its program, and the definitions that it watches as files.
#[must_use]
pub fn peer(controller: Controller) -> Peer {
    let peer = Peer::new(
        format!("flux-{}", controller.name().trim_end_matches("-controller")),
        include_str!("../../../../devplane/flux/go.mod"),
        include_str!("../../../../devplane/flux/go.sum"),
    )
    .binary(controller.name(), controller.module());
    controller.definitions().into_iter().fold(peer, |peer, (owner, file)| {
        peer.file(owner.module(), format!("{DEFINITIONS}/{file}"))
    })
}

/// Running controllers of Flux.
///
/// # Guarantees
/// - When [`Options::start`] returns it, every controller has read what it watches and its workers run.
/// - Dropping it kills the controllers and removes their folder; when the owning process dies, they die too. What they
///   put into the cluster stays, the definitions too.
#[derive(Debug)]
pub struct Flux {
    /// First field: processes are gone before the folder goes.
    controllers: Vec<(Controller, Process)>,
    home: Home,
    /// Leases: the cache keeps running programs.
    _binaries: Vec<Binaries>,
}

impl Flux {
    /// Controllers on the cluster of a kubeconfig file; chain what is wanted and call [`Options::start`].
    pub fn options(kubeconfig: impl Into<std::path::PathBuf>) -> Options {
        Options::new(kubeconfig.into())
    }

    /// A controller's process, if it was asked for.
    #[must_use]
    pub fn process(&self, controller: Controller) -> Option<&Process> {
        let mut all = self.controllers.iter();
        all.find(|(found, _)| *found == controller).map(|(_, process)| process)
    }

    /// The end of every controller's log, for a test that fails.
    #[must_use]
    pub fn tail(&self) -> String {
        let quoted = |(controller, process): &(Controller, Process)| {
            format!("-- {controller}, log {}\n{}\n", process.log().display(), process.tail())
        };
        self.controllers.iter().map(quoted).collect()
    }

    /// The logs stay for a day after the controllers went.
    pub fn keep_logs(&self) {
        self.home.keep_logs();
    }

    /// Waits until one of the controllers ends, which none should.
    pub async fn died(&self) -> PlaneError {
        let all = self.controllers.iter().map(|(_, process)| Box::pin(process.died()));
        let (error, _, _) = futures::future::select_all(all).await;
        self.home.keep_logs();
        error.into()
    }
}

impl Drop for Flux {
    fn drop(&mut self) {
        // All at once; each process then waits for its own end.
        self.controllers.iter().for_each(|(_, process)| process.kill());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_releases_are_the_pinned_versions() {
        for controller in Controller::ALL {
            let peer = peer(*controller);
            for module in [controller.module(), format!("{}/api", controller.module())] {
                let pinned = format!("{module} {}\n", controller.release());
                assert!(peer.go_mod.contains(&pinned), "{pinned}");
            }
        }
    }

    #[test]
    fn each_has_the_definitions_that_it_watches() {
        for (controller, count) in [
            (Controller::Kustomize, 5),
            (Controller::Helm, 4),
            (Controller::Source, 6),
        ] {
            let files = peer(controller).files;
            assert_eq!(files.len(), count, "{controller}");
            assert!(files.iter().any(|file| file.name.contains("externalartifacts")));
        }
    }
}
