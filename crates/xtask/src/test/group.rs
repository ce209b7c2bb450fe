//! The groups of `cargo xtask test`, as data.

use std::time::Duration;

use crate::peers::{ETCD, FLUX_HELM, FLUX_KUSTOMIZE, FLUX_SOURCE, HELM, KUBECTL, KUBERNETES, Peer, VERSITYGW};
use crate::step::Step;
use crate::{chart, cover, explain};

/// Tests that are run, timed and reported together.
pub(crate) struct Group {
    /// As on the command line.
    pub name: &'static str,
    /// What it proves, in a line.
    pub about: &'static str,
    /// The rung of the test ladder in CONTRIBUTING.md. Up to 4, the clock never holds it back.
    pub rung: u8,
    /// Peers that must be built first.
    pub peers: &'static [Peer],
    /// Debian packages that must be there.
    pub debian: &'static [Package],
    /// Whether it needs root.
    pub root: bool,
    /// Recorded time on two cores.
    pub minutes: Minutes,
    /// What is run, in order, until one fails.
    pub steps: &'static [Step],
}

/// A Debian package, told by a program of it.
pub(crate) struct Package {
    /// The package.
    pub name: &'static str,
    /// A program that it puts on `PATH`.
    pub program: &'static str,
}

/// Recorded time on two cores, peers not counted.
pub(crate) struct Minutes {
    /// With nothing compiled, in tenths of a minute.
    pub cold: u16,
    /// With everything compiled, in tenths of a minute.
    pub warm: u16,
}

impl Minutes {
    pub(crate) fn cold(&self) -> Duration {
        Duration::from_secs(u64::from(self.cold) * 6)
    }
}

const LLVM: Package = Package {
    name: cover::PACKAGE,
    program: cover::LLVM_COV,
};

const CURL: Package = Package {
    name: "curl",
    program: "curl",
};

