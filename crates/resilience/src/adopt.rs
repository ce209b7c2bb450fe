//! Hand-written annotations as a policy, without an effective change.
//!
//! ```text
//!  annotations ─▶ block by block: what it means ─▶ a section that means the same ─▶ written, does it read the same?
//! ```
//!
//! Invariant: a block that a section cannot say exactly stays as it is, and the reason is told.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::Resource as _;
use serde::Serialize;
use serde_json::{Value, json};
use trellis_api::{ResiliencePolicy, ResiliencePolicySpec, Section};

use crate::{
    LinkerdVersion,
    annotations::{self, Place},
    effect::{Bad, Breaker, LoadBias, Protocol, Retry, Stored, Timeouts},
    owner,
    shown::{FIELD, cut},
};

pub(crate) mod sections;

/// What can be taken over.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Adoption {
    /// The policy; absent if there is nothing to take over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<ResiliencePolicy>,
    /// Annotations that the policy spells otherwise, though it means the same. First theirs, then the policy's: they
    /// have to be set to that before it can be applied, since it overwrites nobody's values. What the policy does not
    /// write may stay.
    pub respelt: BTreeMap<String, (String, Option<String>)>,
    /// What stays as it is, and why.
    pub left: Vec<String>,
}

/// The annotations of a Service, an EgressNetwork or a route as a policy of the same name.
#[must_use]
pub fn adopt(meta: &ObjectMeta, place: Place, linkerd: &LinkerdVersion) -> Adoption {
    let stored = meta.annotations.clone().unwrap_or_default();
    let mut spec = serde_json::Map::new();
    let mut adoption = Adoption {
        policy: None,
        respelt: BTreeMap::new(),
        left: Vec::new(),
    };
    for section in place.sections() {
        let keys = annotations::keys(section);
        let present: Vec<&str> = keys.iter().copied().filter(|key| stored.contains_key(*key)).collect();
        if present.is_empty() {
            continue;
        }
        if present.iter().any(|key| owner::only_policies(meta, key)) {
            adoption.left.push(format!("{section} is a policy's already"));
            continue;
        }
        let found = match sections::section(section, &stored, place, linkerd) {
            Ok(found) => found,
            Err(why) => {
                adoption.left.push(format!("{section}: {why}"));
                continue;
            }
        };
        match same(section, &found, &stored, place, linkerd) {
            Ok(written) => {
                for key in present {
                    let ours = written.get(key).cloned();
                    let theirs = stored.get(key).map_or("", String::as_str);
                    if ours.as_deref() != Some(theirs) {
                        let theirs = cut(theirs, FIELD);
                        adoption.respelt.insert(key.into(), (theirs, ours));
                    }
                }
                spec.insert(section.to_string(), found);
            }
            Err(why) => adoption.left.push(format!("{section}: {why}")),
        }
    }
    if !spec.is_empty() {
        let name = meta.name.clone().unwrap_or_default();
        spec.insert("targetRef".into(), json!({"kind": place.to_string(), "name": name}));
        if let Ok(spec) = serde_json::from_value::<ResiliencePolicySpec>(Value::Object(spec)) {
            let mut policy = ResiliencePolicy::new(&name, spec);
            policy.meta_mut().namespace.clone_from(&meta.namespace);
            adoption.policy = Some(policy);
        }
    }
    adoption
}

/// What the section would write, if it means the same as what is stored.
fn same(
    section: Section,
    found: &Value,
    stored: &Stored,
    place: Place,
    linkerd: &LinkerdVersion,
) -> Result<annotations::Annotations, String> {
    let whole = json!({"targetRef": {"kind": place.to_string(), "name": "x"}, section.to_string(): found});
    let policy: ResiliencePolicySpec = serde_json::from_value(whole).map_err(|error| error.to_string())?;
    let written = annotations::section(&policy, section, place, linkerd).map_err(|refusal| refusal.to_string())?;
    let mut after = stored.clone();
    after.retain(|key, _| !annotations::keys(section).contains(&key.as_str()));
    after.extend(written.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    let (was, is) = (
        read(section, stored, place, linkerd),
        read(section, &after, place, linkerd),
    );
    if was == is {
        Ok(written)
    } else {
        Err("no policy says exactly this".into())
    }
}

/// What a block means, in a form that can be compared: statuses as sets.
fn read(section: Section, stored: &Stored, place: Place, linkerd: &LinkerdVersion) -> Result<Value, Bad> {
    let value = |value: Result<Value, serde_json::Error>| value.unwrap_or_default();
    Ok(match section {
        Section::CircuitBreaker => value(serde_json::to_value(Breaker::read(stored, linkerd)?)),
        Section::Timeout => value(serde_json::to_value(Timeouts::read(stored)?)),
        Section::LoadBias => value(serde_json::to_value(LoadBias::read(stored, linkerd)?)),
        Section::RateLimit => Value::Null,
        Section::Retry => {
            let protocols: &[Protocol] = match place {
                Place::HttpRoute => &[Protocol::Http],
                Place::GrpcRoute => &[Protocol::Grpc],
                _ => &[Protocol::Http, Protocol::Grpc],
            };
            let mut both = Vec::new();
            for protocol in protocols {
                both.push(Retry::read(stored, *protocol)?.map(|mut retry| {
                    retry.statuses = sections::union(retry.statuses);
                    retry.codes.sort_unstable();
                    retry.codes.dedup();
                    retry
                }));
            }
            value(serde_json::to_value(both))
        }
    })
}
