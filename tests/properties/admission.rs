//! What the API server itself refuses, field by field, with the message that a person reads.

use futures::{StreamExt as _, stream};
use kube::{
    Api,
    api::{DynamicObject, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};
use trellis_testkit::fixtures::{PolicyFixture, policy};

use crate::PLANE;

const DURATION: &str =
    "must be a positive whole number with one unit of ms, s, m, h or d, such as 300ms or 10s, and at most 24h";
const CODES: &str =
    "must be a comma-separated list without blanks of: 5xx, gateway-error, a code from 100 to 599, or a range";
const DURATIONS: [&str; 6] = [
    "/spec/circuitBreaker/minPenalty",
    "/spec/circuitBreaker/maxPenalty",
    "/spec/retry/retryTimeout",
    "/spec/timeout/requestTimeout",
    "/spec/timeout/responseTimeout",
    "/spec/timeout/idleTimeout",
];

/// A policy that is right but for one field.
fn but(pointer: &str, value: impl Into<Value>) -> PolicyFixture {
    let mut whole = policy("web").breaker(5).retry(3, "5xx").request_timeout("10s");
    if pointer.contains("Penalty") {
        whole = whole.penalties("1s", "24h");
    }
    whole.set(pointer, value)
}

/// Each wrong manifest, and what has to be in the answer.
#[expect(clippy::too_many_lines, reason = "a table")]
fn wrong() -> Vec<(PolicyFixture, Vec<&'static str>)> {
    let mut table: Vec<(PolicyFixture, Vec<&'static str>)> = vec![
        (
            policy("web"),
            vec!["a policy needs at least one of circuitBreaker, retry, timeout, loadBias and rateLimit"],
        ),
        (
            but("/spec/targetRef", json!({})),
            vec!["spec.targetRef.name: Required value"],
        ),
        (
            policy("web").breaker(5).set("/spec/targetRef", Value::Null),
            vec!["a policy needs exactly one of targetRef and targetSelector"],
        ),
        (
            but("/spec/targetRef/name", ""),
            vec!["spec.targetRef.name", "should be at least 1 chars long"],
        ),
        (
            but("/spec/targetRef/name", "x".repeat(254)),
            vec!["spec.targetRef.name", "may not be more than 253"],
        ),
        (
            but("/spec/targetRef/namespace", ""),
            vec!["spec.targetRef.namespace", "should be at least 1 chars long"],
        ),
        (
            but("/spec/targetRef/namespace", "x".repeat(64)),
            vec!["spec.targetRef.namespace", "may not be more than 63"],
        ),
        (
            but("/spec/targetRef/port", 0),
            vec!["spec.targetRef.port", "should be greater than or equal to 1"],
        ),
        (
            but("/spec/targetRef/port", 65536),
            vec!["spec.targetRef.port", "should be less than or equal to 65535"],
        ),
        (
            but("/spec/targetRef/port", "http"),
            vec!["spec.targetRef.port", "must be of type integer"],
        ),
        (
            but("/spec/suspend", "yes"),
            vec!["spec.suspend", "must be of type boolean"],
        ),
        (
            but("/spec/circuitBreaker/enabled", "on"),
            vec!["spec.circuitBreaker.enabled", "must be of type boolean"],
        ),
        (
            but("/spec/circuitBreaker/failureThreshold", 0),
            vec!["spec.circuitBreaker.failureThreshold", "greater than or equal to 1"],
        ),
        (
            but("/spec/circuitBreaker/failureThreshold", 101),
            vec!["spec.circuitBreaker.failureThreshold", "less than or equal to 100"],
        ),
        (
            but("/spec/circuitBreaker/failureThreshold", 2.5),
            vec!["spec.circuitBreaker.failureThreshold", "must be of type integer"],
        ),
        (
            but("/spec/circuitBreaker/failureAccrualMethod", "sometimes"),
            vec!["Unsupported value: \"sometimes\": supported values: \"consecutive\", \"unified\""],
        ),
        (
            but("/spec/circuitBreaker/jitterRatio", -0.1),
            vec!["spec.circuitBreaker.jitterRatio", "greater than or equal to 0"],
        ),
        (
            but("/spec/circuitBreaker/jitterRatio", 100.1),
            vec!["spec.circuitBreaker.jitterRatio", "less than or equal to 100"],
        ),
        (
            but("/spec/circuitBreaker/jitterRatio", "0.5"),
            vec!["spec.circuitBreaker.jitterRatio", "must be of type number"],
        ),
        (
            but("/spec/retry/maxAttempts", 0),
            vec!["spec.retry.maxAttempts", "greater than or equal to 1"],
        ),
        (
            but("/spec/retry/maxAttempts", 11),
            vec!["spec.retry.maxAttempts", "less than or equal to 10"],
        ),
        (
            but("/spec/timeout", json!({})),
            vec!["an enabled timeout needs at least one of requestTimeout, responseTimeout and idleTimeout"],
        ),
        (
            but("/spec/rateLimit/enabled", true),
            vec![
                "an enabled rate limit needs requestsPerSecond, perClientRequestsPerSecond or both",
                "name an existing one in serverRef, or have one made with createServer",
            ],
        ),
        (
            but("/spec/rateLimit/requestsPerSecond", 0),
            vec!["spec.rateLimit.requestsPerSecond", "greater than or equal to 1"],
        ),
        (
            but("/spec/rateLimit/burstSize", 0),
            vec!["spec.rateLimit.burstSize", "greater than or equal to 1"],
        ),
    ];
    for (min, max) in [
        (Some("2m"), Some("119s")),
        (Some("61s"), None),
        (None, Some("999ms")),
        (Some("1d"), Some("23h")),
    ] {
        let mut breaker = json!({});
        breaker["minPenalty"] = min.map(Value::from).unwrap_or_default();
        breaker["maxPenalty"] = max.map(Value::from).unwrap_or_default();
        let message = "minPenalty must not exceed maxPenalty; where one is absent, Linkerd takes 1s and 60s";
        table.push((
            policy("web").set("/spec/circuitBreaker", breaker),
            vec!["spec.circuitBreaker.minPenalty", message],
        ));
    }
    for pointer in DURATIONS {
        for text in [
            "0s",
            "00",
            "1.5s",
            "1m30s",
            "10",
            "-1s",
            "+1s",
            "1w",
            " 1s",
            "1S",
            "01s",
            "25h",
            "2d",
            "1441m",
            "86401s",
            "86400001ms",
        ] {
            table.push((but(pointer, text), vec![DURATION]));
        }
        table.push((but(pointer, "s"), vec!["should be at least 2 chars long"]));
        table.push((but(pointer, "100000000ms"), vec!["may not be more than 10"]));
        table.push((but(pointer, 10), vec!["must be of type string"]));
    }
    let codes = "/spec/retry/retryableStatusCodes";
    for text in [
        "4xx",
        "600",
        "099",
        "5xx, 429",
        "5xx,,429",
        "5xx,",
        ",5xx",
        "5XX",
        "500-",
        "500-6",
        "500-600",
        "5xx;429",
        "gateway_error",
    ] {
        table.push((but(codes, text), vec![CODES]));
    }
    table.push((
        but(codes, "504-500"),
        vec!["a range of status codes must run upwards, such as 500-504"],
    ));
    table.push((
        but(codes, "5xx,504-500"),
        vec!["a range of status codes must run upwards, such as 500-504"],
    ));
    table.push((but(codes, "3"), vec!["should be at least 3 chars long"]));
    table.push((but(codes, ["500"; 33].join(",")), vec!["may not be more than 128"]));
    table
}

/// What has to pass.
fn right() -> Vec<PolicyFixture> {
    let mut table = vec![
        policy("web").set("/spec/circuitBreaker", json!({})),
        policy("web").set("/spec/retry", json!({})),
        policy("web").set("/spec/timeout/enabled", false),
        but(
            "/spec/rateLimit",
            json!({ "enabled": false, "requestsPerSecond": 100, "burstSize": 1 }),
        ),
        but("/spec/targetRef/port", 65535),
        but("/spec/circuitBreaker/jitterRatio", 0),
        but("/spec/circuitBreaker/jitterRatio", 100),
        but("/spec/circuitBreaker/failureAccrualMethod", "consecutive"),
        policy("web").penalties("60s", "1m"),
        policy("web").set("/spec/circuitBreaker/minPenalty", "60s"),
        policy("web").set("/spec/circuitBreaker/maxPenalty", "1s"),
    ];
    for pointer in DURATIONS {
        let texts = if pointer.ends_with("minPenalty") {
            ["1ms", "1s", "90m", "24h", "1d"]
        } else {
            ["1000ms", "86400s", "1440m", "24h", "1d"]
        };
        table.extend(texts.map(|text| but(pointer, text)));
    }
    let codes = [
        "5xx",
        "gateway-error",
        "100",
        "599",
        "500-504",
        "500-500",
        "5xx,429",
        "429,gateway-error,500-501",
        &["500"; 32].join(","),
    ];
    table.extend(codes.map(|text| but("/spec/retry/retryableStatusCodes", text)));
    table
}

/// Every wrong field is refused with a message that says what would be right; what is right passes.
#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_field_is_refused_with_its_message() {
    let plane = PLANE.get().await.unwrap();
    let namespace = plane.isolated("admission").await.unwrap();
    let kind = GroupVersionKind::gvk("resilience.trellis.dev", "v1alpha1", "ResiliencePolicy");
    let resource = ApiResource::from_gvk_with_plural(&kind, "resiliencepolicies");
    let policies: Api<DynamicObject> = Api::namespaced_with(namespace.client().clone(), namespace.name(), &resource);
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let answer = async |manifest: &Value| {
        let object: DynamicObject = serde_json::from_value(manifest.clone()).unwrap();
        policies
            .create(&dry, &object)
            .await
            .map(drop)
            .map_err(|error| error.to_string())
    };
    let (refused, admitted) = (refused(), admitted());
    let manifest = |spec: &Value| {
        json!({ "apiVersion": "resilience.trellis.dev/v1alpha1", "kind": "ResiliencePolicy",
                "metadata": { "name": "web" }, "spec": spec })
    };
    let cases: Vec<(Value, Vec<&str>)> = right()
        .into_iter()
        .map(|fixture| (fixture.json(), Vec::new()))
        .chain(wrong().into_iter().map(|(fixture, words)| (fixture.json(), words)))
        .chain(admitted.iter().map(|spec| (manifest(spec), Vec::new())))
        .chain(
            refused
                .iter()
                .map(|refused| (manifest(&refused.spec), vec![refused.says.as_str()])),
        )
        .collect();
    let count = cases.len();
    let failures: Vec<String> = stream::iter(cases)
        .map(async |(manifest, words)| match answer(&manifest).await {
            Ok(()) if words.is_empty() => None,
            Ok(()) => Some(format!("admitted: {}", manifest["spec"])),
            Err(error) if !words.is_empty() && words.iter().all(|word| error.contains(word)) => None,
            Err(error) => Some(format!("{}\n  said {error}\n  not {words:?}", manifest["spec"])),
        })
        .buffer_unordered(8)
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

/// A row of the table of the API's own crate.
#[derive(serde::Deserialize)]
struct Refused {
    spec: Value,
    says: String,
}

fn refused() -> Vec<Refused> {
    let mut rows: Vec<Refused> = serde_saphyr::from_str(include_str!("../../crates/api/tests/refused.yaml")).unwrap();
    for row in &mut rows {
        // As the table says: the target is this one where it is not written.
        if let Some(spec) = row.spec.as_object_mut() {
            spec.entry("targetRef").or_insert_with(|| json!({ "name": "web" }));
        }
    }
    rows
}

fn admitted() -> Vec<Value> {
    serde_saphyr::from_str(include_str!("../../crates/api/tests/admitted.yaml")).unwrap()
}
