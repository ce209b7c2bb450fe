//! An act: told while it goes on, dropped when it is not what is asked for any more.
//!
//! ```text
//!  act ──┬─ says ─▶ progress, written beside it
//!        └─ disturbed ─▶ another spec, request, reference; deleted? ─ yes ─▶ dropped, and looked at again at once
//! ```
//!
//! Invariants: no write of progress holds an act up or ends it, unless this replica leads no more or the object is gone;
//! a request is never dropped for the next one, so that somebody who asks again and again is answered.

use std::{pin::pin, sync::Arc};

use kube::{Resource as _, ResourceExt as _};
use tokio::sync::watch;
use trellis_api::Managed;

use super::work::Work;
use crate::{Error, Reconcile, Result, reconcile::Says};

impl<C: Reconcile> Work<'_, C> {
    /// Acts, and tells meanwhile what the act says of itself. `false`: it was dropped before its end, or had no place.
    pub(super) async fn act(&mut self, act: &C::Act) -> Result<bool> {
        let (draft, mut said) = watch::channel(None);
        let events = self.driver.events.clone();
        let says = Says { draft, events };
        let (driver, planned) = (self.driver, Arc::clone(&self.planned));
        let Some(begun) = driver.running.begin(self.key) else {
            self.again = Some(super::soon());
            return Ok(false);
        };
        let referred = self.referred().await;
        if self.is_overtaken(&referred).await? {
            return Ok(false);
        }
        let mut acting = pin!(driver.controller.act(&planned, act, &says));
        loop {
            tokio::select! {
                done = &mut acting => return done.map(|()| true),
                () = begun.disturbed() => {
                    if self.is_overtaken(&referred).await? {
                        tracing::info!("dropped what went on: something else is asked for");
                        return Ok(false);
                    }
                    continue;
                }
                // The sender is beside this.
                _ = said.changed() => {}
            }
            let Some(draft) = said.borrow_and_update().clone() else {
                continue;
            };
            let (done, told) = {
                let mut telling = pin!(self.write_progress(draft));
                tokio::select! {
                    told = &mut telling => (None, told),
                    // A write on its way is waited for: it must not come after the next one.
                    done = &mut acting => (Some(done), telling.await),
                }
            };
            match told {
                Err(error @ (Error::NotLeader | Error::Gone { .. })) => return Err(error),
                Err(error) => tracing::warn!(error = error.chain(), "what goes on could not be told"),
                Ok(()) => {}
            }
            if let Some(done) = done {
                return done.map(|()| true);
            }
        }
    }

    /// Whether something else is asked for than what is carried out.
    async fn is_overtaken(&self, referred: &[Option<String>]) -> Result<bool> {
        let now = match self.driver.current(self.own, self.key, &self.reference) {
            Ok(Some(now)) if now.uid() == self.planned.uid() => now,
            Ok(_) => return Err(self.gone()),
            // The next look says what is wrong with it.
            Err(_) => return Ok(true),
        };
        let (now, then) = (now.as_ref(), self.planned.as_ref());
        let request = |object: &C::Object| object.annotations().get(C::Object::REQUESTED_AT).cloned();
        let handled = then
            .status()
            .and_then(|status| C::Object::common(status).last_handled_reconcile_at.clone());
        let answers_one = request(then).is_some() && request(then).as_deref().map(super::status::echoed) != handled;
        Ok(now.meta().generation != then.meta().generation
            || now.meta().deletion_timestamp.is_some()
            || (request(now) != request(then) && !answers_one)
            || self.referred().await != referred)
    }

    /// The versions of what the object refers to, as far as it is watched.
    async fn referred(&self) -> Vec<Option<String>> {
        let mut versions = Vec::new();
        for reference in self.driver.controller.refers(&self.planned) {
            versions.push(self.driver.world.version(&reference).await);
        }
        versions
    }
}
