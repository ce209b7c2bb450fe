//! `Site`: a namespace, the controller that serves it, its storage and file server, and an upstream.

use std::{net::SocketAddr, path::Path, sync::Arc};

use kube::{
    Api, ResourceExt as _,
    api::DynamicObject,
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use trellis_api::ExternalSource;
use trellis_bindings::flux::ExternalArtifact;
use trellis_fetch::{Client, Egress, Generators, Resolve, SystemResolver};
use trellis_operator::external_source::{ExternalSources, Settings};
use trellis_runtime::{controller, health::Readiness, metrics::Metrics};
use trellis_store::{Disk, Server, ServerSettings, Storage};
use trellis_testkit::{Disturb, Recording, Script, eventually, plane::Isolated};

use crate::{PLANE, flux, hooked::Hooked, upstream::Upstream};

/// Loopback is where the upstreams of these tests are.
pub(crate) struct Anywhere;

impl Egress for Anywhere {
    fn host(&self, _: &str, _: &str, _: u16) -> Result<(), trellis_fetch::Denied> {
        Ok(())
    }

    fn address(&self, _: &str, _: std::net::IpAddr) -> Result<(), trellis_fetch::Denied> {
        Ok(())
    }
}

/// How the controller of a site is set.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) egress: Arc<dyn Egress>,
    pub(crate) resolve: Arc<dyn Resolve>,
    pub(crate) fetch: trellis_fetch::Settings,
    /// None: the site's own folder.
    pub(crate) storage: Option<Arc<dyn Storage>>,
    pub(crate) change: fn(&mut Settings),
    /// Where news are told.
    pub(crate) events: Option<trellis_runtime::notify::Address>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            egress: Arc::new(Anywhere),
            resolve: Arc::new(SystemResolver),
            fetch: trellis_fetch::Settings::default(),
            storage: None,
            change: |_| (),
            events: None,
        }
    }
}

/// One test's place.
pub(crate) struct Site {
    pub(crate) namespace: Isolated,
    pub(crate) upstream: Upstream,
    pub(crate) recording: Recording,
    pub(crate) metrics: Metrics,
    pub(crate) storage: TempDir,
    spool: TempDir,
    hooked: Option<Hooked>,
    process: Option<Process>,
}

/// The controller and its file server.
struct Process {
    stop: CancellationToken,
    running: JoinHandle<()>,
    serving: JoinHandle<()>,
    _lead: watch::Sender<bool>,
}

impl Site {
    /// With the controller at work, and Flux.
    pub(crate) async fn new(prefix: &str) -> Self {
        Self::with(prefix, Setup::default()).await
    }

    /// The same with the controller set otherwise.
    pub(crate) async fn with(prefix: &str, setup: Setup) -> Self {
        Self::raised(prefix, setup, None).await
    }

    /// And with a sidecar that has this whitelist.
    pub(crate) async fn hooked(prefix: &str, rules: &str) -> Self {
        Self::raised(prefix, Setup::default(), Some(Hooked::start(rules))).await
    }

    async fn raised(prefix: &str, setup: Setup, hooked: Option<Hooked>) -> Self {
        flux().await;
        let mut site = Self {
            namespace: PLANE.get().await.unwrap().isolated(prefix).await.unwrap(),
            upstream: Upstream::start().await,
            recording: Recording::new(),
            metrics: Metrics::default(),
            storage: tempfile::tempdir().unwrap(),
            spool: tempfile::tempdir().unwrap(),
            hooked,
            process: None,
        };
        site.launch(setup).await;
        site
    }

    /// Starts the controller with this policy.
    pub(crate) async fn start(&mut self, egress: Arc<dyn Egress>) {
        let setup = Setup::default();
        self.launch(Setup { egress, ..setup }).await;
    }

    /// Starts the controller.
    pub(crate) async fn launch(&mut self, setup: Setup) {
        let stop = CancellationToken::new();
        let storage: Arc<dyn Storage> = match setup.storage {
            Some(storage) => storage,
            None => Arc::new(Disk::open(self.storage.path()).await.unwrap()),
        };
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = Server::new(Arc::clone(&storage), ServerSettings::new(loopback));
        let mut address = server.serving();
        let (lead, leading) = watch::channel(true);
        let until = stop.clone();
        let serving = tokio::spawn(async move { server.run(leading, until).await.unwrap() });
        let address = address.wait_for(Option::is_some).await.unwrap().unwrap();

        let client = Client::with_resolver(setup.fetch, setup.egress, setup.resolve);
        let mut settings = Settings::new(format!("http://{address}"), self.spool.path());
        settings.hooks = self.hooked.as_ref().map(Hooked::settings);
        settings.events = setup.events;
        (setup.change)(&mut settings);
        let sources = ExternalSources::new(settings, Generators::standard(&client), storage);
        let context = controller::Context {
            client: Disturb::new(&Script::new(), &self.recording)
                .client(self.namespace.plane().config())
                .unwrap(),
            namespaces: vec![self.namespace.name().to_owned()],
            identity: "test".to_owned(),
            metrics: self.metrics.clone(),
            readiness: Readiness::awaiting(1),
        };
        let running = tokio::spawn(controller::run(sources, context, stop.clone()));
        self.process = Some(Process {
            stop,
            running,
            serving,
            _lead: lead,
        });
    }

