//! Annotations of others beside ours: Linkerd reads a block whole, so one bad neighbour switches ours off.
//!
//! ```text
//!  desired ─┐
//!  object  ─┴▶ what it will carry ─▶ does Linkerd take every block of ours? ─▶ Refusal naming the neighbour
//! ```
//!
//! Invariants: keys that only we own never count; they are about to be replaced. On a route, one bad key of any block
//! makes Linkerd drop the route, and ours with it.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use trellis_core::Refusal;

use crate::{
    LinkerdVersion, Reason,
    annotations::{Annotations, BREAKER, LOAD_BIAS, Place, RETRY, TIMEOUTS},
    duration,
    effect::{Bad, Breaker, LoadBias, Protocol, Retry, Stored, Timeouts},
    owner,
};

/// Whether the object will mean what the policy asks for, once `desired` is applied by `manager` beside what others
/// wrote.
///
/// Refuses with `ForeignAnnotation` when Linkerd would drop a block because of somebody else's key. What others wrote
/// under our own keys is not judged here: server-side apply reports it as a conflict.
pub fn check(
    desired: &Annotations,
    meta: &ObjectMeta,
    manager: &str,
    place: Place,
    linkerd: &LinkerdVersion,
) -> Result<(), Refusal> {
    let stored = merged(desired, meta, manager);
    let ours = |block: &[&str]| block.iter().any(|key| desired.contains_key(key));
    let route = matches!(place, Place::HttpRoute | Place::GrpcRoute);
    let blame = |bad: &Bad| refuse(bad, desired, &stored);
    let any = !desired.is_empty();

    if !route && any {
        // A neighbour's breaker that Linkerd cannot read is no breaker, and no concern of ours; one that the proxies
        // refuse fails every request.
        let breaker = Breaker::read(&stored, linkerd);
        if ours(&BREAKER) {
            breaker.as_ref().map_err(&blame)?;
        }
        if let Some(bad) = breaker
            .ok()
            .flatten()
            .and_then(|breaker| breaker.refused_by_proxies(&stored))
        {
            return Err(blame(&bad));
        }
    }
    if place == Place::Service && any {
        let bias = LoadBias::read(&stored, linkerd);
        if ours(&LOAD_BIAS) {
            bias.as_ref().map_err(&blame)?;
        }
        if let Some(bad) = bias.ok().flatten().and_then(|bias| bias.refused_by_proxies(&stored)) {
            return Err(blame(&bad));
        }
    }
    if ours(&RETRY) || (route && any) {
        if place != Place::GrpcRoute {
            Retry::read(&stored, Protocol::Http).map_err(|bad| blame(&bad))?;
        }
        if place == Place::GrpcRoute || desired.contains_key(crate::annotations::RETRY_GRPC) {
            Retry::read(&stored, Protocol::Grpc).map_err(|bad| blame(&bad))?;
        }
    }
    let timeouts = Timeouts::read(&stored);
    if ours(&TIMEOUTS) || (route && any) {
        timeouts.as_ref().map_err(&blame)?;
    }
    if any && timeouts.is_ok() {
        none_is_zero(&stored)?;
    }
    Ok(())
}

/// A timeout of zero is never ours, and leaves nothing to retry or to count.
///
/// Refuses with `ForeignAnnotation`.
pub(crate) fn none_is_zero(stored: &Stored) -> Result<(), Refusal> {
    let zero = |key: &&&str| stored.get(**key).is_some_and(|text| duration::linkerd(text) == Some(0));
    match TIMEOUTS.iter().find(zero) {
        None => Ok(()),
        Some(key) => Err(Reason::ForeignAnnotation
            .refuse(format!(
                "annotation {key}: {} ends every request at once",
                quoted(stored, key)
            ))
            .hint("remove that annotation; this policy does not own it")),
    }
}

/// What others set in the blocks that `desired` writes to, as `key=value`: Linkerd reads it together with ours.
#[must_use]
pub fn beside(desired: &Annotations, meta: &ObjectMeta, manager: &str) -> Vec<String> {
    let blocks: [&[&str]; 4] = [&BREAKER, &LOAD_BIAS, &RETRY, &TIMEOUTS];
    let written = |block: &&[&str]| block.iter().any(|key| desired.contains_key(key));
    let foreign = foreign(meta, manager);
    blocks
        .into_iter()
        .filter(written)
        .flatten()
        .filter(|key| !desired.contains_key(*key) && foreign.contains_key(**key))
        .map(|key| format!("{key}={}", quoted(&foreign, key)))
        .collect()
}

/// A value of somebody else, short enough for a message.
fn quoted(stored: &Stored, key: &str) -> String {
    const LIMIT: usize = 64;
    let text = stored.get(key).map_or("", String::as_str);
    let cut: String = text.chars().take(LIMIT).collect();
    if cut.len() == text.len() {
        format!("{text:?}")
    } else {
        format!("{cut:?}…")
    }
}

/// What the object carries once ours is applied: ours where we have something to say, theirs elsewhere.
#[must_use]
pub fn merged(desired: &Annotations, meta: &ObjectMeta, manager: &str) -> Stored {
    let mut all = foreign(meta, manager);
    all.extend(desired.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    all
}

fn refuse(bad: &Bad, desired: &Annotations, stored: &Stored) -> Refusal {
    // Of two penalties that contradict each other, the one that is not ours is the neighbour's.
    let penalties = [crate::annotations::MIN_PENALTY, crate::annotations::MAX_PENALTY];
    let other = penalties
        .into_iter()
        .find(|key| penalties.contains(&bad.key.as_str()) && stored.contains_key(*key) && !desired.contains_key(key));
    let key = if desired.contains_key(bad.key.as_str()) {
        other.unwrap_or(&bad.key)
    } else {
        &bad.key
    };
    let value = quoted(stored, key);
    Reason::ForeignAnnotation
        .refuse(format!(
            "annotation {key}: {value} makes Linkerd drop what this policy sets; it must {}",
            bad.must
        ))
        .hint("correct or remove that annotation; this policy does not own it")
}

/// Annotations that are not this manager's alone.
fn foreign(meta: &ObjectMeta, manager: &str) -> Stored {
    let entries = || meta.managed_fields.iter().flatten();
    let is = |entry: &&_| owner::is(entry, manager);
    let ours: BTreeSet<&str> = entries().filter(is).flat_map(owner::keys).collect();
    let theirs: BTreeSet<&str> = entries().filter(|entry| !is(entry)).flat_map(owner::keys).collect();
    meta.annotations
        .iter()
        .flatten()
        .filter(|(key, _)| !ours.contains(key.as_str()) || theirs.contains(key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}
