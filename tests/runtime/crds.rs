//! CRDs: installed, upgraded, and never at the price of stored objects.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use trellis_runtime::crds::{Error, install};

use crate::stage::isolated;

/// A CRD with these versions, the last one stored.
fn crd(plural: &str, kind: &str, versions: &[&str]) -> CustomResourceDefinition {
    let versions: Vec<Value> = versions
        .iter()
        .map(|name| {
            json!({ "name": name, "served": true, "storage": Some(name) == versions.last(),
                    "schema": { "openAPIV3Schema": { "type": "object" } } })
        })
        .collect();
    serde_json::from_value(json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{plural}.testing.trellis.dev") },
        "spec": { "group": "testing.trellis.dev", "scope": "Namespaced", "versions": versions,
                  "names": { "plural": plural, "kind": kind } },
    }))
    .unwrap()
}

async fn version(client: &Client, name: &str) -> String {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    crds.get(name).await.unwrap().metadata.resource_version.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn crds_are_installed_upgraded_and_never_lose_a_stored_version() {
    const NAME: &str = "doodads.testing.trellis.dev";
    let isolated = isolated().await;
    let client = isolated.client();
    let old = crd("doodads", "Doodad", &["v1alpha1"]);
    install(client, std::slice::from_ref(&old)).await.unwrap();
    // Established means that it can be used now.
    let resource = ApiResource {
        group: "testing.trellis.dev".to_owned(),
        version: "v1alpha1".to_owned(),
        api_version: "testing.trellis.dev/v1alpha1".to_owned(),
        kind: "Doodad".to_owned(),
        plural: "doodads".to_owned(),
    };
    let doodads: Api<DynamicObject> = Api::namespaced_with(client.clone(), isolated.name(), &resource);
    doodads
        .create(&PostParams::default(), &DynamicObject::new("d", &resource))
        .await
        .unwrap();
    let before = version(client, NAME).await;
    install(client, &[old]).await.unwrap();
    assert_eq!(version(client, NAME).await, before, "the same again changes nothing");

    let both = crd("doodads", "Doodad", &["v1alpha1", "v1"]);
    install(client, std::slice::from_ref(&both)).await.unwrap();
    let before = version(client, NAME).await;
    let new = crd("doodads", "Doodad", &["v1"]);
    let unrelated = crd("gizmos", "Gizmo", &["v1"]);
    let refused = install(client, &[unrelated, new.clone()]).await.unwrap_err();
    assert!(
        matches!(&refused, Error::StoredVersions { missing, .. } if missing == &["v1alpha1"]),
        "{refused}"
    );
    assert_eq!(version(client, NAME).await, before);
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    assert!(
        crds.get_opt("gizmos.testing.trellis.dev").await.unwrap().is_none(),
        "half of it was written"
    );

    // As after a migration of the stored objects.
    let migrated = json!({ "status": { "storedVersions": ["v1"] } });
    crds.patch_status(NAME, &PatchParams::default(), &Patch::Merge(migrated))
        .await
        .unwrap();
    install(client, &[new]).await.unwrap();
}
