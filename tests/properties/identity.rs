//! U2 of the facts: what the API server answers to server-side apply with `metadata.uid` when the object is missing, or
//! is another one by now. The operator relies on a refusal.

use k8s_openapi::api::core::v1::Service;
use kube::{
    Api, Client, Config, ResourceExt as _,
    api::{Patch, PatchParams},
    config::KubeConfigOptions,
};
use serde_json::json;
use trellis_testkit::fixtures::service;

use crate::PLANE;

const ANOTHER: &str = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";

async fn apply(client: &Client, namespace: &str, name: &str, uid: Option<&str>) -> Result<Service, (u16, String)> {
    let services: Api<Service> = Api::namespaced(client.clone(), namespace);
    let mut body = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": name, "annotations": { "example.com/x": "y" } }, "spec": { "ports": [{ "port": 80 }] },
    });
    if let Some(uid) = uid {
        body["metadata"]["uid"] = uid.into();
    }
    match services
        .patch(name, &PatchParams::apply("somebody"), &Patch::Apply(&body))
        .await
    {
        Ok(service) => Ok(service),
        Err(kube::Error::Api(status)) => Err((status.code, status.message.clone())),
        Err(error) => panic!("{error}"),
    }
}

/// With the uid of an object that is gone apply is a conflict, with one of an object that is another one by now it is
/// invalid; it creates and changes nothing, whoever asks. Without a uid it would create, but for the verb.
#[tokio::test(flavor = "multi_thread")]
async fn apply_with_a_uid_never_creates() {
    let plane = PLANE.get().await.unwrap();
    let namespace = plane.isolated("uid").await.unwrap();
    let account = trellis_tests::account(plane).await.unwrap();
    let choice = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(account.kubeconfig().clone(), &choice)
        .await
        .unwrap();
    let (may_create, may_patch) = (plane.client().unwrap(), Client::try_from(config).unwrap());
    let place = namespace.name();

    // Missing.
    let answers = [
        ("missing, create", apply(&may_create, place, "a", Some(ANOTHER)).await),
        ("missing, no create", apply(&may_patch, place, "a", Some(ANOTHER)).await),
        ("missing, no create, no uid", apply(&may_patch, place, "a", None).await),
    ];
    let codes: Vec<(&str, u16)> = answers
        .iter()
        .map(|(which, answer)| (*which, answer.as_ref().map_or_else(|(code, _)| *code, |_| 200)))
        .collect();
    assert_eq!(
        codes,
        [
            ("missing, create", 409),
            ("missing, no create", 409),
            ("missing, no create, no uid", 403)
        ],
        "{answers:?}"
    );
    assert!(
        namespace.api::<Service>().get_opt("a").await.unwrap().is_none(),
        "{answers:?}"
    );

    // Another one by now.
    let first = namespace
        .create_object(service("b").port(80).build())
        .await
        .unwrap()
        .uid()
        .unwrap();
    namespace.delete::<Service>("b").await.unwrap();
    namespace.gone::<Service>("b").await;
    let second = namespace.create_object(service("b").port(80).build()).await.unwrap();
    for (which, client) in [("create", &may_create), ("no create", &may_patch)] {
        let (code, message) = apply(client, place, "b", Some(&first)).await.unwrap_err();
        assert_eq!(code, 422, "{which}: {message}");
        assert!(
            message.contains("metadata.uid") && message.contains(&first),
            "{which}: {message}"
        );
    }
    let now: Service = namespace.get("b").await.unwrap();
    assert_eq!(now.resource_version(), second.resource_version());
    // The right uid is no hindrance.
    apply(&may_patch, place, "b", second.uid().as_deref()).await.unwrap();
}
