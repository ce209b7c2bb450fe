//! `ResiliencePolicy`: how calls behave when they fail, written where Linkerd reads it.
//!
//! ```text
//!  policy, others that contend ─┐
//!  Services, networks, routes  ─┼─ see ─▶ plan: annotations, routes, limits ─▶ apply ─▶ report, target by target
//!  Linkerd                     ─┘
//! ```
//!
//! Invariants: nothing is written where Linkerd would ignore it; of what users own only our annotation keys are ever
//! touched; a policy lets go of what another one won, and of what it is not for any more; `Ready` says on which Linkerd
//! it rests.

mod former;
mod gauges;
mod report;
mod see;

use k8s_openapi::{
    api::core::v1::{ConfigMap, Service},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{CustomResourceExt as _, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use trellis_api::{ResiliencePolicy, ResiliencePolicyStatus, TargetKind};
use trellis_bindings::{
    gateway::{GrpcRoute, HttpRoute, ParentRef},
    linkerd::{
        ServiceProfile,
        policy::{EgressNetwork, HttpLocalRateLimitPolicy, LinkerdHttpRoute, Server},
    },
};
use trellis_core::Refusal;
use trellis_resilience::{
    Cluster, Enacted, Enactment, Mesh, Reason, Standing, annotations, enact, owner,
    route::{self, Built},
};
use trellis_runtime::{
    Item, Kinds, Never, Outcome, Part, Permission, Plan, Reconcile, Reference, Reported, Result, Says, World,
    metrics::Gauge,
    permission::{Place, READ},
};

pub use report::ENFORCED;

/// Where Linkerd's control plane says what it is.
const LINKERD_CONFIG: (&str, &str) = ("linkerd", "linkerd-config");

/// What the operator was told about Linkerd.
#[derive(Debug, Clone)]
pub struct Linkerd {
    /// From `--linkerd-version`; absent: ConfigMap `linkerd/linkerd-config` is read.
    pub version: Option<Mesh>,
    /// From `--cluster-domain`; needed to recognise ServiceProfiles.
    pub cluster_domain: String,
}

/// Writes policies to what they are for.
pub struct Resilience {
    linkerd: Linkerd,
}

/// Everything planning may know.
pub struct Seen {
    /// The part of the cluster that matters to the policy.
    pub cluster: Cluster,
    /// What the policy does there.
    pub enactment: Enactment,
    /// Why nothing can be decided, such as an unknown Linkerd. Then nothing is written anew, and what is not asked for
    /// any more still goes.
    pub undecided: Option<Refusal>,
}

impl Seen {
    fn of(policy: &ResiliencePolicy, cluster: Cluster, undecided: Option<Refusal>) -> Self {
        let mut enactment = enact(policy, &cluster);
        if let Some(refusal) = &undecided {
            for enacted in &mut enactment.targets {
                withhold(enacted, refusal);
            }
            enactment.refusal = Some(refusal.clone());
        }
        Self {
            cluster,
            enactment,
            undecided,
        }
    }
}

/// Nothing acts, for this reason, and nothing is written anew.
fn withhold(enacted: &mut Enacted, refusal: &Refusal) {
    enacted.annotations.clear();
    enacted.routes.clear();
    enacted.limit = None;
    for standing in enacted.sections.values_mut() {
        *standing = Standing::Inert(refusal.clone());
    }
}

impl Resilience {
    /// A controller that knows this about Linkerd.
    #[must_use]
    pub fn new(linkerd: &Linkerd) -> Self {
        Self {
            linkerd: linkerd.clone(),
        }
    }
}

const ROUTE: &[&str] = &["get", "list", "watch", "create", "patch", "delete"];

impl Reconcile for Resilience {
    const NAME: &'static str = owner::CONTROLLER;
    const COUNTED: &'static str = "policies";
    const GAUGES: &'static [Gauge<ResiliencePolicy>] = gauges::ALL;
    const FINALIZER: &'static str = "resilience.trellis.dev/finalizer";
    const NEEDS: &'static [Permission] = &[
        Permission::on(
            "resilience.trellis.dev",
            "resiliencepolicies",
            &["get", "list", "watch", "patch"],
        ),
        Permission::on("resilience.trellis.dev", "resiliencepolicies/status", &["patch"]),
        Permission::on("", "services", &["get", "list", "watch", "patch"]),
        Permission::on("gateway.networking.k8s.io", "httproutes", ROUTE),
        Permission::on("gateway.networking.k8s.io", "grpcroutes", ROUTE),
        Permission::on(
            "policy.linkerd.io",
            "egressnetworks",
            &["get", "list", "watch", "patch"],
        ),
        Permission::on("policy.linkerd.io", "httplocalratelimitpolicies", ROUTE),
        Permission::on("policy.linkerd.io", "servers", ROUTE),
        Permission::on("policy.linkerd.io", "httproutes", READ),
        Permission::on("linkerd.io", "serviceprofiles", READ),
        Permission::on("", "configmaps", READ)
            .named(&["linkerd-config"])
            .at(Place::Cluster),
        Permission::on("apiextensions.k8s.io", "customresourcedefinitions", READ)
            .named(&[
                "serviceprofiles.linkerd.io",
                "httproutes.gateway.networking.k8s.io",
                "grpcroutes.gateway.networking.k8s.io",
                "egressnetworks.policy.linkerd.io",
                "httplocalratelimitpolicies.policy.linkerd.io",
                "servers.policy.linkerd.io",
                "httproutes.policy.linkerd.io",
            ])
            .at(Place::Cluster),
    ];

    type Object = ResiliencePolicy;
    type Seen = Seen;
    type Act = Never;

    fn kinds(kinds: Kinds) -> Kinds {
        kinds
            .all::<Service>()
            .all_if_served_about::<HttpRoute>(|route| parents(&route.spec.parent_refs, route.namespace().as_deref()))
            .all_if_served_about::<GrpcRoute>(|route| parents(&route.spec.parent_refs, route.namespace().as_deref()))
            .all_if_served_about::<LinkerdHttpRoute>(|route| {
                parents(&route.spec.parent_refs, route.namespace().as_deref())
            })
            .all_if_served::<EgressNetwork>()
            .all_if_served_about::<ServiceProfile>(profiled)
            .all_if_served::<Server>()
            .all_if_served::<HttpLocalRateLimitPolicy>()
            .named::<ConfigMap>()
    }

    fn refers(&self, policy: &ResiliencePolicy) -> Vec<Reference> {
        let own = policy.namespace();
        let own = own.as_deref();
        let mut references = vec![Reference::to::<ConfigMap>(Some(LINKERD_CONFIG.0), LINKERD_CONFIG.1)];
        // What is said about a target, or what a target speaks about, wakes as well: profiles, routes, their parents.
        references.extend(targets(policy));
        if policy.spec.rate_limit.is_some() {
            references.extend([
                Reference::any::<Server>(own),
                Reference::any::<HttpLocalRateLimitPolicy>(own),
            ]);
        }
        let definition = |name: &str| Reference::to::<CustomResourceDefinition>(None, name);
        references.extend([definition(HttpRoute::crd_name()), definition(GrpcRoute::crd_name())]);
        references
    }

    fn contends(&self, policy: &ResiliencePolicy) -> Vec<Reference> {
        let mut contended = targets(policy);
        if on_route(policy) {
            // What the route is attached to decides over it, when a policy there overrides.
            contended.push(Reference::any::<Service>(policy.namespace().as_deref()));
            contended.push(Reference::any::<EgressNetwork>(policy.namespace().as_deref()));
        }
        contended
    }

    async fn see(&self, world: &World, policy: &ResiliencePolicy) -> Result<Seen> {
        let (mesh, unknown) = match self.mesh(world).await? {
            Ok(mesh) => (mesh, None),
            Err(refusal) => (Mesh::unknown(&self.linkerd.cluster_domain), Some(refusal)),
        };
        let cluster = self.cluster(world, policy, mesh).await?;
        Ok(Seen::of(policy, cluster, see::elsewhere(world, policy).or(unknown)))
    }

    fn plan(policy: &ResiliencePolicy, seen: &Seen) -> Result<Plan<Never>, Refusal> {
        let enactment = &seen.enactment;
        let mut plan = Plan::nothing().giving_up(former::former(policy, &enactment.targets));
        for enacted in &enactment.targets {
            for item in items(policy, enacted, seen)? {
                plan = plan.and(item);
            }
        }
        let judgement = match &enactment.refusal {
            Some(refusal) => report::Judgement::Refused(refusal.clone()),
            None => report::judge(policy, &enactment.targets),
        };
        Ok(match judgement {
            report::Judgement::Refused(refusal) => plan.refusing(refusal),
            report::Judgement::Waiting(reason, message) => plan.waiting(reason, message),
            report::Judgement::InForce | report::Judgement::Overridden(_) | report::Judgement::Yielding(_) => plan,
        })
    }

    fn report(policy: &ResiliencePolicy, seen: &Seen, outcome: &Outcome) -> Reported<ResiliencePolicyStatus> {
        report::report(policy, seen, outcome)
    }

    async fn act(&self, _: &ResiliencePolicy, act: &Never, _: &Says) -> Result<()> {
        match *act {}
    }
}

/// What to have for one target.
fn items(policy: &ResiliencePolicy, enacted: &Enacted, seen: &Seen) -> Result<Vec<Item>, Refusal> {
    let mut items: Vec<Item> = part(policy, enacted, seen).into_iter().collect();
    let unserialisable = |error: trellis_runtime::Error| Reason::Invalid.refuse(error.chain());
    for built in &enacted.routes {
        let item = match built {
            Built::Http(route) => Item::own(route),
            Built::Grpc(route) => Item::own(route),
        };
        items.push(item.map_err(unserialisable)?);
    }
    if let Some(limit) = &enacted.limit {
        if let Some(server) = &limit.server {
            items.push(Item::own(server).map_err(unserialisable)?);
        }
        items.push(Item::own(&limit.policy).map_err(unserialisable)?);
    }
    Ok(items)
}

/// The Services that may carry annotations of the policy, as its status says.
fn carriers(policy: &ResiliencePolicy) -> impl Iterator<Item = (&str, &str)> {
    let inventory = policy.status.iter().flat_map(|status| &status.common.inventory);
    inventory
        .filter(|entry| entry.part && entry.kind == "Service")
        .map(|entry| (entry.namespace.as_deref().unwrap_or_default(), entry.name.as_str()))
}

/// Our annotations on the living target: those that act, and those that were written before it became inert and are
/// still asked for. What another policy won, or what is not asked for any more, is let go at once, whatever else is
/// refused: the winner cannot apply it before. While nothing can be decided, nobody has won.
fn part(policy: &ResiliencePolicy, enacted: &Enacted, seen: &Seen) -> Option<Item> {
    let cluster = &seen.cluster;
    let (namespace, name) = (enacted.target.namespace.as_str(), enacted.target.name.as_str());
    let is = |meta: &ObjectMeta| meta.namespace.as_deref() == Some(namespace) && meta.name.as_deref() == Some(name);
    let (part, meta) = match enacted.target.place {
        annotations::Place::Service => cluster.service(namespace, name).map(part_of)?,
        annotations::Place::EgressNetwork => cluster.egress_network(namespace, name).map(part_of)?,
        annotations::Place::HttpRoute => cluster
            .http_routes
            .iter()
            .find(|route| is(&route.metadata))
            .map(part_of)?,
        annotations::Place::GrpcRoute => cluster
            .grpc_routes
            .iter()
            .find(|route| is(&route.metadata))
            .map(part_of)?,
    };
    let ours = owner::written(meta, policy);
    let mut wanted = enacted.annotations.clone();
    let elsewhere = route::is_on_own(policy, namespace);
    for (section, standing) in &enacted.sections {
        let Standing::Inert(refusal) = standing else { continue };
        if elsewhere || !policy.spec.enables(*section) {
            continue;
        }
        let mut kept = annotations::Annotations::new();
        if refusal.reason == Reason::ForeignOwner.as_str() || seen.undecided.is_some() {
            // A new value, or one less, beside theirs would make a block that nobody asked for; and one that nobody
            // judged may.
            let stored = annotations::keys(*section).iter().filter(|key| ours.contains(**key));
            kept.extend(stored.filter_map(|key| Some((*key, meta.annotations.as_ref()?.get(*key)?.clone()))));
        } else if let Ok(asked) =
            annotations::section(&policy.spec, *section, enacted.target.place, &cluster.mesh.version)
        {
            kept.extend(asked.into_iter().filter(|(key, _)| ours.contains(*key)));
        }
        wanted.append(&mut kept);
    }
    (!wanted.is_empty() || !ours.is_empty()).then(|| part.annotations(&wanted))
}

fn part_of<K>(object: &K) -> (Part, &ObjectMeta)
where
    K: Resource<DynamicType = ()> + DeserializeOwned,
{
    (Part::of(object), object.meta())
}

/// Whether the policy is for a route of a user.
fn on_route(policy: &ResiliencePolicy) -> bool {
    let kind = policy.spec.target_ref.as_ref().map(|target| target.kind);
    matches!(kind, Some(TargetKind::HttpRoute | TargetKind::GrpcRoute))
}

/// What a policy is for, as its spec says it.
fn targets(policy: &ResiliencePolicy) -> Vec<Reference> {
    let own = policy.namespace();
    let Some(target) = &policy.spec.target_ref else {
        return vec![Reference::any::<Service>(own.as_deref())];
    };
    let namespace = target.namespace.as_deref().or(own.as_deref());
    vec![match target.kind {
        TargetKind::Service => Reference::to::<Service>(namespace, &target.name),
        TargetKind::Namespace => Reference::any::<Service>(own.as_deref()),
        TargetKind::EgressNetwork => Reference::to::<EgressNetwork>(namespace, &target.name),
        TargetKind::HttpRoute => Reference::to::<HttpRoute>(namespace, &target.name),
        TargetKind::GrpcRoute => Reference::to::<GrpcRoute>(namespace, &target.name),
    }]
}

/// The Service that a profile is for, by its name.
fn profiled(profile: &ServiceProfile) -> Vec<Reference> {
    let name = profile.name_any();
    let mut parts = name.splitn(3, '.');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(service), Some(namespace), Some(rest)) if rest.starts_with("svc.") => {
            vec![Reference::to::<Service>(Some(namespace), service)]
        }
        _ => Vec::new(),
    }
}

/// The Services and EgressNetworks that a route is attached to: what it speaks about.
fn parents(parents: &[ParentRef], own: Option<&str>) -> Vec<Reference> {
    let reference = |parent: &ParentRef| {
        let namespace = parent.namespace.as_deref().or(own);
        match parent.kind.as_deref() {
            Some("Service") => Some(Reference::to::<Service>(namespace, &parent.name)),
            Some("EgressNetwork") => Some(Reference::to::<EgressNetwork>(namespace, &parent.name)),
            _ => None,
        }
    };
    // No object has the name that stands for all of them, though a parent may be called so.
    let named = parents.iter().filter(|parent| parent.name != Reference::ANY);
    named.filter_map(reference).collect()
}
