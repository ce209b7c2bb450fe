//! `Cluster`: everything that is decided on, as plain data.
//!
//! ```text
//!  Services, EgressNetworks, routes, ServiceProfiles, Servers, policies, Mesh ─▶ Cluster ─▶ enact │ explain │ lint │ diff
//! ```
//!
//! It may hold a whole cluster or the part that matters: what is not in it does not exist. What is asked for at every
//! target is found by its name, or by the name of what it is about.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt as _;
use trellis_api::ResiliencePolicy;
use trellis_bindings::{
    gateway::{GrpcRoute, HttpRoute},
    linkerd::{
        ServiceProfile,
        policy::{EgressNetwork, HttpLocalRateLimitPolicy, LinkerdHttpRoute, Server},
    },
};

use crate::{Mesh, annotations::Place, attach::Target, route::Route};

mod listed;

pub use listed::{Key, Keyed, Listed};

/// A cluster, or the part of it that matters.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// The Linkerd that is installed.
    pub mesh: Mesh,
    /// Versions of the Gateway API that the API server serves.
    pub gateway: Gateway,
    /// Services.
    pub services: Listed<Service>,
    /// Routes for HTTP.
    pub http_routes: Listed<HttpRoute>,
    /// Routes for gRPC.
    pub grpc_routes: Listed<GrpcRoute>,
    /// Linkerd's own routes for HTTP, which every version reads.
    pub linkerd_routes: Listed<LinkerdHttpRoute>,
    /// Legacy profiles.
    pub profiles: Listed<ServiceProfile>,
    /// Destinations outside the cluster.
    pub egress_networks: Listed<EgressNetwork>,
    /// Ports of pods, as their own proxies see them.
    pub servers: Listed<Server>,
    /// Rate limits.
    pub rate_limits: Vec<HttpLocalRateLimitPolicy>,
    /// Policies.
    pub policies: Listed<ResiliencePolicy>,
}

/// Versions of the routes that the API server serves, such as `v1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// Of `HTTPRoute`; empty: the kind is not installed.
    pub http: BTreeSet<String>,
    /// Of `GRPCRoute`; empty: the kind is not installed.
    pub grpc: BTreeSet<String>,
}

impl Default for Gateway {
    /// The standard channel of version 1.4.
    fn default() -> Self {
        Self {
            http: ["v1", "v1beta1"].map(str::to_owned).into(),
            grpc: BTreeSet::from(["v1".to_owned()]),
        }
    }
}

impl Gateway {
    /// Whether Linkerd sees routes of this place: until 2.17 it read `v1beta1` and `v1alpha2`, since then `v1`.
    #[must_use]
    pub fn seen(&self, place: Place, mesh: &Mesh) -> bool {
        let newer = mesh.version.at_least(2, 18);
        match place {
            Place::HttpRoute => self.http.contains(if newer { "v1" } else { "v1beta1" }),
            Place::GrpcRoute => self.grpc.contains(if newer { "v1" } else { "v1alpha2" }),
            Place::Service | Place::EgressNetwork => true,
        }
    }

    /// The versions of a route of this place, when it is served but not as `v1`, in which it is read and written here.
    #[must_use]
    pub fn only(&self, place: Place) -> Option<String> {
        let versions = match place {
            Place::HttpRoute => &self.http,
            Place::GrpcRoute => &self.grpc,
            Place::Service | Place::EgressNetwork => return None,
        };
        let versions: Vec<&str> = versions.iter().map(String::as_str).collect();
        (!versions.is_empty() && !versions.contains(&"v1")).then(|| versions.join(", "))
    }

    /// What Linkerd follows and nobody here looks at, one sentence for each kind of route.
    pub(crate) fn overlooked(&self, mesh: &Mesh) -> Vec<String> {
        let places = [Place::HttpRoute, Place::GrpcRoute].into_iter();
        let followed = places.filter(|place| self.seen(*place, mesh));
        followed
            .filter_map(|place| {
                let versions = self.only(place)?;
                Some(format!(
                    "each {place} is served as {versions} only, which Linkerd follows and Trellis does not look at: \
                     what such a route sets for its requests counts instead"
                ))
            })
            .collect()
    }
}

