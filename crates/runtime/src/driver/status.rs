//! What is said of an object: one write, and only when it says something new.

use std::sync::Arc;

use jiff::Timestamp;
use kube::{
    Resource as _, ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde_json::json;
use trellis_api::{Managed, status::CommonStatus};
use trellis_core::{
    condition::{self, Draft},
    manager,
};

use super::work::Work;
use crate::{Reconcile, Result};

type Status<C> = <<C as Reconcile>::Object as Managed>::Status;

/// The requested-at annotation is a time; what is longer is cut.
const REQUESTED_AT_LIMIT: usize = 64;

impl<C: Reconcile> Work<'_, C> {
    /// Writes the status if it says anything new. [`Error::Gone`] when there is no object any more to write to.
    pub(super) async fn write_status(&mut self, mut status: Status<C>, drafts: Vec<Draft>) -> Result<()> {
        let now = Timestamp::now();
        let mut previous = self.object.status().cloned().unwrap_or_default();
        let before = <C::Object as Managed>::common(&previous).conditions.clone();
        let generation = self.planned.meta().generation.unwrap_or_default();
        let asked = self.planned.annotations().get(C::Object::REQUESTED_AT);
        *<C::Object as Managed>::common_mut(&mut status) = CommonStatus {
            observed_generation: Some(generation),
            conditions: condition::settle(&before, drafts, generation, now),
            last_handled_reconcile_at: asked.map(|text| text.chars().take(REQUESTED_AT_LIMIT).collect()),
            inventory: self.inventory.clone(),
        };
        // When it changed is no change by itself.
        let changed_at = <C::Object as Managed>::changed_at;
        if let Some(at) = changed_at(&mut status) {
            *at = changed_at(&mut previous).and_then(|at| at.clone());
        }
        if status == previous {
            return Ok(());
        }
        if let Some(at) = changed_at(&mut status) {
            *at = Some(now.to_string());
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
