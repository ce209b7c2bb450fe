//! `Site`: a namespace, the operator that serves it as a process, its disk, an upstream.

use std::{fs, path::Path};

use kube::{
    Api,
    api::DynamicObject,
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use trellis_api::ExternalSource;
use trellis_bindings::flux::{Artifact, ExternalArtifact};
use trellis_testkit::{
    Proxy, Recording, Script,
    operator::{Launch, Operator},
    plane::{Credentials, Isolated},
};

use crate::{PLANE, upstream::Upstream};

/// One test's place.
pub(crate) struct Site {
    pub(crate) namespace: Isolated,
    pub(crate) upstream: Upstream,
    pub(crate) storage: TempDir,
    spool: TempDir,
    account: Credentials,
    /// Where every operator of the site serves its files, one after another.
    address: String,
    running: Option<(Operator, Proxy)>,
}

impl Site {
    /// With nothing running yet.
    pub(crate) async fn new(prefix: &str) -> Self {
        let plane = PLANE.get().await.unwrap();
        Self {
            namespace: plane.isolated(prefix).await.unwrap(),
            upstream: Upstream::start().await,
            storage: tempfile::tempdir().unwrap(),
            spool: tempfile::tempdir().unwrap(),
            account: trellis_tests::account(plane).await.unwrap(),
            address: format!("127.0.0.1:{}", trellis_devplane::free_port().unwrap()),
            running: None,
        }
    }

    /// An operator of this site.
    pub(crate) fn launch(&self, kubeconfig: &Path, identity: &str) -> Launch {
        trellis_tests::launch(kubeconfig, identity, &[self.namespace.name()])
            .controllers("external-source")
            .lease(trellis_tests::NAMESPACE, self.namespace.name())
            // A new process waits until the claim of the dead one has run out.
            .lease_duration("2s")
            .flag("storage-backend", "disk")
            .flag("storage-path", &self.storage.path().display().to_string())
            .flag("spool-path", &self.spool.path().display().to_string())
            .flag("storage-addr", &self.address)
            .flag("storage-adv-addr", &self.address)
            .flag("egress-allow-cidr", "127.0.0.0/8")
    }

    /// The way to the API server for a replica that needs none of its own.
    pub(crate) fn kubeconfig(&self) -> &Path {
        self.account.path()
    }

    /// Starts an operator behind a proxy with this script.
    pub(crate) async fn start(&mut self, script: &Script) {
        let proxy = self.namespace.plane().proxy(&self.account, script).await.unwrap();
        let launch = self.launch(proxy.kubeconfig(), self.namespace.name());
        self.running = Some((launch.start().await.unwrap(), proxy));
    }

    /// What the running operator asks the API server.
    pub(crate) fn recording(&self) -> Recording {
        self.running.as_ref().unwrap().1.recording().clone()
    }

    /// Kills the operator. First it, then its proxy: what it left in a socket must not pass late.
    pub(crate) async fn kill9(&mut self) {
        let (operator, proxy) = self.running.take().unwrap();
        operator.kill9().await;
        drop((operator, proxy));
    }

    /// Applies a source of the upstream's `app.yaml`, with this output.
    pub(crate) async fn source(&self, name: &str, output: Value) {
        self.namespace
            .apply(json!({
                "apiVersion": "source.flux.oddkin.co/v1alpha1", "kind": "ExternalSource", "metadata": { "name": name },
                "spec": {
                    "interval": "1h", "output": output,
                    "generator": { "type": "http", "http": { "url": self.upstream.url("app.yaml") } },
                },
            }))
            .await
            .unwrap();
    }

    /// Asks for a look at the source.
    pub(crate) async fn request(&self, name: &str, word: &str) {
        let annotation = trellis_api::external_source::REQUESTED_AT;
        let patch = json!({ "metadata": { "annotations": { annotation: word } } });
        self.namespace.merge::<ExternalSource>(name, patch).await.unwrap();
    }

    /// What is published of the source.
    pub(crate) async fn artifact(&self, name: &str) -> Option<Artifact> {
        let found: ExternalArtifact = self.namespace.get(name).await.ok()?;
        found.status?.artifact
    }

    /// Objects of the kustomize-controller.
    pub(crate) fn kustomizations(&self) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk("kustomize.toolkit.fluxcd.io", "v1", "Kustomization");
        let resource = ApiResource::from_gvk(&kind);
        Api::namespaced_with(self.namespace.client().clone(), self.namespace.name(), &resource)
    }

    /// Stored artifacts of a source, by the name of their files.
    pub(crate) fn stored(&self, name: &str) -> Vec<String> {
        let folder = format!("externalsource/{}/{name}", self.namespace.name());
        let Ok(found) = fs::read_dir(self.storage.path().join(folder)) else {
            return Vec::new();
        };
        let mut names: Vec<String> = found
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .filter(|name| name.ends_with(".tar.gz"))
            .collect();
        names.sort();
        names
    }
}
