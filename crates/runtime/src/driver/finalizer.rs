//! Holding an object until everything that was written for it is taken back.
//!
//! Invariant: nothing is written for an object without our finalizer, and the finalizer goes after the last of it.

use std::{sync::Arc, time::Duration};

use kube::{
    Resource as _, ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde_json::json;
use trellis_api::status::InventoryEntry;
use trellis_core::manager;

use super::work::Work;
use crate::{Error, Reconcile, Result, metrics::Verdict};

/// The pauses between the tries to take back what an object that is gone leaves behind.
const CLEAN_UP: [Duration; 5] = [
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];

impl<C: Reconcile> Work<'_, C> {
    /// Sets the finalizer, once.
    pub(super) async fn hold(&mut self) -> Result<()> {
        if self
            .object
            .finalizers()
            .iter()
            .any(|finalizer| finalizer == C::FINALIZER)
        {
            return Ok(());
        }
        let body = json!({
            "apiVersion": C::Object::api_version(&()), "kind": C::Object::kind(&()),
            "metadata": { "name": self.reference.name, "uid": self.object.uid(), "finalizers": [C::FINALIZER] },
        });
        let params = PatchParams::apply(&manager::of_controller(C::NAME)).force();
        let sent = self.driver.world.sending(&self.reference);
        let held = self
            .api()
            .patch(&self.reference.name, &params, &Patch::Apply(&body))
            .await;
        let held = match held {
            Ok(held) => held,
            Err(error) => {
                drop(sent);
                return Err(self.not_held(error).await);
            }
        };
        sent.answered(self.value_of(&held)?);
        self.object = Arc::new(held);
        self.count_write();
        Ok(())
    }

    /// Why the finalizer is not set. To an apply that names a uid, an object that is gone is a conflict.
    async fn not_held(&self, error: kube::Error) -> Error {
        let error = self.own_error("set the finalizer", error);
        if error.status_code() != Some(409) {
            return error;
        }
        match self.api().get_opt(&self.reference.name).await {
            Ok(now) if now.as_ref().and_then(kube::ResourceExt::uid) != self.object.uid() => self.gone(),
            _ => error,
        }
    }

    /// An error of a write to the object itself: it is gone, or the write has to be tried again.
    pub(super) fn own_error(&self, what: &str, error: kube::Error) -> Error {
        let error = Error::own(format!("{what} of {}", self.reference), error);
        if error.status_code() == Some(404) || error.is_of_another_object() {
            return self.gone();
        }
        error
    }

    pub(super) fn gone(&self) -> Error {
        Error::Gone {
            object: self.reference.to_string(),
        }
    }

    /// Takes back what was written for an object that is gone. Nothing will wake it again, so it is tried a few times
    /// here.
    pub(super) async fn clean_up(&mut self) -> Result<Verdict> {
        let mut pauses = CLEAN_UP.iter();
        loop {
            let error = match self.take_back().await {
                Ok(()) => return Ok(Verdict::Changed),
                Err(error) => error,
            };
            let pause = match error {
                Error::NotLeader => None,
                _ => pauses.next(),
            };
            let Some(pause) = pause else { return Err(error) };
            tracing::warn!(
                error = error.chain(),
                "what was written for it is not taken back yet; trying again"
            );
            tokio::time::sleep(*pause).await;
        }
    }

    /// Takes everything back, then lets the object go.
    pub(super) async fn finish(&mut self) -> Result<Verdict> {
        let position = self
            .object
            .finalizers()
            .iter()
            .position(|finalizer| finalizer == C::FINALIZER);
        let Some(position) = position else {
            return Ok(Verdict::Unchanged);
        };
        self.take_back().await?;
        // Tested, so that another object of that name, or a finalizer that somebody else added or removed meanwhile is never lost or hit.
        let path = format!("/metadata/finalizers/{position}");
        let patch: json_patch::Patch = serde_json::from_value(json!([
            { "op": "test", "path": "/metadata/uid", "value": self.object.uid() },
            { "op": "test", "path": path, "value": C::FINALIZER },
            { "op": "remove", "path": path },
        ]))
        .map_err(|source| Error::Serialise {
            what: format!("the finalizer of {}", self.reference),
            source,
        })?;
        let sent = self.driver.world.sending(&self.reference);
        self.driver.let_go().insert(self.key.clone(), self.object.uid());
        let done = self
            .api()
            .patch(&self.reference.name, &PatchParams::default(), &Patch::<()>::Json(patch))
            .await;
        match done {
            Ok(left) => sent.answered(self.value_of(&left)?),
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => {
                self.driver.let_go().remove(self.key);
                return Err(self.own_error("remove the finalizer", error));
            }
        }
        self.count_write();
        tracing::info!("released");
        Ok(Verdict::Changed)
    }

    /// Takes back whatever was written for the object.
    pub(super) async fn take_back(&mut self) -> Result<()> {
        let everything: Vec<_> = self.inventory.iter().rev().cloned().collect();
        self.release(&everything).await?;
        self.driver.controller.forget(&self.object).await
    }

    /// Takes back these.
    pub(super) async fn release(&mut self, entries: &[InventoryEntry]) -> Result<()> {
        for entry in entries {
            if self.applier().release(entry).await? {
                self.count_write();
                let place = entry.namespace.as_ref().map(|namespace| format!("{namespace}/"));
                let item = format!("{} {}{}", entry.kind, place.unwrap_or_default(), entry.name);
                tracing::info!(item, "taken back");
            }
        }
        Ok(())
    }

    pub(super) fn value_of(&self, object: &C::Object) -> Result<serde_json::Value> {
        serde_json::to_value(object).map_err(|source| Error::Serialise {
            what: self.reference.to_string(),
            source,
        })
    }
}
