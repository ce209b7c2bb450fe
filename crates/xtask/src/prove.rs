//! `prove`: one claim in its long form. `test` runs the same tests with small counts; here the counts are large.
//!
//! Invariant: a target fails when its claim is untrue; there is no target without a test behind it.

mod clone;
mod minutes;
mod told;

use std::time::Instant;

use anyhow::{Context, Result};

use crate::step::{Step, Walk};
use crate::workspace::Workspace;

/// What `prove` takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print the targets and prove nothing
    #[arg(long)]
    list: bool,
    /// The target
    #[arg(required_unless_present = "list")]
    name: Option<String>,
}

/// A claim, and the tests that hold it up.
struct Target {
    name: &'static str,
    /// The claim, as a sentence that is true or not.
    claim: &'static str,
    /// Makes the tests long: tests read how many cases they run from here.
    environment: &'static [(&'static str, &'static str)],
    steps: &'static [Step],
}

/// Tests read this to run their long form.
const LONG: (&str, &str) = ("TRELLIS_PROVE", "1");

const TARGETS: &[Target] = &[
    Target {
        name: "resilience",
        claim: "mapper and explain equal the independent model over 100 000 random cases, and P1 to P13 of the facts hold \
                over at least 100 random lives each on Kubernetes",
        environment: &[LONG, ("PROPTEST_CASES", "100000")],
        steps: &[
            Step::Tests {
                package: "trellis-resilience",
                targets: &["properties", "explain"],
            },
            Step::Tests {
                package: "trellis-tests",
                targets: &[
                    "properties",
                    "leader",
                    "regressions",
                    "scopes",
                    "commands",
                    "namespaces",
                ],
            },
        ],
    },
    Target {
        name: "resilience-newest",
        claim: "the random lives of P1 to P9 and P11 to P13 hold on Linkerd 2.20 too, whose routes and breakers do more",
        environment: &[LONG, ("TRELLIS_LINKERD", "2.20")],
        steps: &[Step::Tests {
            package: "trellis-tests",
            targets: &["properties"],
        }],
    },
    Target {
        name: "crash-sweep",
        claim: "a crash after any single write, then a restart, converges to the same end",
        environment: &[LONG],
        steps: &[Step::Tests {
            package: "trellis-tests",
            targets: &["crash"],
        }],
    },
    Target {
        name: "leader",
        claim: "with two to five replicas killed, stopped and cut off, only the holder writes, Events too, and a takeover takes under 15 s",
        environment: &[LONG],
        steps: &[Step::Tests {
            package: "trellis-tests",
            targets: &["leader"],
        }],
    },
    Target {
        name: "rest",
        claim: "at rest the audit log shows no write for 60 s, Leases excepted",
        environment: &[LONG],
        steps: &[Step::Tests {
            package: "trellis-tests",
            targets: &["rest"],
        }],
    },
    Target {
        name: "kill9",
        claim: "`dev up`, attached or detached, killed with SIGKILL at 20 random moments leaves no process and its data usable",
        environment: &[LONG],
        steps: &[Step::Tests {
            package: "trellis-tests",
            targets: &["first_minute"],
        }],
    },
    Target {
        name: "versions",
        claim: "every example is Ready on the oldest and the newest Kubernetes, and the tests of the plane, the testkit and \
                the stories hold on the newest; of `dev`, kubectl and the chart CI shows the default alone",
        environment: &[("TRELLIS_KUBERNETES", "1.37")],
        steps: &[
            Step::Trellis(&["dev", "up", "--once", "--kubernetes", "1.34"]),
            Step::Trellis(&["dev", "up", "--once", "--kubernetes", "1.37"]),
            Step::Tests {
                package: "trellis-devplane",
                targets: &["plane"],
            },
            Step::Tests {
                package: "trellis-testkit",
                targets: &[],
            },
            Step::Tests {
                package: "trellis-tests",
                targets: &[
                    "runtime",
                    "crash",
                    "leader",
                    "rest",
                    "properties",
                    "regressions",
                    "scopes",
                    "sources",
                    "examples",
                    "live",
                    "namespaces",
                ],
            },
        ],
    },
    Target {
        name: "sources",
        claim: "ExternalSource is admitted, refused and stored as documented, real Flux takes what the controller publishes, a \
                crash of the binary after any write of a source's life changes nothing of its end, and artifacts are served while \
                leaders come and go",
        environment: &[LONG],
        steps: &[Step::Tests {
            package: "trellis-tests",
            targets: &["sources", "flux", "artifacts", "lives"],
        }],
    },
    Target {
        name: "sources-minio",
        claim: "what holds of artifacts and of Flux's buckets with Versity S3 Gateway, which CI has, holds with MinIO too",
        environment: &[("TRELLIS_S3", "minio")],
        steps: &[Step::Tests {
            package: "trellis-tests",
            targets: &["flux", "artifacts"],
        }],
    },
    Target {
        name: "clone",
        claim: "the two README commands hold in a fresh clone with an empty cache, and every group is proven there",
        environment: &[],
        steps: &[Step::Task(clone::run)],
    },
    Target {
        name: "minutes",
        claim: "`.ci/run` takes at most 90 min with an empty cache and at most 90 min again, and proves every group",
        environment: &[],
        steps: &[Step::Task(minutes::run)],
    },
];

/// Proves a target, or lists them.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let Some(name) = args.name.as_deref().filter(|_| !args.list) else {
        for target in TARGETS {
            println!("{:<12} {}", target.name, target.claim);
        }
        return Ok(());
    };
    let target = TARGETS
        .iter()
        .find(|target| target.name == name)
        .with_context(|| format!("no target {name}; `cargo xtask prove --list` prints them"))?;
    let start = Instant::now();
    let walk = Walk::new(workspace);
    for step in target.steps {
        walk.take(step, target.environment)
            .with_context(|| format!("not true: {}", target.claim))?;
    }
    println!(
        "proven in {:.1} min: {}",
        start.elapsed().as_secs_f64() / 60.0,
        target.claim
    );
    Ok(())
}
