//! `Site`: namespaces with an operator and a stand-in of their own, and what a story asks of them.
//!
//! Invariant: at the end of a story nothing is written any more, and nothing but our keys ever was on what users own.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::core::v1::Service;
use kube::{ResourceExt as _, api::ListParams};
use serde_json::{Value, json};
use trellis_api::{ResiliencePolicy, TargetStatus};
use trellis_bindings::gateway::{GrpcRoute, HttpRoute};
use trellis_testkit::{
    audit::{Event, Mark},
    operator::Operator,
    plane::{Credentials, Isolated, Shared},
    rest,
};

use crate::{
    PLANE,
    stand_in::{Linkerd, Says, StandIn},
};

/// How long nothing may be written at the end of a story.
const QUIET: Duration = Duration::from_secs(3);
/// An annotation that looks like one of ours, and is not.
pub(crate) const FOREIGN: (&str, &str) = ("example.com/retry.linkerd.io", "theirs");
/// Beginnings of the keys that the operator may write on what users own.
const OURS: [&str; 4] = [
    "balancer.linkerd.io/",
    "balancer.alpha.linkerd.io/",
    "retry.linkerd.io/",
    "timeout.linkerd.io/",
];

/// One or two namespaces, and an operator that serves only them.
pub(crate) struct Site {
    pub(crate) namespace: Isolated,
    pub(crate) other: Isolated,
    pub(crate) linkerd: StandIn,
    pub(crate) operator: Operator,
    began: Mark,
    identity: &'static str,
    _account: Credentials,
}

impl Site {
    /// With an operator that is told of this Linkerd.
    pub(crate) async fn new(identity: &'static str, linkerd: &str) -> Self {
        Self::on(&PLANE, identity, linkerd).await
    }

    pub(crate) async fn on(plane: &'static Shared, identity: &'static str, linkerd: &str) -> Self {
        let plane = plane.get().await.unwrap();
        let namespace = plane.isolated(identity).await.unwrap();
        let other = plane.isolated(&format!("{identity}-other")).await.unwrap();
        let account = trellis_tests::account(plane).await.unwrap();
        let began = plane.audit().mark().unwrap();
        let operator = trellis_tests::launch(account.path(), identity, &[namespace.name(), other.name()])
            .lease(trellis_tests::NAMESPACE, identity)
            .linkerd_version(linkerd)
            .start()
            .await
            .unwrap();
        let places = [namespace.name(), other.name()];
        let linkerd = Linkerd::watch(namespace.client(), &places).speak_in(&places);
        Self {
            namespace,
            other,
            linkerd,
            operator,
            began,
            identity,
            _account: account,
        }
    }

    /// A Service with port 80, a label `app` of its name, and [`FOREIGN`].
    pub(crate) async fn service(&self, name: &str) {
        self.service_with(name, json!({}), json!({})).await;
    }

    /// The same with more labels and another spec.
    pub(crate) async fn service_with(&self, name: &str, labels: Value, spec: Value) {
        self.namespace.apply(service(name, labels, spec)).await.unwrap();
    }

    /// Applies a policy with this spec.
    pub(crate) async fn policy(&self, name: &str, spec: Value) {
        self.namespace.apply(policy(name, spec)).await.unwrap();
    }

    /// Edits a policy.
    pub(crate) async fn edit(&self, name: &str, spec: Value) {
        let patch = json!({ "spec": spec });
        self.namespace.merge::<ResiliencePolicy>(name, patch).await.unwrap();
    }

    /// Deletes a policy, and waits until it is gone.
    pub(crate) async fn remove(&self, name: &str) {
        self.namespace.delete::<ResiliencePolicy>(name).await.unwrap();
        self.namespace.gone::<ResiliencePolicy>(name).await;
    }

    /// Waits until `Ready` of the current spec has this reason.
    pub(crate) async fn until(&self, name: &str, reason: &str) -> ResiliencePolicy {
        self.namespace
            .until(name, reason, |policy| ready(policy).1 == reason && is_current(policy))
            .await
    }

    /// Waits until the policy is `Ready`, and its sections on its only target stand as said: `retry InForce`, or
    /// `retry Overridden a`, in the order of the sections.
    pub(crate) async fn stands(&self, name: &str, sections: &[&str]) -> ResiliencePolicy {
        let what = format!("{sections:?}");
        let place = format!("{}/", self.namespace.name());
        let wanted = |policy: &ResiliencePolicy| {
            let found: Vec<String> = standings(policy).iter().map(|text| text.replace(&place, "")).collect();
            is_current(policy) && found == sections
        };
        self.namespace.until(name, &what, wanted).await
    }

    /// Waits until the Service carries exactly these annotations of ours.
    pub(crate) async fn carries(&self, name: &str, annotations: &[(&str, &str)]) {
        let wanted: BTreeMap<String, String> = owned(annotations);
        let what = format!("{wanted:?}");
        let reached = |service: &Service| ours(service.annotations()) == wanted;
        self.namespace.until(name, &what, reached).await;
    }

    /// Waits for rest. Returns what the operator has written since it began, Leases excepted.
    pub(crate) async fn written(&self) -> Vec<Event> {
        let by_us = |event: &Event| event.identity() == Some(self.identity) && is_work(event);
        rest(self.namespace.plane().audit(), QUIET, by_us).await.unwrap();
        let events = self.namespace.plane().audit().since(self.began).unwrap();
        events.into_iter().filter(by_us).collect()
    }

