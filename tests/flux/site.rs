//! `Site`: a namespace, a server of files, and artifacts by hand.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, ResourceExt as _,
    api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams},
};
use serde_json::{Value, json};
use trellis_devplane::peers::flux::Flux;
use trellis_testkit::{eventually, plane::Isolated};

use crate::{PLANE, archive::sha256, files::Files, flux};

/// The kinds that stories look at: group, version, kind, plural.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Artifact,
    Bucket,
    Kustomization,
    Release,
}

impl Kind {
    fn resource(self) -> ApiResource {
        let (group, version, kind, plural) = match self {
            Self::Artifact => ("source", "v1", "ExternalArtifact", "externalartifacts"),
            Self::Bucket => ("source", "v1", "Bucket", "buckets"),
            Self::Kustomization => ("kustomize", "v1", "Kustomization", "kustomizations"),
            Self::Release => ("helm", "v2", "HelmRelease", "helmreleases"),
        };
        let kind = GroupVersionKind::gvk(&format!("{group}.toolkit.fluxcd.io"), version, kind);
        ApiResource::from_gvk_with_plural(&kind, plural)
    }
}

/// An artifact as it is published.
pub(crate) struct Artifact<'a> {
    /// Path on the server, also in the status.
    pub(crate) path: &'a str,
    pub(crate) revision: String,
    /// With its algorithm.
    pub(crate) digest: String,
    pub(crate) size: usize,
}

/// One test's place.
pub(crate) struct Site {
    pub(crate) namespace: Isolated,
    pub(crate) files: Files,
    flux: &'static Flux,
}

impl Site {
    pub(crate) async fn new(prefix: &str) -> Self {
        let flux = flux().await;
        Self {
            namespace: PLANE.get().await.unwrap().isolated(prefix).await.unwrap(),
            files: Files::start().await,
            flux,
        }
    }

    pub(crate) fn api(&self, kind: Kind) -> Api<DynamicObject> {
        Api::namespaced_with(self.namespace.client().clone(), self.namespace.name(), &kind.resource())
    }

    /// An `ExternalArtifact` without an artifact.
    pub(crate) async fn artifact(&self, name: &str) {
        let source = json!({ "apiVersion": "example.com/v1", "kind": "Hand", "name": name });
        let manifest = json!({
            "apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "ExternalArtifact",
            "metadata": { "name": name }, "spec": { "sourceRef": source },
        });
        self.namespace.apply(manifest).await.unwrap();
    }

    /// Serves bytes and describes them truthfully; the revision is `latest@sha256:…`.
    pub(crate) fn serve<'a>(&self, path: &'a str, bytes: Vec<u8>) -> Artifact<'a> {
        let digest = format!("sha256:{}", sha256(&bytes));
        let artifact = Artifact {
            path,
            revision: format!("latest@{digest}"),
            digest,
            size: bytes.len(),
        };
        self.files.put(path, bytes);
        artifact
    }

    /// Writes the artifact into the status, with no condition at all; `None` clears it.
    pub(crate) async fn publish(&self, name: &str, artifact: Option<&Artifact<'_>>) {
        let artifact = artifact.map(|artifact| {
            json!({
                "url": self.files.url(artifact.path), "path": artifact.path, "revision": artifact.revision,
                "digest": artifact.digest, "size": artifact.size, "lastUpdateTime": "2026-01-01T00:00:00Z",
            })
        });
        let status = json!({ "status": { "artifact": artifact } });
        let artifacts = self.api(Kind::Artifact);
        artifacts
            .patch_status(name, &PatchParams::default(), &Patch::Merge(status))
            .await
            .unwrap();
    }

    /// A Kustomization of the `ExternalArtifact` of the same name. It looks again by itself only after an hour; after a
    /// failure after five seconds.
    pub(crate) async fn kustomization(&self, name: &str, more: Value) {
        let mut spec = json!({
            "interval": "1h", "retryInterval": "5s", "path": "./", "prune": true,
            "targetNamespace": self.namespace.name(),
            "sourceRef": { "kind": "ExternalArtifact", "name": name },
        });
        merge(&mut spec, more);
        let manifest = json!({
            "apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization",
            "metadata": { "name": name }, "spec": spec,
        });
        self.namespace.apply(manifest).await.unwrap();
    }

    /// A `HelmRelease` of the chart in the `ExternalArtifact` of the same name.
    pub(crate) async fn release(&self, name: &str) {
        let manifest = json!({
            "apiVersion": "helm.toolkit.fluxcd.io/v2", "kind": "HelmRelease",
            "metadata": { "name": name },
            "spec": { "interval": "1h", "chartRef": { "kind": "ExternalArtifact", "name": name } },
        });
        self.namespace.apply(manifest).await.unwrap();
    }

    /// Looks until the status is as wanted, and returns it.
    pub(crate) async fn status(&self, kind: Kind, name: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let api = self.api(kind);
        eventually(&format!("{kind:?} {name}: {what}"), async || {
            let object = api.get(name).await.map_err(|error| error.to_string())?;
            let status = object.data.get("status").cloned().unwrap_or_default();
            if wanted(&status) {
                Ok(status)
            } else {
                Err(status.to_string())
            }
        })
        .await
    }

    /// Looks until it is Ready at a revision. helm-controller says Ready before it is done with what it reports.
    pub(crate) async fn ready_at(&self, kind: Kind, name: &str, revision: &str) -> Value {
        let at = |status: &Value| match kind {
            Kind::Kustomization => status["lastAppliedRevision"] == revision,
            Kind::Release => status["lastAttemptedRevisionDigest"] == revision,
            Kind::Artifact | Kind::Bucket => status["artifact"]["revision"] == revision,
        };
        let done = |status: &Value| condition(status, "Reconciling").0 != "True";
        let ready = |status: &Value| at(status) && done(status) && condition(status, "Ready").0 == "True";
        self.status(kind, name, &format!("Ready at {revision}"), ready).await
    }

    /// The data of a `ConfigMap`, looked for until `wanted`.
    pub(crate) async fn data(&self, name: &str, key: &str, value: &str) {
        let has = |map: &ConfigMap| {
            map.data
                .as_ref()
                .and_then(|data| data.get(key))
                .is_some_and(|v| v == value)
        };
        self.namespace.until(name, &format!("has {key}={value}"), has).await;
    }

    /// Deletes a consumer and waits until it is gone, while what it consumes is still there.
    pub(crate) async fn finish(&self, kind: Kind, name: &str) {
        let api = self.api(kind);
        api.delete(name, &kube::api::DeleteParams::default()).await.unwrap();
        eventually(&format!("{kind:?} {name} is gone"), async || {
            match api.get_opt(name).await {
                Ok(None) => Ok(()),
                Ok(Some(object)) => Err(format!("finalizers {:?}", object.finalizers())),
                Err(error) => Err(error.to_string()),
            }
        })
        .await;
    }
}

impl Drop for Site {
    /// What the controllers said last, for a test that fails.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.flux.keep_logs();
            eprintln!("{}", self.flux.tail());
        }
    }
}

/// Status, reason and message of a condition; empty when there is none.
pub(crate) fn condition(status: &Value, kind: &str) -> (String, String, String) {
    let all = status["conditions"].as_array().into_iter().flatten();
    let found = all.into_iter().find(|condition| condition["type"] == kind);
    let text = |key: &str| {
        found
            .and_then(|found| found[key].as_str())
            .unwrap_or_default()
            .to_owned()
    };
    (text("status"), text("reason"), text("message"))
}

fn merge(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        into.extend(more);
    }
}
