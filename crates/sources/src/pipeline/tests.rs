use proptest::prelude::*;
use rstest::rstest;
use serde_json::json;

use super::*;

fn spec() -> Value {
    json!({
        "interval": "10m", "maxRetries": 3, "destinationPath": "a.yaml",
        "generator": { "type": "http", "http": { "url": "https://h/a", "timeout": "30s", "method": "GET" } },
        "hooks": { "postRequest": [{ "name": "jq", "command": "jq", "args": ["."] }] },
    })
}

fn hash(spec: &Value) -> PipelineHash {
    Pipeline {
        spec: Some(spec),
        whitelist: Some("1"),
        resolved: BTreeMap::from([("Secret/a".to_owned(), "7".to_owned())]),
    }
    .hash()
}

#[rstest]
#[case::interval("/interval", json!("20m"), false)]
#[case::retries("/maxRetries", json!(0), false)]
#[case::timeout("/generator/http/timeout", json!("60s"), false)]
#[case::url("/generator/http/url", json!("https://h/b"), true)]
#[case::query("/generator/http/url", json!("https://h/a?x=1"), true)]
#[case::method("/generator/http/method", json!("POST"), true)]
#[case::destination("/destinationPath", json!("b.yaml"), true)]
#[case::argument("/hooks/postRequest/0/args/0", json!(".a"), true)]
fn what_counts(#[case] pointer: &str, #[case] value: Value, #[case] counts: bool) {
    let mut changed = spec();
    *changed.pointer_mut(pointer).unwrap() = value;
    assert_eq!(hash(&changed) != hash(&spec()), counts);
}

#[test]
fn secrets_and_whitelist_count_and_suspend_and_null_do_not() {
    let spec = spec();
    let base = Pipeline {
        spec: Some(&spec),
        whitelist: Some("1"),
        resolved: BTreeMap::from([("Secret/a".to_owned(), "7".to_owned())]),
    };
    let rotated = Pipeline {
        resolved: BTreeMap::from([("Secret/a".to_owned(), "8".to_owned())]),
        ..base.clone()
    };
    let reloaded = Pipeline {
        whitelist: Some("2"),
        ..base.clone()
    };
    let unused = Pipeline {
        whitelist: None,
        ..base.clone()
    };
    let all = [&base, &rotated, &reloaded, &unused].map(Pipeline::hash);
    for (place, one) in all.iter().enumerate() {
        assert!(all.iter().skip(place + 1).all(|other| other != one));
    }
    let mut suspended = spec.clone();
    suspended["suspend"] = json!(true);
    suspended["generator"]["http"]["headersSecretRef"] = Value::Null;
    assert_eq!(hash(&suspended), hash(&spec));
    assert_eq!(hash(&spec).to_string().parse(), Ok(hash(&spec)));
}

/// A hash that changes without anybody's doing rebuilds every artifact at an upgrade.
#[test]
fn the_hash_is_fixed() {
    let text = canonical::text(&json!({"b": [1, 2.5, null], "a": {"z": null, "y": "ä\n"}}), Nulls::Drop);
    assert_eq!(text, "{\"a\":{\"y\":\"ä\\n\"},\"b\":[1,2.5,null]}");
}

fn validators() -> Validators {
    Validators {
        etag: Some("\"1\"".to_owned()),
        last_modified: None,
    }
}

/// A source at rest.
fn seen(validators: &Validators) -> Seen<'_> {
    Seen {
        pipeline: hash(&spec()),
        recorded: Some(hash(&spec())),
        validators,
        stored: Stored::Verified,
        forced: false,
    }
}

#[test]
fn at_rest_upstream_is_asked_whether_it_has_something_new() {
    assert_eq!(seen(&validators()).ask(), Ask::IfChanged);
}

#[rstest]
#[case::never_fetched(|seen: &mut Seen<'_>| seen.recorded = None, Drift::NotReady)]
#[case::forced(|seen: &mut Seen<'_>| seen.forced = true, Drift::Forced)]
#[case::spec(|seen: &mut Seen<'_>| seen.pipeline = hash(&json!({})), Drift::PipelineChanged)]
#[case::lost(|seen: &mut Seen<'_>| seen.stored = Stored::Missing, Drift::ArtifactMissing)]
#[case::damaged(|seen: &mut Seen<'_>| seen.stored = Stored::Corrupted, Drift::ArtifactCorrupted)]
fn what_needs_the_body_is_not_hidden_by_a_304(#[case] change: fn(&mut Seen<'_>), #[case] drift: Drift) {
    let validators = validators();
    let mut seen = seen(&validators);
    change(&mut seen);
    assert_eq!(seen.ask(), Ask::Always(drift));
}

#[test]
fn without_validators_the_body_is_asked_for() {
    let none = Validators::default();
    assert_eq!(seen(&none).ask(), Ask::Always(Drift::UpstreamChanged));
}

fn any_seen(validators: &Validators) -> impl Strategy<Value = Seen<'_>> {
    let stored = prop_oneof![Just(Stored::Verified), Just(Stored::Missing), Just(Stored::Corrupted)];
    let recorded = prop_oneof![Just(None), Just(Some(hash(&spec()))), Just(Some(hash(&json!({}))))];
    (stored, recorded, any::<bool>()).prop_map(|(stored, recorded, forced)| Seen {
        stored,
        recorded,
        forced,
        pipeline: hash(&spec()),
        validators,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Upstream may answer that nothing changed only where nothing else did: the sentence of the facts, written the other
    /// way round.
    #[test]
    fn a_304_is_asked_for_only_where_it_can_be_of_use(seen in any_seen(&Validators { etag: Some(String::new()), last_modified: None })) {
        let all = seen.recorded == Some(seen.pipeline) && seen.stored == Stored::Verified && !seen.forced;
        prop_assert_eq!(seen.ask() == Ask::IfChanged, all);
    }

    #[test]
    fn the_order_of_fields_does_not_matter(keys in proptest::collection::vec("[a-z]{1,6}", 1..6), turn in 0_usize..6) {
        let object = |keys: &[String]| {
            let fields: Vec<String> = keys.iter().map(|key| format!("\"{key}\":{{\"{key}2\":1,\"a\":2}}")).collect();
            serde_json::from_str::<Value>(&format!("{{{}}}", fields.join(","))).unwrap()
        };
        let mut turned = keys.clone();
        turned.sort();
        turned.dedup();
        let sorted = object(&turned);
        let turn = turn.min(turned.len());
        turned.rotate_left(turn);
        prop_assert_eq!(hash(&object(&turned)), hash(&sorted));
    }
}
