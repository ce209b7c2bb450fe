//! Which Linkerd: read from ConfigMap `linkerd/linkerd-config`, followed while it comes, changes and goes.

use k8s_openapi::api::core::v1::{ConfigMap, Service};
use kube::{Api, ResourceExt as _, api::DeleteParams};
use serde_json::json;
use trellis_api::{REQUESTED_AT, ResiliencePolicy};
use trellis_testkit::{
    fixtures::{policy, service},
    operator::Launch,
    plane::Isolated,
};

use crate::{PLANE, site::condition};

/// The version of `linkerd-config` counts, is repeated by every Ready message, and decides what Linkerd understands.
#[tokio::test(flavor = "multi_thread")]
async fn the_version_of_linkerd_config_is_followed() {
    let plane = PLANE.get().await.unwrap();
    let namespace = plane.isolated("config").await.unwrap();
    let account = trellis_tests::account(plane).await.unwrap();
    let launch = Launch::new(account.path(), "config")
        .lease(trellis_tests::NAMESPACE, "config")
        .namespaces(namespace.name());
    let _operator = launch.start().await.unwrap();
    namespace.create_object(service("web").port(80).build()).await.unwrap();
    // Linkerd reads appProtocol since 2.18.
    namespace
        .create_object(service("rpc").port(80).app_protocol("grpc").build())
        .await
        .unwrap();
    for name in ["web", "rpc"] {
        let retries = policy(name).retry(3, "5xx").retry_timeout("300ms");
        namespace.apply(retries.json()).await.unwrap();
    }
    let until = async |name: &str, reason: &str, words: &str| -> ResiliencePolicy {
        let reached = |policy: &ResiliencePolicy| {
            condition(policy, "Ready").is_some_and(|ready| {
                ready.reason == reason
                    && ready.message.contains(words)
                    && (ready.status == "True") == (reason == "Applied")
            })
        };
        namespace.until(name, &format!("{reason}, {words}"), reached).await
    };
    let absent = until("web", "LinkerdNotFound", "there is no ConfigMap linkerd/linkerd-config").await;
    assert!(
        condition(&absent, "Ready")
            .unwrap()
            .message
            .contains("--linkerd-version"),
        "the way out is named"
    );
    assert!(absent.status.unwrap().applied_to_services.is_empty());
    until("rpc", "LinkerdNotFound", "").await;
    let untouched: Service = namespace.get("web").await.unwrap();
    assert!(untouched.annotations().is_empty());

    plane
        .apply(&[json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "linkerd" } })])
        .await
        .unwrap();
    let say = async |values: &str| {
        let config = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": { "name": "linkerd-config", "namespace": "linkerd" }, "data": { "values": values },
        });
        plane.apply(&[config]).await.unwrap();
    };
    say("linkerdVersion: stable-2.16.2\nproxy:\n  opaquePorts: '25'\n").await;
    let ready = until(
        "web",
        "Applied",
        "Linkerd stable-2.16.2 as ConfigMap linkerd/linkerd-config says",
    )
    .await;
    until("rpc", "Applied", "stable-2.16.2").await;
    let enforced = condition(&ready, "Enforced").unwrap();
    assert_eq!(
        (enforced.status.as_str(), enforced.reason.as_str()),
        ("Unknown", "LinkerdNotObserved")
    );
    assert_eq!(
        ready.status.as_ref().unwrap().linkerd_version.as_deref(),
        Some("stable-2.16.2")
    );

    say("linkerdVersion: edge-26.8.3\n").await;
    until("web", "Applied", "edge-26.8.3").await;
    until("rpc", "UnknownAppProtocol", "").await;

    say("linkerdVersion: edge-26.8.3\nproxy:\n  opaquePorts: 80-90\n").await;
    until("web", "Opaque", "").await;
    say("linkerdVersion: edge-26.8.3\nclusterDomain: corp.example\n").await;
    until("web", "ClusterDomainMismatch", "corp.example").await;
    say("linkerdVersion: stable-2.14.10\n").await;
    until("web", "LinkerdTooOld", "stable-2.14.10").await;
    say("linkerdVersion: dev-1234\n").await;
    until("web", "LinkerdVersionUnknown", "dev-1234").await;
    say("linkerdVersion: [").await;
    until("web", "LinkerdNotFound", "").await;
    say("linkerdVersion: '2.18'\n").await;
    until("web", "Applied", "2.18").await;

    let configs: Api<ConfigMap> = Api::namespaced(plane.client().unwrap(), "linkerd");
    configs
        .delete("linkerd-config", &DeleteParams::default())
        .await
        .unwrap();
    let gone = until("web", "LinkerdNotFound", "there is no ConfigMap").await;
    let service: Service = namespace.get("web").await.unwrap();
    assert_eq!(
        service.annotations()["retry.linkerd.io/limit"],
        "3",
        "what runs, runs on"
    );
    assert_eq!(gone.status.unwrap().linkerd_version, None);
    goes_without_linkerd(&namespace).await;
    until("web", "LinkerdNotFound", "there is no ConfigMap").await;
    namespace.delete::<ResiliencePolicy>("web").await.unwrap();
    namespace.gone::<ResiliencePolicy>("web").await;
    let service: Service = namespace.get("web").await.unwrap();
    assert!(service.annotations().is_empty(), "cleaning up needs no Linkerd");
}

/// Of a policy whose Linkerd is not known, what is switched off goes, and nothing new comes; what is asked for in another
/// form stays whole, since nobody knows what a part of it would mean.
async fn goes_without_linkerd(namespace: &Isolated) {
    let before: Service = namespace.get("web").await.unwrap();
    let other = json!({ "metadata": { "annotations": { REQUESTED_AT: "other" } },
        "spec": { "retry": { "retryTimeout": null } } });
    namespace.merge::<ResiliencePolicy>("web", other).await.unwrap();
    let handled = |policy: &ResiliencePolicy| {
        let status = policy.status.as_ref();
        status.is_some_and(|status| status.common.last_handled_reconcile_at.as_deref() == Some("other"))
    };
    namespace.until("web", "looked at again", handled).await;
    let after: Service = namespace.get("web").await.unwrap();
    assert_eq!(after.annotations(), before.annotations());
    // To stop a storm of retries no Linkerd has to be known.
    let off = json!({ "spec": { "retry": { "enabled": false }, "timeout": { "requestTimeout": "5s" } } });
    namespace.merge::<ResiliencePolicy>("web", off).await.unwrap();
    namespace
        .until("web", "nothing is written any more", |service: &Service| {
            service.annotations().is_empty()
        })
        .await;
}
