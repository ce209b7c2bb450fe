//! What the cluster must have before anything is made: Linkerd with its injector, our kind, and an operator that leads.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::{
    api::{admissionregistration::v1::MutatingWebhookConfiguration, coordination::v1::Lease, core::v1::ConfigMap},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{Api, Client, CustomResourceExt as _, ResourceExt as _, api::ListParams};
use trellis_api::ResiliencePolicy;
use trellis_resilience::Mesh;

use crate::Error;

/// The webhook that puts sidecars into Pods.
const INJECTOR: &str = "linkerd-proxy-injector-webhook-config";
/// The operator's Lease, unless it was named otherwise.
const LEASE: &str = "trellis";

/// What is missing.
#[derive(Debug)]
pub(crate) enum Lack {
    /// No Linkerd, or none whose version is known.
    Linkerd(String),
    /// Nothing would put sidecars into Pods.
    Injector,
    /// Our kind is not served.
    Kind,
    /// Nobody would apply the policies.
    Operator,
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linkerd(why) => write!(f, "this cluster has no Linkerd: {why}"),
            Self::Injector => write!(f, "Linkerd puts no sidecars into Pods: there is no {INJECTOR}"),
            Self::Kind => write!(f, "the cluster does not serve ResiliencePolicy"),
            Self::Operator => write!(f, "no Trellis operator leads: nobody holds a Lease {LEASE}"),
        }
    }
}

impl Lack {
    /// What to do about it.
    pub(crate) fn mend(&self) -> &'static str {
        match self {
            Self::Linkerd(_) | Self::Injector => {
                "this counts what Linkerd's proxies do, so it needs a cluster on which `linkerd check` passes"
            }
            Self::Kind => "trellis crds apply",
            Self::Operator => "install the chart, or run trellis operator; `trellis doctor --for resilience` says more",
        }
    }
}

/// What the cluster has.
pub(crate) struct Found {
    linkerd: String,
    operator: String,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Linkerd {}; the operator {} leads", self.linkerd, self.operator)
    }
}

/// Refuses at the first thing that is missing.
pub(crate) async fn run(client: &Client) -> Result<Found, Error> {
    let configs: Api<ConfigMap> = Api::namespaced(client.clone(), "linkerd");
    let config = configs
        .get_opt("linkerd-config")
        .await
        .map_err(Error::kubernetes("read ConfigMap linkerd/linkerd-config"))?;
    let linkerd = version(config.and_then(|config| config.data)).map_err(Error::Lacks)?;
    let webhooks: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    let injector = webhooks
        .get_opt(INJECTOR)
        .await
        .map_err(Error::kubernetes(format!("read {INJECTOR}")))?;
    injector.ok_or(Error::Lacks(Lack::Injector))?;
    let kinds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let name = ResiliencePolicy::crd_name();
    let kind = kinds
        .get_opt(name)
        .await
        .map_err(Error::kubernetes(format!("read CRD {name}")))?;
    kind.ok_or(Error::Lacks(Lack::Kind))?;
    let leases: Api<Lease> = Api::all(client.clone());
    let leases = leases
        .list(&ListParams::default())
        .await
        .map_err(Error::kubernetes("list Leases"))?;
    let held = leases.items.into_iter().filter(|lease| lease.name_any() == LEASE);
    let mut holders = held
        .filter_map(|lease| lease.spec?.holder_identity)
        .filter(|holder| !holder.is_empty());
    let operator = holders.next().ok_or(Error::Lacks(Lack::Operator))?;
    Ok(Found { linkerd, operator })
}

/// The version that `linkerd-config` names.
fn version(config: Option<BTreeMap<String, String>>) -> Result<String, Lack> {
    let config = config.ok_or_else(|| Lack::Linkerd("there is no ConfigMap linkerd/linkerd-config".to_owned()))?;
    let mesh = Mesh::from_config_map(&config).map_err(|refusal| Lack::Linkerd(refusal.message))?;
    Ok(mesh.version.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_without_linkerd_is_told_so() {
        let none = version(None).unwrap_err();
        assert_eq!(
            none.to_string(),
            "this cluster has no Linkerd: there is no ConfigMap linkerd/linkerd-config"
        );
        assert!(none.mend().contains("linkerd check"));
        let values = |text: &str| Some(BTreeMap::from([("values".to_owned(), text.to_owned())]));
        assert_eq!(
            version(values("linkerdVersion: stable-2.16.1")).unwrap(),
            "stable-2.16.1"
        );
        let old = version(values("linkerdVersion: stable-2.14.0"))
            .unwrap_err()
            .to_string();
        assert!(old.contains("2.14"), "{old}");
    }
}
