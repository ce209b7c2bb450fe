use super::*;

const APP: Of<'_> = Of {
    namespace: "shop",
    name: "app",
};

fn text(measured: &Measured) -> String {
    let mut registry = Registry::default();
    measured.register(&mut registry);
    measured.register_for_flux(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    text
}

#[test]
fn what_happened_is_counted_under_the_names_that_dashboards_know() {
    let measured = Measured::default();
    let running = measured.round(APP);
    assert!(text(&measured).contains("externalsource_active_reconciliations{namespace=\"shop\",name=\"app\"} 1"));
    measured.asked("http", Said::Data(7), Duration::from_millis(20));
    measured.asked("http", Said::Unchanged, Duration::from_millis(20));
    measured.asked("http", Said::Nothing, Duration::from_millis(20));
    measured.hook("tidy", "ignore", true, Duration::from_millis(20));
    measured.worked(Operation::Store, true, Duration::from_millis(20));
    measured.serves(APP, 9);
    measured.ended(APP, "http", &running, 0, Timestamp::from_second(5).unwrap());
    drop(running);
    let text = text(&measured);
    for line in [
        "externalsource_reconciliation_total{namespace=\"shop\",name=\"app\",source_type=\"http\",success=\"true\"} 1",
        "externalsource_reconciliation_duration_seconds_count{namespace=\"shop\",name=\"app\",source_type=\"http\",success=\"true\"} 1",
        "externalsource_source_request_total{source_type=\"http\",success=\"true\"} 2",
        "externalsource_source_request_total{source_type=\"http\",success=\"false\"} 1",
        "externalsource_source_not_modified_total{source_type=\"http\"} 1",
        "externalsource_source_received_bytes_total{source_type=\"http\"} 7",
        "externalsource_hook_execution_total{hook_name=\"tidy\",retry_policy=\"ignore\",success=\"true\"} 1",
        "externalsource_artifact_operation_total{operation=\"store\",success=\"true\"} 1",
        "externalsource_active_reconciliations{namespace=\"shop\",name=\"app\"} 0",
        "externalsource_artifact_size_bytes{namespace=\"shop\",name=\"app\"} 9",
        "externalsource_last_success_timestamp_seconds{namespace=\"shop\",name=\"app\"} 5.0",
        "externalsource_consecutive_failures{namespace=\"shop\",name=\"app\"} 0",
        "gotk_reconcile_duration_seconds_count{kind=\"ExternalSource\",namespace=\"shop\",name=\"app\"} 1",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[test]
fn names_of_hooks_are_bounded() {
    let measured = Measured::default();
    for number in 0..=HOOKS {
        measured.hook(&format!("hook-{number}"), "fail", true, Duration::ZERO);
        measured.hook("hook-0", "fail", true, Duration::ZERO);
    }
    let text = text(&measured);
    assert_eq!(text.matches("externalsource_hook_execution_total{").count(), HOOKS + 1);
    assert!(text.contains("hook_name=\"(others)\",retry_policy=\"fail\",success=\"true\"} 1"));
}

#[test]
fn nothing_of_a_source_stays_when_it_or_the_term_goes() {
    let measured = Measured::default();
    for failures in [0, 1] {
        let running = measured.round(APP);
        measured.serves(APP, 9);
        measured.ended(APP, "s3", &running, failures, Timestamp::UNIX_EPOCH);
    }
    let other = measured.clone();
    measured.forget(APP);
    assert!(!text(&measured).contains("app"), "{}", text(&measured));
    drop(other.round(APP));
    other.serves(APP, 9);
    measured.asked("http", Said::Unchanged, Duration::ZERO);
    measured.end();
    assert!(!text(&measured).contains("app"), "{}", text(&measured));
    assert!(text(&measured).contains("source_not_modified_total{source_type=\"http\"} 1"));
}
