//! Kubernetes itself: kube-apiserver, kube-controller-manager and kube-scheduler.

use std::fmt;
use std::str::FromStr;

use crate::Peer;

/// A Kubernetes minor that the plane can run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Kubernetes {
    /// 1.34, the default.
    #[default]
    V1_34,
    /// 1.37, the newest that builds.
    V1_37,
}

impl Kubernetes {
    /// Every minor, oldest first.
    pub const ALL: &'static [Self] = &[Self::V1_34, Self::V1_37];

    /// The exact release, for example `v1.34.1`.
    #[must_use]
    pub fn release(self) -> &'static str {
        match self {
            Self::V1_34 => "v1.34.1",
            Self::V1_37 => "v1.37.2",
        }
    }

    fn minor(self) -> &'static str {
        match self {
            Self::V1_34 => "34",
            Self::V1_37 => "37",
        }
    }

    /// The module without programs, version-stamped: unstamped binaries answer `v0.0.0-master`, which clients refuse.
    pub(crate) fn module(self, name: &str) -> Peer {
        let (go_mod, go_sum) = match self {
            Self::V1_34 => (
                include_str!("../../../../devplane/kubernetes-1.34/go.mod"),
                include_str!("../../../../devplane/kubernetes-1.34/go.sum"),
            ),
            Self::V1_37 => (
                include_str!("../../../../devplane/kubernetes-1.37/go.mod"),
                include_str!("../../../../devplane/kubernetes-1.37/go.sum"),
            ),
        };
        ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"]
            .into_iter()
            .fold(Peer::new(format!("{name}-{self}"), go_mod, go_sum), |peer, package| {
                peer.stamp(format!("{package}.gitVersion"), self.release())
                    .stamp(format!("{package}.gitMajor"), "1")
                    .stamp(format!("{package}.gitMinor"), self.minor())
            })
    }
}

impl fmt::Display for Kubernetes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1.{}", self.minor())
    }
}

/// A minor that the plane does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown Kubernetes minor `{0}`; there are 1.34 and 1.37")]
pub struct UnknownKubernetes(
    /// What was asked for.
    pub String,
);

impl FromStr for Kubernetes {
    type Err = UnknownKubernetes;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .iter()
            .copied()
            .find(|version| version.to_string() == text)
            .ok_or_else(|| UnknownKubernetes(text.to_owned()))
    }
}

/// The pinned control plane of a minor: `kube-apiserver`, `kube-controller-manager`, `kube-scheduler`.
#[must_use]
pub fn peer(version: Kubernetes) -> Peer {
    ["kube-apiserver", "kube-controller-manager", "kube-scheduler"]
        .into_iter()
        .fold(version.module("kubernetes"), |peer, name| {
            peer.binary(name, format!("k8s.io/kubernetes/cmd/{name}"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stamp_is_the_pinned_release() {
        for version in Kubernetes::ALL {
            let pinned = format!("k8s.io/kubernetes {}\n", version.release());
            assert!(version.module("kubernetes").go_mod.contains(&pinned), "{version}");
            assert_eq!(version.to_string().parse(), Ok(*version));
            assert!(version.release().starts_with(&format!("v{version}.")));
        }
        assert!("1.33".parse::<Kubernetes>().is_err());
    }
}
