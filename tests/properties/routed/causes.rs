//! Why a policy may say what it says: a reason counts only if its cause is in what is stored.

use std::collections::BTreeSet;

use serde_json::Value;
use trellis_model::outlook;

use super::view::{Form, Subject, View};
use crate::{
    stand_in,
    verdict::{manager, owned},
};
use kube::ResourceExt;

impl View<'_> {
    /// The reasons for which there is a cause in what is stored.
    pub(super) fn causes(&self, subject: &Subject<'_>, all_lost: bool, ready: bool) -> BTreeSet<String> {
        let mut causes: BTreeSet<&str> = BTreeSet::new();
        if ready {
            let enabled = !subject.asked.enabled().is_empty();
            causes.insert(match (subject.lost.is_empty(), enabled) {
                (false, _) => "PartiallyOverridden",
                (true, true) => "Applied",
                (true, false) => "NothingEnabled",
            });
            return causes.into_iter().map(ToOwned::to_owned).collect();
        }
        if !self.target_is_there(subject) {
            let theirs = matches!(subject.form, Form::Theirs(_));
            causes.insert(if theirs {
                "TargetNotFound"
            } else {
                "TargetServiceNotFound"
            });
            return causes.into_iter().map(ToOwned::to_owned).collect();
        }
        if all_lost {
            causes.insert("Overridden");
        }
        let mut carriers = self.carriers(subject);
        let rests = self
            .rest(subject)
            .into_iter()
            .map(|port| Self::rest_name(subject, port));
        carriers.extend(rests.map(|rest| self.full(subject, &rest)));
        for route in carriers.iter().filter_map(|carrier| self.stored(carrier)) {
            let parents = route.data.pointer("/status/parents").and_then(Value::as_array);
            let said = parents
                .into_iter()
                .flatten()
                .find(|said| said["controllerName"] == stand_in::NAME);
            let port = |parent: &Value| parent["port"].clone();
            if said.is_some_and(|said| port(&said["parentRef"]) != port(&route.data["spec"]["parentRefs"][0])) {
                // It was said of the parent that the route had before.
                causes.insert("RoutePending");
            }
            let accepted = said.map(|said| {
                let conditions = said["conditions"].as_array().cloned().unwrap_or_default();
                conditions.into_iter().find(|condition| condition["type"] == "Accepted")
            });
            match accepted.flatten() {
                None => causes.insert("RoutePending"),
                // Said of the parent that it had before.
                Some(verdict) if verdict["status"] == "True" => causes.insert("RoutePending"),
                Some(verdict) if verdict["reason"] == "RouteReasonConflicted" => causes.insert("RouteConflicted"),
                Some(_) => causes.insert("RouteNotAccepted"),
            };
            let us = manager(&self.namespaces[subject.place], &subject.policy.name_any());
            if !owned(&route.metadata, |by| by != us).is_empty() {
                causes.extend(["ForeignAnnotation", "ForeignOwner", "RouteNotConvertible"]);
            }
        }
        let mut outlooks = self.outlooks(subject, subject.place);
        if outlooks.is_empty() {
            // No such port, if there can be any.
            let name = self.service(subject).map(ResourceExt::name_any).unwrap_or_default();
            let there = &self.namespaces[0];
            outlooks.push(outlook(&self.state, there, &name, 0, there));
        }
        let inert: Vec<String> = outlooks
            .iter()
            .filter_map(|outlook| outlook.inert.map(|inert| format!("{inert:?}")))
            .collect();
        causes.extend(inert.iter().map(String::as_str));
        let profiled = |place: usize| !self.all[place].profiles.is_empty();
        if profiled(0) || profiled(subject.place) {
            causes.insert("ServiceProfileShadowed");
        }
        causes.extend(self.causes_of_form(subject));
        causes.into_iter().map(ToOwned::to_owned).collect()
    }

    /// Those that only policies of its form can have.
    fn causes_of_form(&self, subject: &Subject<'_>) -> BTreeSet<&'static str> {
        let mut causes = BTreeSet::new();
        let any = |kind: &str| {
            let mut routes = self.all.iter().flat_map(|now| now.routes.keys());
            routes.any(|name| name.starts_with(kind))
        };
        match &subject.form {
            Form::Whole => {
                if any("GRPCRoute") {
                    causes.insert("GrpcNeedsGRPCRoute");
                }
                if any("HTTPRoute") || any("GRPCRoute") {
                    causes.insert("ShadowedByRoutes");
                }
            }
            Form::Own(_, grpc) => {
                let kind = if *grpc { "HTTPRoute" } else { "GRPCRoute" };
                if any(kind) || self.rivals(subject, *grpc) || self.outrun(subject) {
                    causes.insert("RouteConflicted");
                }
                if *grpc {
                    causes.insert("HttpOnlyPort");
                }
                if self.spreads(subject) {
                    causes.insert("GrpcNeedsPort");
                }
            }
            Form::Theirs(name) => {
                causes.insert("PortNotFound");
                let grpc = name.starts_with("GRPCRoute");
                if grpc {
                    causes.insert("HttpOnlyPort");
                }
                if self.outrun(subject) || !grpc && any("GRPCRoute") {
                    causes.insert("RouteConflicted");
                }
            }
        }
        causes
    }

    /// Whether another route may be for the same requests: one of the same kind that the policy did not make.
    fn outrun(&self, subject: &Subject<'_>) -> bool {
        let own = self.carriers(subject);
        let kind = own
            .first()
            .and_then(|carrier| carrier.split(' ').next())
            .unwrap_or_default();
        self.places().any(|(namespace, now)| {
            now.routes.keys().any(|name| {
                let (found, name) = name.split_once(' ').unwrap_or_default();
                found == kind && !own.contains(&format!("{kind} {namespace}/{name}"))
            })
        })
    }

    /// Whether another policy wants routes of the other kind for the same Service.
    fn rivals(&self, subject: &Subject<'_>, grpc: bool) -> bool {
        let policies = self.all.iter().flat_map(|now| now.policies.values());
        policies.into_iter().any(|other| {
            let theirs = other.spec.routes.iter().any(|entry| entry.grpc.is_some());
            let target = other.spec.target_ref.clone().unwrap_or_default().name;
            theirs != grpc && Some(target) == subject.policy.spec.target_ref.clone().map(|target| target.name)
        })
    }
}
