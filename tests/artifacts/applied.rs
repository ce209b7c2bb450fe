//! What Flux makes of a source.

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::json;

use crate::{
    archive::{archive, config_map},
    site::Site,
};

/// The kustomize-controller applies what upstream serves, follows a change, and prunes what is no longer there.
#[tokio::test(flavor = "multi_thread")]
async fn what_upstream_serves_is_applied_and_what_it_no_longer_serves_is_pruned() {
    let site = Site::new("applied").await;
    let both = [
        config_map("one", "colour", "${colour}"),
        config_map("two", "number", "1"),
    ]
    .join("---\n");
    site.upstream.serves("1", both);
    site.source("app", "app.yaml", json!({})).await;
    let first = site.published("app", "").await;
    let kustomizations = site.flux("kustomize", "v1", "Kustomization");
    for (name, colour) in [("staging", "green"), ("production", "blue")] {
        let manifest = json!({
            "apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization", "metadata": { "name": name },
            "spec": {
                "interval": "1h", "retryInterval": "5s", "path": "./", "prune": true, "namePrefix": format!("{name}-"),
                "targetNamespace": site.namespace.name(), "postBuild": { "substitute": { "colour": colour } },
                "sourceRef": { "kind": "ExternalArtifact", "name": "app" },
            },
        });
        site.namespace.apply(manifest).await.unwrap();
    }
    for (name, colour) in [("staging", "green"), ("production", "blue")] {
        site.consumed(&kustomizations, name, |status| {
            status["lastAppliedRevision"] == first.revision.as_str()
        })
        .await;
        let has = |map: &ConfigMap| map.data.as_ref().is_some_and(|data| data["colour"] == colour);
        site.namespace.until(&format!("{name}-one"), colour, has).await;
    }

    site.upstream.serves("2", config_map("two", "number", "2"));
    site.request("app", "now").await;
    let second = site.published("app", &first.revision).await;
    for name in ["staging", "production"] {
        site.consumed(&kustomizations, name, |status| {
            status["lastAppliedRevision"] == second.revision.as_str()
        })
        .await;
        site.namespace.gone::<ConfigMap>(&format!("{name}-one")).await;
    }
    for name in ["staging", "production"] {
        site.finish(&kustomizations, name).await;
    }
}

/// The helm-controller installs the chart that upstream serves as an archive.
#[tokio::test(flavor = "multi_thread")]
async fn a_chart_that_upstream_serves_is_installed() {
    let site = Site::new("chart").await;
    let chart = |version: &str| format!("apiVersion: v2\nname: shop\nversion: {version}\n");
    let packed = |version: &str, word: &str| {
        archive(&[
            ("shop/Chart.yaml", &chart(version)),
            ("shop/templates/map.yaml", &config_map("shop", "word", word)),
        ])
    };
    site.upstream.serves("1", packed("1.2.3", "one"));
    site.source("shop", "shop-1.2.3.tgz", json!({ "output": { "as": "Archive" } }))
        .await;
    let first = site.published("shop", "").await;
    assert!(first.revision.starts_with("1.2.3@sha256:"), "{}", first.revision);
    let release = json!({
        "apiVersion": "helm.toolkit.fluxcd.io/v2", "kind": "HelmRelease", "metadata": { "name": "shop" },
        "spec": { "interval": "1h", "chartRef": { "kind": "ExternalArtifact", "name": "shop" } },
    });
    site.namespace.apply(release).await.unwrap();
    let releases = site.flux("helm", "v2", "HelmRelease");
    site.consumed(&releases, "shop", |status| status["history"][0]["status"] == "deployed")
        .await;
    let has = |word: &'static str| move |map: &ConfigMap| map.data.as_ref().is_some_and(|data| data["word"] == word);
    site.namespace.until("shop", "one", has("one")).await;

    site.upstream.serves("2", packed("1.3.0", "two"));
    site.request("shop", "now").await;
    site.namespace.until("shop", "two", has("two")).await;
    site.finish(&releases, "shop").await;
}
