//! `StandIn`: a stand-in for Linkerd's policy controller, which does not run here. It writes what the real one writes
//! into the status of routes, rate limits and EgressNetworks, by the facts about it, and nothing more.
//!
//! ```text
//!  Linkerd: Services, routes, Servers, limits, networks ─▶ something changed in a namespace
//!                                                                                  │
//!  StandIn: look at all of its namespaces ◀────────────────────────────────────────┘ ─▶ status of what differs
//! ```
//!
//! Switches: it speaks at once or late, says nothing (and takes back nothing), or says No to everything.

#[path = "stand_in/verdict.rs"]
mod verdict;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::{
    sync::{Notify, watch},
    time::sleep,
};
use tokio_util::task::AbortOnDropHandle;
use trellis_bindings::{
    gateway::{GrpcRoute, HttpRoute},
    linkerd::policy::{EgressNetwork, HttpLocalRateLimitPolicy, Server},
};

use self::verdict::{Seen, parents};

/// Its name, in the status of routes and as field manager.
pub(crate) const NAME: &str = "linkerd.io/policy-controller";

/// When anything was said.
const SINCE: &str = "2026-01-01T00:00:00Z";

/// What it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Says {
    /// What the real one would.
    TheTruth,
    /// The same, after this time.
    Late(Duration),
    /// Nothing: as if it did not run. What it said before stays.
    Nothing,
    /// No, with this reason, whatever the object.
    No(&'static str),
}

/// What changes, watched once for all who speak.
#[derive(Clone)]
pub(crate) struct Linkerd {
    client: Client,
    speakers: Speakers,
    _watch: Arc<AbortOnDropHandle<()>>,
}

/// By namespace: who speaks there.
type Speakers = Arc<Mutex<HashMap<String, Arc<Notify>>>>;

impl Linkerd {
    /// In these namespaces; in all, if none is named.
    pub(crate) fn watch(client: &Client, namespaces: &[&str]) -> Self {
        let speakers = Speakers::default();
        let places: Vec<Option<&str>> = match namespaces {
            [] => vec![None],
            namespaces => namespaces.iter().copied().map(Some).collect(),
        };
        let mut changes = stream::select_all(places.into_iter().flat_map(|place| {
            [
                changes::<Service>(client, place),
                changes::<HttpRoute>(client, place),
                changes::<GrpcRoute>(client, place),
                changes::<Server>(client, place),
                changes::<HttpLocalRateLimitPolicy>(client, place),
                changes::<EgressNetwork>(client, place),
            ]
        }));
        let woken = Arc::clone(&speakers);
        let watch = tokio::spawn(async move {
            while let Some(namespace) = changes.next().await {
                if let Some(speaker) = woken.lock().unwrap().get(&namespace) {
                    // Many changes at once are one reason to look.
                    speaker.notify_one();
                }
            }
        });
        Self {
            client: client.clone(),
            speakers,
            _watch: Arc::new(AbortOnDropHandle::new(watch)),
        }
    }

    /// Speaks in these namespaces, the truth at first.
    pub(crate) fn speak_in(&self, namespaces: &[&str]) -> StandIn {
        let namespaces: Vec<String> = namespaces.iter().map(|name| (*name).to_owned()).collect();
        let changed = Arc::new(Notify::new());
        let mut speakers = self.speakers.lock().unwrap();
        speakers.extend(namespaces.iter().map(|name| (name.clone(), Arc::clone(&changed))));
        drop(speakers);
        // What was there before is looked at too.
        changed.notify_one();
        let (says, mode) = watch::channel(Says::TheTruth);
        let speaking = tokio::spawn(speak(self.client.clone(), namespaces, changed, mode));
        StandIn {
            says,
            _linkerd: self.clone(),
            _speaking: AbortOnDropHandle::new(speaking),
        }
    }
}

/// A stand-in for Linkerd's policy controller in some namespaces, until dropped.
pub(crate) struct StandIn {
    says: watch::Sender<Says>,
    _linkerd: Linkerd,
    _speaking: AbortOnDropHandle<()>,
}

impl StandIn {
    pub(crate) fn says(&self, says: Says) {
        self.says.send_replace(says);
    }
}

async fn speak(client: Client, namespaces: Vec<String>, changed: Arc<Notify>, mut mode: watch::Receiver<Says>) {
    loop {
        let more = tokio::select! {
            () = changed.notified() => true,
            switched = mode.changed() => switched.is_ok(),
        };
        if !more {
            return;
        }
        let says = *mode.borrow_and_update();
        if let Says::Late(time) = says {
            sleep(time).await;
        }
        for namespace in &namespaces {
            // What changed meanwhile, or is not served, comes again with a later change.
            let voice = Voice {
                client: &client,
                says,
                mode: &mode,
            };
            let _ = look(&voice, namespace, &namespaces).await;
        }
    }
}

