//! `Chronicle`: every version of every Service, route, profile and policy of a plane, by namespace, as watches show them.
//!
//! watch ─▶ versions by namespace and name ─▶ `until` a condition over the latest │ laws over all of them
//!
//! Invariant: what it holds is what the API server stored; versions may be missing only where a watch fell
//! behind and everything was listed anew; what went meanwhile is noted as gone then.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::DynamicObject,
    core::{ApiResource, GroupVersionKind},
    runtime::watcher::{Config, Event, watcher},
};
use serde::de::DeserializeOwned;
use tokio::{sync::watch, task::JoinHandle};
use trellis_api::ResiliencePolicy;
use trellis_bindings::linkerd::ServiceProfile;

/// The versions of each object, oldest first; `None` stands for its absence.
pub(crate) type Versions<K> = BTreeMap<String, Vec<Option<K>>>;

/// What happened in one namespace.
#[derive(Clone, Default)]
pub(crate) struct Place {
    pub(crate) services: Versions<Service>,
    pub(crate) policies: Versions<ResiliencePolicy>,
    pub(crate) profiles: Versions<ServiceProfile>,
    /// Routes of both kinds as the API server stores them, as `HTTPRoute web`.
    pub(crate) routes: Versions<DynamicObject>,
    /// How many versions there were.
    count: u64,
}

/// What is in a namespace now.
#[derive(Clone, Default)]
pub(crate) struct Now {
    pub(crate) services: BTreeMap<String, Service>,
    pub(crate) policies: BTreeMap<String, ResiliencePolicy>,
    pub(crate) profiles: Vec<ServiceProfile>,
    pub(crate) routes: BTreeMap<String, DynamicObject>,
}

type Places = Arc<Mutex<BTreeMap<String, Place>>>;

/// Notes everything until dropped.
pub(crate) struct Chronicle {
    places: Places,
    changes: watch::Receiver<u64>,
    tasks: Vec<JoinHandle<()>>,
}

impl Chronicle {
    /// Returns once every kind has been listed.
    pub(crate) async fn start(client: &Client) -> Self {
        let places = Places::default();
        let (sender, changes) = watch::channel(0);
        let sender = Arc::new(sender);
        let mut tasks = Vec::new();
        let mut all_listed = Vec::new();
        let mut started = |(task, listed)| {
            tasks.push(task);
            all_listed.push(listed);
        };
        let note = (&places, &sender);
        started(follow(Api::all(client.clone()), "", note, |place| &mut place.services));
        started(follow(Api::all(client.clone()), "", note, |place| &mut place.policies));
        started(follow(Api::all(client.clone()), "", note, |place| &mut place.profiles));
        for kind in ["HTTPRoute ", "GRPCRoute "] {
            let routes = Api::all_with(client.clone(), &route(kind.trim_end()));
            started(follow(routes, kind, note, |place| &mut place.routes));
        }
        for listed in all_listed {
            listed.await.unwrap();
        }
        Self { places, changes, tasks }
    }

    /// Everything that happened in a namespace.
    pub(crate) fn place(&self, namespace: &str) -> Place {
        self.places.lock().unwrap().get(namespace).cloned().unwrap_or_default()
    }

    /// What is in a namespace now.
    pub(crate) fn now(&self, namespace: &str) -> Now {
        let places = self.places.lock().unwrap();
        places.get(namespace).map(Place::now).unwrap_or_default()
    }

    /// What is in some namespaces now.
    pub(crate) fn all(&self, namespaces: &[String]) -> Vec<Now> {
        namespaces.iter().map(|namespace| self.now(namespace)).collect()
    }

    /// Waits until `check` of what is in the namespace is `Ok`; else panics with its last answer.
    pub(crate) async fn until<T>(
        &self,
        namespace: &str,
        limit: Duration,
        mut check: impl FnMut(&Now) -> Result<T, String>,
    ) -> T {
        self.until_all(&[namespace.to_owned()], limit, |all| check(&all[0]))
            .await
    }

