//! What the API server itself says of an `ExternalSource`, field by field, and what it stores.

use std::collections::BTreeMap;

use futures::{StreamExt as _, stream};
use serde_json::{Value, json};
use trellis_api::ExternalSource;
use trellis_testkit::plane::Isolated;

use crate::PLANE;

/// A row of the table: a source that is right but for what is `set`, by JSON pointer below `spec`; null takes it away.
#[derive(serde::Deserialize)]
struct Wrong {
    case: String,
    /// The source that is right.
    #[serde(default)]
    on: On,
    set: BTreeMap<String, Value>,
    /// All that the API server says, a line for each field, as [`lines`] gives it.
    says: Vec<String>,
}

#[derive(Clone, Copy, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum On {
    #[default]
    Http,
    S3,
}

impl On {
    fn spec(self) -> Value {
        let generator = match self {
            Self::Http => json!({ "type": "http", "http": { "url": "https://a.example/config.json" } }),
            Self::S3 => json!({ "type": "s3", "s3": { "bucket": "config", "key": "app.yaml" } }),
        };
        json!({ "interval": "5m", "generator": generator })
    }
}

impl Wrong {
    fn manifest(&self) -> Value {
        let mut spec = self.on.spec();
        for (pointer, value) in &self.set {
            put(&mut spec, pointer, value);
        }
        manifest(&json!({ "name": "wrong" }), &spec)
    }
}

fn put(spec: &mut Value, pointer: &str, value: &Value) {
    let (parents, last) = pointer.rsplit_once('/').unwrap();
    let mut place = spec;
    for name in parents.split('/').skip(1) {
        place = &mut place[name];
    }
    if value.is_null() {
        place.as_object_mut().unwrap().remove(last);
    } else {
        place[last] = value.clone();
    }
}

fn manifest(metadata: &Value, spec: &Value) -> Value {
    json!({ "apiVersion": "source.flux.oddkin.co/v1alpha1", "kind": "ExternalSource", "metadata": metadata, "spec": spec })
}

/// What the API server would store, or what it says to `kubectl apply`; a field that the kind does not have is an error.
async fn answer(namespace: &Isolated, manifest: &Value) -> Result<Value, Vec<String>> {
    let path = format!(
        "/apis/source.flux.oddkin.co/v1alpha1/namespaces/{}/externalsources?dryRun=All&fieldValidation=Strict",
        namespace.name()
    );
    let request = http::Request::post(path).header(http::header::CONTENT_TYPE, "application/json");
    let request = request.body(serde_json::to_vec(manifest).unwrap()).unwrap();
    match namespace.client().request(request).await {
        Ok(object) => Ok(object),
        Err(kube::Error::Api(status)) => Err(lines(&status)),
        Err(error) => Err(vec![error.to_string()]),
    }
}

/// The answer, a line for each field. Left out is what differs between versions of Kubernetes: the value that is
/// repeated, and the remark that some rules were not looked at.
fn lines(status: &kube::core::Status) -> Vec<String> {
    let causes = status.details.as_ref().map(|details| details.causes.as_slice());
    let Some(causes @ [_, ..]) = causes else {
        return vec![status.message.clone()];
    };
    let causes = causes
        .iter()
        .filter(|cause| !cause.message.contains("some validation rules were not checked"));
    causes
        .map(|cause| {
            let (about, rest) = cause.message.split_once(": ").unwrap_or(("", &cause.message));
            match about {
                "Invalid value" => format!("{}: {}", cause.field, without_value(rest)),
                _ => format!("{}: {}", cause.field, cause.message),
            }
        })
        .collect()
}

/// The text after a quoted text or a number and a colon, if it begins with one.
fn without_value(text: &str) -> &str {
    let rest = match text.strip_prefix('"') {
        Some(quoted) => quoted.split_once("\": ").map(|(_, rest)| rest),
        None => text
            .split_once(": ")
            .and_then(|(value, rest)| value.parse::<f64>().is_ok().then_some(rest)),
    };
    rest.unwrap_or(text)
}

