//! The reads: the part of the cluster that matters to one policy, all of it from watches.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use k8s_openapi::api::core::v1::{ConfigMap, Service};
use kube::{Resource, ResourceExt as _};
use trellis_api::{ResiliencePolicy, TargetKind};
use trellis_bindings::{
    gateway::{GrpcRoute, HttpRoute},
    linkerd::{
        ServiceProfile,
        policy::{EgressNetwork, HttpLocalRateLimitPolicy, Server},
    },
};
use trellis_core::Refusal;
use trellis_resilience::{Cluster, Gateway, Mesh, Reason, mesh::Source};
use trellis_runtime::{Reference, Result, World};

use super::{LINKERD_CONFIG, Resilience, carriers, on_route, parents, targets};

impl Resilience {
    /// What `linkerd-config` says, with the version as the operator was told, if it was.
    pub(super) async fn mesh(&self, world: &World) -> Result<Result<Mesh, Refusal>> {
        let (namespace, name) = LINKERD_CONFIG;
        let config = world.get::<ConfigMap>(Some(namespace), name).await?;
        let read = config.map(|config| Mesh::from_config_map(&config.data.clone().unwrap_or_default()));
        Ok(match (&self.linkerd.version, read) {
            (None, None) => Err(Reason::LinkerdNotFound
                .refuse(format!("there is no ConfigMap {namespace}/{name}"))
                .hint("install Linkerd, or start the operator with --linkerd-version")),
            (None, Some(mesh)) => mesh.and_then(|mesh| self.same_domain(mesh)),
            (Some(told), Some(Ok(mesh))) => self.same_domain(Mesh {
                version: told.version.clone(),
                source: Source::Flag,
                ..mesh
            }),
            (Some(told), None | Some(Err(_))) => Ok(Mesh {
                cluster_domain: self.linkerd.cluster_domain.clone(),
                ..told.clone()
            }),
        })
    }

    /// ServiceProfiles are found by a name that ends in the cluster's domain: a wrong one would hide them.
    fn same_domain(&self, mesh: Mesh) -> Result<Mesh, Refusal> {
        if mesh.cluster_domain == self.linkerd.cluster_domain {
            return Ok(mesh);
        }
        let (theirs, ours) = (&mesh.cluster_domain, &self.linkerd.cluster_domain);
        Err(Reason::ClusterDomainMismatch
            .refuse(format!(
                "linkerd-config says that the cluster's domain is {theirs}, the operator assumes {ours}"
            ))
            .hint(format!("start the operator with --cluster-domain {theirs}")))
    }

    /// The part of the cluster that the policy is decided on.
    pub(super) async fn cluster(&self, world: &World, policy: &ResiliencePolicy, mesh: Mesh) -> Result<Cluster> {
        let own = policy.namespace();
        let own = own.as_deref();
        let mut cluster = Cluster::of(mesh);
        cluster.gateway = Gateway {
            http: world.versions::<HttpRoute>().await?,
            grpc: world.versions::<GrpcRoute>().await?,
        };
        let mut contended = targets(policy);
        let target = policy.spec.target_ref.as_ref();
        let namespace = target.and_then(|target| target.namespace.as_deref()).or(own);
        match target.map(|target| (target.kind, target.name.as_str())) {
            None | Some((TargetKind::Namespace, _)) => {
                cluster.services = owned(world.list::<Service>(own).await?).into();
            }
            Some((TargetKind::Service, name)) => {
                cluster
                    .services
                    .extend(world.get::<Service>(namespace, name).await?.map(Arc::unwrap_or_clone));
            }
            Some((TargetKind::EgressNetwork, name)) => {
                cluster
                    .egress_networks
                    .extend(world.get::<EgressNetwork>(own, name).await?.map(Arc::unwrap_or_clone));
            }
            Some((TargetKind::HttpRoute, name)) => {
                let found = world.get::<HttpRoute>(own, name).await?;
                cluster.http_routes.extend(found.map(Arc::unwrap_or_clone));
            }
            Some((TargetKind::GrpcRoute, name)) => {
                let found = world.get::<GrpcRoute>(own, name).await?;
                cluster.grpc_routes.extend(found.map(Arc::unwrap_or_clone));
            }
        }
        if on_route(policy) {
            // Of routes there is only the target yet.
            let attached = cluster.routes().flat_map(|route| parents(route.parents(), own));
            contended.extend(attached);
            parents_of(&mut cluster, world, &contended).await?;
        }
        attached(&mut cluster, world, own).await?;
        profiles(&mut cluster, world, own).await?;
        let carriers = carriers(policy).filter(|(namespace, name)| cluster.service(namespace, name).is_none());
        for (namespace, name) in carriers.collect::<Vec<_>>() {
            let found = world.get::<Service>(Some(namespace), name).await?;
            cluster.services.extend(found.map(Arc::unwrap_or_clone));
        }
        if policy.spec.rate_limit.is_some() {
            cluster.servers = owned(world.list::<Server>(own).await?).into();
            cluster.rate_limits = owned(world.list::<HttpLocalRateLimitPolicy>(own).await?);
        }
        cluster.policies = owned(world.contenders::<ResiliencePolicy>(&contended)?).into();
        // The policy itself as it is carried out, which may be newer than what the watch has shown of it.
        cluster
            .policies
            .retain(|other| (other.namespace(), other.name_any()) != (policy.namespace(), policy.name_any()));
        cluster.policies.push(policy.clone());
        Ok(cluster)
    }
}

