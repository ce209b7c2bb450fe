//! Runs one controller: its watches, its queue, its reconciles.
//!
//! ```text
//!  own objects ──▶ store ─┐
//!  other kinds ─▶ index ──┼─▶ queue (one per namespace served) ─▶ driver, at most N at once
//!  outside ─▶ everything ─┘
//! ```
//!
//! Invariants: nothing is reconciled before the controller's own kind is listed there, nor before every watch has its
//! first list or had time enough for it; a stop lets reconciles that run finish.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{
    FutureExt as _, StreamExt as _,
    channel::mpsc,
    future::{join_all, select_all},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Client, Resource,
    core::DeserializeGuard,
    runtime::{
        Config, applier,
        controller::Action,
        reflector::{ObjectRef, Store, store::Writer},
    },
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use trellis_api::Managed as _;

use crate::{
    Kinds, Reconcile, Reference, World,
    apply::OWNER_ANNOTATION,
    driver::{Driver, Own, Running},
    events::Events,
    health::Readiness,
    index::{Index, Key},
    metrics::{Census, Metrics},
    peers::Peers,
    retries::Retries,
    shelf::{self, Change, Heard},
};

/// How long the first lists may take before what is listed is served. A namespace without access, or a kind that
/// cannot be listed, must not stop the others.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long reconciles that run may take to finish after a stop.
const DRAIN: Duration = Duration::from_secs(20);

/// What every controller of a process shares.
#[derive(Clone)]
pub struct Context {
    /// The fenced client.
    pub client: Client,
    /// Namespaces that are served; empty: all.
    pub namespaces: Vec<String>,
    /// Name of this replica.
    pub identity: String,
    /// Where metrics are kept.
    pub metrics: Metrics,
    /// Told when every watch has its first list.
    pub readiness: Readiness,
}

type Guarded<C> = DeserializeGuard<<C as Reconcile>::Object>;
type Queue<C> = mpsc::UnboundedSender<ObjectRef<Guarded<C>>>;

/// The queues, by the namespace that they serve.
struct Wake<C: Reconcile> {
    queues: HashMap<Option<String>, Queue<C>>,
    index: Mutex<Index>,
    retries: Arc<Retries>,
    running: Arc<Running>,
    /// Before the first lists are complete nothing is queued: everything is looked at then anyway.
    started: AtomicBool,
}

impl<C: Reconcile> Wake<C> {
    fn wake(&self, key: &Key) {
        if !self.started.load(Ordering::SeqCst) {
            return;
        }
        let queue = self.queues.get(&None).or_else(|| self.queues.get(&key.namespace));
        // A closed queue belongs to a controller that stops.
        if let Some(queue) = queue {
            let _ = queue.unbounded_send(object_ref(key));
        }
    }

    /// Another object changed: whoever refers to it, or owns it, looks again.
    fn changed(&self, reference: &Reference, change: Change<&ObjectMeta>) {
        let mut keys: Vec<Key> = {
            let index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
            index.referrers(reference).into_iter().cloned().collect()
        };
        for key in &keys {
            self.running.disturb(key);
        }
        let annotations = change.last().and_then(|meta| meta.annotations.as_ref());
        keys.extend(
            annotations
                .and_then(|map| map.get(OWNER_ANNOTATION))
                .map(|path| match path.split_once('/') {
                    Some((namespace, name)) => Key {
                        namespace: Some(namespace.into()),
                        name: name.into(),
                    },
                    None => Key {
                        namespace: None,
                        name: path.clone(),
                    },
                }),
        );
        for key in &keys {
            self.retries.hurry(key);
            self.wake(key);
        }
    }

    /// An object of the controller's own kind appeared, changed or went.
    fn own_changed(&self, driver: &Driver<C>, peers: &Peers<C::Object>, key: &Key, object: Option<&Guarded<C>>) {
        {
            let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
            let changed = match object.map(|object| &object.0) {
                Some(Ok(object)) => index.set(key, concerns(driver, object)),
                Some(Err(_)) | None => index.forget(key),
            };
            // Under the lock, so that watches by name start and end in the order in which the index changes.
            driver.world.follow(&changed);
        }
        self.running.disturb(key);
        match object {
            Some(_) => self.wake(key),
            None => driver.forget(key),
        }
        let readable = object.and_then(|object| object.0.as_ref().ok());
        let contended = readable.map(|object| (object, driver.controller.contends(object)));
        for other in peers.changed(key, contended) {
            self.retries.hurry(&other);
            self.wake(&other);
        }
    }
}

