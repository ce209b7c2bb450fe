//! Taking back what an inventory records.
//!
//! Invariant: an object is deleted, and fields are given up, only by the uid under which they were recorded.

use kube::{
    api::{DeleteParams, Preconditions},
    core::ApiResource,
};
use serde_json::json;
use trellis_api::status::InventoryEntry;

use super::{Applier, uid};
use crate::{Error, Reference, Result, owned};

impl Applier<'_> {
    /// Whether what an inventory entry stands for is there and carries what was written.
    ///
    /// # Errors
    /// [`Error::Api`] when the API server cannot be asked.
    pub async fn holds(&self, entry: &InventoryEntry) -> Result<bool> {
        let (resource, reference) = self.recorded(entry)?;
        let living = self.living(&resource, &reference).await?.object;
        Ok(living.is_some_and(|living| {
            entry.uid.as_deref().is_none_or(|recorded| recorded == uid(&living))
                && owned::owns_any(&living, &self.owner.manager)
        }))
    }

    /// Takes back what an inventory entry stands for: deletes what is ours, gives up the fields of what is not.
    /// Returns whether anything was sent; nothing is when the object, or our mark on it, is gone already.
    ///
    /// # Errors
    /// [`Error::Undeclared`] when this controller does not know the kind; [`Error::Api`] when the API server cannot be
    /// asked or refuses.
    pub async fn release(&self, entry: &InventoryEntry) -> Result<bool> {
        let (resource, reference) = self.recorded(entry)?;
        let living = self.living(&resource, &reference).await?;
        let Some(object) = living.object else { return Ok(false) };
        let uid = uid(&object);
        if entry.uid.as_deref().is_some_and(|recorded| recorded != uid) {
            return Ok(false);
        }
        if entry.part {
            if !owned::owns_any(&object, &self.owner.manager) {
                return Ok(false);
            }
            let nothing = json!({
                "apiVersion": entry.api_version, "kind": entry.kind,
                "metadata": { "name": entry.name, "namespace": entry.namespace, "uid": uid },
            });
            let given_up = self
                .apply(&resource, &reference, &nothing, false, living.watched)
                .await
                .map(|_| ());
            return self.unless_gone(&resource, &reference, uid, given_up).await;
        }
        if !self.owner.owns(&object, self.inventory) {
            return Ok(false);
        }
        let preconditions = Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: None,
        };
        let params = DeleteParams {
            preconditions: Some(preconditions),
            ..DeleteParams::background()
        };
        let deleted = self.api(&resource, &reference).delete(&entry.name, &params).await;
        let deleted = deleted
            .map(|_| ())
            .map_err(|error| Error::api(format!("delete {reference}"), error));
        self.unless_gone(&resource, &reference, uid, deleted).await
    }

    /// A write to an object that is gone, or that is another object by now, has nothing left to take back. The API
    /// server answers 409 to that as well as to a lost race, so it is asked which one it was.
    async fn unless_gone(
        &self,
        resource: &ApiResource,
        reference: &Reference,
        uid_then: &str,
        written: Result<()>,
    ) -> Result<bool> {
        let Err(error) = written else { return Ok(true) };
        if error.is_of_another_object() {
            return Ok(false);
        }
        match error.status_code() {
            Some(404) => Ok(false),
            Some(409) => match self.ask(resource, reference).await? {
                Some(now) if uid(&now) == uid_then => Err(error),
                _ => Ok(false),
            },
            _ => Err(error),
        }
    }

    /// Where an inventory entry is.
    fn recorded(&self, entry: &InventoryEntry) -> Result<(ApiResource, Reference)> {
        let resource = self
            .world
            .resource(&entry.api_version, &entry.kind)
            .ok_or_else(|| Error::Undeclared {
                kind: format!("{} {}", entry.api_version, entry.kind),
                name: entry.name.clone(),
            })?;
        let reference = Reference::new(&resource, entry.namespace.as_deref(), &entry.name);
        Ok((resource, reference))
    }
}
