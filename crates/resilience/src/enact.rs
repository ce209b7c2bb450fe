//! What a policy does in a cluster, target by target: what it writes there, and what becomes of each section.
//!
//! ```text
//!  policy + Cluster ─▶ targets ─▶ per target: winners ─▶ Won │ Overridden │ Inert │ Pending, and what to write
//! ```
//!
//! Invariants: a policy writes only for sections that it won; what Linkerd would ignore is not written, or is said to
//! be inert; a section is `Won` only when nothing but the write itself is between it and its effect.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::Service, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Resource as _, ResourceExt as _};
use trellis_api::{MAX_SERVICES, ResiliencePolicy, Section, TargetKind, TargetRef};
use trellis_core::Refusal;

use crate::{
    Cluster, PolicyName, Reason,
    annotations::{self, Annotations, Place},
    attach::{self, Target},
    owner,
    ratelimit::Limit,
    route::{self, Built},
    siblings,
};

mod egress;
mod own;
mod service;
mod status;
mod theirs;
mod user_route;

/// What a policy does in a cluster.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Enactment {
    /// Its targets, by namespace and name.
    pub targets: Vec<Enacted>,
    /// Why there is none; or, where there are too many, why there are only those that carry the policy already.
    pub refusal: Option<Refusal>,
}

/// What a policy does at one target.
#[derive(Debug, Clone, PartialEq)]
pub struct Enacted {
    /// The target. For a policy with routes, or from another namespace, what the routes are attached to.
    pub target: Target,
    /// What becomes of each section of the policy that can act here.
    pub sections: BTreeMap<Section, Standing>,
    /// What to write on the target itself; nothing for a policy that has routes of its own.
    pub annotations: Annotations,
    /// Routes of the policy's own.
    pub routes: Vec<Built>,
    /// The rate limit.
    pub limit: Option<Limit>,
    /// Ports of a Service on which the policy acts, ascending.
    pub ports: Vec<i32>,
    /// What the user should know besides, one sentence each.
    pub notes: Vec<String>,
}

/// What becomes of a section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It acts, once it is written.
    Won,
    /// Another policy decides it here.
    Overridden(PolicyName),
    /// Linkerd would ignore it here.
    Inert(Refusal),
    /// It is written, or about to be, and Linkerd has to say something first.
    Pending(Refusal),
}

/// What the policy does in the cluster.
#[must_use]
pub fn enact(policy: &ResiliencePolicy, cluster: &Cluster) -> Enactment {
    let mut enactment = targets(policy, cluster).unwrap_or_else(|refusal| Enactment {
        targets: Vec::new(),
        refusal: Some(refusal),
    });
    let overlooked = cluster.gateway.overlooked(&cluster.mesh);
    let whole = |enacted: &&mut Enacted| {
        let acting = enacted.acting(policy);
        acting.contains(&Section::Retry) || acting.contains(&Section::Timeout)
    };
    for enacted in enactment.targets.iter_mut().filter(whole) {
        enacted.notes.extend(overlooked.iter().cloned());
    }
    enactment
}

