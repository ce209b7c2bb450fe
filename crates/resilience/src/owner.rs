//! Who wrote an annotation: what `managedFields` say.
//!
//! What is written on behalf of a policy carries the manager `trellis-resilience/<namespace>/<policy>`, or
//! `trellis-resilience/<uid>` where that would be too long for the API server.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use kube::ResourceExt as _;
use trellis_api::ResiliencePolicy;

use crate::{PolicyName, annotations::Annotations};

/// The controller that writes for policies.
pub const CONTROLLER: &str = "resilience";

/// Prefix of the field managers of policies: [`trellis_core::manager`] of [`CONTROLLER`].
const PREFIX: &str = "trellis-resilience/";

/// The field manager of what is written on behalf of a policy.
#[must_use]
pub fn manager(policy: &ResiliencePolicy) -> String {
    trellis_core::manager::of_object(CONTROLLER, &policy.metadata)
}

/// The policy that an object was made for, as its controlling owner reference says.
#[must_use]
pub fn made_for(meta: &ObjectMeta) -> Option<PolicyName> {
    let mut owners = meta.owner_references.iter().flatten();
    let policy = owners.find(|owner| {
        owner.controller == Some(true)
            && owner.kind == "ResiliencePolicy"
            && owner.api_version.starts_with("resilience.trellis.dev/")
    })?;
    Some(PolicyName::new(
        meta.namespace.as_deref().unwrap_or_default(),
        &policy.name,
    ))
}

/// The annotations that were written on behalf of the policy.
#[must_use]
pub fn written<'a>(meta: &'a ObjectMeta, policy: &ResiliencePolicy) -> BTreeSet<&'a str> {
    let manager = manager(policy);
    let entries = meta.managed_fields.iter().flatten();
    entries.filter(|entry| is(entry, &manager)).flat_map(keys).collect()
}

/// The policies on whose behalf an annotation was written, as far as they are among `policies` or their manager names
/// them; in the order of `managedFields`.
#[must_use]
pub fn policies_of(meta: &ObjectMeta, key: &str, policies: &[ResiliencePolicy]) -> Vec<PolicyName> {
    let entries = meta.managed_fields.iter().flatten();
    entries
        .filter(|entry| keys(entry).any(|owned| owned == key))
        .filter_map(|entry| entry.manager.as_deref()?.strip_prefix(PREFIX))
        .filter_map(|name| match name.split_once('/') {
            Some((namespace, name)) => Some(PolicyName::new(namespace, name)),
            None => policies
                .iter()
                .find(|policy| policy.uid().as_deref() == Some(name))
                .map(PolicyName::of),
        })
        .collect()
}

/// Whether only policies wrote this annotation.
#[must_use]
pub fn only_policies(meta: &ObjectMeta, key: &str) -> bool {
    let mut owners = meta
        .managed_fields
        .iter()
        .flatten()
        .filter(|entry| keys(entry).any(|owned| owned == key))
        .map(|entry| {
            entry
                .manager
                .as_deref()
                .is_some_and(|manager| manager.starts_with(PREFIX))
        })
        .peekable();
    owners.peek().is_some() && owners.all(|ours| ours)
}

/// Those of `desired` that somebody else holds with another value, and who that is: an apply by `manager` would be
/// refused for them. A value whose owner is not recorded is held by `before-first-apply`, as the API server calls it.
#[must_use]
pub fn conflicts<'a>(desired: &Annotations, meta: &'a ObjectMeta, manager: &str) -> Vec<(&'static str, &'a str)> {
    let mut found = Vec::new();
    for (key, value) in desired {
        let stored = meta.annotations.as_ref().and_then(|stored| stored.get(*key));
        if stored.is_none_or(|stored| stored == value) {
            continue;
        }
        let entries = meta.managed_fields.iter().flatten();
        let holders: Vec<&ManagedFieldsEntry> =
            entries.filter(|entry| keys(entry).any(|owned| owned == *key)).collect();
        if holders.is_empty() {
            found.push((*key, "before-first-apply"));
        }
        let others = holders.into_iter().filter(|entry| !is(entry, manager));
        found.extend(others.map(|entry| (*key, entry.manager.as_deref().unwrap_or_default())));
    }
    found
}

/// Whether a manager writes on behalf of policies.
pub(crate) fn is_policys(manager: &str) -> bool {
    manager.starts_with(PREFIX)
}

pub(crate) fn is(entry: &ManagedFieldsEntry, manager: &str) -> bool {
    entry.manager.as_deref() == Some(manager)
}

/// The annotation keys of one entry of `managedFields`.
pub(crate) fn keys(entry: &ManagedFieldsEntry) -> impl Iterator<Item = &str> {
    let fields = entry
        .fields_v1
        .as_ref()
        .and_then(|fields| fields.0.get("f:metadata")?.get("f:annotations")?.as_object());
    fields
        .into_iter()
        .flat_map(|fields| fields.keys())
        .filter_map(|field| field.strip_prefix("f:"))
}
