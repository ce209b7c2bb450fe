//! What is stored of an `ExternalSource` and shown of it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use trellis_api::{
    CommonStatus, ExternalSource, ExternalSourceStatus,
    external_source::{Artifact, FETCHING, HistoryEntry},
};

use crate::PLANE;

const REVISION: &str = "latest@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn source() -> Value {
    json!({
        "apiVersion": "source.flux.oddkin.co/v1alpha1", "kind": "ExternalSource", "metadata": { "name": "config" },
        "spec": { "interval": "5m", "generator": { "type": "http", "http": { "url": "https://a.example/config" } } },
    })
}

fn status(time: &Time) -> ExternalSourceStatus {
    let condition = |type_: &str, reason: &str, message: &str| Condition {
        type_: type_.into(),
        status: "True".into(),
        reason: reason.into(),
        message: message.into(),
        last_transition_time: time.clone(),
        observed_generation: Some(1),
    };
    ExternalSourceStatus {
        common: CommonStatus {
            observed_generation: Some(1),
            conditions: vec![
                condition(FETCHING, "Progressing", "asking https://a.example/config"),
                condition("Ready", "Succeeded", "stored artifact"),
            ],
            last_handled_reconcile_at: Some("now".into()),
            inventory: Vec::new(),
        },
        artifact: Some(Artifact {
            url: "http://trellis.trellis-system.svc.cluster.local./externalsource/shop/config/e3.tar.gz".into(),
            revision: REVISION.into(),
            last_update_time: time.clone(),
            digest: Some("sha256:e3".into()),
            size: Some(45),
            path: Some("externalsource/shop/config/e3.tar.gz".into()),
            metadata: [("etag".to_owned(), "\"1\"".to_owned())].into(),
        }),
        last_handled_etag: Some("\"1\"".into()),
        last_modified: Some("Wed, 25 Nov 2026 10:00:00 GMT".into()),
        last_handled_force_at: Some("now".into()),
        pipeline_hash: Some("sha256:0a".into()),
        failures: 3,
        next_retry_time: Some(time.clone()),
        history: vec![HistoryEntry {
            revision: REVISION.into(),
            time: time.clone(),
            size: Some(45),
        }],
    }
}

/// Every field of the status is stored and read again as it was written, and the columns show what people look for.
#[tokio::test(flavor = "multi_thread")]
async fn a_status_is_stored_whole_and_shown() {
    let namespace = PLANE.get().await.unwrap().isolated("stored").await.unwrap();
    namespace.apply(source()).await.unwrap();
    let time: Time = serde_json::from_value(json!("2026-11-25T10:00:00Z")).unwrap();
    let status = status(&time);
    let mut manifest = source();
    manifest["status"] = serde_json::to_value(&status).unwrap();
    manifest.as_object_mut().unwrap().remove("spec");
    let params = PatchParams::apply("stored").force();
    let api = namespace.api::<ExternalSource>();
    api.patch_status("config", &params, &Patch::Apply(&manifest))
        .await
        .unwrap();
    let stored: ExternalSource = namespace.get("config").await.unwrap();
    assert_eq!(stored.status, Some(status));

    let path = format!(
        "/apis/source.flux.oddkin.co/v1alpha1/namespaces/{}/externalsources/config",
        namespace.name()
    );
    let request = http::Request::get(path)
        .header(http::header::ACCEPT, "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(Vec::new())
        .unwrap();
    let table: Value = namespace.client().request(request).await.unwrap();
    let names = table["columnDefinitions"].as_array().unwrap().iter();
    let names: Vec<&str> = names.map(|column| column["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        ["Name", "Ready", "Status", "Revision", "Suspended", "URL", "Age"]
    );
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    assert_eq!(
        cells[..6],
        [
            json!("config"),
            json!("True"),
            json!("stored artifact"),
            json!(REVISION),
            Value::Null,
            json!("https://a.example/config"),
        ]
    );
}