    /// The same for several namespaces together.
    pub(crate) async fn until_all<T>(
        &self,
        namespaces: &[String],
        limit: Duration,
        mut check: impl FnMut(&[Now]) -> Result<T, String>,
    ) -> T {
        let mut changes = self.changes.clone();
        let (mut last, mut seen) = (String::new(), None);
        let found = tokio::time::timeout(limit, async {
            loop {
                changes.borrow_and_update();
                let count = self.count(namespaces);
                // Most changes are of others.
                if seen.replace(count) != Some(count) {
                    match check(&self.all(namespaces)) {
                        Ok(found) => return found,
                        Err(state) => last = state,
                    }
                }
                changes.changed().await.unwrap();
            }
        })
        .await;
        found.unwrap_or_else(|_| panic!("{}: not within {limit:?}: {last}", namespaces.join(", ")))
    }

    fn count(&self, namespaces: &[String]) -> u64 {
        let places = self.places.lock().unwrap();
        let known = namespaces.iter().filter_map(|namespace| places.get(namespace));
        known.map(|place| place.count).sum()
    }
}

impl Drop for Chronicle {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Place {
    fn now(&self) -> Now {
        fn latest<K: Clone>(versions: &Versions<K>) -> BTreeMap<String, K> {
            let last = versions
                .iter()
                .filter_map(|(name, versions)| Some((name.clone(), versions.last()?.clone()?)));
            last.collect()
        }
        Now {
            services: latest(&self.services),
            policies: latest(&self.policies),
            profiles: latest(&self.profiles).into_values().collect(),
            routes: latest(&self.routes),
        }
    }
}

/// A kind of route of the Gateway API.
pub(crate) fn route(kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", kind))
}

fn follow<K>(
    api: Api<K>,
    prefix: &'static str,
    (places, changed): (&Places, &Arc<watch::Sender<u64>>),
    versions: fn(&mut Place) -> &mut Versions<K>,
) -> (JoinHandle<()>, tokio::sync::oneshot::Receiver<()>)
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let (listed, is_listed) = tokio::sync::oneshot::channel();
    let mut events = watcher(api, Config::default()).boxed();
    let (places, changed) = (Arc::clone(places), Arc::clone(changed));
    let task = tokio::spawn(async move {
        let mut listed = Some(listed);
        let mut still_there = None;
        while let Some(event) = events.next().await {
            let mut places_now = places.lock().unwrap();
            let mut note = |namespace: String, name: String, version: Option<K>| {
                let place = places_now.entry(namespace).or_default();
                place.count += 1;
                versions(place).entry(name).or_default().push(version);
            };
            match event {
                Ok(Event::Apply(object)) => note(place_of(&object), name_of(prefix, &object), Some(object)),
                Ok(Event::Delete(object)) => note(place_of(&object), name_of(prefix, &object), None),
                Ok(Event::Init) => {
                    if listed.is_none() {
                        eprintln!(
                            "the watch of {} fell behind; everything is listed anew",
                            std::any::type_name::<K>()
                        );
                    }
                    still_there = Some(BTreeSet::new());
                }
                Ok(Event::InitApply(object)) => {
                    let (namespace, name) = (place_of(&object), name_of(prefix, &object));
                    still_there
                        .get_or_insert_default()
                        .insert((namespace.clone(), name.clone()));
                    note(namespace, name, Some(object));
                }
                Ok(Event::InitDone) => {
                    let still_there = still_there.take().unwrap_or_default();
                    for (namespace, place) in places_now.iter_mut() {
                        let mut gone = 0;
                        for (name, versions) in versions(place) {
                            let ours = name.starts_with(prefix) && matches!(versions.last(), Some(Some(_)));
                            if ours && !still_there.contains(&(namespace.clone(), name.clone())) {
                                versions.push(None);
                                gone += 1;
                            }
                        }
                        place.count += gone;
                    }
                    listed.take().map(|listed| listed.send(()));
                }
                Err(_) => continue,
            }
            drop(places_now);
            changed.send_modify(|count| *count += 1);
        }
    });
    (task, is_listed)
}

fn place_of<K: Resource>(object: &K) -> String {
    object.namespace().unwrap_or_default()
}

fn name_of<K: Resource>(prefix: &str, object: &K) -> String {
    format!("{prefix}{}", object.name_any())
}
