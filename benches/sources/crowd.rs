//! `Crowd`: many sources, from their creation to Ready. The limit is a bare client that asks upstream once for each and
//! sends what the operator sends.

use std::time::Duration;

use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    runtime::wait::{await_condition, conditions::is_deleted},
};
use serde_json::json;
use trellis_api::ExternalSource;
use trellis_benches::{
    Error,
    figures::{Figure, median},
    replay::Replay,
    site::Site,
    throng,
};
use trellis_testkit::calls;

use crate::{
    operated::Operated,
    upstream::{Upstream, asked, bare},
};

/// How long the crowd may take before it counts as failed.
pub(crate) const PATIENCE: Duration = Duration::from_mins(5);
/// As many at once as the operator's rounds.
const AT_ONCE: usize = 64;
/// The names of what is recorded, and of its namespace; no part of anything else that is said.
const RECORDED: (&str, &str) = ("recorded-one", "recorded-here");

/// A namespace, and the sources to come.
pub(crate) struct Crowd {
    client: Client,
    namespace: String,
    size: usize,
    url: String,
}

/// From creation to Ready, with an upstream that answers at once and with one that takes its time.
pub(crate) async fn figures(site: &Site, upstream: &Upstream, size: usize, runs: usize) -> Result<Vec<Figure>, Error> {
    let replay = recorded(site, upstream).await?;
    eprintln!("for each source: {}", replay.said().join(", "));
    let mut figures = Vec::new();
    for (kind, name) in [("now", "upstream at once"), ("late", "upstream after 200 ms")] {
        let (mut ours, mut raw, mut requests) = (Vec::new(), Vec::new(), Vec::new());
        for run in 0..runs {
            let crowd = Crowd::new(site, &format!("raw-{kind}-{run}"), size, upstream.url(kind)).await?;
            raw.push(crowd.raw(site, &replay).await?.as_secs_f64());
            crowd.abandon().await?;
            let operated = Operated::start(site, false).await?;
            lead(site, upstream, &format!("first-{kind}-{run}")).await?;
            let crowd = Crowd::new(site, &format!("operator-{kind}-{run}"), size, upstream.url(kind)).await?;
            let before = upstream.counted().await?;
            ours.push(crowd.operated().await?.as_secs_f64());
            let after = upstream.counted().await?;
            requests.push(ratio(after.requests - before.requests, size));
            crowd.delete().await?;
            operated.end().await;
            eprintln!("{name}, run {run}: operator {ours:.2?} s, bare client {raw:.2?} s");
        }
        let title = format!("{size} sources to Ready, {name}, ÷ a bare client");
        let figure = Figure::new(title, median(&ours) / median(&raw), "").at_most(1.5);
        figures.push(figure.of("operator s", &ours).of("bare client s", &raw));
        let title = format!("requests to upstream for each source, {name}");
        figures.push(Figure::new(title, median(&requests), "").at_most(1.0));
    }
    Ok(figures)
}

#[expect(clippy::cast_precision_loss, reason = "nobody counts to 2^52")]
pub(crate) fn ratio(of: u64, to: usize) -> f64 {
    of as f64 / to as f64
}

/// Waits until the operator works.
pub(crate) async fn lead(site: &Site, upstream: &Upstream, namespace: &str) -> Result<(), Error> {
    let first = Crowd::new(site, namespace, 1, upstream.url("now")).await?;
    first.operated().await?;
    first.delete().await
}

/// What the operator writes for one source.
async fn recorded(site: &Site, upstream: &Upstream) -> Result<Replay, Error> {
    let (name, namespace) = RECORDED;
    site.namespace(namespace).await?;
    let (operated, proxy) = Operated::recorded(site).await?;
    let sources: Api<ExternalSource> = Api::namespaced(site.admin(), namespace);
    let began = proxy.recording().place();
    let made = sources
        .create(&PostParams::default(), &wanted(name, &upstream.url("now")))
        .await?;
    let ready = |found: Option<&ExternalSource>| found.is_some_and(is_ready);
    await_condition(sources.clone(), name, ready).await?;
    // The Event follows what it tells.
    proxy.recording().ended(&calls().resource("events"), 1).await;
    let writes = calls().writes().namespace(namespace);
    let mut said = proxy.recording().since(began);
    said.retain(|call| writes.matches(&call.info));
    let uid = made.uid().unwrap_or_default();
    let replay = Replay::of(&said).with(&[(&uid, "uid-of-source")]);
    sources.delete(name, &DeleteParams::default()).await?;
    await_condition(sources, name, is_deleted(&uid)).await?;
    operated.end().await;
    Ok(replay)
}

