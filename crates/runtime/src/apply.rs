//! Writing objects: server-side apply with per-object field managers, taking back, deleting.
//!
//! ```text
//!  item + living object ─▶ settled? ─▶ nothing
//!                          └─ no ────▶ PATCH (apply) ─▶ answer remembered in the World
//! ```
//!
//! Every object of ours applies under its own manager, `trellis-<controller>/<namespace>/<name>`: two objects that
//! contribute to one target can never undo each other's fields, and a conflict names its other side.
//!
//! Invariants: fields of others are never forced; a part never creates its target; nothing is deleted but by uid.

mod conflict;
mod owner;
mod release;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{Patch, PatchParams},
    core::{ApiResource, DynamicObject},
};
use serde_json::{Value, json};
use trellis_api::status::InventoryEntry;
use trellis_core::{Refusal, manager};

use crate::{
    Error, Reference, Result, World, owned,
    plan::{Body, Item},
    reason,
    shelf::Sight,
};
use conflict::conflict;
use owner::Owner;

/// Label of every object that a controller owns; its value is the controller's name.
pub const CONTROLLER_LABEL: &str = "trellis.dev/controller";
/// Annotation of every object that a controller owns: `namespace/name` of the object that it belongs to.
pub const OWNER_ANNOTATION: &str = "trellis.dev/owner";

/// Who applies, and for which object.
pub struct Applier<'a> {
    client: &'a Client,
    world: &'a World,
    controller: &'static str,
    owner: Owner,
    inventory: &'a [InventoryEntry],
}

/// An object, and whether its changes are heard of.
struct Living {
    object: Option<Value>,
    watched: bool,
    /// Whether its changes would be heard of if it had our label.
    unlisted: bool,
}

/// What an apply did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Where the object is recorded.
    pub entry: InventoryEntry,
    /// Whether anything was sent.
    pub written: bool,
}

impl<'a> Applier<'a> {
    /// Applies on behalf of `object`, for which `inventory` is recorded.
    #[must_use]
    pub fn new<K>(
        client: &'a Client,
        world: &'a World,
        controller: &'static str,
        object: &K,
        inventory: &'a [InventoryEntry],
    ) -> Self
    where
        K: Resource<DynamicType = ()>,
    {
        let meta = object.meta();
        let reference = OwnerReference {
            api_version: K::api_version(&()).into_owned(),
            kind: K::kind(&()).into_owned(),
            name: object.name_any(),
            uid: meta.uid.clone().unwrap_or_default(),
            controller: Some(true),
            block_owner_deletion: None,
        };
        let owner = Owner {
            reference,
            namespace: meta.namespace.clone(),
            manager: manager::of_object(controller, meta),
        };
        Self {
            client,
            world,
            controller,
            owner,
            inventory,
        }
    }

    /// Makes the cluster agree with `item`. Sends nothing when it already does.
    ///
    /// # Errors
    /// [`Error::Conflict`] when another manager owns a field; [`Error::Refused`] when an object of that name exists
    /// and is not ours; [`Error::Undeclared`] for a kind that the controller did not declare, which could not be found
    /// again; [`Error::Api`] otherwise.
    pub async fn ensure(&self, item: &Item) -> Result<Applied> {
        let body = item.body();
        let reference = body.reference();
        if self
            .world
            .resource(&body.resource.api_version, &body.resource.kind)
            .is_none()
        {
            return Err(Error::Undeclared {
                kind: body.resource.kind.clone(),
                name: reference.to_string(),
            });
        }
        let living = self.living(&body.resource, &reference).await?;
        let part = matches!(item, Item::Part(_));
        let ours = living
            .object
            .as_ref()
            .is_some_and(|living| self.owner.owns(living, self.inventory));
        if !part && living.object.is_some() && !ours {
            return Err(name_taken(&reference).into());
        }
        let desired = if part { body.value.clone() } else { self.marked(body) };
        let settled = living
            .object
            .as_ref()
            .filter(|living| owned::settled(&desired, living, &self.owner.manager));
        let mut written = settled.is_none();
        let creates = !part && living.object.is_none();
        let current = if let Some(living) = settled {
            living.clone()
        } else {
            // With our marks it is listed.
            let watched = living.watched || (living.unlisted && !part);
            self.apply(&body.resource, &reference, &desired, ours, watched).await?
        };
        let watched = living.watched || living.unlisted;
        if creates && !self.owner.is_alone_on(&current) {
            // Somebody created it in the same moment, and our fields fell upon theirs.
            self.release(&InventoryEntry {
                part: true,
                ..entry(body, true)
            })
            .await?;
            return Err(name_taken(&reference).into());
        }
        written |= self.ensure_status(body, &reference, &current, watched).await?;
        let uid = current.pointer("/metadata/uid").and_then(Value::as_str).map(Into::into);
        Ok(Applied {
            entry: InventoryEntry {
                uid,
                ..entry(body, part)
            },
            written,
        })
    }

