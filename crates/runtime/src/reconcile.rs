//! The shape of every controller: see → plan → apply → act → report.
//!
//! # Expected flow
//! [`Reconcile::see`] reads, through the [`World`] only. [`Reconcile::plan`] decides, from what was seen and nothing
//! else: it has no `self`, so no client is in its reach. The runtime applies. [`Reconcile::act`] does what is no
//! object. [`Reconcile::report`] says how it went, again without `self`.
//!
//! # Guarantees
//! One object is never reconciled twice at once. Every write is recorded in the object's inventory before it is
//! sent, fenced by the Lease, and left out when it would change nothing. Prune runs only after a full success.
//!
//! # Assumptions
//! `see` has no effects; `plan` and `report` are pure. `act` may be repeated after a crash.

use std::fmt::{self, Debug};

use futures::{StreamExt as _, stream, stream::BoxStream};
use k8s_openapi::api::core::v1::ObjectReference;
use serde::Serialize;
use tokio::sync::watch;
use trellis_api::Managed;
use trellis_core::condition::{Draft, READY, State};

use crate::{
    End, Kinds, Outcome, Permission, Plan, Reference, Result, World, events::Events, metrics::Gauge, shelf::Kind,
};

/// One controller.
pub trait Reconcile: Send + Sync + Sized + 'static {
    /// Lower-case name: the value of `--controllers`, and part of field managers and of the names of metrics.
    const NAME: &'static str;
    /// What its objects are called in metrics, in the plural: `policies` gives `<name>_operator_policies_total`.
    const COUNTED: &'static str;
    /// Gauges of the kind beyond that.
    const GAUGES: &'static [Gauge<Self::Object>] = &[];
    /// Set on every object before anything is written for it; removed after everything is taken back.
    const FINALIZER: &'static str;
    /// Everything the controller may do, the object itself included; only the runtime's own needs
    /// ([`crate::permission::RUNTIME`]) come on top.
    const NEEDS: &'static [Permission];
    /// How many objects are worked on at once; acts of one namespace take half of it at most. More for a controller whose acts wait for others.
    const CONCURRENCY: u16 = 16;
    /// Whether a suspended object says so in `Ready`. If not, nothing is written to it but that nothing goes on any more.
    const TELLS_SUSPENSION: bool = true;
    /// The conditions that acts say of themselves ([`Says::now`]).
    const PROGRESS: &'static [&'static str] = &[];

    /// The kind that is reconciled.
    type Object: Kind + Managed;
    /// Everything planning may know.
    type Seen: Send + Sync;
    /// Effects that are not objects; [`crate::Never`] when there are none.
    type Act: Clone + Debug + PartialEq + Serialize + Send + Sync;

    /// The kinds that are read or owned.
    fn kinds(kinds: Kinds) -> Kinds;

    /// The objects that decide about `object`, whether or not they exist: a change of one of them wakes it.
    fn refers(&self, object: &Self::Object) -> Vec<Reference>;

    /// What `object` and others of its kind may contend for: a new spec, a beginning or an end of one of them wakes the
    /// others, and [`World::contenders`] finds them. Nothing by default.
    fn contends(&self, object: &Self::Object) -> Vec<Reference> {
        let _ = object;
        Vec::new()
    }

    /// Tells of changes outside the cluster that may matter to many objects, such as that of a file: each wakes those that
    /// are [`Reconcile::concerned`]. Asked once, when the controller starts. Nothing by default.
    fn outside(&self) -> BoxStream<'static, ()> {
        stream::pending().boxed()
    }

    /// Whether what [`Reconcile::outside`] tells of matters to this object. Yes by default.
    fn concerned(&self, object: &Self::Object) -> bool {
        let _ = object;
        true
    }

    /// Numbers of the controller itself, taken whenever they are scraped: the name behind the controller's prefix, a
    /// sentence, the number. None by default.
    fn levels(&self) -> Vec<(&'static str, &'static str, i64)> {
        Vec::new()
    }

    /// Reads.
    fn see(&self, world: &World, object: &Self::Object) -> impl Future<Output = Result<Self::Seen>> + Send;

    /// Decides.
    ///
    /// # Errors
    /// A [`trellis_core::Refusal`] when the user has to change something first.
    fn plan(object: &Self::Object, seen: &Self::Seen) -> Result<Plan<Self::Act>, trellis_core::Refusal>;

    /// Does what is no object, and leaves evidence that the next [`Reconcile::see`] finds: the object is looked at again
    /// at once, and reported then. May be repeated. What takes long says how far it is. It is dropped where it waits when
    /// the object is deleted, has another spec, is asked for anew, or refers to what is another by now.
    fn act(&self, object: &Self::Object, act: &Self::Act, says: &Says) -> impl Future<Output = Result<()>> + Send;

    /// Takes back what acts made, after every object is taken back and before the finalizer goes. May be repeated.
    fn forget(&self, object: &Self::Object) -> impl Future<Output = Result<()>> + Send {
        let _ = object;
        std::future::ready(Ok(()))
    }

    /// Says how it went. What the runtime keeps (inventory, generation, time) is filled in by the runtime.
    fn report(
        object: &Self::Object,
        seen: &Self::Seen,
        outcome: &Outcome,
    ) -> Reported<<Self::Object as Managed>::Status>;
}

/// Where an act says what it is at, and what has become of it.
#[derive(Clone)]
pub struct Says {
    pub(crate) draft: watch::Sender<Option<Draft>>,
    pub(crate) events: Events,
}

impl Says {
    /// A condition that is true from now on until the act ends or says something else, such as `Fetching`. Each costs a
    /// write: worth saying is what lasts long enough to be looked at.
    pub fn now(&self, type_: &str, reason: &str, message: impl Into<String>) {
        self.draft
            .send_replace(Some(Draft::new(type_, State::True, reason, message)));
    }

    /// An Event about another object than the one that is reconciled, whose own come by themselves. One that cannot be
    /// published is logged and lost.
    pub async fn event(&self, about: &ObjectReference, warning: bool, reason: &str, note: &str) {
        self.events.told(about, warning, reason, note).await;
    }

    /// Name of this replica.
    #[must_use]
    pub fn instance(&self) -> &str {
        self.events.instance()
    }
}

impl fmt::Debug for Says {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Says")
    }
}

/// A status and its conditions.
#[derive(Debug, Clone, PartialEq)]
pub struct Reported<S> {
    /// The kind's own fields.
    pub status: S,
    /// `Ready`.
    pub ready: Draft,
    /// Conditions of the kind beyond `Ready`, `Reconciling` and `Stalled`.
    pub conditions: Vec<Draft>,
}

impl Outcome {
    /// `Ready` as it follows from the end: `True` with this reason and message when done, else what stands in the way.
    /// A failure says `Unknown`: what was in place before may well be in place still.
    #[must_use]
    pub fn ready(&self, reason: &str, message: impl Into<String>) -> Draft {
        match &self.end {
            End::Done => Draft::new(READY, State::True, reason, message.into()),
            End::Waiting(waiting) => Draft::new(READY, State::False, waiting.reason, waiting.message.clone()),
            End::Refused(refusal) => Draft::new(READY, State::False, refusal.reason, refusal.to_string()),
            End::Failed(error) => Draft::new(
                READY,
                State::Unknown,
                error.reason(),
                format!("{}; retrying", error.brief()),
            ),
        }
    }
}
