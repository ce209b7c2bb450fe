//! What a controller decides: objects to have, fields to contribute, acts to do, or what it waits for.
//!
//! Invariant: a plan that waits never prunes; a refused one neither. What runs, runs on, except for what the plan itself
//! gives up by name: that is not wanted any more, whatever becomes of the rest.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt as _, core::ApiResource};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use trellis_api::status::InventoryEntry;
use trellis_core::Refusal;

use crate::{Error, Result, index::Reference};

/// For controllers that need no acts: a value of this type cannot exist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Never {}

/// The decision for one object. Pure data: printable, comparable, testable without a cluster.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan<A> {
    /// Applied in this order.
    pub items: Vec<Item>,
    /// Done after every item is in place.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub acts: Vec<A>,
    /// Of what is recorded, what is taken back in any case: when the plan waits, is refused, or meets a conflict.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub given_up: Vec<InventoryEntry>,
    /// What has to happen first, outside of us. Nothing is pruned meanwhile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    /// What of the wish cannot be met until the user changes something. The rest is applied; nothing is pruned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refusal>,
    /// When to look again if nothing happens before: something outside the cluster is asked at its interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub again: Option<Duration>,
}

/// Why a plan is not the whole of what the user asked for, yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Waiting {
    /// Condition reason.
    pub reason: &'static str,
    /// What the user should know.
    pub message: String,
}

/// One object of a plan.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Item {
    /// An object that is ours: created, forced to this shape, deleted with its owner.
    Own(Body),
    /// Fields that we contribute to somebody else's object: never created, never forced, and taken back.
    Part(Body),
}

/// What is sent to the API server.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Body {
    /// Where it is sent.
    #[serde(skip)]
    pub resource: ApiResource,
    /// The object or fragment, with `apiVersion`, `kind` and `metadata.name`.
    #[serde(flatten)]
    pub value: Value,
    /// Of an object that is ours, the status: applied after the rest, in one request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Value>,
}

/// Builds [`Item::Part`]: a fragment of one living object, pinned to its uid.
#[derive(Debug, Clone)]
pub struct Part {
    resource: ApiResource,
    metadata: ObjectMeta,
}

impl<A> Plan<A> {
    /// A plan that wants nothing.
    #[must_use]
    pub fn nothing() -> Self {
        Self {
            items: Vec::new(),
            acts: Vec::new(),
            given_up: Vec::new(),
            waiting: None,
            refused: None,
            again: None,
        }
    }

    /// A plan that wants one item.
    #[must_use]
    pub fn of(item: Item) -> Self {
        Self::nothing().and(item)
    }

    /// … and this item, after the ones before.
    #[must_use]
    pub fn and(mut self, item: Item) -> Self {
        self.items.push(item);
        self
    }

    /// … and this act, when every item is in place.
    #[must_use]
    pub fn act(mut self, act: A) -> Self {
        self.acts.push(act);
        self
    }

    /// … and these, which are recorded and not wanted any more, go whatever becomes of the rest. An item that wants the
    /// same object is stronger.
    #[must_use]
    pub fn giving_up(mut self, entries: impl IntoIterator<Item = InventoryEntry>) -> Self {
        self.given_up.extend(entries);
        self
    }

    /// … but it is not all yet.
    #[must_use]
    pub fn waiting(mut self, reason: &'static str, message: impl Into<String>) -> Self {
        self.waiting = Some(Waiting {
            reason,
            message: message.into(),
        });
        self
    }

    /// … but this part of the wish is refused.
    #[must_use]
    pub fn refusing(mut self, refusal: Refusal) -> Self {
        self.refused = Some(refusal);
        self
    }

    /// … and it is looked at again after this time, whatever its end.
    #[must_use]
    pub fn again(mut self, after: Duration) -> Self {
        self.again = Some(after);
        self
    }
}

impl Item {
    /// An object of ours, without its status: others write that.
    ///
    /// # Errors
    /// [`Error::Serialise`] when the object does not serialise.
    pub fn own<K>(object: &K) -> Result<Self>
    where
        K: Resource<DynamicType = ()> + Serialize,
    {
        Ok(Self::Own(Body {
            status: None,
            ..Body::of(object)?
        }))
    }