fn targets(policy: &ResiliencePolicy, cluster: &Cluster) -> Result<Enactment, Refusal> {
    let own = policy.namespace().unwrap_or_default();
    let Some(target) = &policy.spec.target_ref else {
        return many(
            policy,
            cluster,
            "no Service of the namespace has these labels",
            "spec.targetSelector",
        );
    };
    let namespace = target.namespace.clone().unwrap_or_else(|| own.clone());
    if namespace != own && target.kind != TargetKind::Service {
        return Err(Reason::CrossNamespaceTarget
            .refuse(format!(
                "the {} is in namespace {namespace}, the policy in {own}",
                target.kind
            ))
            .field("spec.targetRef.namespace")
            .hint(format!("create the policy in namespace {namespace}")));
    }
    let missing = |reason: Reason| {
        reason
            .refuse(format!(
                "there is no {} {} in namespace {namespace}",
                target.kind, target.name
            ))
            .field("spec.targetRef.name")
            .hint(format!("create the {}, or correct the name", target.kind))
    };
    match target.kind {
        TargetKind::Namespace if target.name != own => Err(Reason::CrossNamespaceTarget
            .refuse(format!("the policy is in namespace {own}, and can be for no other"))
            .field("spec.targetRef.name")
            .hint(format!("create the policy in namespace {}", target.name))),
        TargetKind::Namespace => many(policy, cluster, "the namespace has no Service", "spec.targetRef"),
        TargetKind::Service => {
            let service = cluster
                .service(&namespace, &target.name)
                .ok_or_else(|| missing(Reason::TargetServiceNotFound))?;
            Ok(Enactment::at(if route::is_on_own(policy, &namespace) {
                own::for_service(policy, service, target, cluster)
            } else {
                service::enact(policy, service, cluster)
            }))
        }
        TargetKind::EgressNetwork => {
            let network = cluster
                .egress_network(&own, &target.name)
                .ok_or_else(|| missing(Reason::TargetNotFound))?;
            Ok(Enactment::at(if policy.spec.routes.is_empty() {
                egress::enact(policy, network, cluster)
            } else {
                own::for_network(policy, network, target, cluster)
            }))
        }
        TargetKind::HttpRoute | TargetKind::GrpcRoute => {
            let place = if target.kind == TargetKind::GrpcRoute {
                Place::GrpcRoute
            } else {
                Place::HttpRoute
            };
            if let Some(versions) = cluster.gateway.only(place) {
                return Err(own::other_versions(place, &versions).field("spec.targetRef.kind"));
            }
            let wanted = |route: &crate::route::Route<'_>| {
                (route.place() == Place::GrpcRoute) == (target.kind == TargetKind::GrpcRoute)
                    && route.namespace() == own
                    && route.name() == target.name
                    && !matches!(route, crate::route::Route::Linkerd(_))
            };
            let route = cluster
                .routes()
                .find(wanted)
                .ok_or_else(|| missing(Reason::TargetNotFound))?;
            Ok(Enactment::at(user_route::enact(policy, route, cluster)))
        }
    }
}

/// The Services of the namespace that the policy selects. Of more than [`MAX_SERVICES`] only those that carry it already:
/// what is there goes on, and nothing is added.
fn many(policy: &ResiliencePolicy, cluster: &Cluster, none: &str, field: &str) -> Result<Enactment, Refusal> {
    let mut meant: Vec<&Service> = cluster
        .services
        .iter()
        .filter(|service| attach::level(policy, &Cluster::service_target(service)).is_some())
        .collect();
    meant.sort_by_key(|service| (service.namespace(), service.name_any()));
    if meant.is_empty() {
        return Err(Reason::NoTargets.refuse(none).field(field));
    }
    let found = meant.len();
    let refusal = (found > MAX_SERVICES).then(|| {
        meant.retain(|service| !owner::written(service.meta(), policy).is_empty());
        meant.truncate(MAX_SERVICES);
        Reason::TooManyServices
            .refuse(format!(
                "the policy is for {found} Services, and a status has room for {MAX_SERVICES}; none is added"
            ))
            .field(field)
            .hint("select by label, in several policies")
    });
    let targets = meant
        .into_iter()
        .map(|service| service::enact(policy, service, cluster));
    Ok(Enactment {
        targets: targets.collect(),
        refusal,
    })
}

impl Enactment {
    fn at(target: Enacted) -> Self {
        Self {
            targets: vec![target],
            refusal: None,
        }
    }
}

