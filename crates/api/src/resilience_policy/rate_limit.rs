//! `RateLimit`: requests that a pod of the Service accepts per second.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Refuses requests above a rate with status 429. The proxies of the Service's own pods enforce it, each for itself: a
/// Service with three pods accepts three times the rate. Linkerd 2.17 and newer; HTTP only; no bursts.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = (
    "!self.enabled || !has(self.burstSize)",
    "Linkerd's rate limit has no bursts; remove burstSize"
))]
#[x_kube(validation = (
    "!self.enabled || has(self.requestsPerSecond) || has(self.perClientRequestsPerSecond)",
    "an enabled rate limit needs requestsPerSecond, perClientRequestsPerSecond or both"
))]
#[x_kube(validation = (
    "!self.enabled || has(self.serverRef) != has(self.createServer)",
    "Linkerd limits the rate of a Server: name an existing one in serverRef, or have one made with createServer"
))]
#[x_kube(validation = (
    "!has(self.requestsPerSecond) || !has(self.perClientRequestsPerSecond) \
     || self.perClientRequestsPerSecond <= self.requestsPerSecond",
    "perClientRequestsPerSecond must not exceed requestsPerSecond"
))]
#[serde(rename_all = "camelCase")]
pub struct RateLimit {
    /// Whether the policy sets a rate limit.
    #[serde(default)]
    pub enabled: bool,

    /// Requests per second and pod, all clients together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i32", range(min = 1, max = 100_000))]
    pub requests_per_second: Option<u32>,

    /// Requests per second and pod for each client, told apart by its mesh identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i32", range(min = 1, max = 100_000))]
    pub per_client_requests_per_second: Option<u32>,

    /// The Server that describes the pods' port, in the policy's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ServerRef")]
    pub server_ref: Option<ServerRef>,

    /// Makes a Server for the pods of the Service, which also decides who may call them. It needs targetRef.port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "CreateServer")]
    pub create_server: Option<CreateServer>,

    /// Not supported, since Linkerd knows no bursts; kept so that manifests with a disabled rate limit still apply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i32", range(min = 1))]
    pub burst_size: Option<u32>,
}

/// Names a Server of `policy.linkerd.io`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerRef {
    /// Name of the Server.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A Server of our own. Without rules for a request, its access policy decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreateServer {
    /// Who may call the pods when no authorization says otherwise. There is no default: a Server replaces what the
    /// namespace or the cluster allows, so copy that; `deny` cuts every call that no authorization allows.
    pub access_policy: AccessPolicy,
}

/// Who may call the pods of a Server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AccessPolicy {
    /// Everybody, meshed or not.
    AllUnauthenticated,
    /// Every meshed client.
    AllAuthenticated,
    /// Everybody inside the cluster's networks.
    ClusterUnauthenticated,
    /// Every meshed client of this cluster.
    ClusterAuthenticated,
    /// Everybody, but what an authorization would have denied is logged.
    Audit,
    /// Nobody, except where an authorization allows it.
    Deny,
}

impl AccessPolicy {
    /// As Linkerd spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AllUnauthenticated => "all-unauthenticated",
            Self::AllAuthenticated => "all-authenticated",
            Self::ClusterUnauthenticated => "cluster-unauthenticated",
            Self::ClusterAuthenticated => "cluster-authenticated",
            Self::Audit => "audit",
            Self::Deny => "deny",
        }
    }
}
