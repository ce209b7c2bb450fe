//! The cluster as it would be: what every policy does in it, done.
//!
//! ```text
//!  Cluster ─▶ enact each policy ─▶ every manager lets go ─▶ every manager writes ─▶ Cluster
//! ```
//!
//! It does what the API server does with applies of each policy's own manager: a key stays as long as somebody owns it,
//! and a value of another owner is not overwritten. A route that does not exist yet is taken to be accepted.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry, ObjectMeta, OwnerReference};
use kube::ResourceExt as _;
use serde::Serialize;
use serde_json::{Value, json};
use trellis_api::ResiliencePolicy;
use trellis_bindings::gateway::{Condition, GrpcRoute, HttpRoute, ParentRef, RouteParentStatus, RouteStatus};

use crate::{
    Cluster, Enacted, PolicyName, Reason, Standing,
    annotations::{self, Annotations, Place},
    attach::Target,
    enact::enact,
    owner,
    route::{Built, CONTROLLER, Route, RouteName},
};

/// A value of somebody else that stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Conflict {
    /// The policy that wants another value.
    pub policy: PolicyName,
    /// The object, as `Kind namespace/name`.
    pub object: String,
    /// The annotation.
    pub key: &'static str,
    /// The value that stays.
    pub value: String,
}

/// The cluster as it would be once every policy is applied, and what could not be.
#[must_use]
pub fn project(cluster: &Cluster) -> (Cluster, Vec<Conflict>) {
    let mut after = cluster.clone();
    let mut conflicts = Vec::new();
    let mut writes = Vec::new();
    let mut routes = Vec::new();
    let mut limits = Vec::new();
    let alive = |policy: &&ResiliencePolicy| policy.metadata.deletion_timestamp.is_none() && !policy.spec.suspend;
    for policy in cluster.policies.iter().filter(alive) {
        for enacted in enact(policy, cluster).targets {
            conflicts.extend(held(policy, &enacted, cluster));
            if !enacted.annotations.is_empty() {
                let at = (enacted.target.place, enacted.target.namespace, enacted.target.name);
                writes.push((policy, at, enacted.annotations));
            }
            routes.extend(enacted.routes.into_iter().map(|route| (policy, route)));
            limits.extend(enacted.limit.map(|limit| (policy, limit)));
        }
    }
    let suspended = cluster.policies.iter().filter(|policy| policy.spec.suspend);
    let (suspended, keeping): (BTreeSet<PolicyName>, BTreeSet<String>) = suspended
        .map(|policy| (PolicyName::of(policy), owner::manager(policy)))
        .unzip();

    let own = |meta: &ObjectMeta| owner::made_for(meta).is_some_and(|owner| !suspended.contains(&owner));
    after.http_routes.retain(|route| !own(&route.metadata));
    after.grpc_routes.retain(|route| !own(&route.metadata));
    after.servers.retain(|server| !own(&server.metadata));
    after.rate_limits.retain(|limit| !own(&limit.metadata));
    for meta in metas(&mut after) {
        release(meta.1, |manager| {
            owner::is_policys(manager) && !keeping.contains(manager)
        });
    }
    let mut written: BTreeMap<_, _> = metas(&mut after)
        .map(|(place, meta)| {
            let name = |text: &Option<String>| text.clone().unwrap_or_default();
            ((place, name(&meta.namespace), name(&meta.name)), meta)
        })
        .collect();
    for (policy, at, annotations) in writes {
        let (place, namespace, name) = &at;
        if let Some(meta) = written.get_mut(&at) {
            let refused = write(meta, &owner::manager(policy), annotations);
            conflicts.extend(refused.into_iter().map(|(key, value)| Conflict {
                policy: PolicyName::of(policy),
                object: format!("{place} {namespace}/{name}"),
                key,
                value,
            }));
        }
    }
    let living: BTreeMap<RouteName, Route<'_>> = cluster.routes().map(|route| (route.full_name(), route)).collect();
    for (policy, built) in routes {
        add(
            &mut after,
            living.get(&built.as_route().full_name()).copied(),
            policy,
            built,
        );
    }
    for (policy, mut limit) in limits {
        if let Some(mut server) = limit.server {
            server.metadata.owner_references = Some(vec![reference(policy)]);
            after.servers.push(server);
        }
        limit.policy.metadata.owner_references = Some(vec![reference(policy)]);
        after.rate_limits.push(limit.policy);
    }
    (after, conflicts)
}