impl Cluster {
    /// A cluster with nothing but a Linkerd, and the routes of the Gateway API 1.4.
    #[must_use]
    pub fn of(mesh: Mesh) -> Self {
        Self {
            mesh,
            gateway: Gateway::default(),
            services: Listed::default(),
            http_routes: Listed::default(),
            grpc_routes: Listed::default(),
            linkerd_routes: Listed::default(),
            profiles: Listed::default(),
            egress_networks: Listed::default(),
            servers: Listed::default(),
            rate_limits: Vec::new(),
            policies: Listed::default(),
        }
    }

    /// The Service of this name.
    #[must_use]
    pub fn service(&self, namespace: &str, name: &str) -> Option<&Service> {
        self.services.with((namespace, name)).next()
    }

    /// The EgressNetwork of this name.
    #[must_use]
    pub fn egress_network(&self, namespace: &str, name: &str) -> Option<&EgressNetwork> {
        self.egress_networks.with((namespace, name)).next()
    }

    /// The Server of this name.
    #[must_use]
    pub fn server(&self, namespace: &str, name: &str) -> Option<&Server> {
        self.servers.with((namespace, name)).next()
    }

    /// All routes, in the order of the lists.
    pub fn routes(&self) -> impl Iterator<Item = Route<'_>> {
        let http = self.http_routes.iter().map(Route::Http);
        let http = http.chain(self.linkerd_routes.iter().map(Route::Linkerd));
        http.chain(self.grpc_routes.iter().map(Route::Grpc))
    }

    /// The routes that name an object of this namespace and name as a parent, of whatever kind; in the order of
    /// [`Self::routes`].
    pub fn routes_of(&self, namespace: &str, name: &str) -> impl Iterator<Item = Route<'_>> + use<'_> {
        let key = (namespace, name);
        let http = self.http_routes.with(key).map(Route::Http);
        let http = http.chain(self.linkerd_routes.with(key).map(Route::Linkerd));
        http.chain(self.grpc_routes.with(key).map(Route::Grpc))
    }

    /// Whether Linkerd reads the route in a version that is served.
    #[must_use]
    pub fn sees(&self, route: Route<'_>) -> bool {
        matches!(route, Route::Linkerd(_)) || self.gateway.seen(route.place(), &self.mesh)
    }

    /// The profiles that bear the name of this Service.
    #[must_use]
    pub fn profiles_of(&self, service: &Service) -> Vec<&ServiceProfile> {
        let (name, namespace) = (service.name_any(), service.namespace().unwrap_or_default());
        let name = format!("{name}.{namespace}.svc.{}", self.mesh.cluster_domain);
        self.profiles.with(("", &name)).collect()
    }

    /// The policies that may be for the target, as candidates for [`crate::attach::winners`].
    #[must_use]
    pub fn candidates(&self, target: &Target) -> Vec<&ResiliencePolicy> {
        if target.owner.is_some() {
            // What the policy that made it names is something else.
            return self.policies.iter().collect();
        }
        let namespace = target.namespace.as_str();
        let names = target.parents.iter().map(|parent| parent.name.as_str());
        let names: BTreeSet<&str> = names.chain(["", target.name.as_str()]).collect();
        let named = |name| self.policies.with((namespace, name));
        names.into_iter().flat_map(named).collect()
    }

    /// A Service as a target.
    #[must_use]
    pub fn service_target(service: &Service) -> Target {
        Target {
            labels: service.labels().clone(),
            ..Target::new(
                Place::Service,
                &service.namespace().unwrap_or_default(),
                &service.name_any(),
            )
        }
    }

    /// A route as a target, with the parents in its own namespace that exist here.
    #[must_use]
    pub fn route_target(&self, route: Route<'_>) -> Target {
        let namespace = route.namespace();
        let own = route.parents().iter().filter(|parent| {
            let named = parent.namespace.as_deref();
            named.is_none_or(|named| named == namespace)
        });
        let names: BTreeSet<&str> = own.map(|parent| parent.name.as_str()).collect();
        let is = |kind, name| {
            let attached = |parent| route.is_parent(parent, kind, &namespace, name);
            route.parents().iter().any(attached)
        };
        let services = names
            .iter()
            .filter(|name| is("Service", name))
            .filter_map(|name| self.service(&namespace, name))
            .map(Self::service_target);
        let networks = names
            .iter()
            .filter(|name| is("EgressNetwork", name))
            .filter_map(|name| self.egress_network(&namespace, name))
            .map(|network| Target::new(Place::EgressNetwork, &namespace, &network.name_any()));
        Target {
            parents: services.chain(networks).collect(),
            owner: route.owner(),
            ..Target::new(route.place(), &namespace, &route.name())
        }
    }
}
