//! A round that hangs: what is asked for meanwhile does not wait for it.

use k8s_openapi::api::core::v1::Secret;
use serde_json::json;
use trellis_api::ExternalSource;
use trellis_testkit::Gate;

use crate::{
    archive::config_map,
    site::{Site, said},
};

/// A rotated Secret, a request, another URL, a suspension and a deletion each end the round that goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_round_that_hangs_is_dropped_for_what_is_asked_meanwhile() {
    let site = Site::new("interrupted").await;
    site.upstream.serves("1", config_map("one", "number", "1"));
    let gate = Gate::new();
    site.upstream.waits_at(&gate);
    let secret = json!({ "metadata": { "name": "headers" }, "stringData": { "X-API-Key": "one" } });
    let secret: Secret = serde_json::from_value(secret).unwrap();
    site.namespace.create_object(secret).await.unwrap();
    let spec = |path: &str| {
        let http = json!({ "url": site.upstream.url(path), "headersSecretRef": { "name": "headers" } });
        json!({ "generator": { "type": "http", "http": http } })
    };
    site.source("app", "", spec("wrong.yaml")).await;
    gate.reached(1).await;
    let rotated = json!({ "stringData": { "X-API-Key": "two" } });
    site.namespace.merge::<Secret>("headers", rotated).await.unwrap();
    gate.reached(2).await;
    site.request("app", "now").await;
    gate.reached(3).await;
    site.source("app", "", spec("right.yaml")).await;
    gate.reached(4).await;
    let fetching = |source: &ExternalSource| said(source, "Fetching").2.contains("right.yaml");
    site.namespace
        .until::<ExternalSource>("app", "fetching", fetching)
        .await;
    let suspend = |suspend: bool| json!({ "spec": { "suspend": suspend } });
    site.namespace
        .merge::<ExternalSource>("app", suspend(true))
        .await
        .unwrap();
    let rests = |source: &ExternalSource| {
        let gone = |type_| said(source, type_).0.is_empty();
        gone("Fetching") && gone("Reconciling") && said(source, "Ready").1 == "Suspended"
    };
    site.namespace.until::<ExternalSource>("app", "suspended", rests).await;
    site.namespace
        .merge::<ExternalSource>("app", suspend(false))
        .await
        .unwrap();
    gate.reached(5).await;
    site.namespace.delete::<ExternalSource>("app").await.unwrap();
    site.namespace.gone::<ExternalSource>("app").await;
}