/// What the object refers to, and what was written for it: even when it is not referred to any more, and whatever marks
/// it has lost.
fn concerns<C: Reconcile>(driver: &Driver<C>, object: &C::Object) -> Vec<Reference> {
    let mut references = driver.controller.refers(object);
    let inventory = object.status().map(|status| &C::Object::common(status).inventory);
    for entry in inventory.into_iter().flatten() {
        let resource = driver.world.resource(&entry.api_version, &entry.kind);
        let reference = resource.map(|resource| Reference::new(&resource, entry.namespace.as_deref(), &entry.name));
        references.extend(reference);
    }
    references
}

fn object_ref<C: Resource<DynamicType = ()>>(key: &Key) -> ObjectRef<C> {
    let object = ObjectRef::new(&key.name);
    match &key.namespace {
        Some(namespace) => object.within(namespace),
        None => object,
    }
}

/// Most acts of one namespace. Where each has its own queue, none can take places of another.
fn acts_of_one<C: Reconcile>(namespaces: &[String]) -> Option<usize> {
    let half = usize::from(C::CONCURRENCY / 2).max(1);
    namespaces.is_empty().then_some(half)
}

/// Runs `controller` until `stop`, then lets what runs finish.
pub async fn run<C: Reconcile>(controller: C, context: Context, stop: CancellationToken) {
    let places: Vec<Option<String>> = match context.namespaces.as_slice() {
        [] => vec![None],
        namespaces => namespaces.iter().cloned().map(Some).collect(),
    };
    let (queues, inputs): (HashMap<_, _>, Vec<_>) = places
        .iter()
        .map(|place| {
            let (queue, input) = mpsc::unbounded();
            ((place.clone(), queue), input)
        })
        .unzip();
    let wake = Arc::new(Wake::<C> {
        queues,
        index: Mutex::default(),
        retries: Arc::default(),
        running: Arc::new(Running::bounded(acts_of_one::<C>(&context.namespaces))),
        started: AtomicBool::new(false),
    });
    let on_change = {
        let wake = Arc::clone(&wake);
        Arc::new(move |reference: &Reference, change: Change<&ObjectMeta>| wake.changed(reference, change))
    };
    let world = World::start(
        C::kinds(Kinds::default()),
        &context.client,
        &context.namespaces,
        on_change,
    );
    let driver = Arc::new(Driver {
        controller,
        client: context.client.clone(),
        world: world.clone(),
        events: Events::new(context.client.clone(), C::NAME, &context.identity),
        metrics: context.metrics.of(C::NAME),
        retries: Arc::clone(&wake.retries),
        running: Arc::clone(&wake.running),
        let_go: Mutex::default(),
    });
    let writers: Vec<_> = places.iter().map(|_| Writer::<Guarded<C>>::new(())).collect();
    let stores: Vec<_> = writers.iter().map(Writer::as_reader).collect();
    let peers = Peers::new(stores.clone());
    world.set_peers(peers.clone());
    let (mut watches, mut heard) = (Vec::new(), Vec::new());
    for (place, writer) in places.iter().zip(writers) {
        let (wake, driver, peers) = (Arc::clone(&wake), Arc::clone(&driver), peers.clone());
        let on_event = move |key: &Key, change: Change<&Guarded<C>>| {
            wake.own_changed(&driver, &peers, key, change.present());
        };
        let (told, first) = Heard::channel();
        let following = shelf::follow(world.scene(), place.as_deref(), None, writer, told, on_event);
        watches.push(AbortOnDropHandle::new(tokio::spawn(following)));
        heard.push(first);
    }
    let served = if context.namespaces.is_empty() {
        "all".to_owned()
    } else {
        context.namespaces.join(",")
    };
    tracing::info!(controller = C::NAME, namespaces = served, "controller started");

    let listed = async {
        world.ready().await;
        for heard in &heard {
            // A watch that ended is told below.
            heard.first_list().await;
        }
    };
    // A watch never ends unless it fails in a way that nobody thought of.
    let mut broken = select_all(watches);
    tokio::select! {
        listed = tokio::time::timeout(PATIENCE, listed) => if listed.is_err() {
            tracing::warn!(controller = C::NAME, "not everything could be listed yet; serving what is");
        },
        _ = &mut broken => {
            tracing::error!(controller = C::NAME, "a watch ended by itself");
            return;
        }
        () = stop.cancelled() => return,
    }
    let _counting = driver.metrics.count(census(Arc::clone(&driver), stores.clone()));
    context.readiness.synced();
    wake.started.store(true, Ordering::SeqCst);
    for object in stores.iter().flat_map(Store::state) {
        wake.wake(&Key::of(object.as_ref()));
    }
    let outside = from_outside(Arc::clone(&driver), Arc::clone(&wake), stores.clone());
    let served = inputs.into_iter().zip(stores).zip(heard);
    let running =
        join_all(served.map(|((input, own), heard)| once_listed(Arc::clone(&driver), own, heard, input, stop.clone())));
    let late = async {
        stop.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        _ = running => {}
        () = outside => {}
        _ = broken => tracing::error!(controller = C::NAME, "a watch ended by itself"),
        () = late => tracing::warn!(controller = C::NAME, "reconciles that do not finish are dropped"),
    }
    tracing::info!(controller = C::NAME, "controller stopped");
}

