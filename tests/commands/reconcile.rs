//! `trellis reconcile`, `suspend` and `resume`: the real binary asks real controllers, of which an upstream sees what it is
//! asked.

use k8s_openapi::api::core::v1::Service;
use serde_json::json;
use trellis_api::{ExternalSource, ResiliencePolicy};
use trellis_devplane::Signal;
use trellis_testkit::{
    fixtures::service,
    operator::Operator,
    plane::{Credentials, Isolated, Plane, Shared},
};

use super::trellis;
use crate::upstream::Upstream;

/// With the kind that Flux consumes: without it no source gets anywhere.
static PLANE: Shared = Shared::new(|plane| {
    Box::pin(async move {
        let string = json!({ "type": "string" });
        let open = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
        let properties = json!({ "apiVersion": string, "kind": string, "metadata": { "type": "object" },
                                 "spec": open, "status": open });
        let artifacts = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": { "name": "externalartifacts.source.toolkit.fluxcd.io" },
            "spec": {
                "group": "source.toolkit.fluxcd.io", "scope": "Namespaced",
                "names": { "kind": "ExternalArtifact", "listKind": "ExternalArtifactList",
                           "plural": "externalartifacts", "singular": "externalartifact" },
                "versions": [{ "name": "v1", "served": true, "storage": true, "subresources": { "status": {} },
                               "schema": { "openAPIV3Schema": { "type": "object", "properties": properties } } }],
            },
        });
        plane.apply(&[artifacts]).await?;
        trellis_tests::install(plane).await
    })
});

const MANIFEST: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: { name: settings }\n";

/// One that serves this namespace alone, since each test has its own.
async fn operator(plane: &Plane, identity: &str, namespace: &str) -> (Credentials, Operator) {
    let account = trellis_tests::account(plane).await.unwrap();
    let operator = trellis_tests::launch(account.path(), identity, &[namespace])
        .lease(trellis_tests::NAMESPACE, identity)
        .flag("egress-trust-host", "127.0.0.1")
        // What failed once stays as it is for as long as a test looks at it.
        .flag("retry-base-delay", "4m")
        .start()
        .await
        .unwrap();
    operator.ready().await;
    (account, operator)
}

fn source(url: &str) -> ExternalSource {
    serde_json::from_value(json!({
        "apiVersion": "source.flux.oddkin.co/v1alpha1", "kind": "ExternalSource", "metadata": { "name": "settings" },
        "spec": { "interval": "1h", "generator": { "type": "http", "http": { "url": url } } },
    }))
    .unwrap()
}

