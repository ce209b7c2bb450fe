//! Upstreams that are wrong, broken or mean: what the user is told, and that nothing else changes.
//!
//! ```text
//!  good ─▶ Ready ─▶ hostile ─▶ Ready=False: reason, message ─▶ the last artifact is still served ─▶ good ─▶ Ready
//! ```
//!
//! Invariant of every case: no secret of a request is in what is told, written or logged ([`logs`]).

#[path = "hostile/answers.rs"]
mod answers;
#[path = "hostile/egress.rs"]
mod egress;
#[path = "hostile/logs.rs"]
mod logs;
#[path = "hostile/names.rs"]
mod names;
#[path = "hostile/payload.rs"]
mod payload;
#[path = "hostile/tls.rs"]
mod tls;

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use futures::{FutureExt as _, future::join_all};
use k8s_openapi::api::core::v1::Event;
use kube::api::ListParams;
use serde_json::{Value, json};
use trellis_api::ExternalSource;
use trellis_bindings::flux::ExternalArtifact;
use trellis_fetch::{Resolve, SystemResolver};
use trellis_operator::external_source::Policy;
use trellis_sources::egress::EgressPolicy;

use crate::{
    archive::{config_map, sha256},
    site::{Setup, Site, said},
    taken::download,
    wire::{Act, Wire, answers},
};

/// Part of every secret; nobody else says it.
const SECRET: &str = "geheim";
/// The host that the operator trusts.
const HOST: &str = "upstream.test";
/// Bytes that a source of these tests may have.
const MOST: u64 = 64 * 1024;

/// Resolves names of `.test` to the machine itself.
pub(crate) struct Names;

#[async_trait]
impl Resolve for Names {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        if host.rsplit_once('.').is_some_and(|(_, last)| last == "test") {
            return Ok(vec![Ipv4Addr::LOCALHOST.into()]);
        }
        SystemResolver.resolve(host).await
    }
}

/// A controller whose egress policy trusts [`HOST`] and is the default one for all else; limits are short.
async fn site(prefix: &str) -> Site {
    logs::keep();
    let policy = EgressPolicy {
        trust_hosts: vec![HOST.parse().unwrap()],
        ..EgressPolicy::default()
    };
    let fetch = trellis_fetch::Settings {
        idle_timeout: Duration::from_secs(2),
        header_timeout: Duration::from_secs(4),
        ..trellis_fetch::Settings::default()
    };
    let setup = Setup {
        egress: Arc::new(Policy(policy)),
        resolve: Arc::new(Names),
        fetch,
        ..Setup::default()
    };
    let site = Site::with(prefix, setup).await;
    let headers = json!({ "Authorization": format!("Bearer {SECRET}-header") });
    secret(&site, "headers", headers).await;
    site
}

async fn secret(site: &Site, name: &str, data: Value) {
    let manifest = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": data });
    site.namespace.apply(manifest).await.unwrap();
}

/// What follows a failure.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    /// It is tried again soon.
    Again,
    /// It is asked again at the interval.
    Interval,
    /// The user has to change something.
    Change,
}

/// One upstream that turns bad.
struct Case {
    name: &'static str,
    scheme: &'static str,
    /// Path and query.
    path: String,
    /// More in the spec of the source, and in its `generator.http`.
    spec: Value,
    http: Value,
    /// What it does while it is good: the first time, and after it was bad.
    good: [Act; 2],
    bad: Act,
    reason: &'static str,
    /// The message; `URL` is what was asked, without its query. A `…` at its end stands for words of a library.
    says: String,
    then: Then,
}

impl Case {
    fn new(name: &'static str, bad: Act, reason: &'static str, says: impl Into<String>, then: Then) -> Self {
        let good = |number: &str| yaml(number, &config_map("one", "number", number));
        Self {
            name,
            scheme: "http",
            path: format!("app.yaml?token={SECRET}-query"),
            spec: json!({}),
            http: json!({}),
            good: [good("1"), good("2")],
            bad,
            reason,
            says: says.into(),
            then,
        }
    }