/// A source of a manifest, checked once a minute.
pub(crate) fn wanted(name: &str, origin: &str) -> ExternalSource {
    let http = json!({ "url": format!("{origin}/{name}.yaml") });
    let spec = json!({ "interval": "1m", "generator": { "type": "http", "http": http } });
    let spec = serde_json::from_value(spec).unwrap_or_default();
    ExternalSource::new(name, spec)
}

pub(crate) fn is_ready(source: &ExternalSource) -> bool {
    let conditions = source.status.iter().flat_map(|status| &status.common.conditions);
    let mut ready = conditions.filter(|condition| condition.type_ == "Ready" && condition.status == "True");
    ready.any(|ready| ready.observed_generation == source.metadata.generation)
}

/// Runs these, so many at once, each as a task of its own.
fn at_once<T: Send + 'static, F>(all: impl Stream<Item = F>) -> impl Stream<Item = Result<T, Error>>
where
    F: Future<Output = Result<T, Error>> + Send + 'static,
{
    let joined = all.map(|one| async { tokio::spawn(one).await? });
    joined.buffer_unordered(AT_ONCE)
}

impl Crowd {
    /// A namespace for so many sources of this upstream.
    pub(crate) async fn new(site: &Site, namespace: &str, size: usize, url: String) -> Result<Self, Error> {
        site.namespace(namespace).await?;
        Ok(Self {
            client: site.admin(),
            namespace: namespace.to_owned(),
            size,
            url,
        })
    }

    pub(crate) fn sources(&self) -> Api<ExternalSource> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Creates the sources.
    fn created(&self) -> impl Stream<Item = Result<ExternalSource, Error>> {
        at_once(stream::iter(0..self.size).map(|index| {
            let sources = self.sources();
            let source = wanted(&format!("source-{index}"), &self.url);
            async move { Ok(sources.create(&PostParams::default(), &source).await?) }
        }))
    }

    /// How long the operator takes for all.
    pub(crate) async fn operated(&self) -> Result<Duration, Error> {
        self.timed(self.created().try_for_each(|_| async { Ok(()) })).await
    }

    /// How long a bare client takes that asks upstream and sends the same for all.
    async fn raw(&self, site: &Site, replay: &Replay) -> Result<Duration, Error> {
        let (client, http) = (site.bare().await?, bare());
        let sent = self.created().map(|created| {
            let (client, http, replay) = (client.clone(), http.clone(), replay.clone());
            let (url, namespace) = (self.url.clone(), self.namespace.clone());
            async move {
                let created = created?;
                let (name, uid) = (created.name_any(), created.uid().unwrap_or_default());
                let words = [
                    (RECORDED.0, name.as_str()),
                    (RECORDED.1, namespace.as_str()),
                    ("uid-of-source", uid.as_str()),
                ];
                asked(&http, &format!("{url}/{name}.yaml"), None).await?;
                replay.with(&words).send(client).await
            }
        });
        self.timed(at_once(sent).try_for_each(|()| async { Ok(()) })).await
    }

    /// The time from the first creation until a watch has shown that all are Ready.
    async fn timed(&self, work: impl Future<Output = Result<(), Error>>) -> Result<Duration, Error> {
        throng::until_ready(self.sources(), self.size, is_ready, work, PATIENCE).await
    }

    /// Deletes everything; the operator lets the sources go.
    pub(crate) async fn delete(self) -> Result<(), Error> {
        throng::until_gone(&self.sources(), &self.client, &self.namespace, PATIENCE).await
    }

    /// The same without an operator.
    async fn abandon(self) -> Result<(), Error> {
        let freed = stream::iter(0..self.size).map(|index| {
            let sources = self.sources();
            async move {
                let free = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
                let name = format!("source-{index}");
                sources.patch_metadata(&name, &PatchParams::default(), &free).await?;
                Ok(())
            }
        });
        at_once(freed).try_for_each(|()| async { Ok(()) }).await?;
        self.delete().await
    }
}