    /// Makes the status of an object of ours what the plan says. Returns whether anything was sent.
    async fn ensure_status(&self, body: &Body, reference: &Reference, current: &Value, watched: bool) -> Result<bool> {
        let Some(status) = &body.status else { return Ok(false) };
        if owned::status_settled(&json!({ "status": status }), current, &self.owner.manager) {
            return Ok(false);
        }
        let desired = json!({
            "apiVersion": body.resource.api_version, "kind": body.resource.kind,
            "metadata": { "name": reference.name }, "status": status,
        });
        let sent = watched.then(|| self.world.sending(reference));
        let params = PatchParams::apply(&self.owner.manager).force();
        let answer = self
            .api(&body.resource, reference)
            .patch_status(&reference.name, &params, &Patch::Apply(&desired))
            .await;
        let answer = answer.map_err(|error| Error::api(format!("write the status of {reference}"), error))?;
        let answer = to_value(&answer, reference)?;
        if let Some(sent) = sent {
            sent.answered(answer);
        }
        Ok(true)
    }

    /// The object as last seen or written; asks the API server for what is not watched.
    async fn living(&self, resource: &ApiResource, reference: &Reference) -> Result<Living> {
        Ok(match self.world.peek(resource, reference).await? {
            Sight::Present(object) => Living {
                object: Some(object),
                watched: true,
                unlisted: false,
            },
            Sight::Absent => Living {
                object: None,
                watched: true,
                unlisted: false,
            },
            nothing @ (Sight::Unlisted | Sight::Unwatched) => Living {
                object: self.ask(resource, reference).await?,
                watched: false,
                unlisted: nothing == Sight::Unlisted,
            },
        })
    }

    /// The object as the API server has it now.
    async fn ask(&self, resource: &ApiResource, reference: &Reference) -> Result<Option<Value>> {
        let found = self.api(resource, reference).get_opt(&reference.name).await;
        let found = found.map_err(|error| Error::api(format!("get {reference}"), error))?;
        found.map(|object| to_value(&object, reference)).transpose()
    }

    async fn apply(
        &self,
        resource: &ApiResource,
        reference: &Reference,
        body: &Value,
        force: bool,
        watched: bool,
    ) -> Result<Value> {
        let sent = watched.then(|| self.world.sending(reference));
        let params = PatchParams {
            force,
            ..PatchParams::apply(&self.owner.manager)
        };
        let answer = self
            .api(resource, reference)
            .patch(&reference.name, &params, &Patch::Apply(body))
            .await;
        let answer = to_value(&answer.map_err(|error| conflict(reference, error))?, reference)?;
        if let Some(sent) = sent {
            sent.answered(answer.clone());
        }
        Ok(answer)
    }

    fn api(&self, resource: &ApiResource, reference: &Reference) -> Api<DynamicObject> {
        match reference.namespace.as_deref() {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, resource),
            None => Api::all_with(self.client.clone(), resource),
        }
    }

    /// The object with the marks by which it is found again.
    fn marked(&self, body: &Body) -> Value {
        let mut object = body.value.clone();
        let same_place = self.owner.namespace.is_none() || self.owner.namespace.as_deref() == body.namespace();
        let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
            return object;
        };
        if same_place {
            metadata.insert("ownerReferences".into(), json!([self.owner.reference]));
        }
        for (field, key, value) in [
            ("labels", CONTROLLER_LABEL, self.controller.to_owned()),
            ("labels", "app.kubernetes.io/managed-by", "trellis".to_owned()),
            ("annotations", OWNER_ANNOTATION, self.owner.path()),
        ] {
            if let Some(map) = metadata.entry(field).or_insert_with(|| json!({})).as_object_mut() {
                map.insert(key.into(), Value::String(value));
            }
        }
        object
    }
}

/// What is recorded of an item before it is applied.
pub(crate) fn entry(body: &Body, part: bool) -> InventoryEntry {
    InventoryEntry {
        api_version: body.resource.api_version.clone(),
        kind: body.resource.kind.clone(),
        namespace: body.namespace().map(Into::into),
        name: body.name().to_owned(),
        uid: body.uid().map(Into::into),
        part,
    }
}

/// Whether two entries stand for the same object. An entry without uid was recorded before the object existed.
pub(crate) fn same(one: &InventoryEntry, other: &InventoryEntry) -> bool {
    same_place(one, other) && (one.uid.is_none() || other.uid.is_none() || one.uid == other.uid)
}

/// Whether two entries stand for objects of the same name, in the same way.
pub(crate) fn same_place(one: &InventoryEntry, other: &InventoryEntry) -> bool {
    one.part == other.part
        && one.kind == other.kind
        && one.name == other.name
        && one.namespace == other.namespace
        && one.api_version == other.api_version
}

fn uid(object: &Value) -> &str {
    object
        .pointer("/metadata/uid")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn name_taken(reference: &Reference) -> Refusal {
    Refusal::new(
        reason::NAME_TAKEN,
        format!("{reference} exists and does not belong to this object"),
    )
    .hint("delete or rename that object; it is never taken over")
}

fn to_value(object: &DynamicObject, reference: &Reference) -> Result<Value> {
    serde_json::to_value(object).map_err(|source| Error::Serialise {
        what: reference.to_string(),
        source,
    })
}