    /// The whole story of one source.
    async fn prove(self, site: &Site) {
        let (name, wire) = (self.name, Wire::start(Arc::clone(&self.good[0])).await);
        let origin = format!("{}://{HOST}:{}", self.scheme, wire.port());
        let url = format!("{origin}/{}", self.path);
        let mut http = json!({ "url": url, "headersSecretRef": { "name": "headers" }, "maxBytes": MOST });
        merge(&mut http, self.http);
        let mut spec = json!({ "generator": { "type": "http", "http": http } });
        merge(&mut spec, self.spec);
        site.source(name, "", spec).await;
        site.ready(name, "True", "Succeeded").await;
        let first = site.published(name, "").await;

        wire.does(self.bad);
        site.request(name, "hostile").await;
        let failed = site.ready(name, "False", self.reason).await;
        let status = failed.status.as_ref().unwrap();
        let next = || status.next_retry_time.as_ref().unwrap().0;
        let then = match self.then {
            Then::Again => format!("tried again at {}", next()),
            Then::Interval => "asked again at the interval, and when the spec or a Secret changes".to_owned(),
            Then::Change => "nothing is tried until the spec, or an object that it names, changes".to_owned(),
        };
        let shown = url.split('?').next().unwrap();
        let says = self.says.replace("URL", shown).replace("ORIGIN", &origin);
        let served = format!(
            "; {then}; revision {} of {} is still served",
            first.revision, first.last_update_time.0
        );
        let (_, _, message) = said(&failed, "Ready");
        match says.strip_suffix('…') {
            Some(says) => assert!(
                message.starts_with(says) && message.ends_with(&served),
                "{name}: {message}"
            ),
            None => assert_eq!(message, says + &served, "{name}"),
        }
        let stalled = if self.then == Then::Change { "True" } else { "" };
        assert_eq!(said(&failed, "Stalled").0, stalled, "{name}");
        let warned =
            |event: &Event| event.type_.as_deref() == Some("Warning") && event.reason.as_deref() == Some(self.reason);
        trellis_testkit::eventually(&format!("{name}: the Event"), async || {
            let told = events(site, name).await.iter().any(warned);
            told.then_some(()).ok_or("there is none")
        })
        .await;

        assert_eq!(status.artifact.as_ref().unwrap().revision, first.revision, "{name}");
        let published: ExternalArtifact = site.namespace.get(name).await.unwrap();
        let published = published.status.unwrap();
        assert_eq!(published.artifact.as_ref(), Some(&first), "{name}");
        assert_eq!(published.conditions[0].status, "True", "{name}");
        let served = download(&first.url).await;
        assert_eq!(first.digest, format!("sha256:{}", sha256(&served)), "{name}");

        wire.does(Arc::clone(&self.good[1]));
        if self.then != Then::Again {
            site.request(name, "again").await;
        }
        site.published(name, &first.revision).await;
        site.ready(name, "True", "Succeeded").await;
        assert!(wire.accepted() >= 3, "{name}");
    }
}

/// A whole answer with a manifest.
fn yaml(etag: &str, body: &str) -> Act {
    let headers = format!("content-type: application/yaml\r\netag: \"{etag}\"\r\n");
    answers("200 OK", &headers, body.as_bytes())
}

fn merge(into: &mut Value, more: Value) {
    if let (Some(into), Value::Object(more)) = (into.as_object_mut(), more) {
        into.extend(more);
    }
}

/// All at the same time, and what nobody may have learned.
async fn prove(site: &Site, cases: Vec<Case>) {
    let proven = cases.into_iter().map(|case| async {
        let name = case.name;
        let proven = AssertUnwindSafe(case.prove(site)).catch_unwind().await;
        proven.is_err().then_some(name)
    });
    let wrong: Vec<_> = join_all(proven).await.into_iter().flatten().collect();
    assert_eq!(wrong, [""; 0], "what is wrong stands above");
    keeps_secrets(site).await;
}

async fn events(site: &Site, about: &str) -> Vec<Event> {
    let all = site
        .namespace
        .api::<Event>()
        .list(&ListParams::default())
        .await
        .unwrap();
    let mut events = all.items;
    events.retain(|event| event.involved_object.name.as_deref() == Some(about));
    events
}

/// No secret is in a status, an artifact, an Event, a request to the API server or a line of a log.
async fn keeps_secrets(site: &Site) {
    let list = ListParams::default();
    let sources = site.namespace.api::<ExternalSource>().list(&list).await.unwrap();
    let statuses: Vec<_> = sources.items.into_iter().map(|source| source.status).collect();
    let artifacts = site.namespace.api::<ExternalArtifact>().list(&list).await.unwrap();
    let events = site.namespace.api::<Event>().list(&list).await.unwrap();
    assert!(!statuses.is_empty() && !events.items.is_empty());
    for told in [json!(statuses), json!(artifacts.items), json!(events.items)] {
        assert!(!told.to_string().contains(SECRET), "{told:#}");
    }
    for call in site.recording.calls() {
        let body = String::from_utf8_lossy(&call.body);
        assert!(!body.contains(SECRET) && !call.sent.1.contains(SECRET), "{body}");
    }
    let (lines, leaks) = logs::seen();
    assert!(lines > 0);
    assert_eq!(leaks, [""; 0]);
}