    /// Waits for rest, and checks what was written until then.
    pub(crate) async fn finish(self) {
        let work = self.written().await;
        assert!(!work.is_empty(), "the audit log shows our writes");
        for event in &work {
            assert_ne!(event.code(), 403, "more than the chart allows: {event}");
            if event.info().resource == "services" {
                only_our_keys(event);
            }
        }
        for namespace in [&self.namespace, &self.other] {
            for service in namespace.api::<Service>().list(&ListParams::default()).await.unwrap() {
                assert_eq!(
                    service.annotations().get(FOREIGN.0).map(String::as_str),
                    Some(FOREIGN.1)
                );
            }
        }
    }
}

fn is_work(event: &Event) -> bool {
    event.info().verb.writes() && event.info().resource != "leases"
}

/// A write to a Service says which one it is, and our annotations.
fn only_our_keys(event: &Event) {
    let body = event.request_object.as_ref().unwrap();
    let fields = body["metadata"].as_object().unwrap();
    let allowed = ["name", "namespace", "uid", "annotations"];
    assert!(
        body.get("spec").is_none() && fields.keys().all(|field| allowed.contains(&field.as_str())),
        "{event}: {body}"
    );
    let annotations = fields.get("annotations").and_then(Value::as_object);
    for key in annotations.into_iter().flat_map(|annotations| annotations.keys()) {
        assert!(OURS.iter().any(|ours| key.starts_with(ours)), "{event}: {key}");
    }
    assert!(!event.info().query.contains("force=true"), "{event}");
}

/// What a person would write.
pub(crate) fn policy(name: &str, spec: Value) -> Value {
    let mut manifest = json!({
        "apiVersion": "resilience.trellis.dev/v1alpha1", "kind": "ResiliencePolicy", "metadata": { "name": name },
    });
    manifest["spec"] = spec;
    manifest
}

/// A Service of a user.
pub(crate) fn service(name: &str, labels: Value, spec: Value) -> Value {
    let mut manifest = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": name, "labels": { "app": name }, "annotations": { FOREIGN.0: FOREIGN.1 } },
        "spec": { "selector": { "app": name }, "ports": [{ "name": "http", "port": 80, "targetPort": 8080 }] },
    });
    merge(&mut manifest["metadata"]["labels"], labels);
    merge(&mut manifest["spec"], spec);
    manifest
}

fn merge(into: &mut Value, more: Value) {
    let Value::Object(more) = more else { return };
    for (key, value) in more {
        into[key] = value;
    }
}

pub(crate) fn owned(annotations: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = annotations
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    owned.collect()
}

/// The annotations that Linkerd reads.
pub(crate) fn ours(annotations: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let read = |key: &String| OURS.iter().any(|ours| key.starts_with(ours));
    annotations.clone().into_iter().filter(|(key, _)| read(key)).collect()
}

/// Those of an object as the API server has it.
pub(crate) fn linkerds(object: &Value) -> BTreeMap<String, String> {
    let annotations = object["metadata"]["annotations"].clone();
    ours(&serde_json::from_value(annotations).unwrap_or_default())
}

/// Status, reason and message of `Ready`.
pub(crate) fn ready(policy: &ResiliencePolicy) -> (&str, &str, &str) {
    let mut conditions = policy.status.iter().flat_map(|status| &status.common.conditions);
    conditions
        .find(|condition| condition.type_ == "Ready")
        .map_or(("", "", ""), |ready| {
            (ready.status.as_str(), ready.reason.as_str(), ready.message.as_str())
        })
}

pub(crate) fn is_current(policy: &ResiliencePolicy) -> bool {
    let observed = policy
        .status
        .as_ref()
        .and_then(|status| status.common.observed_generation);
    observed == policy.metadata.generation
}

pub(crate) fn targets(policy: &ResiliencePolicy) -> &[TargetStatus] {
    policy.status.as_ref().map_or(&[], |status| &status.targets)
}

/// How many targets there are, and on how many the policy is in force.
pub(crate) fn totals(policy: &ResiliencePolicy) -> (Option<i32>, Option<i32>) {
    let status = policy.status.as_ref();
    status.map_or((None, None), |status| (status.targets_total, status.targets_in_force))
}

/// The sections of the only target.
fn standings(policy: &ResiliencePolicy) -> Vec<String> {
    let [target] = targets(policy) else { return Vec::new() };
    let line = |section: &trellis_api::SectionStatus| {
        let by = section.by.as_ref().map(|by| format!(" {by}")).unwrap_or_default();
        format!("{} {:?}{by}", section.section, section.state)
    };
    target.sections.iter().map(line).collect()
}

/// A route of either kind as the API server has it.
pub(crate) async fn route(namespace: &Isolated, kind: &str, name: &str) -> Option<Value> {
    match kind {
        "GRPCRoute" => namespace
            .api::<GrpcRoute>()
            .get_opt(name)
            .await
            .unwrap()
            .map(|route| json!(route)),
        _ => namespace
            .api::<HttpRoute>()
            .get_opt(name)
            .await
            .unwrap()
            .map(|route| json!(route)),
    }
}

/// `Ready` is False, for this reason.
pub(crate) fn not_ready(policy: &ResiliencePolicy, reason: &str) {
    assert_eq!(
        (ready(policy).0, ready(policy).1),
        ("False", reason),
        "{}",
        ready(policy).2
    );
}

/// Every way to say no, with the reason that a policy gives then.
pub(crate) const NO: [(Says, &str); 3] = [
    (Says::Nothing, "RoutePending"),
    (Says::No("RouteReasonConflicted"), "RouteConflicted"),
    (Says::No("NoMatchingParent"), "RouteNotAccepted"),
];