async fn ready(isolated: &Isolated) {
    isolated
        .until::<ExternalSource>("settings", "the source is ready", |source| {
            let mut conditions = source.status.iter().flat_map(|status| &status.common.conditions);
            conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_is_asked_at_once_forced_suspended_and_resumed() {
    let plane = PLANE.get().await.unwrap();
    let isolated = plane.isolated("asked").await.unwrap();
    let namespace = isolated.name().to_owned();
    let (_account, operator) = operator(plane, "asked", &namespace).await;
    let admin = plane.control().kubeconfig();
    let on = |arguments: &[&str]| {
        let mut all: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        all.extend(["-n".to_owned(), namespace.clone()]);
        async move { trellis(admin, &all.iter().map(String::as_str).collect::<Vec<_>>()).await }
    };
    let upstream = Upstream::start().await;
    upstream.serves("one", MANIFEST);
    isolated
        .create_object(source(&upstream.url("settings.yaml")))
        .await
        .unwrap();
    ready(&isolated).await;
    assert_eq!(upstream.told(), [200]);

    // Asked: upstream is, and says that nothing has changed.
    let said = on(&["reconcile", "externalsource", "settings", "--json"]).await;
    let told = said.json();
    assert_eq!(
        (said.code, &told["ready"]),
        (Some(0), &json!("True")),
        "{told} {}",
        said.talk
    );
    assert!(told["message"].as_str().unwrap().contains("latest@sha256:"), "{told}");
    assert_eq!(upstream.told(), [200, 304]);
    let handled = isolated.get::<ExternalSource>("settings").await.unwrap();
    let asked = handled.metadata.annotations.as_ref().unwrap()["reconcile.fluxcd.io/requestedAt"].clone();
    assert_eq!(
        handled.status.as_ref().unwrap().common.last_handled_reconcile_at,
        Some(asked)
    );

    // Forced: asked for everything.
    let said = on(&["reconcile", "ExternalSources", "settings", "--force"]).await;
    assert_eq!(said.code, Some(0), "{}", said.talk);
    assert!(
        said.data
            .starts_with(&format!("ExternalSource {namespace}/settings: Ready=True Succeeded: ")),
        "{}",
        said.data
    );
    assert_eq!(upstream.told(), [200, 304, 200]);

    // Suspended: nothing is asked, what is published stays; resumed: asked at once.
    let before = isolated.get::<ExternalSource>("settings").await.unwrap().status;
    let said = on(&["suspend", "externalsource", "settings", "--json"]).await;
    assert_eq!((said.code, &said.json()["suspended"]), (Some(0), &json!(true)));
    let said = on(&["reconcile", "externalsource", "settings"]).await;
    assert!(
        said.code == Some(1) && said.talk.contains("is suspended"),
        "{}",
        said.talk
    );
    let suspended = isolated.get::<ExternalSource>("settings").await.unwrap();
    assert!(suspended.spec.suspend);
    assert_eq!(suspended.status, before);
    upstream.serves("two", format!("{MANIFEST}data: {{ a: b }}\n"));
    let said = on(&["resume", "externalsource", "settings", "--json"]).await;
    let told = said.json();
    assert_eq!(
        (said.code, &told["suspended"]),
        (Some(0), &json!(false)),
        "{told} {}",
        said.talk
    );
    assert_eq!(upstream.told(), [200, 304, 200, 200]);
    let resumed = isolated.get::<ExternalSource>("settings").await.unwrap();
    let revision =
        |status: Option<trellis_api::external_source::ExternalSourceStatus>| status.unwrap().artifact.unwrap().revision;
    assert_ne!(revision(resumed.status), revision(before));

    // What fails is told, with what is served meanwhile, and is no success.
    upstream.fails(500);
    let said = on(&["reconcile", "externalsource", "settings"]).await;
    assert_eq!(said.code, Some(1), "{}", said.talk);
    assert!(
        said.data.contains("Ready=False FetchFailed: ") && said.data.contains("is still served"),
        "{}",
        said.data
    );

    // Nobody there, nothing there: said in time.
    let said = on(&["reconcile", "externalsource", "other"]).await;
    assert!(
        said.code == Some(1) && said.talk.contains("there is no ExternalSource other"),
        "{}",
        said.talk
    );
    assert!(operator.stop(Signal::Term).await.success());
    let said = on(&["reconcile", "externalsource", "settings", "--timeout", "500ms"]).await;
    assert!(
        said.code == Some(1) && said.talk.contains("not carried out within 500ms") && said.talk.contains("FetchFailed"),
        "{}",
        said.talk
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_is_asked_suspended_and_resumed() {
    let plane = PLANE.get().await.unwrap();
    let isolated = plane.isolated("asked-policy").await.unwrap();
    let namespace = isolated.name().to_owned();
    let (_account, _operator) = operator(plane, "asked-policy", &namespace).await;
    let admin = plane.control().kubeconfig();
    let on = |arguments: &[&str]| {
        let mut all: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        all.extend(["-n".to_owned(), namespace.clone()]);
        async move { trellis(admin, &all.iter().map(String::as_str).collect::<Vec<_>>()).await }
    };
    isolated.create_object(service("web").port(80).build()).await.unwrap();
    let policy = json!({
        "apiVersion": "resilience.trellis.dev/v1alpha1", "kind": "ResiliencePolicy", "metadata": { "name": "web" },
        "spec": { "targetRef": { "name": "web" }, "timeout": { "requestTimeout": "3s" } },
    });
    let policy: ResiliencePolicy = serde_json::from_value(policy).unwrap();
    isolated.create_object(policy).await.unwrap();
    let said = on(&["reconcile", "resiliencepolicy", "web", "--json"]).await;
    let told = said.json();
    assert_eq!(
        (said.code, &told["ready"]),
        (Some(0), &json!("True")),
        "{told} {}",
        said.talk
    );

    let said = on(&["suspend", "resilience-policy", "web"]).await;
    assert!(
        said.code == Some(0) && said.data.contains("(suspended)"),
        "{}",
        said.data
    );
    // What it says while it is left alone is not taken for an answer.
    isolated
        .until::<ResiliencePolicy>("web", "it says that it is suspended", |policy| {
            let mut conditions = policy.status.iter().flat_map(|status| &status.common.conditions);
            conditions.any(|condition| condition.type_ == "Ready" && condition.reason == "Suspended")
        })
        .await;
    isolated
        .merge::<Service>(
            "web",
            json!({ "metadata": { "annotations": { "timeout.linkerd.io/request": "9s" } } }),
        )
        .await
        .unwrap();
    let said = on(&["resume", "resiliencepolicies", "web", "--json"]).await;
    let told = said.json();
    assert_eq!(told["suspended"], json!(false), "{told} {}", said.talk);
    assert_ne!(told["reason"], json!("Suspended"), "{told}");

    let said = on(&["reconcile", "resiliencepolicy", "web", "--force"]).await;
    assert!(said.code == Some(1) && said.talk.contains("--force"), "{}", said.talk);
    let said = on(&["reconcile", "deployment", "web"]).await;
    assert!(
        said.code == Some(2) && said.talk.contains("externalsource, resiliencepolicy"),
        "{}",
        said.talk
    );
}