fn admitted() -> Vec<Value> {
    let rows: Vec<Value> =
        serde_saphyr::from_str(include_str!("../../crates/api/tests/external_source/admitted.yaml")).unwrap();
    rows.into_iter()
        .map(|row| manifest(&row["metadata"], &row["spec"]))
        .collect()
}

fn read(object: &Value) -> ExternalSource {
    serde_json::from_value(object.clone()).unwrap()
}

/// Every manifest in circulation is admitted, nothing of it is dropped, and whoever reads it offline sees what the API
/// server stores.
#[tokio::test(flavor = "multi_thread")]
async fn every_manifest_in_circulation_is_admitted_whole() {
    let namespace = PLANE.get().await.unwrap().isolated("admitted").await.unwrap();
    let mut failures = Vec::new();
    for manifest in admitted() {
        let name = &manifest["metadata"]["name"];
        match answer(&namespace, &manifest).await {
            Ok(stored) if read(&stored).spec != read(&manifest).spec => {
                failures.push(format!("{name}: stored {}", stored["spec"]));
            }
            Ok(_) => {}
            Err(error) => failures.push(format!("{name}: {}", error.join(", "))),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Every wrong field is refused with the message that its row has, letter by letter.
#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_field_is_refused_with_its_message() {
    let namespace = PLANE.get().await.unwrap().isolated("refused").await.unwrap();
    let rows: Vec<Wrong> =
        serde_saphyr::from_str(include_str!("../../crates/api/tests/external_source/refused.yaml")).unwrap();
    let count = rows.len();
    let failures: Vec<String> = stream::iter(rows)
        .map(async |row| {
            let says = match answer(&namespace, &row.manifest()).await {
                Ok(_) => vec!["admitted".to_owned()],
                Err(says) => says,
            };
            (says != row.says).then(|| format!("{}: {}", row.case, json!(says)))
        })
        .buffered(8)
        .filter_map(async |failure| failure)
        .collect()
        .await;
    assert!(
        failures.is_empty(),
        "{} of {count}:\n{}",
        failures.len(),
        failures.join("\n")
    );
    eprintln!("{count} manifests");
}

/// What is not written is stored as the spec page says.
#[tokio::test(flavor = "multi_thread")]
async fn defaults_are_stored() {
    let namespace = PLANE.get().await.unwrap().isolated("defaults").await.unwrap();
    let cases = [
        (
            json!({ "interval": "5m", "generator": { "type": "http", "http": { "url": "https://a.example" } } }),
            json!({
                "interval": "5m", "maxRetries": 3,
                "generator": { "type": "http", "http": { "url": "https://a.example", "method": "GET" } },
            }),
        ),
        (
            json!({
                "interval": "5m", "output": {},
                "hooks": { "postRequest": [{ "name": "a", "command": "cat" }] },
                "generator": { "type": "http", "http": {
                    "url": "https://a.example", "method": "POST", "body": { "content": "{}" },
                    "caBundleSecretRef": { "name": "ca" },
                } },
            }),
            json!({
                "interval": "5m", "maxRetries": 3, "output": { "as": "Raw" },
                "hooks": { "postRequest": [
                    { "name": "a", "command": "cat", "timeout": "30s", "retryPolicy": "fail" },
                ] },
                "generator": { "type": "http", "http": {
                    "url": "https://a.example", "method": "POST",
                    "body": { "content": "{}", "contentType": "application/json" },
                    "caBundleSecretRef": { "name": "ca", "key": "ca.crt" },
                } },
            }),
        ),
        (
            json!({
                "interval": "5m", "output": { "as": "Archive", "archive": {} },
                "generator": { "type": "s3", "s3": { "bucket": "config", "key": "a" } },
            }),
            json!({
                "interval": "5m", "maxRetries": 3, "output": { "as": "Archive", "archive": { "stripComponents": 0 } },
                "generator": { "type": "s3", "s3": { "bucket": "config", "key": "a", "region": "us-east-1" } },
            }),
        ),
    ];
    for (written, stored) in cases {
        let answer = answer(&namespace, &manifest(&json!({ "name": "defaults" }), &written)).await;
        assert_eq!(answer.unwrap()["spec"], stored);
    }
}
