//! The shape of `ResiliencePolicy`: names, defaults, columns, and what the runtime reads from it.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, like tests")]

use kube::{CustomResourceExt as _, ResourceExt as _};
use rstest::rstest;
use serde_json::{Value, json};
use trellis_api::{
    CircuitBreaker, CommonStatus, FailureAccrualMethod, InventoryEntry, LoadBias, MAX_SERVICES,
    MAX_STATUS_CODES_LENGTH, MAX_TARGETS_LISTED, Managed as _, RateLimit, ResiliencePolicy, ResiliencePolicySpec,
    ResiliencePolicyStatus, Retry, Section, Strategy, TargetKind, TargetRef, Timeout,
};

fn spec(value: Value) -> ResiliencePolicySpec {
    serde_json::from_value(value).unwrap()
}

/// A manifest with every field of the requirement document reads as what it says.
#[test]
fn every_field_of_the_requirement_document_is_read() {
    let read = spec(json!({
        "targetRef": {"name": "web", "namespace": "shop", "port": 8080},
        "circuitBreaker": {"enabled": true, "failureThreshold": 7, "failureAccrualMethod": "consecutive"},
        "retry": {"enabled": true, "maxAttempts": 2, "retryableStatusCodes": "5xx,429", "retryTimeout": "300ms"},
        "timeout": {"enabled": true, "requestTimeout": "10s", "responseTimeout": "5s"},
        "rateLimit": {"enabled": false, "requestsPerSecond": 100, "burstSize": 20},
    }));
    let written = ResiliencePolicySpec {
        target_ref: Some(TargetRef {
            name: "web".into(),
            namespace: Some("shop".into()),
            port: Some(8080),
            ..TargetRef::default()
        }),
        circuit_breaker: Some(CircuitBreaker {
            failure_threshold: 7,
            ..CircuitBreaker::default()
        }),
        retry: Some(Retry {
            max_attempts: 2,
            retryable_status_codes: "5xx,429".into(),
            retry_timeout: Some("300ms".into()),
            ..Retry::default()
        }),
        timeout: Some(Timeout {
            request_timeout: Some("10s".into()),
            response_timeout: Some("5s".into()),
            ..Timeout::default()
        }),
        rate_limit: Some(RateLimit {
            enabled: false,
            requests_per_second: Some(100),
            burst_size: Some(20),
            ..RateLimit::default()
        }),
        ..ResiliencePolicySpec::default()
    };
    assert_eq!(read, written);
}

/// The schema's defaults, which the API server writes, and those of the types, which offline readers use, agree.
#[rstest]
#[case("circuitBreaker", serde_json::to_value(CircuitBreaker::default()).unwrap())]
#[case("retry", serde_json::to_value(Retry::default()).unwrap())]
#[case("timeout", serde_json::to_value(Timeout::default()).unwrap())]
#[case("loadBias", serde_json::to_value(LoadBias::default()).unwrap())]
#[case("rateLimit", serde_json::to_value(RateLimit::default()).unwrap())]
fn defaults_of_schema_and_types_agree(#[case] section: &str, #[case] defaults: Value) {
    let crd = serde_json::to_value(ResiliencePolicy::crd()).unwrap();
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"][section];
    let from_schema: serde_json::Map<String, Value> = schema["properties"]
        .as_object()
        .unwrap()
        .iter()
        .filter_map(|(name, property)| Some((name.clone(), property.get("default")?.clone())))
        .collect();
    assert_eq!(Value::Object(from_schema), defaults);
    assert_eq!(schema.get("required"), None, "an empty section is a valid one");
}

#[test]
fn an_empty_section_means_its_defaults() {
    let read = spec(json!({"targetRef": {"name": "web"}, "circuitBreaker": {}, "retry": {}, "timeout": {}}));
    assert_eq!(read.circuit_breaker, Some(CircuitBreaker::default()));
    assert_eq!(read.retry, Some(Retry::default()));
    assert_eq!(read.timeout, Some(Timeout::default()));
    let breaker = read.circuit_breaker.unwrap();
    assert!(breaker.enabled);
    assert_eq!(
        (breaker.failure_threshold, breaker.failure_accrual_method),
        (5, FailureAccrualMethod::Consecutive)
    );
    assert_eq!(read.retry.unwrap().max_attempts, 3);
}

