//! P6 and P13 for routes: what policies made goes with them and not before, and what users made stays theirs.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{ResourceExt as _, api::DynamicObject};
use serde_json::Value;
use trellis_api::ResiliencePolicy;
use trellis_testkit::{Verb, audit::Event};

use super::{SACRED, steps::THEIRS, view::View};
use crate::chronicle::Place;

/// Label of the routes that policies make.
pub(crate) const OWNER: &str = "resilience.trellis.dev/policy";

/// Annotation of what policies make: namespace and name of the policy.
pub(crate) const RECORD: &str = "trellis.dev/owner";

/// Who deletes what has lost its owner.
const COLLECTOR: &str = "system:serviceaccount:kube-system:generic-garbage-collector";

/// Exactly one owner, of this namespace and alive, on every route that a policy made; none on anything else.
pub(crate) fn owners(view: &View<'_>) -> Result<(), String> {
    for (namespace, now) in view.places() {
        let alive = |name: &str, uid: &str| {
            let policy = now.policies.get(name);
            policy.is_some_and(|policy| policy.uid().as_deref() == Some(uid))
        };
        for (name, route) in &now.routes {
            match owner(route)? {
                Some((policy, uid)) if !alive(&policy, &uid) => {
                    return Err(format!(
                        "{namespace}/{name} belongs to {policy} {uid}, which is not there"
                    ));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Name and uid of the policy that made the route; `None` for a user's.
fn owner(route: &DynamicObject) -> Result<Option<(String, String)>, String> {
    let (name, owners) = (route.name_any(), route.owner_references());
    let namespace = route.namespace().unwrap_or_default();
    match (route.labels().get(OWNER), owners) {
        (None, []) if !route.annotations().contains_key(RECORD) => Ok(None),
        (Some(policy), [owner])
            if route.annotations().get(RECORD) == Some(&format!("{namespace}/{policy}"))
                && owner.kind == "ResiliencePolicy"
                && owner.api_version == "resilience.trellis.dev/v1alpha1"
                && owner.controller == Some(true)
                && owner.name == *policy =>
        {
            Ok(Some((owner.name.clone(), owner.uid.clone())))
        }
        (label, owners) => Err(format!("{name}: label {label:?}, owners {owners:?}")),
    }
}

/// What holds of every version: an owner is a policy of the same namespace, and users' objects have none and lose
/// nothing.
pub(crate) fn always(place: &Place) -> Result<(), String> {
    let policies = place.policies.values().flatten().flatten();
    let known: BTreeSet<String> = policies.filter_map(kube::ResourceExt::uid).collect();
    let owned = |meta: &ObjectMeta| !meta.owner_references.clone().unwrap_or_default().is_empty();
    let services = place.services.values().flatten().flatten();
    if let Some(service) = services.into_iter().find(|service| owned(&service.metadata)) {
        return Err(format!("Service {} has an owner", service.name_any()));
    }
    for (name, versions) in &place.routes {
        let users = THEIRS.iter().any(|(kind, theirs)| *name == format!("{kind} {theirs}"));
        for route in versions.iter().flatten() {
            match owner(route)? {
                None if !users => return Err(format!("{name} belongs to nobody")),
                Some(_) if users => return Err(format!("{name} was taken over")),
                Some((policy, uid)) if !known.contains(&uid) => {
                    return Err(format!("{name} belongs to {policy} {uid}, which never was here"));
                }
                _ => {}
            }
            if !users {
                continue;
            }
            if route.annotations().get(SACRED.0).map(String::as_str) != Some(SACRED.1) {
                return Err(format!("{name} lost {}", SACRED.0));
            }
            let backends = route.data.pointer("/spec/rules/0/backendRefs");
            let rules = route
                .data
                .pointer("/spec/rules")
                .and_then(Value::as_array)
                .map(Vec::len);
            if backends.is_some() || rules != Some(1) {
                return Err(format!("{name}: {}", route.data["spec"]));
            }
        }
    }
    Ok(())
}

/// Nothing of a living policy is collected, and nobody but a user deletes what is a user's.
pub(crate) fn deletions(namespace: &str, place: &Place, events: &[Event]) -> Result<(), String> {
    let deletes = events.iter().filter(|event| {
        let info = event.info();
        info.verb == Verb::Delete
            && event.succeeded()
            && info.namespace.as_deref() == Some(namespace)
            && ["httproutes", "grpcroutes"].contains(&info.resource.as_str())
    });
    for event in deletes {
        let info = event.info();
        let name = info.name.clone().unwrap_or_default();
        let users = THEIRS.iter().any(|(_, theirs)| *theirs == name);
        if users && (event.identity().is_some() || event.user.username == COLLECTOR) {
            return Err(format!("deletes what is a user's: {event}"));
        }
        if event.user.username != COLLECTOR {
            continue;
        }
        let uid = event
            .request_object
            .as_ref()
            .and_then(|body| body.pointer("/preconditions/uid")?.as_str().map(ToOwned::to_owned));
        let versions = place.routes.values().flatten().flatten();
        let collected = versions.into_iter().find(|route| route.uid() == uid && uid.is_some());
        let Some(Some((_, policy))) = collected.map(owner).transpose()? else {
            continue;
        };
        // The version that is to be deleted may be missing where a watch fell behind; that it is gone is known then.
        let told = place.policies.values().any(|versions| {
            let is_it = |version: &&ResiliencePolicy| version.uid().as_deref() == Some(&policy);
            let mut versions_of_it = versions.iter().flatten().filter(is_it);
            let last = versions.last().and_then(Option::as_ref).filter(is_it);
            versions_of_it.any(|version| version.metadata.deletion_timestamp.is_some() || last.is_none())
        });
        if !told {
            return Err(format!("collected while its policy {policy} lives: {event}"));
        }
    }
    Ok(())
}
