//! The user's part: one source and its Kustomization, from their creation to their deletion.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::DeleteParams;
use serde_json::json;
use trellis_api::ExternalSource;
use trellis_testkit::eventually;

use crate::site::Site;

/// How many steps the story has.
pub(crate) const STEPS: usize = NAMES.len();
/// The steps.
pub(crate) const NAMES: [&str; 6] = [
    "create",
    "change upstream",
    "change the spec",
    "suspend",
    "resume",
    "delete",
];
/// The source and its consumer appear.
pub(crate) const CREATE: usize = 0;
/// The spec asks for another form.
const RESHAPE: usize = 2;
const SUSPEND: usize = 3;
const RESUME: usize = 4;
/// Both go.
pub(crate) const DELETE: usize = 5;

/// The source, the artifact, the Kustomization.
pub(crate) const NAME: &str = "app";

fn map(word: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: app\ndata:\n  word: {word}\n")
}

/// Takes a step.
pub(crate) async fn act(site: &Site, step: usize) {
    let change = async |spec| {
        site.namespace
            .merge::<ExternalSource>(NAME, json!({ "spec": spec }))
            .await
            .unwrap();
    };
    match step {
        CREATE => {
            site.upstream.serves("1", map("one"));
            site.source(NAME, json!({ "as": "Manifest" })).await;
            let kustomization = json!({
                "apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization", "metadata": { "name": NAME },
                "spec": {
                    "interval": "1h", "retryInterval": "1s", "path": "./", "prune": true,
                    "targetNamespace": site.namespace.name(),
                    "sourceRef": { "kind": "ExternalArtifact", "name": NAME },
                },
            });
            site.namespace.apply(kustomization).await.unwrap();
        }
        1 => {
            site.upstream.serves("2", map("two"));
            site.request(NAME, "now").await;
        }
        RESHAPE => {
            change(json!({ "output": { "as": "ConfigMap", "object": { "name": "wrapped", "key": "text" } } })).await;
        }
        SUSPEND => {
            change(json!({ "suspend": true })).await;
            site.upstream.serves("3", map("three"));
        }
        RESUME => change(json!({ "suspend": false })).await,
        _ => {
            let kustomizations = site.kustomizations();
            kustomizations.delete(NAME, &DeleteParams::default()).await.unwrap();
            eventually("the Kustomization is gone", async || {
                match kustomizations.get_opt(NAME).await {
                    Ok(None) => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .await;
            site.namespace.delete::<ExternalSource>(NAME).await.unwrap();
        }
    }
}

/// Waits until the operator and the consumer have done their part of a step.
pub(crate) async fn reached(site: &Site, step: usize) {
    if step == DELETE {
        site.namespace.gone::<ExternalSource>(NAME).await;
        return;
    }
    let (name, key, word) = match step {
        CREATE => (NAME, "word", "one"),
        1 => (NAME, "word", "two"),
        RESHAPE | SUSPEND => ("wrapped", "text", "two"),
        _ => ("wrapped", "text", "three"),
    };
    let told = |source: &ExternalSource| {
        let status = source.status.as_ref();
        let handled = status.and_then(|status| status.common.last_handled_reconcile_at.as_deref());
        let conditions = status.iter().flat_map(|status| &status.common.conditions);
        let mut ready = conditions.filter(|one| one.type_ == "Ready" && one.status == "True");
        // A suspended source says what it said before.
        let current = step == SUSPEND || ready.any(|one| one.observed_generation == source.metadata.generation);
        current && handled == (step >= 1).then_some("now")
    };
    site.namespace.until(NAME, "Ready in this generation", told).await;
    let has = |map: &ConfigMap| map.data.as_ref().is_some_and(|data| data[key].contains(word));
    site.namespace.until(name, word, has).await;
    let revision = site.artifact(NAME).await.unwrap().revision;
    let kustomizations = site.kustomizations();
    eventually("the Kustomization says that it applied the revision", async || {
        let found = kustomizations.get(NAME).await.map_err(|error| error.to_string())?;
        let status = &found.data["status"];
        if status["lastAppliedRevision"] == revision.as_str() {
            Ok(())
        } else {
            Err(status.to_string())
        }
    })
    .await;
}