impl Enacted {
    fn at(target: Target) -> Self {
        Self {
            target,
            sections: BTreeMap::new(),
            annotations: Annotations::new(),
            routes: Vec::new(),
            limit: None,
            ports: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Who decides the sections of the policy at a place: won ones are returned, the others noted.
    fn contest(&mut self, policy: &ResiliencePolicy, at: &Target, cluster: &Cluster) -> Vec<Section> {
        let winners = attach::winners(at, &cluster.candidates(at));
        let own = PolicyName::of(policy);
        let mut won = Vec::new();
        for section in policy.spec.sections() {
            match winners.get(&section) {
                Some(winner) if winner.policy == own => {
                    self.sections.insert(section, Standing::Won);
                    won.push(section);
                }
                Some(winner) => {
                    let by = Standing::Overridden(winner.policy.clone());
                    self.sections.insert(section, by);
                }
                // Not of this place, or the policy is on its way out.
                None => {}
            }
        }
        won
    }

    /// The section would be ignored.
    fn inert(&mut self, section: Section, refusal: Refusal) {
        self.sections.insert(section, Standing::Inert(refusal));
    }

    /// The sections that this policy won and has switched on.
    fn acting(&self, policy: &ResiliencePolicy) -> Vec<Section> {
        let won = self.sections.iter().filter(|(_, standing)| **standing == Standing::Won);
        won.map(|(section, _)| *section)
            .filter(|section| policy.spec.enables(*section))
            .collect()
    }

    /// The same refusal for every section that the policy won and has switched on.
    fn all_inert(mut self, policy: &ResiliencePolicy, refusal: &Refusal) -> Self {
        for section in self.acting(policy) {
            self.inert(section, refusal.clone());
        }
        self
    }

    /// Writes a section on the target itself; inert if somebody else's annotations there are in the way.
    fn write(&mut self, policy: &ResiliencePolicy, section: Section, meta: &ObjectMeta, cluster: &Cluster) {
        let (place, version) = (self.target.place, &cluster.mesh.version);
        let written = annotations::section(&policy.spec, section, place, version).and_then(|written| {
            theirs::check(&written, meta, policy, cluster)?;
            siblings::check(&written, meta, &owner::manager(policy), place, version)?;
            Ok(written)
        });
        match written {
            Ok(mut written) => self.annotations.append(&mut written),
            Err(refusal) => self.inert(section, refusal),
        }
    }

    /// The annotations of every section that acts; those that cannot be written become inert.
    fn annotations_for(&mut self, policy: &ResiliencePolicy, place: Place, cluster: &Cluster) -> Annotations {
        let mut all = Annotations::new();
        for section in self.acting(policy) {
            match annotations::section(&policy.spec, section, place, &cluster.mesh.version) {
                Ok(mut written) => all.append(&mut written),
                Err(refusal) => self.inert(section, refusal),
            }
        }
        all
    }

    /// The first thing that keeps the policy from acting here, in the order of the sections.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        let inert = self.sections.values().find_map(|standing| match standing {
            Standing::Inert(refusal) => Some(refusal),
            _ => None,
        });
        inert.or_else(|| {
            self.sections.values().find_map(|standing| match standing {
                Standing::Pending(refusal) => Some(refusal),
                _ => None,
            })
        })
    }

    /// Whether nothing is left for Linkerd or the user to do: every section that was not overridden acts, and not all
    /// were overridden.
    #[must_use]
    pub fn in_force(&self) -> bool {
        self.refusal().is_none() && self.sections.values().any(|standing| *standing == Standing::Won)
    }
}

/// Whether two references to the same object can meet at a port.
fn overlap(a: Option<u16>, b: Option<u16>) -> bool {
    a.zip(b).is_none_or(|(a, b)| a == b)
}

/// When the policy was made, then its name: the older of two goes first.
fn age(policy: &ResiliencePolicy) -> impl Ord + use<> {
    let created = policy.meta().creation_timestamp.as_ref().map(|time| time.0);
    (created.is_none(), created, PolicyName::of(policy))
}

/// Names of those blocks of a route that are meant, in words.
fn blocks(retry: bool, timeout: bool) -> Option<&'static str> {
    match (retry, timeout) {
        (true, true) => Some("retry and timeout"),
        (true, false) => Some("retry"),
        (false, true) => Some("timeout"),
        (false, false) => None,
    }
}

/// Whether the policy makes routes of its own for this Service or network.
fn makes_routes(policy: &ResiliencePolicy, kind: TargetKind, namespace: &str, name: &str) -> Option<TargetRef> {
    let own = policy.namespace().unwrap_or_default();
    let target = policy.spec.target_ref.as_ref()?;
    let meant = target.kind == kind
        && target.name == name
        && target.namespace.as_deref().unwrap_or(&own) == namespace
        && policy.meta().deletion_timestamp.is_none();
    (meant && route::is_on_own(policy, namespace)).then(|| target.clone())
}
