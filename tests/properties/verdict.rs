//! Whether a policy's status tells the truth about the stored Service, by the independent model.
//!
//! stored policy + stored Services + profiles ─▶ reasons that may be given ─▶ compared with status and fields owned
//!
//! Invariant: nothing of the product's own reasoning is used; only its types, to read what the API server stores.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::core::v1::Service,
    apimachinery::pkg::apis::meta::v1::{Condition, ManagedFieldsEntry, ObjectMeta},
};
use kube::ResourceExt as _;
use trellis_api::ResiliencePolicy;
use trellis_bindings::linkerd::ServiceProfile;
use trellis_model::{Profile, effective};
use trellis_tests::LINKERD_RELEASE;

use crate::asked::{Asked, KEYS, same_statuses};

/// The field manager under which a policy writes to its Service.
pub(crate) fn manager(namespace: &str, policy: &str) -> String {
    format!("trellis-resilience/{namespace}/{policy}")
}

/// Annotation keys by the managers that own them.
pub(crate) fn owned(meta: &ObjectMeta, by: impl Fn(&str) -> bool) -> BTreeSet<String> {
    let keys = |entry: &ManagedFieldsEntry| -> Vec<String> {
        let fields = entry
            .fields_v1
            .as_ref()
            .and_then(|fields| fields.0.pointer("/f:metadata/f:annotations")?.as_object());
        let names = fields.into_iter().flat_map(|fields| fields.keys());
        names
            .filter_map(|name| name.strip_prefix("f:").map(ToOwned::to_owned))
            .collect()
    };
    let entries = meta.managed_fields.iter().flatten();
    entries
        .filter(|entry| by(entry.manager.as_deref().unwrap_or_default()))
        .flat_map(keys)
        .collect()
}

/// A condition of a policy.
pub(crate) fn condition<'a>(policy: &'a ResiliencePolicy, type_: &str) -> Option<&'a Condition> {
    let conditions = policy.status.iter().flat_map(|status| &status.common.conditions);
    conditions.into_iter().find(|condition| condition.type_ == type_)
}

/// The profiles as the model reads them.
pub(crate) fn profiles(stored: &[ServiceProfile]) -> Vec<Profile<'_>> {
    fn text(text: Option<&String>) -> &str {
        text.map_or("", String::as_str)
    }
    let read = stored.iter().map(|profile| Profile {
        namespace: text(profile.metadata.namespace.as_ref()),
        name: text(profile.metadata.name.as_ref()),
        routes: profile.spec.routes.as_ref().map_or(0, Vec::len),
        overrides: profile.spec.dst_overrides.as_ref().map_or(0, Vec::len),
    });
    read.collect()
}

/// Why Linkerd would not act for this policy on this Service, by the model.
fn inert(policy: &ResiliencePolicy, service: &Service, stored: &[ServiceProfile]) -> Option<String> {
    let profiles = profiles(stored);
    let at = |port: i32| effective(service, &profiles, *LINKERD_RELEASE, port).inert;
    let wanted = policy
        .spec
        .target_ref
        .as_ref()
        .and_then(|target| target.port)
        .map(i32::from);
    let ports: Vec<i32> = wanted.map_or_else(|| ports(service), |port| vec![port]);
    let reasons: Vec<_> = ports.into_iter().map(at).collect();
    if reasons.contains(&None) {
        return None;
    }
    let first = reasons.into_iter().next().unwrap_or_else(|| at(0));
    first.map(|reason| format!("{reason:?}"))
}

fn ports(service: &Service) -> Vec<i32> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    ports.map(|port| port.port).collect()
}

/// How the effect on this Service differs from what the policy asks for, at any port where Linkerd acts.
fn differs(asked: &Asked, service: &Service, theirs: &BTreeSet<String>) -> Option<String> {
    let acting = ports(service)
        .into_iter()
        .map(|port| effective(service, &[], *LINKERD_RELEASE, port));
    acting
        .filter(|found| found.inert.is_none())
        .find_map(|found| asked.differs(&found, theirs))
}

