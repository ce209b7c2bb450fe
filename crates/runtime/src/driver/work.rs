//! One object, from the reading of the cluster to the last write.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt as _;
use kube::{Api, Resource as _, ResourceExt as _};
use trellis_api::{Managed, status::InventoryEntry};
use trellis_core::{
    Refusal,
    condition::{Draft, READY, RECONCILING, STALLED, State},
};

use super::{Driver, Own};
use crate::{
    Class, End, Error, Item, Outcome, Plan, Reconcile, Reference, Result,
    apply::{self, Applier},
    index::Key,
    metrics::Verdict,
    plan::Waiting,
    reason,
};

/// A reconcile in progress. It always holds the newest answer of the API server about its object.
pub(super) struct Work<'a, C: Reconcile> {
    pub(super) driver: &'a Driver<C>,
    pub(super) own: &'a Own<C>,
    pub(super) key: &'a Key,
    pub(super) reference: Reference,
    pub(super) object: Arc<C::Object>,
    /// The object as it is carried out: what is told speaks of this spec, though a newer one may have come meanwhile.
    pub(super) planned: Arc<C::Object>,
    /// What stands recorded, or has to be in the next status.
    pub(super) inventory: Vec<InventoryEntry>,
    /// What was planned and is not in place.
    missing: Vec<InventoryEntry>,
    /// Whether anything was sent that changes something.
    pub(super) wrote: bool,
    /// When to look again if nothing happens before.
    pub(super) again: Option<Duration>,
    /// Whether anything was done that is no object.
    acted: bool,
}

impl<'a, C: Reconcile> Work<'a, C> {
    pub(super) fn new(
        driver: &'a Driver<C>,
        own: &'a Own<C>,
        key: &'a Key,
        reference: Reference,
        object: Arc<C::Object>,
    ) -> Self {
        let status = object.status();
        let inventory = status.map(|status| <C::Object as Managed>::common(status).inventory.clone());
        Self {
            driver,
            own,
            key,
            reference,
            inventory: inventory.unwrap_or_default(),
            planned: Arc::clone(&object),
            object,
            missing: Vec::new(),
            wrote: false,
            again: None,
            acted: false,
        }
    }

    /// The version in which the object was left; none when it says something by now that was not carried out.
    pub(super) fn version(&self) -> Option<String> {
        let asks = |object: &C::Object| {
            let requested = object.annotations().get(C::Object::REQUESTED_AT).cloned();
            (object.meta().generation, requested)
        };
        let same = asks(&self.object) == asks(&self.planned);
        same.then(|| self.object.resource_version()).flatten()
    }

    /// A panic of the controller costs this reconcile, and no other.
    pub(super) async fn run(&mut self) -> Result<Verdict> {
        match caught(self.attempt()).await {
            Err(error @ Error::Panicked { .. }) => caught(self.blind(error)).await,
            done => done,
        }
    }

    async fn attempt(&mut self) -> Result<Verdict> {
        if self.object.meta().deletion_timestamp.is_some() {
            return match self.finish().await {
                Err(error) => self.blind(error).await,
                done => done,
            };
        }
        let done = if self.object.suspended() {
            self.rest().await
        } else {
            self.reconcile().await
        };
        match done {
            // The object went in the middle of it: what was written for it goes too.
            Err(Error::Gone { .. }) => self.clean_up().await,
            done => done,
        }
    }

    async fn reconcile(&mut self) -> Result<Verdict> {
        if let Err(error) = self.hold().await {
            return self.blind(error).await;
        }
        self.planned = Arc::clone(&self.object);
        let seen = match self.driver.controller.see(&self.driver.world, &self.planned).await {
            Ok(seen) => seen,
            Err(error) => return self.blind(error).await,
        };
        let end = match C::plan(&self.planned, &seen) {
            Ok(plan) => match self.carry_out(plan).await {
                Ok(None) => End::Done,
                Ok(Some(waiting)) => End::Waiting(waiting),
                Err(error @ (Error::NotLeader | Error::Gone { .. })) => return Err(error),
                Err(error) => refused(C::NAME, error),
            },
            Err(refusal) => End::Refused(refusal),
        };
        // What the act changed was not seen: the look that follows at once reports it.
        if self.acted && !matches!(end, End::Failed(_)) {
            return Ok(Verdict::Changed);
        }
        let outcome = Outcome {
            in_place: self.in_place(&end).await?,
            missing: std::mem::take(&mut self.missing),
            end,
        };
        // One lost request is no news: it is tried again in a second, and told when it fails again.
        if matches!(outcome.end, End::Failed(_)) && !self.failed_before() {
            return verdict(outcome.end, self.wrote);
        }
        let reported = C::report(&self.planned, &seen, &outcome);
        let progress = progress(&outcome.end, &reported.ready, &reported.conditions);
        let mut drafts = reported.conditions;
        drafts.extend(progress);
        drafts.push(reported.ready);
        self.write_status(reported.status, drafts).await?;
        verdict(outcome.end, self.wrote)
    }

