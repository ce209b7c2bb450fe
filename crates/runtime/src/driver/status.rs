//! What is said of an object: one write, and only when it says something new.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{
    Resource as _, ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde_json::json;
use trellis_api::{Managed, status::CommonStatus};
use trellis_core::{
    condition::{self, Draft, READY, RECONCILING, STALLED, State},
    manager,
};

use super::work::Work;
use crate::{Reconcile, Result, reason};

type Status<C> = <<C as Reconcile>::Object as Managed>::Status;

/// The requested-at annotation is a time; what is longer is cut.
const REQUESTED_AT_LIMIT: usize = 64;

/// What of a request is echoed.
pub(super) fn echoed(request: &str) -> String {
    request.chars().take(REQUESTED_AT_LIMIT).collect()
}

impl<C: Reconcile> Work<'_, C> {
    /// Writes the status if it says anything new. [`crate::Error::Gone`] when there is no object any more to write to.
    pub(super) async fn write_status(&mut self, status: Status<C>, drafts: Vec<Draft>) -> Result<()> {
        let asked = self.planned.annotations().get(C::Object::REQUESTED_AT);
        let common = CommonStatus {
            observed_generation: Some(self.generation()),
            conditions: self.settled(drafts),
            last_handled_reconcile_at: asked.map(|request| echoed(request)),
            inventory: self.inventory.clone(),
        };
        self.send_status(status, common).await
    }

    /// Says that the spec is taken up, and nothing of a request: that is handled at the end.
    pub(super) async fn write_begun(&mut self, drafts: Vec<Draft>) -> Result<()> {
        let common = CommonStatus {
            observed_generation: Some(self.generation()),
            conditions: self.settled(drafts),
            ..self.common()
        };
        self.send_status(self.status(), common).await
    }

    /// Says what goes on. What else is said stays, with the generation that it was said of.
    pub(super) async fn write_progress(&mut self, draft: Draft) -> Result<()> {
        let progressing = |type_, state| Draft::new(type_, state, reason::PROGRESSING, draft.message.clone());
        let mut drafts = vec![progressing(RECONCILING, State::True)];
        let mut kept = self.lasting();
        if kept.iter().all(|condition| condition.type_ != READY) {
            drafts.push(progressing(READY, State::Unknown));
        }
        drafts.push(draft);
        kept.extend(self.settled(drafts));
        self.write_conditions(kept).await
    }

    /// Says that nothing goes on any more, if the opposite is said.
    pub(super) async fn take_back_progress(&mut self) -> Result<()> {
        let said = self.common().conditions;
        if !said.iter().any(goes_on::<C>) {
            return Ok(());
        }
        let mut kept = self.lasting();
        kept.extend(said.into_iter().filter(|condition| condition.type_ == STALLED));
        // It was not ready when it was suspended.
        let (begun, mut kept): (Vec<_>, Vec<_>) = kept
            .into_iter()
            .partition(|condition| condition.type_ == READY && condition.reason == reason::PROGRESSING);
        if !begun.is_empty() {
            let message = "suspended before it was done";
            kept.extend(self.settled(vec![Draft::new(READY, State::Unknown, reason::SUSPENDED, message)]));
        }
        self.write_conditions(kept).await
    }

    async fn write_conditions(&mut self, mut conditions: Vec<Condition>) -> Result<()> {
        conditions.sort_by(|one, other| {
            let rank = |condition: &Condition| (condition.type_ != READY, condition.type_.clone());
            rank(one).cmp(&rank(other))
        });
        let common = CommonStatus {
            conditions,
            ..self.common()
        };
        self.send_status(self.status(), common).await
    }

    /// The conditions that are no matter of what goes on.
    fn lasting(&self) -> Vec<Condition> {
        let lasts = |condition: &Condition| {
            !goes_on::<C>(condition) && ![RECONCILING, STALLED].contains(&condition.type_.as_str())
        };
        self.common().conditions.into_iter().filter(lasts).collect()
    }

    fn status(&self) -> Status<C> {
        self.object.status().cloned().unwrap_or_default()
    }

    /// As it stands, with the inventory as it is now.
    fn common(&self) -> CommonStatus {
        CommonStatus {
            inventory: self.inventory.clone(),
            ..<C::Object as Managed>::common(&self.status()).clone()
        }
    }

    fn generation(&self) -> i64 {
        self.planned.meta().generation.unwrap_or_default()
    }

    fn settled(&self, drafts: Vec<Draft>) -> Vec<Condition> {
        condition::settle(&self.common().conditions, drafts, self.generation(), Timestamp::now())
    }

    async fn send_status(&mut self, mut status: Status<C>, common: CommonStatus) -> Result<()> {
        let mut previous = self.status();
        let before = <C::Object as Managed>::common(&previous).conditions.clone();
        *<C::Object as Managed>::common_mut(&mut status) = common;
        // When it changed is no change by itself.
        let changed_at = <C::Object as Managed>::changed_at;
        if let Some(at) = changed_at(&mut status) {
            *at = changed_at(&mut previous).and_then(|at| at.clone());
        }
        if status == previous {
            return Ok(());
        }
        if let Some(at) = changed_at(&mut status) {
            *at = Some(Timestamp::now().to_string());
        }
        let body = json!({
            "apiVersion": C::Object::api_version(&()), "kind": C::Object::kind(&()),
            "metadata": { "name": self.reference.name, "uid": self.object.uid() },
            "status": status,
        });
        let params = PatchParams::apply(&manager::of_controller(C::NAME)).force();
        let sent = self.driver.world.sending(&self.reference);
        let answer = self
            .api()
            .patch_status(&self.reference.name, &params, &Patch::Apply(&body))
            .await;
        let answer = answer.map_err(|error| self.own_error("write the status", error))?;
        sent.answered(self.value_of(&answer)?);
        self.count_write();
        // The API server reads no uid in a status: what was said may have been said of a successor of that name. There
        // it stands until the successor is looked at, which is after the clean-up.
        if answer.uid() != self.object.uid() {
            return Err(self.gone());
        }
        self.object = Arc::new(answer);
        let after = <C::Object as Managed>::common(&status).conditions.clone();
        self.driver
            .events
            .ready_changed(&self.object.object_ref(&()), &before, &after)
            .await;
        Ok(())
    }
}

/// Whether a condition says what an act is at.
fn goes_on<C: Reconcile>(condition: &Condition) -> bool {
    let ours = condition.type_ == RECONCILING && condition.reason == reason::PROGRESSING;
    ours || C::PROGRESS.contains(&condition.type_.as_str())
}
