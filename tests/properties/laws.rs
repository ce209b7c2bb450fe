//! What holds of a story: at its end, and of every version that ever was.
//!
//! chronicle + audit log ─▶ statuses, owners, users' fields, transition times, grammars ─▶ the first that is broken

use std::collections::BTreeMap;

use kube::ResourceExt as _;
use trellis_api::ResiliencePolicy;
use trellis_testkit::audit::Event;

use crate::{
    audited::lawful,
    chronicle::{Chronicle, Place},
    grammar::strict,
    lifecycle::Ran,
    property::Plot,
    routed,
    story::{SACRED, at_rest},
    verdict::condition,
};

/// What has to be so in the namespaces of a story at its end, and always was.
pub(crate) fn hold(
    ran: &Ran,
    chronicle: &Chronicle,
    work: &BTreeMap<String, Vec<Event>>,
    deletions: &[Event],
) -> Result<(), String> {
    let all = chronicle.all(&ran.namespaces);
    match (&ran.case.plot, all.as_slice()) {
        (Plot::Whole(_), [now]) => at_rest(&ran.namespaces[0], now)?,
        _ => routed::at_rest(&ran.namespaces, &all)?,
    }
    for namespace in &ran.namespaces {
        let place = chronicle.place(namespace);
        lawful(namespace, work.get(namespace).map(Vec::as_slice).unwrap_or_default())?;
        sacred(&place)?;
        transitions(&place)?;
        routed::laws::always(&place)?;
        routed::laws::deletions(namespace, &place, deletions)?;
        let services = place.services.values().flatten().flatten();
        let routes = place.routes.values().flatten().flatten();
        let metadata = services
            .map(|service| &service.metadata)
            .chain(routes.map(|route| &route.metadata));
        for metadata in metadata {
            strict(metadata)?;
        }
    }
    Ok(())
}

/// No version of any Service lacks what its author wrote.
fn sacred(place: &Place) -> Result<(), String> {
    for (name, versions) in &place.services {
        for version in versions.iter().flatten() {
            let lost = SACRED
                .iter()
                .find(|(key, value)| version.annotations().get(*key).is_none_or(|found| found != value));
            if let Some((key, _)) = lost {
                return Err(format!(
                    "Service {name} lost {key} in version {:?}",
                    version.resource_version()
                ));
            }
        }
    }
    Ok(())
}

/// The transition time of a condition moves on a flip only, the time of the last update on a change only.
fn transitions(place: &Place) -> Result<(), String> {
    for (name, versions) in &place.policies {
        let living: Vec<&ResiliencePolicy> = versions.iter().flatten().collect();
        for (old, new) in living
            .iter()
            .zip(living.iter().skip(1))
            .filter(|(old, new)| old.uid() == new.uid())
        {
            let (Some(before), Some(after)) = (&old.status, &new.status) else {
                continue;
            };
            for condition_after in &after.common.conditions {
                let Some(condition_before) = condition(old, &condition_after.type_) else {
                    continue;
                };
                let flipped = condition_before.status != condition_after.status;
                let moved = condition_before.last_transition_time != condition_after.last_transition_time;
                if moved && !flipped || condition_after.last_transition_time < condition_before.last_transition_time {
                    return Err(format!("{name}: {condition_before:?} became {condition_after:?}"));
                }
            }
            let mut same = after.clone();
            same.last_update_time.clone_from(&before.last_update_time);
            if (same == *before) != (after.last_update_time == before.last_update_time) {
                return Err(format!(
                    "{name}: lastUpdateTime {:?} → {:?}",
                    before.last_update_time, after.last_update_time
                ));
            }
        }
    }
    Ok(())
}
