//! `Site`: a namespace with an operator of its own, and what a test asks of them.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::Service, apimachinery::pkg::apis::meta::v1::Condition};
use kube::ResourceExt as _;
use trellis_api::ResiliencePolicy;
use trellis_testkit::{
    audit::{Event, Mark},
    fixtures::{policy, service},
    operator::Operator,
    plane::{Credentials, Isolated},
};

use crate::PLANE;

/// A namespace, and an operator that serves only it.
pub(crate) struct Site {
    pub(crate) namespace: Isolated,
    began: Mark,
    name: &'static str,
    _operator: Operator,
    _account: Credentials,
}

impl Site {
    pub(crate) async fn new(name: &'static str) -> Self {
        let plane = PLANE.get().await.unwrap();
        let namespace = plane.isolated(name).await.unwrap();
        let account = trellis_tests::account(plane).await.unwrap();
        let began = plane.audit().mark().unwrap();
        let launch =
            trellis_tests::launch(account.path(), name, &[namespace.name()]).lease(trellis_tests::NAMESPACE, name);
        let operator = launch.start().await.unwrap();
        Self {
            namespace,
            began,
            name,
            _operator: operator,
            _account: account,
        }
    }

    pub(crate) async fn service(&self, name: &str) -> Service {
        self.namespace.get(name).await.unwrap()
    }

    pub(crate) async fn annotations(&self, name: &str) -> BTreeMap<String, String> {
        self.service(name).await.annotations().clone()
    }

    pub(crate) async fn policy(&self, name: &str) -> ResiliencePolicy {
        self.namespace.get(name).await.unwrap()
    }

    /// Waits until `Ready` of the current spec has this reason.
    pub(crate) async fn until(&self, name: &str, reason: &str) -> ResiliencePolicy {
        self.namespace.until(name, reason, |policy| says(policy, reason)).await
    }

    /// A policy that becomes ready after everything that came before was looked at.
    pub(crate) async fn everything_was_looked_at(&self) {
        self.namespace
            .create_object(service("marker").port(80).build())
            .await
            .unwrap();
        self.namespace.apply(policy("marker").breaker(5).json()).await.unwrap();
        self.until("marker", "Applied").await;
    }

    /// What the operator wrote here.
    pub(crate) fn written(&self) -> Vec<Event> {
        let events = self.namespace.plane().audit().since(self.began).unwrap();
        let here = |event: &Event| {
            event.identity() == Some(self.name) && event.info().namespace.as_deref() == Some(self.namespace.name())
        };
        events
            .into_iter()
            .filter(|event| here(event) && event.info().verb.writes())
            .collect()
    }
}

pub(crate) fn condition<'a>(policy: &'a ResiliencePolicy, type_: &str) -> Option<&'a Condition> {
    let mut conditions = policy.status.iter().flat_map(|status| &status.common.conditions);
    conditions.find(|condition| condition.type_ == type_)
}

pub(crate) fn says(policy: &ResiliencePolicy, reason: &str) -> bool {
    let generation = policy
        .status
        .as_ref()
        .and_then(|status| status.common.observed_generation);
    generation == policy.metadata.generation && condition(policy, "Ready").is_some_and(|ready| ready.reason == reason)
}
