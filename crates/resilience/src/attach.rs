//! Which policy decides a section of a target: the rules of GEP-713, section by section.
//!
//! ```text
//!  policies ─▶ level on this target: Route │ Name │ Selector │ Namespace
//!           ─▶ Overrides before Defaults; Defaults: specific first, Overrides: general first
//!           ─▶ oldest, then namespace/name ─▶ one winner per section
//! ```
//!
//! Invariants: the order of policies is irrelevant; a section has at most one winner, and is taken from it whole; a
//! policy that is being deleted does not take part; one that is suspended, or that Linkerd could not follow, does.

use std::collections::BTreeMap;

use kube::{Resource as _, ResourceExt as _};
use serde::Serialize;
use trellis_api::{ResiliencePolicy, ResiliencePolicySpec, Section, Strategy, TargetKind, TargetRef};

use crate::{PolicyName, annotations::Place};

/// Something that sections apply to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// What it is; never a Namespace, which stands for its Services.
    pub place: Place,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its labels; they count for a Service only.
    pub labels: BTreeMap<String, String>,
    /// For a route: the Services and EgressNetworks of its own namespace that it is attached to.
    pub parents: Vec<Target>,
    /// For a route that was made for a policy: that policy.
    pub owner: Option<PolicyName>,
}

/// How close a policy is to a target, closest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Level {
    /// It names the route, or made it.
    Route,
    /// It names the target.
    Name,
    /// It selects the target by its labels.
    Selector,
    /// It is for the whole namespace.
    Namespace,
}

/// Which policy decides a section, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Winner {
    /// The policy.
    pub policy: PolicyName,
    /// Its strategy.
    pub strategy: Strategy,
    /// How close it is.
    pub level: Level,
}

impl Target {
    /// A target without labels and parents.
    #[must_use]
    pub fn new(place: Place, namespace: &str, name: &str) -> Self {
        Self {
            place,
            namespace: namespace.into(),
            name: name.into(),
            labels: BTreeMap::new(),
            parents: Vec::new(),
            owner: None,
        }
    }

    /// Its kind, as in a `targetRef`.
    #[must_use]
    pub fn kind(&self) -> TargetKind {
        match self.place {
            Place::Service => TargetKind::Service,
            Place::EgressNetwork => TargetKind::EgressNetwork,
            Place::HttpRoute => TargetKind::HttpRoute,
            Place::GrpcRoute => TargetKind::GrpcRoute,
        }
    }
}

/// The winner of each section that anybody sets for this target.
#[must_use]
pub fn winners(target: &Target, candidates: &[&ResiliencePolicy]) -> BTreeMap<Section, Winner> {
    let mut best: BTreeMap<Section, (Rank<'_>, Winner)> = BTreeMap::new();
    for policy in candidates {
        let Some(level) = level(policy, target) else { continue };
        let rank = Rank::of(policy, level);
        for section in policy.spec.sections() {
            if !target.place.sections().contains(&section) || best.get(&section).is_some_and(|(kept, _)| *kept <= rank)
            {
                continue;
            }
            let winner = Winner {
                policy: PolicyName::of(policy),
                strategy: policy.spec.strategy,
                level,
            };
            best.insert(section, (rank.clone(), winner));
        }
    }
    best.into_iter()
        .map(|(section, (_, winner))| (section, winner))
        .collect()
}

/// How close the policy is to the target; none if it is not for it, or is being deleted.
///
/// A policy for a Service reaches the Service's routes too, but only with Overrides: otherwise what a route says wins,
/// as it does in Linkerd.
#[must_use]
pub fn level(policy: &ResiliencePolicy, target: &Target) -> Option<Level> {
    if policy.meta().deletion_timestamp.is_some() {
        return None;
    }
    match target.place {
        Place::Service | Place::EgressNetwork => direct(policy, target),
        Place::HttpRoute | Place::GrpcRoute => on_route(policy, target).or_else(|| {
            let reaches = |parent| direct(policy, parent);
            let levels = target.parents.iter().filter_map(reaches);
            levels.max().filter(|_| policy.spec.strategy == Strategy::Overrides)
        }),
    }
}

fn on_route(policy: &ResiliencePolicy, route: &Target) -> Option<Level> {
    let named = if let Some(owner) = &route.owner {
        *owner == PolicyName::of(policy)
    } else {
        let target = policy.spec.target_ref.as_ref()?;
        target.kind == route.kind() && target.name == route.name && here(policy, target, &route.namespace)
    };
    named.then_some(Level::Route)
}

fn direct(policy: &ResiliencePolicy, target: &Target) -> Option<Level> {
    let ResiliencePolicySpec {
        target_ref,
        target_selector,
        routes,
        ..
    } = &policy.spec;
    if !routes.is_empty() || policy.namespace().as_deref() != Some(target.namespace.as_str()) {
        return None;
    }
    if let Some(selector) = target_selector {
        let selected = |(key, value)| target.labels.get(key) == Some(value);
        let service = target.place == Place::Service;
        return (service && !selector.match_labels.is_empty() && selector.match_labels.iter().all(selected))
            .then_some(Level::Selector);
    }
    let named = target_ref.as_ref()?;
    if !here(policy, named, &target.namespace) {
        return None;
    }
    match named.kind {
        TargetKind::Namespace => {
            (target.place == Place::Service && named.name == target.namespace).then_some(Level::Namespace)
        }
        kind => (kind == target.kind() && named.name == target.name).then_some(Level::Name),
    }
}

/// Whether the reference, read from the policy's namespace, points into this one.
fn here(policy: &ResiliencePolicy, named: &TargetRef, namespace: &str) -> bool {
    let own = policy.namespace().unwrap_or_default();
    own == namespace && named.namespace.as_deref().is_none_or(|named| named == namespace)
}

/// What decides between two policies; the least one wins.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Rank<'a> {
    defaults: bool,
    /// Closest first for Defaults, farthest first for Overrides.
    closeness: i8,
    /// A policy that no API server has seen yet is the youngest.
    unborn: bool,
    born: Option<&'a k8s_openapi::jiff::Timestamp>,
    name: PolicyName,
}

impl<'a> Rank<'a> {
    fn of(policy: &'a ResiliencePolicy, level: Level) -> Self {
        let closeness = match level {
            Level::Route => 0,
            Level::Name => 1,
            Level::Selector => 2,
            Level::Namespace => 3,
        };
        let defaults = policy.spec.strategy == Strategy::Defaults;
        let born = policy.meta().creation_timestamp.as_ref().map(|time| &time.0);
        Self {
            defaults,
            closeness: if defaults { closeness } else { -closeness },
            unborn: born.is_none(),
            born,
            name: PolicyName::of(policy),
        }
    }
}
