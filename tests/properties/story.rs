//! `Story`: a namespace, what users do there, and the ledger of what is theirs.
//!
//! step ─▶ API server ─▶ answer ─▶ ledger (keys that others own, with their values) ─▶ compared with the next answer
//!
//! Invariant: between two writes of users, nothing that users own changes.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::core::v1::Service;
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use trellis_api::{REQUESTED_AT, ResiliencePolicy};
use trellis_testkit::plane::Isolated;

use crate::{
    chronicle::{Chronicle, Now},
    steps::{Shape, Step},
    verdict::{judge, leftovers, owned},
};

/// How long the operator may take to get everything right, on a machine that runs many stories at once.
pub(crate) const SOON: Duration = Duration::from_secs(40);

/// Annotations of every Service of a story; nobody ever changes them.
pub(crate) const SACRED: [(&str, &str); 4] = [
    ("example.com/owner", "the shop team"),
    ("linkerd.io/inject", "enabled"),
    ("config.linkerd.io/failure-accrual-consecutive-failures", "3"),
    ("timeout.linkerd.io/requests", "\"10s\"\n"),
];

/// The one who writes manifests, and two who interfere.
const AUTHOR: &str = "author";
const EDITOR: &str = "kubectl-annotate";
const SHARER: &str = "helm";

/// What happens in one namespace.
pub(crate) struct Story<'a> {
    pub(crate) namespace: String,
    chronicle: &'a Chronicle,
    services: Api<Service>,
    policies: Api<ResiliencePolicy>,
    /// By Service: the annotations that somebody else than the operator owned after the last write of a user.
    ledger: BTreeMap<String, BTreeMap<String, String>>,
}

/// Whether what is in a namespace is as it has to be at the end of a story.
pub(crate) fn at_rest(namespace: &str, now: &Now) -> Result<(), String> {
    for policy in now.policies.values() {
        judge(policy, &now.policies, &now.services, &now.profiles)?;
    }
    leftovers(namespace, &now.policies, &now.services)
}

impl<'a> Story<'a> {
    pub(crate) fn new(isolated: &Isolated, client: &Client, chronicle: &'a Chronicle) -> Self {
        let namespace = isolated.name().to_owned();
        Self {
            chronicle,
            services: Api::namespaced(client.clone(), &namespace),
            policies: Api::namespaced(client.clone(), &namespace),
            namespace,
            ledger: BTreeMap::new(),
        }
    }

    /// Waits until every status tells the truth.
    pub(crate) async fn settle(&self) -> Now {
        let check = |now: &Now| at_rest(&self.namespace, now).map(|()| now.clone());
        self.chronicle.until(&self.namespace, SOON, check).await
    }

    /// Does one step, and waits until the chronicle shows it.
    pub(crate) async fn take(&mut self, step: &Step) {
        match step {
            Step::Policy(name, spec) => self.policy(name, spec).await,
            Step::Toggle(name, section, on) => {
                self.edit(name, json!({ "spec": { *section: { "enabled": on } } }))
                    .await;
            }
            Step::Retarget(name, target, port) => {
                self.edit(
                    name,
                    json!({ "spec": { "targetRef": { "name": target, "port": port } } }),
                )
                .await;
            }
            Step::DeletePolicy(name) => self.delete_policy(name).await,
            Step::Service(name, shape) => self.service(name, shape).await,
            Step::DeleteService(name) => self.delete_service(name).await,
            Step::RecreateService(name, shape) => {
                self.delete_service(name).await;
                self.service(name, shape).await;
            }
            Step::Annotate(name, key, value) => {
                let patch = json!({ "metadata": { "annotations": { *key: value } } });
                self.change(name, &[key], &by(EDITOR), &Patch::Merge(patch)).await;
            }
            Step::CoOwn(name) => {
                let Ok(Some(now)) = self.services.get_opt(name).await else {
                    return;
                };
                let linkerd = |key: &String| key.contains(".linkerd.io/") && !key.starts_with("config.");
                let annotations: BTreeMap<_, _> = now
                    .annotations()
                    .clone()
                    .into_iter()
                    .filter(|(key, _)| linkerd(key))
                    .collect();
                let touched: Vec<String> = annotations.keys().cloned().collect();
                let touched: Vec<&str> = touched.iter().map(String::as_str).collect();
                self.share(name, &touched, &json!(annotations)).await;
            }
            Step::Release(name) => {
                let shared: Vec<String> = match self.services.get_opt(name).await {
                    Ok(Some(now)) => owned(&now.metadata, |manager| manager == SHARER).into_iter().collect(),
                    _ => return,
                };
                let touched: Vec<&str> = shared.iter().map(String::as_str).collect();
                self.share(name, &touched, &json!({})).await;
            }
            Step::Settle => {
                self.settle().await;
            }
        }
    }