/// What keeps a section of the policy from being written at a target, key by key.
fn held(policy: &ResiliencePolicy, enacted: &Enacted, cluster: &Cluster) -> Vec<Conflict> {
    let Target {
        place, namespace, name, ..
    } = &enacted.target;
    let foreign = |standing: &Standing| matches!(standing, Standing::Inert(refusal) if refusal.reason == Reason::ForeignOwner.as_str());
    if !enacted.sections.values().any(foreign) {
        return Vec::new();
    }
    let Some(meta) = meta(cluster, &enacted.target) else {
        return Vec::new();
    };
    let mut conflicts = Vec::new();
    for (section, standing) in &enacted.sections {
        if !foreign(standing) {
            continue;
        }
        let asked = annotations::section(&policy.spec, *section, *place, &cluster.mesh.version).unwrap_or_default();
        conflicts.extend(
            owner::conflicts(&asked, meta, &owner::manager(policy))
                .into_iter()
                .map(|(key, _)| Conflict {
                    policy: PolicyName::of(policy),
                    object: format!("{place} {namespace}/{name}"),
                    key,
                    value: meta
                        .annotations
                        .as_ref()
                        .and_then(|stored| stored.get(key))
                        .cloned()
                        .unwrap_or_default(),
                }),
        );
    }
    conflicts.dedup();
    conflicts
}

/// The metadata of what a target stands for, if it is there.
fn meta<'a>(cluster: &'a Cluster, target: &Target) -> Option<&'a ObjectMeta> {
    let (namespace, name) = (target.namespace.as_str(), target.name.as_str());
    match target.place {
        Place::Service => cluster.service(namespace, name).map(|service| &service.metadata),
        Place::EgressNetwork => cluster.egress_network(namespace, name).map(|network| &network.metadata),
        Place::HttpRoute | Place::GrpcRoute => {
            let is = |route: &Route<'_>| {
                route.place() == target.place
                    && route.namespace() == namespace
                    && route.name() == name
                    && !matches!(route, Route::Linkerd(_))
            };
            cluster.routes().find(is).map(Route::meta)
        }
    }
}

/// The metadata of everything that policies write annotations to.
fn metas(cluster: &mut Cluster) -> impl Iterator<Item = (Place, &mut ObjectMeta)> {
    let services = cluster.services.iter_mut().map(|it| (Place::Service, &mut it.metadata));
    let networks = cluster
        .egress_networks
        .iter_mut()
        .map(|it| (Place::EgressNetwork, &mut it.metadata));
    let http = cluster
        .http_routes
        .iter_mut()
        .map(|it| (Place::HttpRoute, &mut it.metadata));
    let grpc = cluster
        .grpc_routes
        .iter_mut()
        .map(|it| (Place::GrpcRoute, &mut it.metadata));
    services.chain(networks).chain(http).chain(grpc)
}

/// These managers own nothing any more; what nobody else owns goes.
fn release(meta: &mut ObjectMeta, whose: impl Fn(&str) -> bool) {
    let ours = |entry: &ManagedFieldsEntry| entry.manager.as_deref().is_some_and(&whose);
    let entries = meta.managed_fields.take().unwrap_or_default();
    let (gone, kept): (Vec<_>, Vec<_>) = entries.into_iter().partition(ours);
    let owned = |key: &str| kept.iter().any(|entry| owner::keys(entry).any(|owned| owned == key));
    if let Some(annotations) = &mut meta.annotations {
        for key in gone.iter().flat_map(owner::keys).filter(|key| !owned(key)) {
            annotations.remove(key);
        }
    }
    meta.managed_fields = Some(kept).filter(|kept| !kept.is_empty());
}