    /// The sidecar.
    pub(crate) fn sidecar(&mut self) -> &mut Hooked {
        self.hooked.as_mut().unwrap()
    }

    /// Ends the controller and its file server.
    pub(crate) async fn stop(&mut self) {
        let process = self.process.take().unwrap();
        process.stop.cancel();
        process.running.await.unwrap();
        process.serving.await.unwrap();
    }

    /// A source of the upstream's `path` with more in its spec.
    pub(crate) async fn source(&self, name: &str, path: &str, more: Value) {
        let mut spec = json!({
            "interval": "1h", "generator": { "type": "http", "http": { "url": self.upstream.url(path) } },
        });
        if let (Some(spec), Value::Object(more)) = (spec.as_object_mut(), more) {
            spec.extend(more);
        }
        let manifest = json!({
            "apiVersion": "source.flux.oddkin.co/v1alpha1", "kind": "ExternalSource",
            "metadata": { "name": name }, "spec": spec,
        });
        self.namespace.apply(manifest).await.unwrap();
    }

    /// Asks for a reconcile, as `flux reconcile` does.
    pub(crate) async fn request(&self, name: &str, word: &str) {
        let patch = json!({ "metadata": { "annotations": { trellis_api::external_source::REQUESTED_AT: word } } });
        self.namespace.merge::<ExternalSource>(name, patch).await.unwrap();
    }

    /// Waits until the source has handled this request.
    pub(crate) async fn handled(&self, name: &str, word: &str) -> ExternalSource {
        let handled = |source: &ExternalSource| {
            let status = source.status.as_ref();
            status.is_some_and(|status| status.common.last_handled_reconcile_at.as_deref() == Some(word))
        };
        self.namespace.until(name, &format!("handled {word}"), handled).await
    }

    /// Waits until `Ready` of the current generation has this state and reason.
    pub(crate) async fn ready(&self, name: &str, state: &str, reason: &str) -> ExternalSource {
        let is = |source: &ExternalSource| {
            let (found, why, _) = said(source, "Ready");
            let conditions = source.status.iter().flat_map(|status| &status.common.conditions);
            let current = conditions.into_iter().any(|condition| {
                condition.type_ == "Ready" && condition.observed_generation == source.metadata.generation
            });
            current && found == state && why == reason
        };
        self.namespace
            .until(name, &format!("Ready={state} ({reason})"), is)
            .await
    }

    /// Waits until an artifact is published whose revision is another one than this.
    pub(crate) async fn published(&self, name: &str, other_than: &str) -> trellis_bindings::flux::Artifact {
        let is = |artifact: &ExternalArtifact| {
            let status = artifact.status.as_ref().and_then(|status| status.artifact.as_ref());
            status.is_some_and(|artifact| artifact.revision != other_than)
        };
        let found: ExternalArtifact = self.namespace.until(name, "published", is).await;
        found.status.unwrap().artifact.unwrap()
    }

    /// Stored files, by name.
    pub(crate) fn stored(&self, name: &str) -> Vec<String> {
        let folder = format!("externalsource/{}/{name}", self.namespace.name());
        let folder = self.storage.path().join(Path::new(&folder));
        let Ok(found) = std::fs::read_dir(folder) else {
            return Vec::new();
        };
        let mut names: Vec<String> = found
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .filter(|name| name.ends_with(".tar.gz"))
            .collect();
        names.sort();
        names
    }

    /// An object of Flux.
    pub(crate) fn flux(&self, group: &str, version: &str, kind: &str) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk(&format!("{group}.toolkit.fluxcd.io"), version, kind);
        let resource = ApiResource::from_gvk(&kind);
        Api::namespaced_with(self.namespace.client().clone(), self.namespace.name(), &resource)
    }

    /// Looks until an object of Flux is Ready, and says where.
    pub(crate) async fn consumed(&self, api: &Api<DynamicObject>, name: &str, at: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("{name} consumes the artifact"), async || {
            let object = api.get(name).await.map_err(|error| error.to_string())?;
            let status = object.data.get("status").cloned().unwrap_or_default();
            let ready = status["conditions"].as_array().into_iter().flatten();
            let ready = ready
                .into_iter()
                .any(|one| one["type"] == "Ready" && one["status"] == "True");
            if ready && at(&status) {
                Ok(status)
            } else {
                Err(status.to_string())
            }
        })
        .await
    }

    /// Deletes an object of Flux, and waits until it is gone.
    pub(crate) async fn finish(&self, api: &Api<DynamicObject>, name: &str) {
        api.delete(name, &kube::api::DeleteParams::default()).await.unwrap();
        eventually(&format!("{name} is gone"), async || match api.get_opt(name).await {
            Ok(None) => Ok(()),
            Ok(Some(object)) => Err(format!("finalizers {:?}", object.finalizers())),
            Err(error) => Err(error.to_string()),
        })
        .await;
    }
}

/// State, reason and message of a condition.
pub(crate) fn said(source: &ExternalSource, type_: &str) -> (String, String, String) {
    let conditions = source.status.iter().flat_map(|status| &status.common.conditions);
    let found = conditions.into_iter().find(|condition| condition.type_ == type_);
    found.map_or_else(Default::default, |condition| {
        (
            condition.status.clone(),
            condition.reason.clone(),
            condition.message.clone(),
        )
    })
}