/// The namespaces, of this one or all, in which an object of the kind changed.
fn changes<K>(client: &Client, namespace: Option<&str>) -> stream::BoxStream<'static, String>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned
        + Send
        + 'static,
{
    let api: Api<K> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    watcher(api, watcher::Config::default())
        .default_backoff()
        .filter_map(async |event| match event {
            Ok(Event::InitApply(object) | Event::Apply(object) | Event::Delete(object)) => object.namespace(),
            Ok(Event::Init | Event::InitDone) | Err(_) => None,
        })
        .boxed()
}

/// A mode as it was when a look began.
struct Voice<'a> {
    client: &'a Client,
    says: Says,
    mode: &'a watch::Receiver<Says>,
}

async fn look(voice: &Voice<'_>, namespace: &str, all: &[String]) -> kube::Result<()> {
    let (client, says) = (voice.client, voice.says);
    if says == Says::Nothing {
        return Ok(());
    }
    let networks: Vec<EgressNetwork> = list(client, namespace).await.unwrap_or_default();
    for network in &networks {
        let verdict = condition("Accepted", no(says).unwrap_or(Ok("Accepted")), "");
        put(voice, network, json!({ "conditions": [verdict] })).await?;
    }
    limits(voice, namespace).await?;
    // Routes first: a Service that is older than its route is then seen.
    let http = list::<HttpRoute>(client, namespace).await?;
    let mut grpc = Vec::new();
    for namespace in all {
        grpc.extend(list::<GrpcRoute>(client, namespace).await?);
    }
    let mut services = Vec::new();
    for namespace in all {
        services.extend(list::<Service>(client, namespace).await?);
    }
    let taken: Vec<(String, Value)> = grpc.iter().flat_map(|route| parents(&json!(route))).collect();
    let place = Seen {
        services,
        networks,
        grpc: taken,
    };
    for route in http {
        put(voice, &route, place.verdicts(&json!(route), true, says)).await?;
    }
    for route in grpc
        .iter()
        .filter(|route| route.namespace().as_deref() == Some(namespace))
    {
        put(voice, route, place.verdicts(&json!(route), false, says)).await?;
    }
    Ok(())
}

/// Of several limits of a Server the oldest counts.
async fn limits(voice: &Voice<'_>, namespace: &str) -> kube::Result<()> {
    let (client, says) = (voice.client, voice.says);
    let servers: Vec<Server> = list(client, namespace).await.unwrap_or_default();
    let mut limits: Vec<HttpLocalRateLimitPolicy> = list(client, namespace).await.unwrap_or_default();
    limits.sort_by_key(|limit| (limit.creation_timestamp(), limit.name_any()));
    for (index, limit) in limits.iter().enumerate() {
        let server = &limit.spec.target_ref.name;
        let rivals = &limits[..index];
        let found = if !servers.iter().any(|known| known.name_any() == *server) {
            Err("NoMatchingTarget")
        } else if rivals.iter().any(|older| older.spec.target_ref.name == *server) {
            Err("RateLimitReasonAlreadyExists")
        } else {
            Ok("Accepted")
        };
        let verdict = condition("Accepted", no(says).unwrap_or(found), "");
        let about = json!({ "group": "policy.linkerd.io", "kind": "Server", "name": server });
        put(voice, limit, json!({ "conditions": [verdict], "targetRef": about })).await?;
    }
    Ok(())
}

fn no(says: Says) -> Option<Result<&'static str, &'static str>> {
    match says {
        Says::No(reason) => Some(Err(reason)),
        _ => None,
    }
}

/// As the real one writes it: without a generation, mostly without a message.
fn condition(type_: &str, reason: Result<&str, &str>, message: &str) -> Value {
    let status = if reason.is_ok() { "True" } else { "False" };
    let (Ok(reason) | Err(reason)) = reason;
    json!({
        "type": type_, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": SINCE,
    })
}

async fn list<K>(client: &Client, namespace: &str) -> kube::Result<Vec<K>>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    Ok(api.list(&ListParams::default()).await?.items)
}

/// Writes a status that differs, unless the mode has been switched since.
async fn put<K>(voice: &Voice<'_>, object: &K, status: Value) -> kube::Result<()>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + Serialize
        + DeserializeOwned,
{
    if *voice.mode.borrow() != voice.says || said(&json!(object)["status"]) == said(&status) {
        return Ok(());
    }
    let api: Api<K> = Api::namespaced(voice.client.clone(), &object.namespace().unwrap_or_default());
    let by = PatchParams {
        field_manager: Some(NAME.to_owned()),
        ..PatchParams::default()
    };
    api.patch_status(&object.name_any(), &by, &Patch::Merge(json!({ "status": status })))
        .await?;
    Ok(())
}

/// A status without times and empty messages, which types of ours do not keep.
fn said(status: &Value) -> Value {
    match status {
        Value::Object(fields) => fields
            .iter()
            .filter(|(key, value)| *key != "lastTransitionTime" && !value.is_null() && **value != "")
            .map(|(key, value)| (key.clone(), said(value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        Value::Array(items) => items.iter().map(said).collect(),
        Value::Null => json!({}),
        other => other.clone(),
    }
}
