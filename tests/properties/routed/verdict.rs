//! Whether what policies say of their routes is so, by the independent model of a whole cluster.
//!
//! stored Services, routes and verdicts ─▶ model: what clients of each namespace get ─▶ compared with every status
//!
//! Invariant: Ready is True exactly if clients get everything that the policy asks for and no other policy decides.

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt as _;
use serde_json::{Value, json};
use trellis_api::{ResiliencePolicy, SectionState};
use trellis_model::RuleOutlook;

use super::{
    laws::{OWNER, RECORD},
    view::{Form, Subject, View, of},
};
use crate::verdict::{condition, leftovers, manager, owned, sections, told};

impl View<'_> {
    /// Whether everything that the policies' status say is so, and nothing is left of policies that are gone.
    pub(crate) fn judge(&self) -> Result<(), String> {
        for (place, now) in self.all.iter().enumerate() {
            for policy in now.policies.values() {
                let said = || format!("{}/{}", self.namespaces[place], policy.name_any());
                self.policy(place, policy)
                    .map_err(|wrong| format!("{}: {wrong}", said()))?;
            }
        }
        for (namespace, now) in self.places() {
            leftovers(namespace, &now.policies, &now.services)?;
            let alive: BTreeSet<String> = now.policies.keys().map(|name| manager(namespace, name)).collect();
            for (name, route) in &now.routes {
                let gone = |by: &str| by.starts_with("trellis-resilience/") && !alive.contains(by);
                let left = owned(&route.metadata, gone);
                if !left.is_empty() {
                    return Err(format!("{namespace}/{name} still carries {left:?} of a deleted policy"));
                }
            }
        }
        Ok(())
    }

    fn policy(&self, place: usize, policy: &ResiliencePolicy) -> Result<(), String> {
        let ready = told(policy)?;
        let subject = self.subject(place, policy);
        let mut wrong = Vec::new();
        let acting: Vec<&str> = subject.asked.enabled();
        for section in acting.iter().filter(|section| !subject.lost.contains(section)) {
            if !self.acts(&subject, section) {
                wrong.push(*section);
            }
        }
        let all_lost = sections(policy).iter().all(|(name, _)| subject.lost.contains(name));
        let allowed = acting.is_empty() || !self.spreads(&subject);
        let expected = self.target_is_there(&subject) && wrong.is_empty() && !all_lost && allowed;
        let said = format!("Ready={} {}: {}", ready.status, ready.reason, ready.message);
        if (ready.status == "True") != expected {
            return Err(format!(
                "untrue, {wrong:?} do not act, {:?} are decided by others; {said}",
                subject.lost
            ));
        }
        let causes = self.causes(&subject, all_lost, ready.status == "True");
        if !causes.contains(&ready.reason) {
            return Err(format!("no such cause, but perhaps {causes:?}; {said}"));
        }
        // Targets are told as if every write had been taken.
        if ready.reason != "ForeignOwner" {
            self.standings(&subject)?;
        }
        self.carried(&subject).map_err(|wrong| format!("{wrong}; {said}"))?;
        if ready.status == "True" {
            self.routes_are_as_asked(&subject)?;
            self.others_see(&subject)?;
        }
        Ok(())
    }

    /// P4: a producer's routes act for the clients of every namespace where their kind is served, a consumer's for no
    /// others.
    fn others_see(&self, subject: &Subject<'_>) -> Result<(), String> {
        let Form::Own(_, grpc) = subject.form else {
            return Ok(());
        };
        for client in (0..self.all.len()).filter(|client| *client != subject.place) {
            for outlook in self.outlooks(subject, client) {
                for carrier in self.carriers(subject) {
                    let rules: Vec<&RuleOutlook> = of(&outlook, &carrier).collect();
                    if subject.place > 0 && !rules.is_empty() {
                        return Err(format!("{carrier} acts for clients of {}", self.namespaces[client]));
                    }
                    let served = outlook.inert.is_none() && outlook.grpc == grpc;
                    // Nobody has a gRPC route where the port says HTTP/1.
                    if subject.place > 0 || !served {
                        continue;
                    }
                    let us = manager(&self.namespaces[subject.place], &subject.policy.name_any());
                    let open = self.open(&carrier, &us);
                    let enabled = subject.asked.enabled();
                    let fits = |rule: &&RuleOutlook| {
                        enabled
                            .iter()
                            .all(|section| subject.asked.acts(section, &outlook, rule, &open))
                    };
                    if !enabled.is_empty() && (rules.is_empty() || !rules.iter().all(fits)) {
                        return Err(format!(
                            "{carrier} does not act for clients of {}: {outlook:?}",
                            self.namespaces[client]
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    /// The routes that the policy made: exactly those it needs, each with its parent, matches and annotations.
    fn routes_are_as_asked(&self, subject: &Subject<'_>) -> Result<(), String> {
        let now = &self.all[subject.place];
        let name = subject.policy.name_any();
        let us = manager(&self.namespaces[subject.place], &name);
        let made: BTreeSet<&String> = now
            .routes
            .iter()
            .filter(|(_, route)| route.labels().get(OWNER) == Some(&name))
            .map(|(name, _)| name)
            .collect();
        let mut wanted: BTreeSet<String> = BTreeSet::new();
        if let Form::Own(entries, grpc) = &subject.form
            && !subject.asked.enabled().is_empty()
        {
            let kind = if *grpc { "GRPCRoute" } else { "HTTPRoute" };
            let target = subject.policy.spec.target_ref.clone().unwrap_or_default();
            let mut parent = json!({ "group": "", "kind": "Service", "name": target.name });
            if subject.place > 0 {
                parent["namespace"] = self.namespaces[0].as_str().into();
            }
            if let Some(port) = target.port {
                parent["port"] = port.into();
            }
            let ports = self.rest(subject);
            let rests: BTreeMap<String, Option<i32>> = ports
                .iter()
                .map(|port| (Self::rest_name(subject, *port), *port))
                .collect();
            let at = |port: &Option<i32>| {
                let mut parent = parent.clone();
                if let Some(port) = port {
                    parent["port"] = (*port).into();
                }
                parent
            };
            for entry in entries.iter().chain(rests.keys()) {
                let full = format!("{kind} {name}-{entry}");
                let route = now.routes.get(&full).ok_or_else(|| format!("no {full}"))?;
                let parents = json!([rests.get(entry).map_or_else(|| parent.clone(), at)]);
                if route.data["spec"]["parentRefs"] != parents {
                    return Err(format!("{full} is attached to {}", route.data["spec"]["parentRefs"]));
                }
                let spec = subject.policy.spec.routes.iter().find(|wanted| wanted.name == *entry);
                rules(&route.data["spec"]["rules"], &json!(spec), *grpc).map_err(|wrong| format!("{full}: {wrong}"))?;
                let mut keys = owned(&route.metadata, |by| by == us);
                keys.remove(RECORD);
                let asked = if rests.contains_key(entry) {
                    BTreeSet::new()
                } else {
                    subject.asked.route_keys(*grpc)
                };
                if keys.iter().map(String::as_str).ne(asked.iter().copied()) {
                    return Err(format!("{full} has {keys:?} instead of {asked:?}"));
                }
                wanted.insert(full);
            }
        }
        if made.into_iter().ne(&wanted) {
            return Err(format!("its routes are not {wanted:?}"));
        }
        Ok(())
    }

    /// What the status says of each section.
    fn standings(&self, subject: &Subject<'_>) -> Result<(), String> {
        let targets = subject.policy.status.iter().flat_map(|status| &status.targets);
        for told in targets.flat_map(|target| &target.sections) {
            let name = told.section.to_string();
            let lost = subject.lost.iter().any(|lost| *lost == name);
            if (told.state == SectionState::Overridden) != lost {
                return Err(format!("{name} is said to be {:?}", told.state));
            }
            let enabled = subject.asked.enabled();
            let section = enabled.iter().find(|section| **section == name);
            if let Some(section) = section
                && told.state == SectionState::InForce
                && !self.acts(subject, section)
            {
                return Err(format!("{name} is said to be in force"));
            }
        }
        Ok(())
    }

    /// The list of Services, and whether anything is said to be enforced, are what is stored.
    fn carried(&self, subject: &Subject<'_>) -> Result<(), String> {
        let (now, namespace) = (&self.all[subject.place], &self.namespaces[subject.place]);
        let name = subject.policy.name_any();
        let us = manager(namespace, &name);
        let on = now
            .services
            .iter()
            .filter(|(_, service)| !owned(&service.metadata, |by| by == us).is_empty());
        let on: BTreeSet<String> = on.map(|(name, _)| format!("{namespace}/{name}")).collect();
        let status = subject.policy.status.clone().unwrap_or_default();
        if on != status.applied_to_services.iter().cloned().collect() {
            return Err(format!(
                "applied to {:?}, but {on:?} carry it",
                status.applied_to_services
            ));
        }
        let routes = now
            .routes
            .values()
            .any(|route| route.labels().get(OWNER) == Some(&name) || !owned(&route.metadata, |by| by == us).is_empty());
        let enforced =
            condition(subject.policy, "Enforced").map(|found| (found.status.as_str(), found.reason.as_str()));
        if enforced != (routes || !on.is_empty()).then_some(("Unknown", "LinkerdNotObserved")) {
            return Err(format!("Enforced is {enforced:?}"));
        }
        Ok(())
    }
}

/// One rule, without backends, with the matches of the entry; absent, with all requests.
fn rules(stored: &Value, entry: &Value, grpc: bool) -> Result<(), String> {
    let asked = entry.pointer(if grpc { "/grpc/matches" } else { "/http/matches" });
    let asked = asked.and_then(Value::as_array).cloned();
    let everything = json!([{ "path": { "type": "PathPrefix", "value": "/" } }]);
    let wanted = match (asked, grpc) {
        (None, true) => Value::Null,
        (None, false) => everything,
        (Some(matches), true) => matches
            .into_iter()
            .map(|mut wanted| {
                wanted["type"] = "Exact".into();
                json!({ "method": wanted })
            })
            .collect(),
        (Some(matches), false) => matches
            .into_iter()
            .map(|mut wanted| {
                if wanted["path"].is_null() {
                    wanted["path"] = everything[0]["path"].clone();
                }
                wanted
            })
            .collect(),
    };
    let [rule] = stored.as_array().map(Vec::as_slice).unwrap_or_default() else {
        return Err(format!("not one rule: {stored}"));
    };
    if rule.get("matches").unwrap_or(&Value::Null) != &wanted || rule.get("backendRefs").is_some() {
        return Err(format!("{rule} instead of matches {wanted}"));
    }
    Ok(())
}
