//! One reconcile of one object, the same for every controller.
//!
//! ```text
//!  deleted? ─ yes ─▶ take back inventory ─▶ remove finalizer
//!     │ no
//!  finalizer ─▶ see ─▶ plan ─▶ inventory ─▶ apply ─▶ act ─▶ prune ─▶ report ─▶ status
//! ```
//!
//! Invariants: the inventory is on the server before the first write that it records; the finalizer goes last; the
//! status is written only when it differs.

mod acting;
mod finalizer;
mod running;
mod status;
mod work;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use kube::{
    Client, Resource as _, ResourceExt as _,
    core::DeserializeGuard,
    runtime::{
        controller::Action,
        reflector::{ObjectRef, Store},
    },
};
use tracing::Instrument as _;
use trellis_api::Managed as _;

use crate::{
    Class, Error, Reconcile, Reference, Result, World,
    events::Events,
    index::Key,
    metrics::{Measured, Verdict},
    retries::Retries,
};
pub(crate) use running::Running;
use work::Work;

/// Reconciles objects of one controller.
pub(crate) struct Driver<C: Reconcile> {
    pub(crate) controller: C,
    pub(crate) client: Client,
    pub(crate) world: World,
    pub(crate) events: Events,
    pub(crate) metrics: Arc<Measured>,
    pub(crate) retries: Arc<Retries>,
    pub(crate) running: Arc<Running>,
    /// The objects that were let go, by their uid, until the watch shows that they are gone: the answer to the removal
    /// of the last finalizer may carry the version from before it, so it does not tell.
    pub(crate) let_go: Mutex<HashMap<Key, Option<String>>>,
}

/// The controller's own objects in one namespace served, or in all.
pub(crate) type Own<C> = Store<DeserializeGuard<<C as Reconcile>::Object>>;

/// When an object whose namespace has no place for its act tries again.
fn soon() -> Duration {
    Duration::from_millis(fastrand::u64(1000..3000))
}

impl<C: Reconcile> Driver<C> {
    /// Reconciles one object. Says when to do so again if nothing happens before.
    pub(crate) async fn reconcile(&self, own: &Own<C>, key: &Key) -> Action {
        let reference = Reference::to::<C::Object>(key.namespace.as_deref(), &key.name);
        let object = match self.current(own, key, &reference) {
            Ok(Some(object)) => object,
            Ok(None) => {
                self.forget(key);
                return Action::await_change();
            }
            Err(error) => {
                self.retries.forget(key);
                tracing::error!(object = %key, error = error.chain(), "skipped: {}", error.reason());
                let verdict = Verdict::Refused(error.reason());
                self.metrics
                    .reconciled(key.namespace.as_deref(), verdict, Duration::ZERO);
                return Action::await_change();
            }
        };
        if self.let_go().get(key).is_some_and(|uid| *uid == object.uid()) {
            return Action::await_change();
        }
        if let Some(left) = self.retries.rests(key, object.resource_version().as_deref()) {
            return Action::requeue(left);
        }
        // Before it is looked at, since it may have to wait long.
        if self.running.is_full(key) && object.meta().deletion_timestamp.is_none() && !object.suspended() {
            return Action::requeue(soon());
        }
        // No field is called `name`: in a JSON line it would stand beside the span's own.
        let span =
            tracing::info_span!("reconcile", controller = C::NAME, object = %key, reconcile_id = %uuid::Uuid::new_v4());
        let started = Instant::now();
        let mut work = Work::new(self, own, key, reference, object);
        let result = work.run().instrument(span.clone()).await;
        let verdict = match &result {
            Ok(verdict) => Some(*verdict),
            // It is no fault to have to stop.
            Err(Error::NotLeader) => None,
            Err(error) => Some(Verdict::Failed(error.reason())),
        };
        if let Some(verdict) = verdict {
            self.metrics
                .reconciled(key.namespace.as_deref(), verdict, started.elapsed());
        }
        let _entered = span.enter();
        match result {
            Ok(verdict) => {
                tracing::debug!(?verdict, "reconciled");
                self.retries.forget(key);
                work.again.map_or_else(Action::await_change, Action::requeue)
            }
            Err(Error::NotLeader) => Action::await_change(),
            Err(error) => {
                tracing::warn!(error = error.chain(), reason = error.reason(), "reconcile failed");
                match error.class() {
                    Class::Transient => Action::requeue(self.retries.failed(key, work.version(), error.retry_after())),
                    Class::Waiting | Class::Refused => {
                        self.retries.forget(key);
                        Action::await_change()
                    }
                }
            }
        }
    }

    /// The newest that is known of an object: what the watch shows, or what we wrote ourselves since.
    pub(crate) fn current(&self, own: &Own<C>, key: &Key, reference: &Reference) -> Result<Option<Arc<C::Object>>> {
        let mut unreadable = None;
        let see = || {
            let mut name = ObjectRef::<DeserializeGuard<C::Object>>::new(&key.name);
            if let Some(namespace) = &key.namespace {
                name = name.within(namespace);
            }
            match &own.get(&name)?.0 {
                Ok(object) => Some(Arc::new(object.clone())),
                Err(invalid) => {
                    unreadable = Some(invalid.error.clone());
                    None
                }
            }
        };
        let newest = self.world.newest(see, reference)?;
        match unreadable {
            Some(message) => Err(Error::Unreadable {
                object: reference.to_string(),
                message,
            }),
            None => Ok(newest),
        }
    }

    /// Nothing is kept of an object that is gone.
    pub(crate) fn forget(&self, key: &Key) {
        self.retries.forget(key);
        self.let_go().remove(key);
    }

    fn let_go(&self) -> MutexGuard<'_, HashMap<Key, Option<String>>> {
        self.let_go.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
