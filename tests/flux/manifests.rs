//! kustomize-controller applies what lies in an artifact.

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::json;

use crate::{
    archive::{archive, config_map},
    site::{Kind, Site, condition},
};

/// Objects appear, variables are put in, and what a new revision no longer has is pruned. The artifact has no condition:
/// nobody looks at Ready.
#[tokio::test(flavor = "multi_thread")]
async fn a_revision_is_applied_and_the_next_one_prunes() {
    let site = Site::new("apply").await;
    site.artifact("app").await;
    let both = archive(&[
        ("one.yaml", &config_map("one", "colour", "${colour}")),
        ("deep/two.yaml", &config_map("two", "number", "1")),
    ]);
    let first = site.serve("first.tar.gz", both);
    site.publish("app", Some(&first)).await;
    let variables = json!({ "postBuild": { "substitute": { "colour": "green" } } });
    site.kustomization("app", variables).await;
    site.ready_at(Kind::Kustomization, "app", &first.revision).await;
    site.data("one", "colour", "green").await;
    site.data("two", "number", "1").await;

    let second = site.serve(
        "second.tar.gz",
        archive(&[("two.yaml", &config_map("two", "number", "2"))]),
    );
    site.publish("app", Some(&second)).await;
    site.ready_at(Kind::Kustomization, "app", &second.revision).await;
    site.data("two", "number", "2").await;
    site.namespace.gone::<ConfigMap>("one").await;

    // What it applied goes with it.
    site.finish(Kind::Kustomization, "app").await;
    site.namespace.gone::<ConfigMap>("two").await;
}

/// The digest is that of the bytes which are served. Another one is an ordinary failure, over with the next revision.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_digest_is_refused() {
    let site = Site::new("digest").await;
    site.artifact("app").await;
    let manifest = config_map("one", "number", "1");
    let mut wrong = site.serve("wrong.tar.gz", archive(&[("one.yaml", &manifest)]));
    // The digest of what is inside, which is what one might take it for.
    wrong.digest = format!("sha256:{}", crate::archive::sha256(manifest.as_bytes()));
    site.publish("app", Some(&wrong)).await;
    site.kustomization("app", json!({})).await;
    let failed = |status: &serde_json::Value| condition(status, "Ready").1 == "ArtifactFailed";
    let status = site
        .status(Kind::Kustomization, "app", "refuses the digest", failed)
        .await;
    let (ready, _, message) = condition(&status, "Ready");
    assert_eq!(ready, "False");
    assert!(message.contains("computed digest doesn't match"), "{message}");
    assert!(condition(&status, "Stalled").0.is_empty(), "{status}");
    let none: Option<ConfigMap> = site.namespace.api().get_opt("one").await.unwrap();
    assert!(none.is_none());

    let right = site.serve(
        "right.tar.gz",
        archive(&[("one.yaml", &config_map("one", "number", "2"))]),
    );
    site.publish("app", Some(&right)).await;
    site.ready_at(Kind::Kustomization, "app", &right.revision).await;
    site.data("one", "number", "2").await;
    site.finish(Kind::Kustomization, "app").await;
}

/// An archive without a manifest is applied as nothing, and said to be Ready: whoever publishes has to warn.
#[tokio::test(flavor = "multi_thread")]
async fn an_archive_without_a_manifest_is_ready_with_nothing() {
    let site = Site::new("nothing").await;
    site.artifact("app").await;
    let nothing = site.serve("nothing.tar.gz", archive(&[("data", "{}"), ("more.json", "{}")]));
    site.publish("app", Some(&nothing)).await;
    site.kustomization("app", json!({})).await;
    let status = site.ready_at(Kind::Kustomization, "app", &nothing.revision).await;
    let inventory = status["inventory"]["entries"].as_array().map_or(0, Vec::len);
    assert_eq!(inventory, 0, "{status}");
    site.finish(Kind::Kustomization, "app").await;
}
