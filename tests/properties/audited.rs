//! What the operator wrote in a namespace, by the API server's audit log.

use std::collections::BTreeMap;

use serde_json::Value;
use trellis_testkit::{Verb, audit::Event};

use crate::{
    asked::{GRPC, KEYS},
    doorman,
    routed::laws::OWNER,
    verdict::manager,
};

/// Whether a replica of ours tried to write anything but its Lease.
pub(crate) fn is_work(event: &Event) -> bool {
    let info = event.info();
    event.identity().is_some() && info.verb.writes() && info.resource != "leases"
}

/// The operator's writes among `events`, by namespace, in their order.
pub(crate) fn work(events: Vec<Event>) -> BTreeMap<String, Vec<Event>> {
    let mut work: BTreeMap<String, Vec<Event>> = BTreeMap::new();
    for event in events.into_iter().filter(is_work) {
        work.entry(event.info().namespace.unwrap_or_default())
            .or_default()
            .push(event);
    }
    for events in work.values_mut() {
        events.sort_by_key(|event| event.request_received_timestamp);
    }
    work
}

/// Nothing but a policy's own keys was ever written to a Service or a user's route, nothing else was written at all but
/// routes of the policy's own, and a finalizer went last.
pub(crate) fn lawful(namespace: &str, events: &[Event]) -> Result<(), String> {
    for event in events {
        let info = event.info();
        let allowed = match info.resource.as_str() {
            "resiliencepolicies" | "resiliencepolicies/status" | "services" => info.verb == Verb::Patch,
            "httproutes" | "grpcroutes" => matches!(info.verb, Verb::Create | Verb::Patch | Verb::Delete),
            "events" => matches!(info.verb, Verb::Create | Verb::Patch),
            _ => false,
        };
        // What Linkerd's webhook refuses may not even be tried.
        let denied = doorman::turned_away(event);
        // A namespace that goes takes no new Events.
        if !allowed || denied || (event.code() == 403 && info.resource != "events") {
            return Err(format!("unlawful: {event}"));
        }
        let route = ["httproutes", "grpcroutes"].contains(&info.resource.as_str());
        if info.resource == "services" || (route && info.verb != Verb::Delete && !makes(event)) {
            theirs(namespace, event)?;
        }
    }
    finalizers(namespace, events)
}

/// Whether a write of a route makes one of ours: it says which policy it belongs to.
fn makes(event: &Event) -> bool {
    let read = |path: &str| event.request_object.as_ref().and_then(|body| body.pointer(path));
    let label = read("/metadata/labels").is_some_and(|labels| labels.get(OWNER).is_some());
    let owners = read("/metadata/ownerReferences").and_then(Value::as_array);
    label && owners.is_some_and(|owners| owners.len() == 1) && read("/spec").is_some()
}

/// A write to what users own.
fn theirs(namespace: &str, event: &Event) -> Result<(), String> {
    let query = event.info().query.replace("%2F", "/");
    if !query.contains(&format!("fieldManager={}", manager(namespace, ""))) || query.contains("force=true") {
        return Err(format!("not under its own manager, or with force: {event} {query}"));
    }
    let Some(body) = &event.request_object else {
        return Err(format!("no body: {event}"));
    };
    let metadata = body.get("metadata").and_then(Value::as_object).into_iter().flatten();
    for (field, value) in metadata {
        let keys = match field.as_str() {
            "name" | "namespace" | "uid" => continue,
            "annotations" => value
                .as_object()
                .into_iter()
                .flatten()
                .map(|(key, _)| key.as_str())
                .collect(),
            other => vec![other],
        };
        if let Some(key) = keys.iter().find(|key| !KEYS.contains(key) && **key != GRPC) {
            return Err(format!("writes {key}: {event}"));
        }
    }
    match body
        .as_object()
        .into_iter()
        .flatten()
        .find(|(key, _)| !["apiVersion", "kind", "metadata"].contains(&key.as_str()))
    {
        Some((field, _)) => Err(format!("writes {field}: {event}")),
        None => Ok(()),
    }
}

/// After a finalizer is removed, nothing more is written for that policy, unless there is a new one of its name.
fn finalizers(namespace: &str, events: &[Event]) -> Result<(), String> {
    let mut released: BTreeMap<String, &Event> = BTreeMap::new();
    for event in events.iter().filter(|event| event.succeeded()) {
        let info = event.info();
        let name = info.name.clone().unwrap_or_default();
        match info.resource.as_str() {
            "resiliencepolicies" if event.request_object.as_ref().is_some_and(Value::is_array) => {
                released.insert(name, event);
            }
            "resiliencepolicies" => {
                released.remove(&name);
            }
            "services" | "httproutes" | "grpcroutes" => {
                let query = info.query.replace("%2F", "/");
                let late = released.keys().find(|policy| {
                    query
                        .split('&')
                        .any(|pair| *pair == format!("fieldManager={}", manager(namespace, policy)))
                });
                if let Some(policy) = late {
                    return Err(format!("written after the finalizer of {policy} was removed: {event}"));
                }
            }
            _ => {}
        }
    }
    Ok(())
}