/// The reasons that `Ready` may give: more than one only where two things are wrong at once.
fn expected(policy: &ResiliencePolicy, service: Option<&Service>, profiles: &[ServiceProfile]) -> Vec<String> {
    let namespace = policy.namespace().unwrap_or_default();
    let named = policy
        .spec
        .target_ref
        .as_ref()
        .and_then(|target| target.namespace.as_ref());
    // The stories have no Service in another namespace.
    let Some(service) = service.filter(|_| named.is_none_or(|named| *named == namespace)) else {
        return vec!["TargetServiceNotFound".to_owned()];
    };
    let asked = Asked::of(&policy.spec);
    if asked.keys().is_empty() {
        return vec!["NothingEnabled".to_owned()];
    }
    let us = manager(&namespace, &policy.name_any());
    let (ours, theirs) = (
        owned(&service.metadata, |by| by == us),
        owned(&service.metadata, |by| by != us),
    );
    if let Some(reason) = inert(policy, service, profiles) {
        // What is there already is kept up to date, and may be somebody else's too.
        let shared = asked.keys().into_iter().any(|(key, value)| {
            ours.contains(key) && theirs.contains(key) && service.annotations().get(key) != Some(&value)
        });
        let conflict = shared.then(|| "ForeignOwner".to_owned());
        return [reason].into_iter().chain(conflict).collect();
    }
    // The Service as it would be: what only we own goes, what is asked comes.
    let mut would_be = service.clone();
    let annotations = would_be.metadata.annotations.get_or_insert_default();
    annotations.retain(|key, _| !ours.contains(key) || theirs.contains(key));
    let taken = |(key, value): &(&'static str, String)| {
        theirs.contains(*key) && annotations.get(*key).is_some_and(|stored| stored != value)
    };
    let taken: Vec<(&str, String)> = asked.keys().into_iter().filter(taken).collect();
    // How the product spells a list of statuses is its own affair: then both may be right.
    let same = |(key, value): &(&str, String)| {
        key.ends_with("/http") && annotations.get(*key).is_some_and(|stored| same_statuses(stored, value))
    };
    let (conflict, perhaps) = (!taken.is_empty(), !taken.is_empty() && taken.iter().all(same));
    annotations.extend(asked.keys().into_iter().map(|(key, value)| (key.to_owned(), value)));
    let mut reasons = Vec::new();
    if differs(&asked, &would_be, &theirs).is_some() {
        reasons.push("ForeignAnnotation".to_owned());
    }
    if conflict {
        reasons.push("ForeignOwner".to_owned());
    }
    if reasons.is_empty() || (perhaps && reasons == ["ForeignOwner"]) {
        reasons.push("Applied".to_owned());
    }
    reasons
}

/// The reasons of a policy that is in place.
const IN_PLACE: [&str; 3] = ["Applied", "NothingEnabled", "PartiallyOverridden"];