/// An apply by one manager: what others own with another value stays, and is returned.
fn write(meta: &mut ObjectMeta, manager: &str, annotations: Annotations) -> Vec<(&'static str, String)> {
    let owned = |key: &str| {
        let mut entries = meta.managed_fields.iter().flatten();
        entries.any(|entry| owner::keys(entry).any(|owned| owned == key))
    };
    let unowned: serde_json::Map<String, Value> = meta
        .annotations
        .iter()
        .flatten()
        .filter(|(key, _)| !owned(key))
        .map(|(key, _)| (format!("f:{key}"), json!({})))
        .collect();
    if !unowned.is_empty() {
        // What nobody owns is given an owner, as the API server does on the first apply.
        meta.managed_fields
            .get_or_insert_default()
            .push(entry("before-first-apply", "Update", &unowned));
    }
    let stored = meta.annotations.get_or_insert_default();
    let mut conflicts = Vec::new();
    let mut fields = serde_json::Map::new();
    for (key, value) in annotations {
        match stored.get(key) {
            Some(theirs) if *theirs != value => {
                conflicts.push((key, theirs.clone()));
                continue;
            }
            _ => {}
        }
        stored.insert(key.into(), value);
        fields.insert(format!("f:{key}"), json!({}));
    }
    meta.managed_fields
        .get_or_insert_default()
        .push(entry(manager, "Apply", &fields));
    conflicts
}

fn entry(manager: &str, operation: &str, keys: &serde_json::Map<String, Value>) -> ManagedFieldsEntry {
    let fields = json!({"f:metadata": {"f:annotations": keys}});
    ManagedFieldsEntry {
        manager: Some(manager.into()),
        operation: Some(operation.into()),
        fields_v1: Some(FieldsV1(fields)),
        ..ManagedFieldsEntry::default()
    }
}

fn add(after: &mut Cluster, living: Option<Route<'_>>, policy: &ResiliencePolicy, built: Built) {
    let own = PolicyName::of(policy);
    if living.is_some_and(|route| route.owner().as_ref() != Some(&own)) {
        return;
    }
    let finish = |meta: &mut ObjectMeta| {
        meta.owner_references = Some(vec![reference(policy)]);
        meta.creation_timestamp = living.and_then(|route| route.meta().creation_timestamp.clone());
        if let Some(stored) = meta.annotations.take() {
            let written = crate::annotations::RETRY.iter().chain(&crate::annotations::TIMEOUTS);
            let written = written
                .filter_map(|key| Some((*key, stored.get(*key)?.clone())))
                .collect();
            write(meta, &owner::manager(policy), written);
        }
    };
    let status = |parents: &[ParentRef]| RouteStatus {
        parents: living.map_or_else(
            || parents.iter().map(taken).collect(),
            |route| route.verdicts().to_vec(),
        ),
    };
    match built {
        Built::Http(mut route) => {
            finish(&mut route.metadata);
            route.status = Some(status(&route.spec.parent_refs));
            after.http_routes.push(HttpRoute { ..route });
        }
        Built::Grpc(mut route) => {
            finish(&mut route.metadata);
            route.status = Some(status(&route.spec.parent_refs));
            after.grpc_routes.push(GrpcRoute { ..route });
        }
    }
}

/// What an object that is made for the policy has as its owner.
fn reference(policy: &ResiliencePolicy) -> OwnerReference {
    OwnerReference {
        api_version: "resilience.trellis.dev/v1alpha1".into(),
        kind: "ResiliencePolicy".into(),
        name: policy.name_any(),
        uid: policy.uid().unwrap_or_default(),
        controller: Some(true),
        ..OwnerReference::default()
    }
}

/// What Linkerd would say of a parent that it serves.
fn taken(parent: &ParentRef) -> RouteParentStatus {
    RouteParentStatus {
        parent_ref: parent.clone(),
        controller_name: CONTROLLER.into(),
        conditions: vec![Condition {
            type_: "Accepted".into(),
            status: "True".into(),
            reason: Some("Accepted".into()),
            message: None,
        }],
    }
}