    /// Records, applies, acts and prunes.
    async fn carry_out(&mut self, plan: Plan<C::Act>) -> Result<Option<Waiting>> {
        self.again = plan.again;
        let wanted: Vec<_> = plan
            .items
            .iter()
            .filter(|item| item.is_wanted())
            .map(|item| apply::entry(item.body(), matches!(item, Item::Part(_))))
            .collect();
        let recorded = |entry: &&InventoryEntry| self.inventory.iter().any(|known| apply::same(known, entry));
        let unrecorded: Vec<_> = wanted.iter().filter(|entry| !recorded(entry)).cloned().collect();
        if !unrecorded.is_empty() {
            self.inventory.extend(unrecorded);
            let told = |type_, state| Draft::new(type_, state, reason::PROGRESSING, "being applied");
            let drafts = vec![told(READY, State::Unknown), told(RECONCILING, State::True)];
            self.write_begun(drafts).await?;
        }
        self.missing.clone_from(&wanted);
        let mut applied = Vec::new();
        let mut conflict = None;
        for item in &plan.items {
            let done = match self.applier().ensure(item).await {
                // What somebody else holds is no reason to leave the rest undone.
                Err(error @ Error::Conflict { .. }) => {
                    conflict = conflict.or(Some(error));
                    continue;
                }
                done => done?,
            };
            if done.written {
                self.count_write();
                tracing::info!(item = %item.body().reference(), "applied");
            }
            if item.is_wanted() {
                self.record(&done.entry);
                self.missing.retain(|missing| !apply::same_place(missing, &done.entry));
                applied.push(done.entry);
            }
        }
        self.give_up(&plan.given_up, &wanted).await?;
        if let Some(error) = conflict {
            return Err(error);
        }
        for act in &plan.acts {
            self.again = Some(Duration::ZERO);
            let ended = self.act(act).await?;
            self.acted = true;
            if !ended {
                return Ok(None);
            }
        }
        if let Some(refusal) = plan.refused {
            return Err(refusal.into());
        }
        if plan.waiting.is_some() {
            return Ok(plan.waiting);
        }
        let kept = |entry: &InventoryEntry| applied.iter().any(|done| apply::same(entry, done));
        // In the reverse order, as everything is taken back.
        let left = self.inventory.iter().rev().filter(|entry| !kept(entry));
        let left: Vec<_> = left.cloned().collect();
        self.release(&left).await?;
        self.inventory = applied;
        Ok(None)
    }

    /// Takes back what a plan gives up by name and does not want, what was made last first.
    async fn give_up(&mut self, given_up: &[InventoryEntry], wanted: &[InventoryEntry]) -> Result<()> {
        let among = |entries: &[InventoryEntry], entry: &InventoryEntry| {
            entries.iter().any(|one| apply::same_place(one, entry))
        };
        let goes = |entry: &InventoryEntry| among(given_up, entry) && !among(wanted, entry);
        let gone: Vec<_> = self
            .inventory
            .iter()
            .rev()
            .filter(|entry| goes(entry))
            .cloned()
            .collect();
        self.release(&gone).await?;
        self.inventory.retain(|entry| !goes(entry));
        Ok(())
    }

    /// What was applied has an identity by now, and what was made again another one.
    fn record(&mut self, applied: &InventoryEntry) {
        for known in &mut self.inventory {
            let open = known.uid.is_none() || !known.part;
            if open && apply::same_place(known, applied) {
                known.uid.clone_from(&applied.uid);
            }
        }
    }

    /// What of the inventory carries our writes now. After a full success that is all of it.
    async fn in_place(&self, end: &End) -> Result<Vec<InventoryEntry>> {
        if matches!(end, End::Done) {
            return Ok(self.inventory.clone());
        }
        let mut in_place = Vec::new();
        for entry in &self.inventory {
            // What cannot be looked at is not claimed.
            if self.applier().holds(entry).await.unwrap_or_default() {
                in_place.push(entry.clone());
            }
        }
        Ok(in_place)
    }