#[test]
fn what_is_not_set_is_not_written() {
    let read = spec(json!({"targetRef": {"name": "web"}, "timeout": {"enabled": true, "idleTimeout": "1m"}}));
    let written = serde_json::to_value(&read).unwrap();
    assert_eq!(
        written,
        json!({
            "targetRef": {"kind": "Service", "name": "web"},
            "strategy": "Defaults",
            "timeout": {"enabled": true, "idleTimeout": "1m"},
        })
    );
    assert_eq!(
        serde_json::to_value(ResiliencePolicyStatus::default()).unwrap(),
        json!({})
    );
}

#[rstest]
#[case::method(json!({"targetRef": {"name": "web"}, "circuitBreaker": {"failureAccrualMethod": "rate"}}))]
#[case::kind(json!({"targetRef": {"kind": "Deployment", "name": "web"}, "retry": {}}))]
#[case::strategy(json!({"targetRef": {"name": "web"}, "strategy": "overrides", "retry": {}}))]
#[case::access(json!({"targetRef": {"name": "web"}, "rateLimit": {"createServer": {}}}))]
#[case::port(json!({"targetRef": {"name": "web", "port": 65536}}))]
fn what_has_no_meaning_is_not_read(#[case] value: Value) {
    assert!(serde_json::from_value::<ResiliencePolicySpec>(value).is_err());
}

#[test]
fn the_definition_is_named_as_promised() {
    let crd = ResiliencePolicy::crd();
    assert_eq!(crd.name_any(), "resiliencepolicies.resilience.trellis.dev");
    assert_eq!(crd.spec.scope, "Namespaced");
    assert_eq!(crd.spec.names.short_names, Some(vec!["respol".to_owned()]));
    let version = &crd.spec.versions[0];
    assert_eq!(version.name, "v1alpha1");
    assert!(version.subresources.as_ref().unwrap().status.is_some());
    let columns = version.additional_printer_columns.as_ref().unwrap();
    let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "Target",
            "Circuit Breaker",
            "Retry",
            "Timeout",
            "Ready",
            "Reason",
            "Age"
        ]
    );
    let codes = serde_json::to_value(version.schema.as_ref().unwrap()).unwrap();
    let codes =
        &codes["openAPIV3Schema"]["properties"]["spec"]["properties"]["retry"]["properties"]["retryableStatusCodes"];
    assert_eq!(codes["maxLength"], MAX_STATUS_CODES_LENGTH);
}

/// A manifest of the first version of the kind means what it meant.
#[test]
fn older_manifests_read_as_before() {
    let read = spec(json!({"targetRef": {"name": "web"}, "retry": {}, "rateLimit": {"requestsPerSecond": 5}}));
    let target = read.target_ref.clone().unwrap();
    assert_eq!(
        (target.kind, target.group, target.port),
        (TargetKind::Service, None, None)
    );
    assert_eq!(read.strategy, Strategy::Defaults);
    assert!(read.routes.is_empty());
    assert!(!read.enables(Section::RateLimit));
    assert!(read.enables(Section::Retry) && !read.enables(Section::Timeout));
    assert_eq!(
        read.sections().collect::<Vec<_>>(),
        [Section::Retry, Section::RateLimit]
    );
}

#[test]
fn every_way_to_say_what_for_and_how_is_read() {
    let read = spec(json!({
        "targetRef": {"kind": "Service", "name": "web", "port": 80},
        "strategy": "Overrides",
        "routes": [
            {"name": "search", "http": {"matches": [
                {"path": {"value": "/search"}, "method": "GET", "headers": [{"name": "x-beta", "value": "1"}]},
            ]}},
            {"name": "carts", "grpc": {"matches": [{"service": "shop.v1.Carts", "method": "Add"}]}},
        ],
        "circuitBreaker": {
            "failureAccrualMethod": "unified",
            "successRate": {"threshold": 0.9, "window": "30s", "minRequests": 10},
            "honorRetryAfter": true,
        },
        "retry": {"retryableGrpcCodes": "unavailable"},
        "loadBias": {"penalty": "2s", "maxRetryAfter": "1m"},
        "rateLimit": {"enabled": true, "perClientRequestsPerSecond": 5, "createServer": {"accessPolicy": "all-authenticated"}},
    }));
    let written = serde_json::to_value(&read).unwrap();
    assert_eq!(
        serde_json::from_value::<ResiliencePolicySpec>(written.clone()).unwrap(),
        read
    );
    assert_eq!(written["routes"][0]["http"]["matches"][0]["path"]["type"], "PathPrefix");
    assert_eq!(
        written["rateLimit"]["createServer"]["accessPolicy"],
        "all-authenticated"
    );
    assert_eq!(read.sections().count(), 4);
}