/// In the order in which they run: what needs nothing first.
pub(crate) const GROUPS: &[Group] = &[
    Group {
        name: "unit",
        about: "laws, tables and goldens of the pure code; texts of the command line; documents that name what exists",
        rung: 2,
        peers: &[],
        debian: &[],
        root: false,
        minutes: Minutes { cold: 10, warm: 3 },
        steps: &[
            Step::Unit,
            Step::Packages(&[
                "trellis-core",
                "trellis-api",
                "trellis-bindings",
                "trellis-resilience",
                "trellis-sources",
                "trellis-model",
                "trellis-runtime",
                "trellis-operator",
                "trellis-cli",
                "xtask",
            ]),
            Step::Tests {
                package: "trellis-tests",
                targets: &["requirements"],
            },
            Step::Doc,
        ],
    },
    Group {
        name: "cover",
        about: "the domain crates' tests run at least 90 % of their lines",
        rung: 2,
        peers: &[],
        debian: &[LLVM],
        root: false,
        minutes: Minutes { cold: 20, warm: 5 },
        steps: &[Step::Task(cover::domain)],
    },
    Group {
        name: "outside",
        about: "what is fetched, stored and run outside of the cluster: real servers, disks, S3 and processes, and their faults",
        rung: 3,
        peers: &[],
        debian: &[CURL],
        root: true,
        minutes: Minutes { cold: 60, warm: 30 },
        steps: &[Step::Packages(&["trellis-fetch", "trellis-store", "trellis-hooks"])],
    },
    Group {
        name: "plane",
        about: "the development plane: builds, boots, data that survives, processes that end with their owner",
        rung: 3,
        peers: &[KUBERNETES, ETCD],
        debian: &[],
        root: false,
        minutes: Minutes { cold: 20, warm: 20 },
        steps: &[Step::Tests {
            package: "trellis-devplane",
            targets: &[],
        }],
    },
    Group {
        name: "testkit",
        about: "recording and faults between a client and the real API server",
        rung: 4,
        peers: &[KUBERNETES, ETCD],
        debian: &[],
        root: false,
        minutes: Minutes { cold: 10, warm: 10 },
        steps: &[Step::Tests {
            package: "trellis-testkit",
            targets: &[],
        }],
    },
    Group {
        name: "runtime",
        about: "the operator runtime on real Kubernetes: faults, crashes after every write, leaders, nothing at rest",
        rung: 4,
        peers: &[KUBERNETES, ETCD],
        debian: &[],
        root: false,
        minutes: Minutes { cold: 37, warm: 37 },
        steps: &[Step::Tests {
            package: "trellis-tests",
            targets: &["runtime", "crash", "leader", "rest"],
        }],
    },
    Group {
        name: "resilience",
        about: "ResiliencePolicy on real Kubernetes: random lives of policies, the real binary, its generated permissions",
        rung: 4,
        peers: &[KUBERNETES, ETCD],
        debian: &[],
        root: false,
        minutes: Minutes { cold: 40, warm: 40 },
        steps: &[Step::Tests {
            package: "trellis-tests",
            targets: &["properties", "regressions", "scopes", "commands", "namespaces"],
        }],
    },
    Group {
        name: "sources",
        about: "ExternalSource on real Kubernetes: what the API server admits, refuses and stores",
        rung: 4,
        peers: &[KUBERNETES, ETCD],
        debian: &[],
        root: false,
        minutes: Minutes { cold: 5, warm: 1 },
        steps: &[Step::Tests {
            package: "trellis-tests",
            targets: &["sources"],
        }],
    },
    Group {
        name: "first-minute",
        about: "`dev up --once`: every example Ready on a plane of its own, those for Linkerd beside a stand-in; `dev up` killed \
                at any moment leaves nothing",
        rung: 5,
        peers: &[KUBERNETES, ETCD],
        debian: &[],
        root: false,
        minutes: Minutes { cold: 5, warm: 5 },
        steps: &[
            Step::Trellis(&["dev", "up", "--once"]),
            Step::Tests {
                package: "trellis-tests",
                targets: &["first_minute", "examples", "live"],
            },
        ],
    },
    Group {
        name: "explain",
        about: "kubectl explain has a description for every field of every kind",
        rung: 5,
        peers: &[KUBERNETES, ETCD, KUBECTL],
        debian: &[],
        root: false,
        minutes: Minutes { cold: 3, warm: 3 },
        steps: &[Step::Task(explain::run)],
    },
    Group {
        name: "chart",
        about: "the chart as real Helm lints, renders and installs it on real Kubernetes",
        rung: 5,
        peers: &[KUBERNETES, ETCD, HELM],
        debian: &[],
        root: false,
        minutes: Minutes { cold: 2, warm: 1 },
        steps: &[Step::Task(chart::run)],
    },
    Group {
        name: "flux",
        about: "`dev up --with flux`: every example of sources is applied by Flux; real Flux takes artifacts from hand-written \
                ExternalArtifacts, from the controller of ExternalSource, and a bucket of a real S3 server",
        rung: 5,
        peers: &[KUBERNETES, ETCD, FLUX_KUSTOMIZE, FLUX_HELM, FLUX_SOURCE, VERSITYGW],
        debian: &[],
        root: false,
        minutes: Minutes { cold: 12, warm: 12 },
        steps: &[
            Step::Trellis(&["dev", "up", "--once", "--with", "flux"]),
            Step::Tests {
                package: "trellis-tests",
                targets: &["flux", "artifacts", "lives"],
            },
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_cheap_groups_come_first() {
        for (index, group) in GROUPS.iter().enumerate() {
            assert!(
                GROUPS[..index]
                    .iter()
                    .all(|earlier| earlier.name != group.name && earlier.rung <= group.rung),
                "{}",
                group.name
            );
            assert!(!group.steps.is_empty(), "{}", group.name);
        }
    }
}
