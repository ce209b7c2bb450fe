use std::time::Duration;

use serde_json::{Value, json};
use trellis_api::ResiliencePolicy;

use super::*;

const GAUGES: &[Gauge<ResiliencePolicy>] = &[
    Gauge::total("suspended", "How many are suspended.", |policy| {
        i64::from(policy.spec.suspend)
    }),
    Gauge::by_namespace("names", "Lengths of names.", |policy| {
        i64::try_from(policy.metadata.name.as_ref().unwrap().len()).unwrap()
    }),
];

fn policy(namespace: &str, more: &Value) -> ResiliencePolicy {
    let mut object = json!({
        "apiVersion": "resilience.trellis.dev/v1alpha1", "kind": "ResiliencePolicy",
        "metadata": { "name": "web", "namespace": namespace, "generation": 2 }, "spec": {},
    });
    json_patch::merge(&mut object, more);
    serde_json::from_value(object).unwrap()
}

fn told(generation: i64, type_: &str, state: &str) -> Value {
    json!({ "status": { "observedGeneration": generation, "conditions": [{
        "type": type_, "status": state, "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
    }] } })
}

fn census(objects: &[Result<ResiliencePolicy, Option<String>>]) -> Census {
    let objects = objects
        .iter()
        .map(|object| object.as_ref().map_err(|namespace: &Option<String>| namespace.clone()));
    Census::of("policies", GAUGES, objects)
}

/// The samples, without the buckets of histograms.
fn samples(metrics: &Metrics) -> Vec<String> {
    let text = metrics.render().unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter(|line| !line.contains("_bucket{") && !line.contains("_sum{"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn what_happened_is_told_by_namespace() {
    let metrics = Metrics::default();
    metrics.leads(true);
    let toy = metrics.of("toy-maker");
    let took = Duration::from_millis(3);
    toy.reconciled(Some("a"), Verdict::Changed, took);
    toy.reconciled(Some("a"), Verdict::Changed, took);
    toy.reconciled(Some("a"), Verdict::Refused("Opaque"), took);
    toy.reconciled(Some("b"), Verdict::Failed("Throttled"), took);
    toy.wrote(Some("a"));
    assert_eq!(
        samples(&metrics),
        [
            "trellis_leader 1",
            "toy_maker_operator_reconciliations_total{namespace=\"a\",result=\"Changed\"} 2",
            "toy_maker_operator_reconciliations_total{namespace=\"a\",result=\"Refused\"} 1",
            "toy_maker_operator_reconciliations_total{namespace=\"b\",result=\"Failed\"} 1",
            "toy_maker_operator_reconciliation_duration_seconds_count{namespace=\"a\"} 3",
            "toy_maker_operator_reconciliation_duration_seconds_count{namespace=\"b\"} 1",
            "toy_maker_operator_errors_total{namespace=\"a\",type=\"Opaque\"} 1",
            "toy_maker_operator_errors_total{namespace=\"b\",type=\"Throttled\"} 1",
            "toy_maker_operator_writes_total{namespace=\"a\"} 1",
            "toy_maker_operator_writes_total{namespace=\"b\"} 0",
        ]
    );
}

#[test]
fn a_controller_counts_on_in_its_next_term() {
    let metrics = Metrics::default();
    for _ in 0..2 {
        metrics.of("toy").wrote(Some("a"));
    }
    let text = metrics.render().unwrap();
    assert_eq!(
        text.matches("# TYPE toy_operator_writes counter\n").count(),
        1,
        "{text}"
    );
    assert!(
        text.contains("toy_operator_writes_total{namespace=\"a\"} 2\n"),
        "{text}"
    );
}

#[test]
fn every_object_stands_somewhere_and_adds_to_every_gauge() {
    let metrics = Metrics::default();
    let toy = metrics.of("toy");
    let counting = toy.count(|| {
        census(&[
            Ok(policy("a", &told(2, "Ready", "True"))),
            Ok(policy("a", &told(1, "Ready", "True"))),
            Ok(policy("a", &told(2, "Ready", "False"))),
            Ok(policy("a", &told(2, "Stalled", "True"))),
            Ok(policy("a", &json!({}))),
            Ok(policy("a", &json!({ "spec": { "suspend": true } }))),
            Ok(policy(
                "a",
                &json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } }),
            )),
            Err(Some("b".to_owned())),
        ])
    });
    let standing = |namespace: &str, status: &str, number: i64| {
        format!("toy_operator_policies_total{{namespace=\"{namespace}\",status=\"{status}\"}} {number}")
    };
    let expected = [
        "trellis_leader 0".to_owned(),
        standing("a", "Ready", 1),
        standing("a", "Reconciling", 3),
        standing("a", "Stalled", 1),
        standing("a", "Suspended", 1),
        standing("a", "Terminating", 1),
        standing("a", "Unreadable", 0),
        standing("b", "Ready", 0),
        standing("b", "Reconciling", 0),
        standing("b", "Stalled", 0),
        standing("b", "Suspended", 0),
        standing("b", "Terminating", 0),
        standing("b", "Unreadable", 1),
        "toy_operator_suspended 1".to_owned(),
        "toy_operator_names{namespace=\"a\"} 21".to_owned(),
        "toy_operator_names{namespace=\"b\"} 0".to_owned(),
    ];
    assert_eq!(samples(&metrics), expected);
    drop(counting);
    assert_eq!(samples(&metrics), ["trellis_leader 0"]);
}

#[test]
fn without_objects_a_total_is_zero_and_a_namespace_is_not_there() {
    let metrics = Metrics::default();
    let _counting = metrics.of("toy").count(|| census(&[]));
    assert_eq!(samples(&metrics), ["trellis_leader 0", "toy_operator_suspended 0"]);
}

#[test]
fn a_namespace_is_forgotten_only_when_it_is_empty_and_has_been_told() {
    let patient = Arc::new(Measured::default());
    let hasty = Arc::new(Measured::keeping(Duration::ZERO));
    for (measured, kept) in [(patient, 2), (hasty, 1)] {
        for namespace in ["lived-in", "empty"] {
            measured.wrote(Some(namespace));
        }
        let _counting = measured.count(|| census(&[Ok(policy("lived-in", &json!({})))]));
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Arc::clone(&measured)));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert_eq!(text.matches("writes_total{").count(), kept, "{text}");
        assert!(text.contains("writes_total{namespace=\"lived-in\"} 1\n"), "{text}");
    }
}