#[test]
fn the_list_of_targets_is_bounded_as_promised() {
    let crd = serde_json::to_value(ResiliencePolicy::crd()).unwrap();
    let status = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"];
    assert_eq!(status["properties"]["targets"]["maxItems"], MAX_TARGETS_LISTED);
}

/// etcd takes 1.5 MiB in one request: the longest names fit, with a third of it left for everything else.
#[test]
fn a_status_of_most_services_fits() {
    let name = |index: usize| format!("{index:0>63}");
    let namespace = name(0);
    let paths: Vec<String> = (0..MAX_SERVICES)
        .map(|index| format!("{namespace}/{}", name(index)))
        .collect();
    let status = ResiliencePolicyStatus {
        common: CommonStatus {
            inventory: (0..MAX_SERVICES)
                .map(|index| InventoryEntry {
                    api_version: "v1".into(),
                    kind: "Service".into(),
                    namespace: Some(namespace.clone()),
                    name: name(index),
                    uid: Some("00000000-0000-0000-0000-000000000000".into()),
                    part: true,
                })
                .collect(),
            ..CommonStatus::default()
        },
        applied_to_services: paths.clone(),
        ..ResiliencePolicyStatus::default()
    };
    // A set has an entry in managedFields for each of its items.
    let fields: serde_json::Map<String, Value> = paths
        .iter()
        .map(|path| (format!("v:{}", json!(path)), json!({})))
        .collect();
    let bytes = json!(status).to_string().len() + json!(fields).to_string().len();
    assert!(bytes / MAX_SERVICES <= 530, "{} each", bytes / MAX_SERVICES);
    assert!(bytes < 1_100_000, "{bytes}");
}

#[test]
fn conditions_are_a_map_by_type() {
    let crd = serde_json::to_value(ResiliencePolicy::crd()).unwrap();
    let status = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"];
    let conditions = &status["properties"]["conditions"];
    assert_eq!(conditions["x-kubernetes-list-type"], "map");
    assert_eq!(conditions["x-kubernetes-list-map-keys"], json!(["type"]));
    assert_eq!(status["properties"].get("common"), None);
}

#[test]
fn the_runtime_sees_suspend_and_the_shared_status() {
    let mut policy = ResiliencePolicy::new(
        "web",
        ResiliencePolicySpec {
            suspend: true,
            ..Default::default()
        },
    );
    assert!(policy.suspended());
    assert_eq!(policy.status(), None);
    let mut status = ResiliencePolicyStatus {
        linkerd_version: Some("2.20".into()),
        ..Default::default()
    };
    let common = CommonStatus {
        observed_generation: Some(4),
        last_handled_reconcile_at: Some("now".into()),
        inventory: vec![InventoryEntry {
            api_version: "v1".into(),
            kind: "Service".into(),
            namespace: Some("shop".into()),
            name: "web".into(),
            uid: Some("1".into()),
            part: true,
        }],
        ..CommonStatus::default()
    };
    *ResiliencePolicy::common_mut(&mut status) = common.clone();
    assert_eq!(ResiliencePolicy::common(&status), &common);
    let wire = serde_json::to_value(&status).unwrap();
    assert_eq!(wire["observedGeneration"], 4, "the shared part is flattened");
    assert_eq!(serde_json::from_value::<ResiliencePolicyStatus>(wire).unwrap(), status);
    policy.status = Some(status.clone());
    assert_eq!(policy.status(), Some(&status));
}