    /// A suspended object says so, once, and echoes what it was asked; or says at least of nothing that it goes on.
    async fn rest(&mut self) -> Result<Verdict> {
        if !C::TELLS_SUSPENSION {
            self.take_back_progress().await?;
            return Ok(Verdict::Suspended);
        }
        let message = "suspended: what was written for it stays and is not looked after";
        let ready = Draft::new(READY, State::Unknown, reason::SUSPENDED, message);
        self.write_status(self.object.status().cloned().unwrap_or_default(), vec![ready])
            .await?;
        Ok(Verdict::Suspended)
    }

    /// The cluster could not be read, or the object not be held or let go: what is in place is unknown, and so is
    /// `Ready`.
    async fn blind(&mut self, error: Error) -> Result<Verdict> {
        if matches!(error, Error::NotLeader | Error::Gone { .. }) {
            return Err(error);
        }
        let transient = error.class() == Class::Transient;
        if transient && !self.failed_before() {
            return Err(error);
        }
        let (state, type_) = match error.class() {
            Class::Transient => (State::Unknown, RECONCILING),
            Class::Waiting => (State::False, RECONCILING),
            Class::Refused => (State::False, STALLED),
        };
        let drafts = vec![
            Draft::new(READY, state, error.reason(), error.brief()),
            Draft::new(type_, State::True, error.reason(), error.brief()),
        ];
        self.write_status(self.object.status().cloned().unwrap_or_default(), drafts)
            .await?;
        if transient {
            Err(error)
        } else {
            Ok(Verdict::Refused(error.reason()))
        }
    }

    pub(super) fn applier(&self) -> Applier<'_> {
        Applier::new(
            &self.driver.client,
            &self.driver.world,
            C::NAME,
            self.object.as_ref(),
            &self.inventory,
        )
    }

    pub(super) fn api(&self) -> Api<C::Object> {
        Api::namespaced(
            self.driver.client.clone(),
            self.object.namespace().as_deref().unwrap_or_default(),
        )
    }

    pub(super) fn count_write(&mut self) {
        self.wrote = true;
        self.driver.metrics.wrote(self.key.namespace.as_deref());
    }

    fn failed_before(&self) -> bool {
        self.driver.retries.has_failed(self.key)
    }
}

/// A panic as an error.
async fn caught<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let done = AssertUnwindSafe(work).catch_unwind().await;
    done.unwrap_or_else(|payload| Err(Error::panicked(payload.as_ref())))
}

fn verdict(end: End, wrote: bool) -> Result<Verdict> {
    match end {
        End::Failed(error) => Err(error),
        End::Refused(refusal) => Ok(Verdict::Refused(refusal.reason)),
        End::Waiting(_) => Ok(Verdict::Waiting),
        End::Done if wrote => Ok(Verdict::Changed),
        End::Done => Ok(Verdict::Unchanged),
    }
}

/// The kstatus companions of `Ready`: present only while they are true. What the kind says itself is nearer.
fn progress(end: &End, ready: &Draft, said: &[Draft]) -> Option<Draft> {
    let type_ = match end {
        End::Done => return None,
        End::Waiting(_) | End::Failed(_) => RECONCILING,
        End::Refused(_) => STALLED,
    };
    let draft = Draft::new(type_, State::True, ready.reason.clone(), ready.message.clone());
    said.iter().all(|said| said.type_ != type_).then_some(draft)
}

/// What only the user can mend is a refusal, whoever noticed it.
fn refused(controller: &str, error: Error) -> End {
    if error.class() != Class::Refused {
        return End::Failed(error);
    }
    let siblings = format!("trellis-{controller}/");
    match error {
        Error::Refused(refusal) => End::Refused(refusal),
        // Another object of the kind is about to let go, and its doing so wakes this one.
        Error::Conflict { ref conflicts, .. }
            if conflicts.iter().all(|conflict| conflict.manager.starts_with(&siblings)) =>
        {
            End::Waiting(Waiting {
                reason: reason::HANDING_OVER,
                message: error.brief(),
            })
        }
        Error::Conflict { .. } => End::Refused(
            Refusal::new(error.reason(), error.brief())
                .hint("remove the field from the other manager's manifest, or from this object"),
        ),
        _ => End::Refused(Refusal::new(error.reason(), error.brief())),
    }
}