    /// Applies the manifest of a policy.
    pub(crate) async fn policy(&mut self, name: &str, spec: &Value) {
        let manifest = json!({
            "apiVersion": "resilience.trellis.dev/v1alpha1", "kind": "ResiliencePolicy",
            "metadata": { "name": name }, "spec": spec,
        });
        let answer = self
            .policies
            .patch(name, &PatchParams::apply(AUTHOR).force(), &Patch::Apply(manifest))
            .await;
        self.policy_shown(name, answer).await;
    }

    /// Edits a policy; what the API server refuses is the user's fault and has no consequence.
    pub(crate) async fn edit(&mut self, name: &str, patch: Value) {
        let answer = self.policies.patch(name, &by(AUTHOR), &Patch::Merge(patch)).await;
        self.policy_shown(name, answer).await;
    }

    async fn policy_shown(&self, name: &str, answer: kube::Result<ResiliencePolicy>) {
        match answer {
            Ok(policy) => self.shown(|now| now.policies.get(name), &policy).await,
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 422) => {}
            Err(error) => panic!("{}/{name}: {error}", self.namespace),
        }
    }

    /// Asks for a reconcile and waits until it is done.
    pub(crate) async fn request(&mut self, name: &str, at: &str) {
        self.edit(name, json!({ "metadata": { "annotations": { REQUESTED_AT: at } } }))
            .await;
        let handled = |now: &Now| {
            let policy = now.policies.get(name).ok_or("no policy")?;
            let handled = policy
                .status
                .as_ref()
                .and_then(|status| status.common.last_handled_reconcile_at.clone());
            if handled.as_deref() == Some(at) {
                Ok(())
            } else {
                Err(format!("handled {handled:?}, asked for {at}"))
            }
        };
        self.chronicle.until(&self.namespace, SOON, handled).await;
    }

    /// Asks for the deletion of a policy.
    pub(crate) async fn delete_policy(&mut self, name: &str) {
        match self.policies.delete(name, &DeleteParams::default()).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => return,
            Err(error) => panic!("{}/{name}: {error}", self.namespace),
        }
        let noticed = |now: &Now| match now.policies.get(name) {
            Some(policy) if policy.metadata.deletion_timestamp.is_none() => Err("not deleted yet".to_owned()),
            _ => Ok(()),
        };
        self.chronicle.until(&self.namespace, SOON, noticed).await;
    }

    /// Applies the manifest of a Service.
    pub(crate) async fn service(&mut self, name: &str, shape: &Shape) {
        let mut annotations: BTreeMap<&str, &str> = SACRED.into();
        annotations.extend(shape.opaque.map(|list| ("config.linkerd.io/opaque-ports", list)));
        let ports: Vec<Value> = shape
            .ports
            .iter()
            .map(|(port, protocol)| json!({ "name": format!("p{port}"), "port": port, "appProtocol": protocol }))
            .collect();
        self.apply_service(name, &["config.linkerd.io/opaque-ports"], &json!(annotations), &ports)
            .await;
    }

    /// Applies a Service with these annotations and ports.
    pub(crate) async fn apply_service(&mut self, name: &str, touched: &[&str], annotations: &Value, ports: &[Value]) {
        let metadata = json!({ "annotations": annotations });
        self.apply_manifest(name, touched, metadata, json!({ "ports": ports }))
            .await;
    }

    /// Applies a Service with this metadata and spec.
    pub(crate) async fn apply_manifest(&mut self, name: &str, touched: &[&str], mut metadata: Value, spec: Value) {
        metadata["name"] = name.into();
        let manifest = json!({ "apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec });
        self.change(
            name,
            touched,
            &PatchParams::apply(AUTHOR).force(),
            &Patch::Apply(manifest),
        )
        .await;
    }

    async fn share(&mut self, name: &str, touched: &[&str], annotations: &Value) {
        let manifest = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": name, "annotations": annotations },
        });
        let params = PatchParams::apply(SHARER).force();
        self.change(name, touched, &params, &Patch::Apply(manifest)).await;
    }

    /// Writes to a Service and enters in the ledger what belongs to users now.
    async fn change(&mut self, name: &str, touched: &[&str], params: &PatchParams, patch: &Patch<Value>) {
        let service = match self.services.patch(name, params, patch).await {
            Ok(service) => service,
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 422) => return,
            Err(error) => panic!("{}/{name}: {error}", self.namespace),
        };
        self.unharmed(name, service.annotations(), touched);
        self.ledger.insert(name.to_owned(), theirs(&service));
        self.shown(|now| now.services.get(name), &service).await;
    }

    pub(crate) async fn delete_service(&mut self, name: &str) {
        let uid = match self.services.get_opt(name).await.unwrap() {
            Some(service) => service.uid(),
            None => return,
        };
        self.services.delete(name, &DeleteParams::default()).await.unwrap();
        self.ledger.remove(name);
        let gone = |now: &Now| match now.services.get(name) {
            Some(service) if service.uid() == uid => Err("not deleted yet".to_owned()),
            _ => Ok(()),
        };
        self.chronicle.until(&self.namespace, SOON, gone).await;
    }

    /// Waits until the chronicle shows this version, or a later one.
    async fn shown<K: Resource>(&self, of: impl Fn(&Now) -> Option<&K>, written: &K) {
        let version = |object: &K| object.resource_version().unwrap().parse::<u64>().unwrap();
        let there = |now: &Now| match of(now) {
            Some(object) if version(object) < version(written) && object.uid() == written.uid() => {
                Err("behind".to_owned())
            }
            Some(_) => Ok(()),
            None if written.meta().deletion_timestamp.is_some() => Ok(()),
            None => Err("not there yet".to_owned()),
        };
        self.chronicle.until(&self.namespace, SOON, there).await;
    }

    /// What users own is as they left it, on every Service.
    pub(crate) fn check_ledger(&self, now: &Now) {
        for (name, service) in &now.services {
            self.unharmed(name, service.annotations(), &[]);
        }
    }

    fn unharmed(&self, name: &str, annotations: &BTreeMap<String, String>, touched: &[&str]) {
        for (key, value) in self.ledger.get(name).into_iter().flatten() {
            if !touched.contains(&key.as_str()) {
                assert_eq!(
                    annotations.get(key),
                    Some(value),
                    "{}/{name}: {key} belongs to a user",
                    self.namespace
                );
            }
        }
    }
}

/// For a plain patch by this manager.
pub(crate) fn by(manager: &str) -> PatchParams {
    PatchParams {
        field_manager: Some(manager.to_owned()),
        ..PatchParams::default()
    }
}

/// The annotations that somebody else than the operator owns.
fn theirs(service: &Service) -> BTreeMap<String, String> {
    let keys = owned(&service.metadata, |manager| !manager.starts_with("trellis-"));
    let all = service.annotations().clone().into_iter();
    all.filter(|(key, _)| keys.contains(key)).collect()
}
