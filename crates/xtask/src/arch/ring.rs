//! The rings, and the rule: dependencies point inward.
//!
//! ```text
//!  tools ─▶ join ─▶ mechanism ─▶ ground
//!              └──▶ domain ────▶ ground      mechanism and domain never meet outside join
//! ```

use std::collections::BTreeMap;

/// A crate of the workspace with its direct dependencies.
#[derive(Debug)]
pub(crate) struct Member {
    pub name: String,
    pub needs: Vec<Need>,
}

/// A direct dependency, of the workspace or not.
#[derive(Debug)]
pub(crate) struct Need {
    pub name: String,
    /// Only the tests of the crate need it.
    pub dev: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ring {
    /// Types. The number orders the ground itself: core, then api, then bindings.
    Ground(u8),
    /// Pure decisions.
    Domain,
    /// Input and output without knowledge of the product.
    Mechanism,
    /// Where domain meets mechanism.
    Join,
    /// What only developers and tests run.
    Tool,
    /// The tests' second reading of the facts; it may not see what it judges.
    Model,
}

/// Every crate and its ring. A new crate is added here first.
const RINGS: &[(&str, Ring)] = &[
    ("trellis-core", Ring::Ground(0)),
    ("trellis-api", Ring::Ground(1)),
    ("trellis-bindings", Ring::Ground(2)),
    ("trellis-graph", Ring::Domain),
    ("trellis-cilium", Ring::Domain),
    ("trellis-resilience", Ring::Domain),
    ("trellis-sources", Ring::Domain),
    ("trellis-clusters", Ring::Domain),
    ("trellis-mesh", Ring::Domain),
    ("trellis-environments", Ring::Domain),
    ("trellis-runtime", Ring::Mechanism),
    ("trellis-store", Ring::Mechanism),
    ("trellis-registry", Ring::Mechanism),
    ("trellis-hooks", Ring::Mechanism),
    ("trellis-fetch", Ring::Mechanism),
    ("trellis-tunnel", Ring::Mechanism),
    ("trellis-apiproxy", Ring::Mechanism),
    ("trellis-devplane", Ring::Mechanism),
    ("trellis-operator", Ring::Join),
    ("trellis-console", Ring::Join),
    ("trellis-cli", Ring::Join),
    ("trellis-testkit", Ring::Tool),
    ("trellis-tests", Ring::Tool),
    ("trellis-benches", Ring::Tool),
    ("xtask", Ring::Tool),
    ("trellis-model", Ring::Model),
];

/// Crates that bring input, output or an executor; the ground and the domain do without.
const IMPURE: &[&str] = &[
    "tokio",
    "tokio-util",
    "reqwest",
    "hyper",
    "hyper-util",
    "axum",
    "tonic",
    "object_store",
    "rustix",
];

/// Every edge that breaks the rule, and every crate that has no ring, one line each.
pub(crate) fn faults(members: &[Member]) -> Vec<String> {
    let rings: BTreeMap<&str, Ring> = RINGS.iter().copied().collect();
    let mut faults = Vec::new();
    for member in members {
        let Some(&from) = rings.get(member.name.as_str()) else {
            faults.push(format!(
                "{}: no ring; name it in crates/xtask/src/arch/ring.rs",
                member.name
            ));
            continue;
        };
        for need in &member.needs {
            if let Some(&to) = rings.get(need.name.as_str()) {
                if !allowed(from, to, need.dev) {
                    faults.push(format!(
                        "{} ({from:?}) must not depend on {} ({to:?})",
                        member.name, need.name
                    ));
                }
            } else if pure(from) && !need.dev && IMPURE.contains(&need.name.as_str()) {
                faults.push(format!(
                    "{} ({from:?}) must not depend on {}: it decides, it does no I/O",
                    member.name, need.name
                ));
            }
        }
    }
    faults.sort();
    faults
}

fn pure(ring: Ring) -> bool {
    matches!(ring, Ring::Ground(_) | Ring::Domain | Ring::Model)
}

/// The rule. Tests (`dev`) may also use tools and the model, whichever ring they test.
fn allowed(from: Ring, to: Ring, dev: bool) -> bool {
    if dev && matches!(to, Ring::Tool | Ring::Model) {
        return from != Ring::Model;
    }
    match (from, to) {
        (Ring::Ground(outer), Ring::Ground(inner)) => inner < outer,
        (Ring::Domain | Ring::Mechanism | Ring::Model, Ring::Ground(_))
        | (Ring::Domain, Ring::Domain)
        | (Ring::Mechanism, Ring::Mechanism)
        | (Ring::Join, Ring::Ground(_) | Ring::Domain | Ring::Mechanism | Ring::Join)
        | (Ring::Tool, _) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, needs: &[&str]) -> Member {
        Member {
            name: name.to_owned(),
            needs: needs
                .iter()
                .map(|name| Need {
                    name: (*name).to_owned(),
                    dev: false,
                })
                .collect(),
        }
    }

    fn dev(name: &str, need: &str) -> Member {
        Member {
            name: name.to_owned(),
            needs: vec![Need {
                name: need.to_owned(),
                dev: true,
            }],
        }
    }

    #[test]
    fn inward_edges_pass() {
        let members = [
            member("trellis-core", &["serde"]),
            member("trellis-api", &["trellis-core"]),
            member("trellis-bindings", &["trellis-api", "trellis-core"]),
            member("trellis-cilium", &["trellis-graph", "trellis-bindings"]),
            member("trellis-runtime", &["trellis-core", "trellis-api", "tokio"]),
            member("trellis-operator", &["trellis-resilience", "trellis-runtime"]),
            member("trellis-cli", &["trellis-operator", "trellis-devplane"]),
            member(
                "trellis-tests",
                &["trellis-resilience", "trellis-devplane", "trellis-model"],
            ),
            dev("trellis-resilience", "trellis-model"),
            dev("trellis-resilience", "tokio"),
        ];
        assert_eq!(faults(&members), Vec::<String>::new());
    }

    #[test]
    fn outward_edges_are_named() {
        for (from, to) in [
            ("trellis-core", "trellis-api"),
            ("trellis-api", "trellis-bindings"),
            ("trellis-resilience", "trellis-runtime"),
            ("trellis-runtime", "trellis-resilience"),
            ("trellis-devplane", "trellis-operator"),
            ("trellis-runtime", "trellis-testkit"),
            ("trellis-operator", "trellis-testkit"),
            ("trellis-resilience", "trellis-model"),
            ("trellis-model", "trellis-resilience"),
        ] {
            let found = faults(&[member(from, &[to])]);
            assert_eq!(found.len(), 1, "{from} -> {to}");
            assert!(found[0].starts_with(from) && found[0].contains(to), "{found:?}");
        }
    }

    #[test]
    fn the_model_never_sees_what_it_judges() {
        assert_eq!(faults(&[dev("trellis-model", "trellis-resilience")]).len(), 1);
        assert_eq!(faults(&[dev("trellis-model", "trellis-testkit")]).len(), 1);
    }

    #[test]
    fn the_pure_rings_do_no_io() {
        for name in ["trellis-core", "trellis-resilience", "trellis-model"] {
            assert_eq!(faults(&[member(name, &["tokio"])]).len(), 1, "{name}");
            assert_eq!(faults(&[member(name, &["reqwest", "hyper"])]).len(), 2, "{name}");
        }
        assert!(faults(&[member("trellis-runtime", &["tokio"])]).is_empty());
    }

    #[test]
    fn an_unknown_crate_is_a_fault() {
        assert_eq!(faults(&[member("trellis-surprise", &[])]).len(), 1);
    }
}