/// Wakes everything that is concerned at each change that the controller tells of; never ends.
async fn from_outside<C: Reconcile>(driver: Arc<Driver<C>>, wake: Arc<Wake<C>>, stores: Vec<Store<Guarded<C>>>) {
    let mut changes = driver.controller.outside();
    while changes.next().await.is_some() {
        for object in stores.iter().flat_map(Store::state) {
            if object
                .0
                .as_ref()
                .is_ok_and(|object| driver.controller.concerned(object))
            {
                let key = Key::of(object.as_ref());
                wake.retries.hurry(&key);
                wake.wake(&key);
            }
        }
    }
    std::future::pending::<()>().await;
}

/// Serves a place once the controller's own kind is listed there: kube's applier waits for its store whatever happens.
async fn once_listed<C: Reconcile>(
    driver: Arc<Driver<C>>,
    own: Own<C>,
    heard: Heard,
    input: mpsc::UnboundedReceiver<ObjectRef<Guarded<C>>>,
    stop: CancellationToken,
) {
    tokio::select! {
        listed = heard.first_list() => if !listed {
            return;
        },
        () = stop.cancelled() => return,
    }
    serve(driver, own, input, stop).await;
}

async fn serve<C: Reconcile>(
    driver: Arc<Driver<C>>,
    own: Own<C>,
    input: mpsc::UnboundedReceiver<ObjectRef<Guarded<C>>>,
    stop: CancellationToken,
) {
    let queue = input.map(Ok::<_, Infallible>).take_until(stop.cancelled_owned());
    let reconcile = {
        let own = own.clone();
        move |object: Arc<Guarded<C>>, driver: Arc<Driver<C>>| {
            let own = own.clone();
            async move { Ok::<_, Infallible>(driver.reconcile(&own, &Key::of(object.as_ref())).await) }.boxed()
        }
    };
    let never = |_: Arc<Guarded<C>>, error: &Infallible, _: Arc<Driver<C>>| -> Action { match *error {} };
    applier(
        reconcile,
        never,
        driver,
        own,
        queue,
        Config::default().concurrency(C::CONCURRENCY),
    )
    .for_each(|_| futures::future::ready(()))
    .await;
}

fn census<C: Reconcile>(driver: Arc<Driver<C>>, stores: Vec<Store<Guarded<C>>>) -> impl Fn() -> Census {
    move || {
        let objects: Vec<_> = stores.iter().flat_map(Store::state).collect();
        let census = Census::of(
            C::COUNTED,
            C::GAUGES,
            objects.iter().map(|object| readable::<C>(object)),
        );
        census.and(driver.controller.levels())
    }
}

fn readable<C: Reconcile>(object: &Guarded<C>) -> Result<&C::Object, Option<String>> {
    object.0.as_ref().map_err(|invalid| invalid.metadata.namespace.clone())
}
