//! The shape of `ExternalSource`: names, defaults, columns, what is read offline, and what the runtime reads from it.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail by panicking, like tests"
)]

use std::collections::BTreeMap;

use kube::{CustomResourceExt as _, ResourceExt as _};
use rstest::rstest;
use serde_json::{Value, json};
use trellis_api::{
    ExternalSource, ExternalSourceSpec, ExternalSourceStatus, Managed,
    external_source::{
        Artifact, FINALIZER, Generator, GeneratorBlock, GeneratorType, HISTORY_LIMIT, HistoryEntry, Hook, Hooks,
        HttpGenerator, Method, OutputForm, RetryPolicy, S3Generator, SecretRef, Transform, TransformType,
    },
};

fn spec(value: Value) -> ExternalSourceSpec {
    serde_json::from_value(value).unwrap()
}

fn rows() -> Vec<Value> {
    serde_saphyr::from_str(include_str!("external_source/admitted.yaml")).unwrap()
}

/// A spec that the API server admits, by the name of its manifest.
fn admitted(name: &str) -> ExternalSourceSpec {
    let row = rows().into_iter().find(|row| row["metadata"]["name"] == name);
    spec(row.unwrap()["spec"].clone())
}

fn schema() -> Value {
    let crd = serde_json::to_value(ExternalSource::crd()).unwrap();
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// What the API server admits is read offline, and written again as what it was.
#[test]
fn every_admitted_manifest_is_read() {
    let rows = rows();
    assert!(rows.len() >= 20, "{}", rows.len());
    for row in rows {
        let read = spec(row["spec"].clone());
        let written = serde_json::to_value(&read).unwrap();
        assert_eq!(spec(written.clone()), read, "{written}");
        assert!(read.generator.block().is_some(), "{}", row["metadata"]["name"]);
    }
}

#[test]
fn every_field_of_the_requirement_document_is_read() {
    let hook = |name: &str, command: &str, args: &[&str]| Hook {
        name: name.into(),
        command: command.into(),
        args: args.iter().map(|&text| text.into()).collect(),
        timeout: "30s".into(),
        retry_policy: RetryPolicy::Fail,
        env: Vec::new(),
        max_output_bytes: None,
    };
    let mut read = admitted("document");
    let mut hooks = read.hooks.take().unwrap();
    let env = std::mem::take(&mut hooks.post_request[0].env);
    assert_eq!((env[0].name.as_str(), env[0].value.as_deref()), ("LC_ALL", Some("C")));
    assert_eq!(
        hooks,
        Hooks {
            pre_request: vec![Hook {
                timeout: "10s".into(),
                retry_policy: RetryPolicy::Retry,
                ..hook("token", "/usr/local/bin/get-token", &["--audience", "api"])
            }],
            post_request: vec![
                Hook {
                    timeout: "1m30s".into(),
                    ..hook("pick", "jq", &["-r", ".config"])
                },
                hook("to-yaml", "yq", &["-P"]),
                Hook {
                    retry_policy: RetryPolicy::Ignore,
                    ..hook("lint", "yq", &[])
                },
            ],
        }
    );
    let http = read.generator.http.take().unwrap();
    let bundle = http.ca_bundle_secret_ref.clone().unwrap();
    assert_eq!((bundle.name.as_str(), bundle.key.as_str()), ("api-ca", "bundle.pem"));
    assert_eq!(
        http,
        HttpGenerator {
            url: "https://api.example.com:8443/v1/config?env=prod&limit=10".into(),
            method: Method::Get,
            headers_secret_ref: Some(SecretRef {
                name: "api-headers".into()
            }),
            ca_bundle_secret_ref: Some(bundle),
            ..HttpGenerator::default()
        }
    );
    assert_eq!(
        read,
        ExternalSourceSpec {
            interval: "10m".into(),
            destination_path: Some("config/app.yaml".into()),
            max_retries: 5,
            ..ExternalSourceSpec::default()
        }
    );
}

/// The defaults that the API server writes and those that offline readers see agree.
#[rstest]
#[case::source(&[], json!({"interval": "5m", "generator": {"type": "http"}}))]
#[case::http(&["generator", "http"], json!({"url": "https://a.example"}))]
#[case::body(&["generator", "http", "body"], json!({"content": ""}))]
#[case::bundle(&["generator", "http", "caBundleSecretRef"], json!({"name": "ca"}))]
#[case::s3(&["generator", "s3"], json!({"bucket": "config", "key": "a"}))]
#[case::hook(&["hooks", "postRequest"], json!({"name": "a", "command": "cat"}))]
#[case::output(&["output"], json!({}))]
#[case::archive(&["output", "archive"], json!({}))]
fn defaults_of_schema_and_types_agree(#[case] path: &[&str], #[case] smallest: Value) {
    use trellis_api::external_source as es;
    fn whole<T: serde::de::DeserializeOwned + serde::Serialize>(value: &Value) -> Value {
        serde_json::to_value(serde_json::from_value::<T>(value.clone()).unwrap()).unwrap()
    }
    let read = match path {
        [] => whole::<ExternalSourceSpec>(&smallest),
        [.., "http"] => whole::<HttpGenerator>(&smallest),
        [.., "body"] => whole::<es::Body>(&smallest),
        [.., "caBundleSecretRef"] => whole::<es::CaBundleRef>(&smallest),
        [.., "s3"] => whole::<S3Generator>(&smallest),
        [.., "postRequest"] => whole::<Hook>(&smallest),
        [.., "archive"] => whole::<es::ArchiveOptions>(&smallest),
        _ => whole::<es::Output>(&smallest),
    };
    let mut place = &schema()["properties"]["spec"];
    for name in path {
        place = &place["properties"][name];
        place = place.get("items").unwrap_or(place);
    }
    let mut stored = smallest;
    for (name, property) in place["properties"].as_object().unwrap() {
        if let Some(default) = property.get("default") {
            stored[name] = default.clone();
        }
    }
    assert_eq!(read, stored);
}

#[rstest]
#[case::no_interval(json!({"generator": {"type": "http", "http": {"url": "https://a.example"}}}))]
#[case::no_generator(json!({"interval": "5m"}))]
#[case::no_type(json!({"interval": "5m", "generator": {"http": {"url": "https://a.example"}}}))]
#[case::type_of_generator(json!({"interval": "5m", "generator": {"type": "git"}}))]
#[case::method(json!({"interval": "5m", "generator": {"type": "http", "http": {"url": "https://a.example", "method": "DELETE"}}}))]
#[case::policy(json!({"interval": "5m", "generator": {"type": "http"}, "hooks": {"preRequest": [{"name": "a", "command": "a", "retryPolicy": "always"}]}}))]
#[case::transform(json!({"interval": "5m", "generator": {"type": "http"}, "transforms": [{"type": "lua", "expression": "."}]}))]
#[case::older_transform(json!({"interval": "5m", "generator": {"type": "http"}, "transform": {"type": "jq", "expression": "."}}))]
#[case::form(json!({"interval": "5m", "generator": {"type": "http"}, "output": {"as": "Chart"}}))]
#[case::retries(json!({"interval": "5m", "generator": {"type": "http"}, "maxRetries": -1}))]
fn what_has_no_meaning_is_not_read(#[case] value: Value) {
    assert!(serde_json::from_value::<ExternalSourceSpec>(value).is_err());
}

#[test]
fn the_type_chooses_the_block() {
    assert!(matches!(
        admitted("smallest").generator.block(),
        Some(GeneratorBlock::Http(http)) if http.url == "https://api.example.com/config" && http.method.as_str() == "GET"
    ));
    let s3 = admitted("s3-smallest");
    assert!(matches!(s3.generator.block(), Some(GeneratorBlock::S3(s3)) if s3.region == "us-east-1" && !s3.in_path()));
    let other = Generator {
        type_: GeneratorType::S3,
        ..admitted("smallest").generator
    };
    assert_eq!(other.block(), None);
    assert_eq!(GeneratorType::S3.to_string(), "s3");
}

#[test]
fn a_store_of_ones_own_is_asked_by_path() {
    let mut s3 = admitted("s3").generator.s3.unwrap();
    assert_eq!((s3.path_style, s3.in_path()), (Some(false), false));
    s3.path_style = None;
    assert!(s3.in_path());
}

/// The older form is a list of one.
#[test]
fn transforms_are_read_in_both_forms() {
    let transform = |type_, expression: &str| Transform {
        type_,
        expression: expression.into(),
    };
    let all = |name: &str| admitted(name).all_transforms().collect::<Vec<_>>();
    assert_eq!(all("older-transform"), [transform(TransformType::Cel, "data.items")]);
    assert_eq!(
        all("transforms"),
        [
            transform(TransformType::Jq, ".items[] | select(.enabled)"),
            transform(TransformType::Cel, "data.size()"),
        ]
    );
    assert!(all("smallest").is_empty());
}

#[test]
fn hooks_that_are_not_there_are_none() {
    for name in ["smallest", "empty", "no-hooks"] {
        let spec = admitted(name);
        assert!(
            spec.pre_request().is_empty() && spec.post_request().is_empty(),
            "{name}"
        );
    }
    assert_eq!(admitted("hooks").pre_request().len(), 1);
    assert_eq!(admitted("document").post_request().len(), 3);
}

#[test]
fn what_is_not_set_is_not_written() {
    let written = serde_json::to_value(admitted("smallest")).unwrap();
    assert_eq!(
        written,
        json!({
            "interval": "5m", "maxRetries": 3,
            "generator": {"type": "http", "http": {"url": "https://api.example.com/config", "method": "GET"}},
        })
    );
    assert_eq!(admitted("archive").output.unwrap().as_, OutputForm::Archive);
    assert_eq!(
        serde_json::to_value(ExternalSourceStatus::default()).unwrap(),
        json!({})
    );
}

#[test]
fn the_definition_is_named_as_promised() {
    let crd = ExternalSource::crd();
    assert_eq!(crd.name_any(), "externalsources.source.flux.oddkin.co");
    assert_eq!(crd.spec.scope, "Namespaced");
    // `es` belongs to external-secrets.
    assert_eq!(crd.spec.names.short_names, Some(vec!["extsrc".to_owned()]));
    assert_eq!(
        crd.spec.names.categories,
        Some(vec!["fluxcd".to_owned(), "fluxcd-sources".to_owned()])
    );
    // Or Flux would take `${…}` in the schema's descriptions for variables of its own.
    assert_eq!(
        crd.annotations(),
        &BTreeMap::from([(
            "kustomize.toolkit.fluxcd.io/substitute".to_owned(),
            "disabled".to_owned()
        )])
    );
    let version = &crd.spec.versions[0];
    assert_eq!(version.name, "v1alpha1");
    assert!(version.subresources.as_ref().unwrap().status.is_some());
    let columns = version.additional_printer_columns.as_ref().unwrap();
    let names: Vec<(&str, i32)> = columns
        .iter()
        .map(|column| (column.name.as_str(), column.priority.unwrap_or_default()))
        .collect();
    assert_eq!(
        names,
        [
            ("Ready", 0),
            ("Status", 0),
            ("Revision", 0),
            ("Suspended", 0),
            ("URL", 1),
            ("Age", 0)
        ]
    );
    assert_eq!(
        schema()["properties"]["status"]["properties"]["history"]["maxItems"],
        HISTORY_LIMIT
    );
    assert_eq!(FINALIZER, "source.flux.oddkin.co/externalsource-finalizer");
    assert_eq!(ExternalSource::REQUESTED_AT, "reconcile.fluxcd.io/requestedAt");
}

/// A status of the first implementations of the kind is read.
#[test]
fn an_older_status_is_read_and_a_new_one_written_as_named() {
    let older = json!({
        "observedGeneration": 2,
        "lastHandledETag": "W/\"1\"",
        "artifact": {
            "url": "http://server.flux-system.svc/externalsource/shop/config/0a.tar.gz",
            "revision": "latest@sha256:0a", "lastUpdateTime": "2026-11-01T10:00:00Z", "metadata": {"etag": "W/\"1\""},
        },
    });
    let mut status: ExternalSourceStatus = serde_json::from_value(older.clone()).unwrap();
    assert_eq!(serde_json::to_value(&status).unwrap(), older);
    let artifact: Artifact = status.artifact.clone().unwrap();
    let time = artifact.last_update_time.clone();
    status.artifact = Some(Artifact {
        digest: Some("sha256:0a".into()),
        size: Some(7),
        path: Some("externalsource/shop/config/0a.tar.gz".into()),
        ..artifact
    });
    status.failures = 2;
    status.next_retry_time = Some(time.clone());
    status.history = vec![HistoryEntry {
        revision: "latest@sha256:0a".into(),
        time,
        size: None,
    }];
    let written = serde_json::to_value(&status).unwrap();
    assert_eq!(written["artifact"]["size"], 7);
    assert_eq!(written["failures"], 2);
    assert_eq!(written["nextRetryTime"], "2026-11-01T10:00:00Z");
    assert_eq!(written["history"][0]["time"], "2026-11-01T10:00:00Z");
    assert_eq!(serde_json::from_value::<ExternalSourceStatus>(written).unwrap(), status);
}

/// What the runtime keeps lies beside what the kind keeps.
#[test]
fn the_runtime_finds_its_part_of_the_status() {
    let mut status = ExternalSourceStatus::default();
    ExternalSource::common_mut(&mut status).observed_generation = Some(3);
    assert_eq!(ExternalSource::common(&status).observed_generation, Some(3));
    assert_eq!(serde_json::to_value(&status).unwrap(), json!({"observedGeneration": 3}));
    let mut source = ExternalSource::new("config", admitted("empty"));
    source.status = Some(status.clone());
    assert!(source.suspended());
    assert_eq!(Managed::status(&source), Some(&status));
}