/// What a route is attached to.
async fn parents_of(cluster: &mut Cluster, world: &World, references: &[Reference]) -> Result<()> {
    for reference in references {
        let namespace = reference.namespace.as_deref();
        if reference.kind == Service::kind(&()) {
            let found = world.get::<Service>(namespace, &reference.name).await?;
            cluster.services.extend(found.map(Arc::unwrap_or_clone));
        } else if reference.kind == EgressNetwork::kind(&()) {
            let found = world.get::<EgressNetwork>(namespace, &reference.name).await?;
            cluster.egress_networks.extend(found.map(Arc::unwrap_or_clone));
        }
    }
    Ok(())
}

/// Why nothing can be decided for a target in a namespace of which nothing is seen.
pub(super) fn elsewhere(world: &World, policy: &ResiliencePolicy) -> Option<Refusal> {
    let target = policy.spec.target_ref.as_ref()?;
    // What is no Service has to be in the policy's own namespace.
    let namespace = target
        .namespace
        .as_deref()
        .filter(|_| target.kind == TargetKind::Service)?;
    (!world.serves(namespace)).then(|| {
        Reason::TargetServiceNotFound
            .refuse(format!(
                "namespace {namespace} is not among those that the operator serves"
            ))
            .field("spec.targetRef.namespace")
            .hint(format!("name {namespace} in --namespaces of the operator, too"))
    })
}

/// The profiles that may shadow what is written to the Services that are seen: in their namespaces, and in the policy's.
/// They are read by name, so that one that is not listed yet, or does not parse, is not taken for none.
async fn profiles(cluster: &mut Cluster, world: &World, own: Option<&str>) -> Result<()> {
    for service in &cluster.services {
        let namespace = service.namespace();
        let name = format!(
            "{}.{}.svc.{}",
            service.name_any(),
            namespace.as_deref().unwrap_or_default(),
            cluster.mesh.cluster_domain
        );
        for place in BTreeSet::from([namespace.as_deref(), own]) {
            let found = world.get::<ServiceProfile>(place, &name).await?;
            cluster.profiles.extend(found.map(Arc::unwrap_or_clone));
        }
    }
    Ok(())
}

/// The routes that are attached to what is seen.
async fn attached(cluster: &mut Cluster, world: &World, own: Option<&str>) -> Result<()> {
    let services = cluster
        .services
        .iter()
        .map(|service| Reference::to::<Service>(service.namespace().as_deref(), &service.name_any()));
    let networks = cluster
        .egress_networks
        .iter()
        .map(|network| Reference::to::<EgressNetwork>(network.namespace().as_deref(), &network.name_any()));
    let mut known: HashSet<Option<String>> = cluster.routes().map(|route| route.meta().uid.clone()).collect();
    for reference in services.chain(networks).collect::<Vec<_>>() {
        add(
            &mut cluster.http_routes,
            &mut known,
            world.about(&reference, own).await?,
        );
        add(
            &mut cluster.linkerd_routes,
            &mut known,
            world.about(&reference, own).await?,
        );
        add(
            &mut cluster.grpc_routes,
            &mut known,
            world.about(&reference, own).await?,
        );
    }
    Ok(())
}

/// Those that are not known yet, by their uids.
fn add<K: Resource + Clone>(all: &mut Vec<K>, known: &mut HashSet<Option<String>>, found: Vec<Arc<K>>) {
    for object in found {
        if known.insert(object.meta().uid.clone()) {
            all.push(Arc::unwrap_or_clone(object));
        }
    }
}

fn owned<K: Clone>(objects: Vec<Arc<K>>) -> Vec<K> {
    objects.into_iter().map(Arc::unwrap_or_clone).collect()
}