pub(crate) type Section = (&'static str, fn(&mut ResiliencePolicy));

/// The sections that a policy has, enabled or not, and how to take each away.
pub(crate) fn sections(policy: &ResiliencePolicy) -> Vec<Section> {
    let spec = &policy.spec;
    let all: [(bool, Section); 3] = [
        (
            spec.circuit_breaker.is_some(),
            ("circuitBreaker", |policy| policy.spec.circuit_breaker = None),
        ),
        (spec.retry.is_some(), ("retry", |policy| policy.spec.retry = None)),
        (spec.timeout.is_some(), ("timeout", |policy| policy.spec.timeout = None)),
    ];
    all.into_iter()
        .filter_map(|(has, section)| has.then_some(section))
        .collect()
}

/// The policy without the sections that an older one for the same Service decides (of the same second: the one whose
/// name comes first), and whether there were any.
fn without_lost_sections(
    policy: &ResiliencePolicy,
    policies: &BTreeMap<String, ResiliencePolicy>,
) -> (ResiliencePolicy, bool) {
    let age = |policy: &ResiliencePolicy| {
        (
            policy.metadata.creation_timestamp.clone().map(|time| time.0),
            policy.name_any(),
        )
    };
    let target = |policy: &ResiliencePolicy| policy.spec.target_ref.clone().map(|target| target.name);
    let older = policies.values().filter(|other| {
        other.metadata.deletion_timestamp.is_none() && target(other) == target(policy) && age(other) < age(policy)
    });
    let taken: Vec<&str> = older.flat_map(sections).map(|(name, _)| name).collect();
    let mut rest = policy.clone();
    let mut lost = false;
    for (_, remove) in sections(policy).into_iter().filter(|(name, _)| taken.contains(name)) {
        remove(&mut rest);
        lost = true;
    }
    (rest, lost)
}

/// What the status says as a whole, once it is of the present generation and does not contradict itself.
pub(crate) fn told(policy: &ResiliencePolicy) -> Result<&Condition, String> {
    if policy.metadata.deletion_timestamp.is_some() {
        return Err("still terminating".to_owned());
    }
    let status = policy.status.as_ref().ok_or("no status")?;
    let ready = condition(policy, "Ready").ok_or("no Ready")?;
    let fail = |what: String| Err(format!("{what}; Ready={} {}", ready.status, ready.reason));
    let generation = policy.metadata.generation;
    if status.common.observed_generation != generation {
        return fail(format!(
            "observed {:?} of {generation:?}",
            status.common.observed_generation
        ));
    }
    let mut conditions = status.common.conditions.iter();
    if let Some(stale) = conditions.find(|found| found.observed_generation != generation) {
        return fail(format!(
            "{} is of generation {:?}",
            stale.type_, stale.observed_generation
        ));
    }
    // What waits for Linkerd goes on; what is refused waits for the user.
    let waits = ready.status != "True" && condition(policy, "Reconciling").is_some();
    let stalled = condition(policy, "Stalled").map(|found| (found.status.as_str(), found.reason.as_str()));
    if stalled != (ready.status != "True" && !waits).then_some(("True", ready.reason.as_str()))
        || (waits && ready.reason != "RoutePending")
    {
        return fail(format!("conditions {:?}", status.common.conditions));
    }
    if status.last_update_time.is_none() {
        return fail("no time of the last update".to_owned());
    }
    Ok(ready)
}

/// Whether everything that the policy's status says is so, and is all there is to say.
pub(crate) fn judge(
    policy: &ResiliencePolicy,
    policies: &BTreeMap<String, ResiliencePolicy>,
    services: &BTreeMap<String, Service>,
    profiles: &[ServiceProfile],
) -> Result<(), String> {
    let name = policy.name_any();
    let namespace = policy.namespace().unwrap_or_default();
    let service = services.get(&policy.spec.target_ref.clone().unwrap_or_default().name);
    let (rest, lost) = without_lost_sections(policy, policies);
    let mut expected = expected(&rest, service, profiles);
    if lost && service.is_some() {
        if sections(&rest).is_empty() {
            expected = vec!["Overridden".to_owned()];
        } else {
            let partly = |reason: String| match reason.as_str() {
                "Applied" | "NothingEnabled" => "PartiallyOverridden".to_owned(),
                _ => reason,
            };
            expected = expected.into_iter().map(partly).collect();
        }
    }
    let ready = told(policy).map_err(|wrong| format!("{name}: {wrong}; expected {expected:?}"))?;
    let status = policy.status.clone().unwrap_or_default();
    let said = format!(
        "{name}: Ready={} {}: {}; expected {expected:?}",
        ready.status, ready.reason, ready.message
    );
    let fail = |what: String| Err(format!("{what}; {said}"));
    if !expected.contains(&ready.reason) || (ready.status == "True") != IN_PLACE.contains(&ready.reason.as_str()) {
        return fail("untrue".to_owned());
    }
    // Ready or not, the list says which Services carry something of this policy.
    let us = manager(&namespace, &name);
    let carries = |service: &Service| !owned(&service.metadata, |by| by == us).is_empty();
    let carriers = services.iter().filter(|(_, service)| carries(service));
    let carriers: BTreeSet<String> = carriers.map(|(name, _)| format!("{namespace}/{name}")).collect();
    if carriers != status.applied_to_services.iter().cloned().collect() {
        return fail(format!(
            "applied to {:?}, but {carriers:?} carry it",
            status.applied_to_services
        ));
    }
    let enforced = condition(policy, "Enforced").map(|found| (found.status.as_str(), found.reason.as_str()));
    if enforced != (!carriers.is_empty()).then_some(("Unknown", "LinkerdNotObserved")) {
        return fail(format!("Enforced is {enforced:?}"));
    }
    if ready.status != "True" {
        return Ok(());
    }
    let asked = Asked::of(&rest.spec);
    let service = service.ok_or("Ready without a Service")?;
    let ours = owned(&service.metadata, |by| by == us);
    let wanted: BTreeSet<String> = asked.keys().into_keys().map(ToOwned::to_owned).collect();
    if ours != wanted {
        return fail(format!("owns {ours:?} instead of {wanted:?}"));
    }
    if let Some(wrong) = differs(&asked, service, &owned(&service.metadata, |by| by != us)) {
        return fail(wrong);
    }
    let elsewhere = carriers
        .iter()
        .find(|carrier| **carrier != format!("{namespace}/{}", service.name_any()));
    if let Some(elsewhere) = elsewhere {
        return fail(format!("{elsewhere} still carries it"));
    }
    if !ready.message.contains(trellis_tests::LINKERD.as_str()) {
        return fail("the version of Linkerd is not told".to_owned());
    }
    Ok(())
}

/// Whether any Service here still carries something of a policy that is not there any more.
pub(crate) fn leftovers(
    namespace: &str,
    policies: &BTreeMap<String, ResiliencePolicy>,
    services: &BTreeMap<String, Service>,
) -> Result<(), String> {
    let alive: BTreeSet<String> = policies.keys().map(|name| manager(namespace, name)).collect();
    for (name, service) in services {
        let left = owned(&service.metadata, |by| {
            by.starts_with("trellis-resilience/") && !alive.contains(by)
        });
        if !left.is_empty() {
            return Err(format!("Service {name} still carries {left:?} of a deleted policy"));
        }
        let strangers = owned(&service.metadata, |by| by.starts_with("trellis-"));
        if let Some(key) = strangers.iter().find(|key| !KEYS.contains(&key.as_str())) {
            return Err(format!("Service {name}: {key} is none of our keys"));
        }
    }
    Ok(())
}
