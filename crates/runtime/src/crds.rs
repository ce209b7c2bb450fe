//! Installing and upgrading our CRDs without stranding stored objects.
//!
//! ```text
//!  CRD in the cluster ─▶ every stored version still there? ─▶ apply ─▶ wait until established
//!                              └─ no: refused, nothing written
//! ```
//!
//! Invariant: a version in which objects are stored is never removed.

use std::{collections::BTreeSet, time::Duration};

use futures::StreamExt as _;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams},
    runtime::{WatchStreamExt as _, watcher::watch_object},
};

/// The field manager of CRDs.
pub const MANAGER: &str = "trellis-crds";

/// A CRD could not be installed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Objects are stored in a version that the new CRD does not have.
    #[error(
        "CRD {name} has objects stored in {}, which this release does not serve; migrate them with the last release \
         that has both versions",
        .missing.join(", ")
    )]
    StoredVersions {
        /// Name of the CRD.
        name: String,
        /// The versions that would be lost.
        missing: Vec<String>,
    },
    /// The API server refused or failed.
    #[error("{what} failed for CRD {name}")]
    Api {
        /// Name of the CRD.
        name: String,
        /// The step.
        what: &'static str,
        /// The client's error.
        #[source]
        source: Box<kube::Error>,
    },
    /// The API server did not establish the CRD in time.
    #[error("CRD {name} was not established within {} s; see its conditions: kubectl describe crd {name}", .after.as_secs())]
    NotEstablished {
        /// Name of the CRD.
        name: String,
        /// How long was waited.
        after: Duration,
    },
}

/// How long the API server may take to establish a CRD.
const ESTABLISH: Duration = Duration::from_mins(1);

/// Installs or upgrades these CRDs. Every one is checked before the first is written.
///
/// # Errors
/// [`Error`]; nothing is written when a stored version would be lost.
pub async fn install(client: &Client, crds: &[CustomResourceDefinition]) -> Result<(), Error> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let failed = |name: &str, what, source| Error::Api {
        name: name.to_owned(),
        what,
        source: Box::new(source),
    };
    for crd in crds {
        let name = crd.name_any();
        let living = api
            .get_opt(&name)
            .await
            .map_err(|error| failed(&name, "reading", error))?;
        if let Some(living) = living {
            check_stored(&living, crd)?;
        }
    }
    let params = PatchParams::apply(MANAGER).force();
    for crd in crds {
        let name = crd.name_any();
        api.patch(&name, &params, &Patch::Apply(crd))
            .await
            .map_err(|error| failed(&name, "applying", error))?;
        tracing::info!(crd = name, "applied");
    }
    for crd in crds {
        wait(&api, crd).await?;
    }
    Ok(())
}

async fn wait(api: &Api<CustomResourceDefinition>, crd: &CustomResourceDefinition) -> Result<(), Error> {
    let name = crd.name_any();
    let mut seen = Box::pin(watch_object(api.clone(), &name).default_backoff());
    let established = async {
        while let Some(living) = seen.next().await {
            let living = living.ok().flatten();
            if living.is_some_and(|living| offered(crd).is_subset(&served(&living))) {
                return;
            }
        }
    };
    tokio::time::timeout(ESTABLISH, established)
        .await
        .map_err(|_| Error::NotEstablished { name, after: ESTABLISH })
}

fn check_stored(living: &CustomResourceDefinition, new: &CustomResourceDefinition) -> Result<(), Error> {
    let kept: BTreeSet<&str> = new.spec.versions.iter().map(|version| version.name.as_str()).collect();
    let stored = living
        .status
        .iter()
        .flat_map(|status| status.stored_versions.iter().flatten());
    let missing: Vec<String> = stored
        .filter(|version| !kept.contains(version.as_str()))
        .cloned()
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Error::StoredVersions {
            name: new.name_any(),
            missing,
        })
    }
}

/// The versions that a definition wants to have served.
fn offered(crd: &CustomResourceDefinition) -> BTreeSet<String> {
    crd.spec
        .versions
        .iter()
        .filter(|version| version.served)
        .map(|version| version.name.clone())
        .collect()
}

/// The versions that are served: those that the definition offers, once it is established.
#[must_use]
pub fn served(crd: &CustomResourceDefinition) -> BTreeSet<String> {
    let mut conditions = crd.status.iter().flat_map(|status| status.conditions.iter().flatten());
    if conditions.any(|condition| condition.type_ == "Established" && condition.status == "True") {
        offered(crd)
    } else {
        BTreeSet::new()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn crd(versions: &[&str], stored: &[&str]) -> CustomResourceDefinition {
        let versions: Vec<_> = versions
            .iter()
            .map(|name| json!({ "name": name, "served": true, "storage": false }))
            .collect();
        serde_json::from_value(json!({
            "metadata": { "name": "widgets.example.com" },
            "spec": { "group": "example.com", "scope": "Namespaced", "versions": versions,
                      "names": { "plural": "widgets", "kind": "Widget" } },
            "status": { "storedVersions": stored, "acceptedNames": { "plural": "", "kind": "" },
                        "conditions": [{ "type": "Established", "status": "True" }] },
        }))
        .unwrap()
    }

    #[test]
    fn a_stored_version_is_never_removed() {
        assert!(check_stored(&crd(&["v1alpha1"], &["v1alpha1"]), &crd(&["v1alpha1", "v1beta1"], &[])).is_ok());
        let error = check_stored(&crd(&["v1alpha1"], &["v1alpha1"]), &crd(&["v1beta1"], &[])).unwrap_err();
        assert!(error.to_string().contains("stored in v1alpha1"), "{error}");
    }

    #[test]
    fn what_is_offered_is_served_once_it_is_established() {
        let mut crd = crd(&["v1alpha1"], &[]);
        assert!(served(&crd).contains("v1alpha1") && !served(&crd).contains("v1beta1"));
        crd.status = None;
        assert_eq!(served(&crd), BTreeSet::new());
    }
}