    /// An object of ours, and its status, which nobody else writes.
    ///
    /// # Errors
    /// [`Error::Serialise`] when the object does not serialise.
    pub fn own_with_status<K>(object: &K) -> Result<Self>
    where
        K: Resource<DynamicType = ()> + Serialize,
    {
        Ok(Self::Own(Body::of(object)?))
    }

    /// Whether the item is something to have, and not only something to give up.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        match self {
            Self::Own(_) => true,
            Self::Part(body) => !crate::owned::is_nothing(&body.value),
        }
    }

    /// The object or fragment.
    #[must_use]
    pub fn body(&self) -> &Body {
        match self {
            Self::Own(body) | Self::Part(body) => body,
        }
    }
}

impl Body {
    fn of<K>(object: &K) -> Result<Self>
    where
        K: Resource<DynamicType = ()> + Serialize,
    {
        let resource = ApiResource::erase::<K>(&());
        let what = || format!("{} {}", resource.kind, object.name_any());
        let mut value = serde_json::to_value(object).map_err(|source| Error::Serialise { what: what(), source })?;
        let mut status = None;
        if let Some(fields) = value.as_object_mut() {
            fields.insert("apiVersion".into(), json!(resource.api_version));
            fields.insert("kind".into(), json!(resource.kind));
            status = fields.remove("status");
        }
        Ok(Self {
            resource,
            value,
            status,
        })
    }

    /// `metadata.name`; empty when there is none.
    #[must_use]
    pub fn name(&self) -> &str {
        self.metadata("name").unwrap_or_default()
    }

    /// `metadata.namespace`.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.metadata("namespace")
    }

    /// `metadata.uid`.
    #[must_use]
    pub fn uid(&self) -> Option<&str> {
        self.metadata("uid")
    }

    /// The object as others refer to it.
    #[must_use]
    pub fn reference(&self) -> Reference {
        Reference::new(&self.resource, self.namespace(), self.name())
    }

    fn metadata(&self, field: &str) -> Option<&str> {
        self.value.get("metadata")?.get(field)?.as_str()
    }
}

impl Part {
    /// A fragment of this living object.
    #[must_use]
    pub fn of<K>(object: &K) -> Self
    where
        K: Resource<DynamicType = ()> + DeserializeOwned,
    {
        let meta = object.meta();
        let metadata = ObjectMeta {
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            uid: meta.uid.clone(),
            ..ObjectMeta::default()
        };
        Self {
            resource: ApiResource::erase::<K>(&()),
            metadata,
        }
    }

    /// Contributes exactly these annotations; with none, gives up what was contributed before.
    #[must_use]
    pub fn annotations<N: Serialize>(self, annotations: &BTreeMap<N, String>) -> Item {
        let mut metadata = json!({ "name": self.metadata.name });
        if let Some(fields) = metadata.as_object_mut() {
            for (field, value) in [("namespace", self.metadata.namespace), ("uid", self.metadata.uid)] {
                if let Some(value) = value {
                    fields.insert(field.into(), Value::String(value));
                }
            }
            if !annotations.is_empty() {
                fields.insert("annotations".into(), json!(annotations));
            }
        }
        let value = json!({
            "apiVersion": self.resource.api_version,
            "kind": self.resource.kind,
            "metadata": metadata,
        });
        Item::Part(Body {
            resource: self.resource,
            value,
            status: None,
        })
    }
}

/// How a reconcile went, as `report` sees it.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// Of the objects in the inventory, those that carry what was written for this object now.
    pub in_place: Vec<InventoryEntry>,
    /// What was planned and could not be put in place this time.
    pub missing: Vec<InventoryEntry>,
}

/// How a reconcile ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum End {
    /// Everything planned is in place and what was left over is gone.
    Done,
    /// What could be done is done; the rest waits.
    Waiting(Waiting),
    /// The user has to change something first; nothing was pruned.
    Refused(Refusal),
    /// Something failed on the way; it is tried again.
    Failed(Error),
}
