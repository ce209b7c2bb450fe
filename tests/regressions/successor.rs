//! A policy that goes while the operator is at work for it, and comes back under its name: nothing of the first stays.

use k8s_openapi::api::core::v1::Service;
use kube::{ResourceExt as _, api::DeleteParams};
use serde_json::{Value, json};
use trellis_api::ResiliencePolicy;
use trellis_testkit::{
    Fault, Gate, Script, Verb, calls, eventually,
    fixtures::{policy, service},
};

use crate::PLANE;

/// The API server takes a status for whoever has the name: the operator notices whose it became, and cleans up. The
/// successor is suspended, so that nothing else could.
#[tokio::test(flavor = "multi_thread")]
async fn a_status_that_lands_on_a_successor_ends_in_a_clean_up() {
    let plane = PLANE.get().await.unwrap();
    let namespace = plane.isolated("successor").await.unwrap();
    let account = trellis_tests::account(plane).await.unwrap();
    let (script, gate) = (Script::new(), Gate::new());
    let status = calls().verb(Verb::Patch).resource("resiliencepolicies/status");
    // The first records what will be written, the second says that it is.
    script.add(status.nth(2).then(Fault::hold(&gate)));
    let proxy = plane.proxy(&account, &script).await.unwrap();
    let launch = trellis_tests::launch(proxy.kubeconfig(), "successor", &[namespace.name()])
        .lease(trellis_tests::NAMESPACE, "successor");
    let _operator = launch.start().await.unwrap();
    namespace.create_object(service("web").port(80).build()).await.unwrap();
    namespace.apply(policy("web").breaker(5).json()).await.unwrap();
    gate.reached(1).await;
    let written: Service = namespace.get("web").await.unwrap();
    assert!(!written.annotations().is_empty());

    let free = json!({ "metadata": { "finalizers": Value::Null } });
    namespace.merge::<ResiliencePolicy>("web", free).await.unwrap();
    let policies = namespace.api::<ResiliencePolicy>();
    policies.delete("web", &DeleteParams::default()).await.unwrap();
    eventually("the first is gone", async || match policies.get_opt("web").await {
        Ok(None) => Ok(()),
        found => Err(format!("{found:?}")),
    })
    .await;
    let mut successor = policy("web").breaker(5).json();
    successor["spec"]["suspend"] = true.into();
    namespace.apply(successor).await.unwrap();
    gate.open();
    namespace
        .until("web", "what the first wrote is taken back", |service: &Service| {
            service.annotations().is_empty()
        })
        .await;
}

/// What is not listed yet is not taken for absent: a profile that shadows everything is waited for.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_before_profiles_are_listed() {
    let plane = PLANE.get().await.unwrap();
    let namespace = plane.isolated("late").await.unwrap();
    let account = trellis_tests::account(plane).await.unwrap();
    let profile = json!({
        "apiVersion": "linkerd.io/v1alpha2", "kind": "ServiceProfile",
        "metadata": { "name": format!("web.{}.svc.cluster.local", namespace.name()) },
        "spec": { "routes": [{ "name": "GET /", "condition": { "method": "GET" } }] },
    });
    namespace.create_object(service("web").port(80).build()).await.unwrap();
    namespace.apply(profile).await.unwrap();
    namespace.apply(policy("web").breaker(5).json()).await.unwrap();
    let (script, gate) = (Script::new(), Gate::new());
    script.add(
        calls()
            .verb(Verb::List)
            .resource("serviceprofiles")
            .then(Fault::hold(&gate)),
    );
    let proxy = plane.proxy(&account, &script).await.unwrap();
    let launch =
        trellis_tests::launch(proxy.kubeconfig(), "late", &[namespace.name()]).lease(trellis_tests::NAMESPACE, "late");
    let mark = plane.audit().mark().unwrap();
    let operator = launch.start().await.unwrap();
    // It gives up waiting for all lists, and serves; the policy is looked at, and has to wait for this one.
    eventually("the policy is looked at", async || {
        let log = operator.log().unwrap();
        if log.contains("reconcile failed") {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await;
    gate.open();
    let shadowed = |policy: &ResiliencePolicy| crate::site::says(policy, "ServiceProfileShadowed");
    namespace.until("web", "ServiceProfileShadowed", shadowed).await;
    let events = plane.audit().since(mark).unwrap();
    let services = calls().writes().resource("services").namespace(namespace.name());
    let written: Vec<String> = events
        .iter()
        .filter(|event| services.matches(&event.info()))
        .map(ToString::to_string)
        .collect();
    assert!(written.iter().all(|event| !event.contains("trellis/")), "{written:?}");
}
