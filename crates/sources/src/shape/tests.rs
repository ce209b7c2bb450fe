use proptest::prelude::*;
use rstest::rstest;
use serde_json::{Value, json};

use super::*;

fn path(text: &str) -> EntryPath {
    EntryPath::parse(text).unwrap()
}

fn destination(text: &str) -> Destination {
    Destination::parse("spec.destinationPath", text).unwrap()
}

fn wrap(name: &str) -> Wrap {
    Wrap {
        name: name.to_owned(),
        ..Wrap::default()
    }
}

fn shaped(shape: &Shape, payload: &[u8]) -> Result<Shaped, Refusal> {
    shape.shape(
        &Destination::default(),
        &path("app.yaml"),
        None,
        Payload::Whole(payload),
    )
}

fn yaml_of(shaped: &Shaped) -> Vec<Value> {
    let Content::Bytes(bytes) = &shaped.entries[0].content else {
        panic!("{shaped:?}");
    };
    serde_saphyr::from_multiple(std::str::from_utf8(bytes).unwrap()).unwrap()
}

const CONFIG_MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a # kept\n";

#[rstest]
#[case::yaml(CONFIG_MAP, Ok(None))]
#[case::documents(&format!("---\n{CONFIG_MAP}---\n---\n# nothing\n---\n{}", CONFIG_MAP.replace("name: a", "name: b")), Ok(None))]
#[case::mark(&format!("\u{feff}{CONFIG_MAP}"), Ok(None))]
#[case::json(r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"yes"}}"#, Ok(Some(1)))]
#[case::json_list(r#"[{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"a"}},{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"b"}}]"#, Ok(Some(2)))]
#[case::list(
    r#"{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"a"}}]}"#,
    Ok(Some(1))
)]
#[case::flow_yaml("{apiVersion: v1, kind: Namespace, metadata: {name: a}}", Ok(None))]
#[case::kustomization(
    "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [a]\n",
    Ok(None)
)]
#[case::empty("", Err("no Kubernetes object"))]
#[case::comments("# nothing\n---\n", Err("no Kubernetes object"))]
#[case::plain_json(r#"{"replicas": 3}"#, Err("document 1 of the payload has no apiVersion"))]
#[case::second_is_none(&format!("{CONFIG_MAP}---\nreplicas: 3\n"), Err("document 2"))]
#[case::scalar("hello", Err("is no Kubernetes object"))]
#[case::html("\n<HTML><body>404</body></html>", Err("looks like an HTML page"))]
#[case::doctype("<!doctype html>\n<p>a: b: c", Err("looks like an HTML page"))]
#[case::no_html("<a>", Err("is no Kubernetes object"))]
#[case::broken_json_list("[{\"apiVersion\":", Err("not YAML"))]
#[case::no_name("apiVersion: v1\nkind: ConfigMap\n", Err("without metadata.name"))]
#[case::generated(
    "apiVersion: batch/v1\nkind: Job\nmetadata: {generateName: a-}\n",
    Err("generateName")
)]
#[case::twice(&format!("{CONFIG_MAP}---\n{CONFIG_MAP}"), Err("ConfigMap a for the second time"))]
#[case::no_yaml("a: [s3cret", Err("not YAML"))]
#[case::wrong_item(
    r#"{"apiVersion":"v1","kind":"List","items":[{"kind":"Namespace"}]}"#,
    Err("no apiVersion")
)]
fn a_manifest(#[case] payload: &str, #[case] expected: Result<Option<usize>, &str>) {
    match (shaped(&Shape::Manifest, payload.as_bytes()), expected) {
        (Ok(found), Ok(None)) => assert_eq!(found.entries[0].content, Content::Payload),
        (Ok(found), Ok(Some(documents))) => assert_eq!(yaml_of(&found).len(), documents),
        (Err(refusal), Err(word)) => {
            assert!(refusal.message.contains(word), "{refusal}");
            assert!(!refusal.to_string().contains("s3cret"), "{refusal}");
            assert_eq!(refusal.reason, "PermanentError");
        }
        (found, expected) => panic!("{found:?} instead of {expected:?}"),
    }
}

/// However short each object is, and however long the payload.
#[rstest]
#[case::object(format!("{{\"a\":[{}[]]}}", "[],".repeat(1_000_000)), "more than 500000 values")]
#[case::deep(format!("{{{MANY},\"a\":{}{}1{}}}", "[".repeat(100), "1,".repeat(400_000), "]".repeat(100)), "bytes as YAML")]
#[case::aliases(format!("a: &a [{}]\nb: [{}]\n", "1,".repeat(1000), "*a,".repeat(1000)), "expands beyond 250000 values, at line")]
#[case::objects(objects(100_001), "more than 100000 objects")]
fn a_manifest_that_is_too_much(#[case] payload: String, #[case] word: &str) {
    let refusal = shaped(&Shape::Manifest, payload.as_bytes()).unwrap_err();
    assert_eq!(
        (refusal.reason, refusal.message.contains(word)),
        ("SizeLimitExceeded", true),
        "{refusal}"
    );
}

const MANY: &str = r#""apiVersion":"v1","kind":"Many","metadata":{"name":"a"}"#;

fn objects(count: usize) -> String {
    let object = |number| format!(r#"{{"apiVersion":"v1","kind":"A","metadata":{{"name":"{number}"}}}}"#);
    format!("[{}]", (0..count).map(object).collect::<Vec<_>>().join(","))
}

/// What is counted is a document, as only one at a time is in memory.
#[rstest]
#[case::json(objects(60_000))]
#[case::yaml((0..60_000).map(|n| format!("apiVersion: v1\nkind: A\nmetadata: {{name: a{n}}}\n")).collect::<Vec<_>>().join("---\n"))]
fn many_objects_are_no_matter(#[case] payload: String) {
    assert!(shaped(&Shape::Manifest, payload.as_bytes()).is_ok());
}

#[test]
fn a_config_map_reads_well() {
    let wrap = Wrap {
        namespace: Some("shop".to_owned()),
        key: Some("app.json".to_owned()),
        labels: [("team".to_owned(), "yes".to_owned())].into_iter().collect(),
        ..wrap("settings")
    };
    let found = shaped(&Shape::ConfigMap(wrap), b"{\"a\": 1}\n").unwrap();
    let Content::Bytes(bytes) = &found.entries[0].content else {
        panic!("{found:?}")
    };
    let expected = "apiVersion: \"v1\"\ndata:\n  app.json: \"{\\\"a\\\": 1}\\n\"\nkind: \"ConfigMap\"\nmetadata:\n  labels:\n    team: \"yes\"\n  name: \"settings\"\n  namespace: \"shop\"\n";
    assert_eq!(std::str::from_utf8(bytes).unwrap(), expected);
    assert!(found.warnings.is_empty());
}

#[test]
fn bytes_are_binary_data_and_secrets_are_base64() {
    let found = shaped(&Shape::ConfigMap(wrap("a")), &[0, 255, 1]).unwrap();
    assert_eq!(yaml_of(&found)[0]["binaryData"], json!({ "app.yaml": "AP8B" }));
    let found = shaped(&Shape::Secret(wrap("a")), b"s3cret").unwrap();
    assert_eq!(yaml_of(&found)[0]["data"], json!({ "app.yaml": "czNjcmV0" }));
    assert_eq!(yaml_of(&found)[0]["kind"], "Secret");
}

#[test]
fn the_payload_is_under_its_own_name_where_no_key_is_chosen() {
    let keyed = |wrap| Shape::ConfigMap(wrap).keyed(&EntryPath::parse("app.json").unwrap());
    let found = shaped(&keyed(wrap("a")), b"{}").unwrap();
    assert_eq!(yaml_of(&found)[0]["data"], json!({ "app.json": "{}" }));
    let chosen = Wrap {
        key: Some("b".to_owned()),
        ..wrap("a")
    };
    let found = shaped(&keyed(chosen), b"{}").unwrap();
    assert_eq!(yaml_of(&found)[0]["data"], json!({ "b": "{}" }));
}

#[rstest]
#[case::at_the_limit(1 << 20, true)]
#[case::over_it((1 << 20) + 1, false)]
fn one_mebibyte(#[case] size: usize, #[case] fits: bool) {
    let payload = vec![b'a'; size];
    for shape in [Shape::ConfigMap(wrap("a")), Shape::Secret(wrap("a"))] {
        match shaped(&shape, &payload) {
            Ok(_) => assert!(fits),
            Err(refusal) => {
                assert!(
                    !fits && refusal.reason == "SizeLimitExceeded" && refusal.message.contains("1048576"),
                    "{refusal}"
                );
            }
        }
    }
}

#[rstest]
#[case(Wrap { name: "A".into(), ..Wrap::default() }, "name of an object")]
#[case(Wrap { name: String::new(), ..Wrap::default() }, "name of an object")]
#[case(Wrap { namespace: Some("a.b".into()), ..wrap("a") }, "name of a namespace")]
#[case(Wrap { key: Some("a/b".into()), ..wrap("a") }, "key")]
#[case(Wrap { key: Some("..".into()), ..wrap("a") }, "key")]
#[case(Wrap { key: Some("..a".into()), ..wrap("a") }, "key")]
#[case(Wrap { key: Some(String::new()), ..wrap("a") }, "key")]
fn names_that_kubernetes_does_not_take(#[case] wrap: Wrap, #[case] word: &str) {
    let refusal = shaped(&Shape::ConfigMap(wrap), b"x").unwrap_err();
    assert!(
        refusal.message.contains(word) && refusal.reason == "ConfigurationError",
        "{refusal}"
    );
}

#[rstest]
#[case::raw_manifest(Shape::Raw, "a.yaml", None, &["a.yaml"], false)]
#[case::raw_data(Shape::Raw, "data", None, &["data"], true)]
#[case::resource(Shape::Raw, "conf/a.yaml", Some(Kustomization::Resource), &["conf/a.yaml", "conf/kustomization.yaml"], false)]
#[case::generated(Shape::Raw, "z.json", Some(Kustomization::ConfigMap { name: "a".into() }), &["kustomization.yaml", "z.json"], false)]
fn a_layout(
    #[case] shape: Shape,
    #[case] to: &str,
    #[case] kustomization: Option<Kustomization>,
    #[case] paths: &[&str],
    #[case] warns: bool,
) {
    let found = shape
        .shape(&destination(to), &path("x"), kustomization.as_ref(), Payload::Spooled)
        .unwrap();
    assert_eq!(
        found
            .entries
            .iter()
            .map(|entry| entry.path.as_str())
            .collect::<Vec<_>>(),
        paths
    );
    assert_eq!(!found.warnings.is_empty(), warns);
}

#[test]
fn a_generated_config_map_has_a_stable_name() {
    let kustomization = Kustomization::ConfigMap {
        name: "settings".to_owned(),
    };
    let found = Shape::Raw
        .shape(
            &destination("a.json"),
            &path("x"),
            Some(&kustomization),
            Payload::Spooled,
        )
        .unwrap();
    let Content::Bytes(bytes) = &found.entries[1].content else {
        panic!("{found:?}")
    };
    let value: Value = serde_saphyr::from_str(std::str::from_utf8(bytes).unwrap()).unwrap();
    let expected = json!([{ "name": "settings", "files": ["a.json"], "options": { "disableNameSuffixHash": true } }]);
    assert_eq!(
        (&value["configMapGenerator"], &value["kind"]),
        (&expected, &json!("Kustomization"))
    );
}

#[rstest]
#[case::ignored(Shape::Manifest, "a.json", None, "would be ignored")]
#[case::twice(Shape::Raw, "kustomization.yaml", Some(Kustomization::Resource), "already")]
#[case::many(Shape::Archive, "a/", Some(Kustomization::Resource), "many")]
#[case::key(Shape::Raw, "ä", Some(Kustomization::ConfigMap { name: "a".into() }), "key")]
fn layouts_that_would_surprise(
    #[case] shape: Shape,
    #[case] to: &str,
    #[case] kustomization: Option<Kustomization>,
    #[case] word: &str,
) {
    let found = shape.shape(
        &destination(to),
        &path("x"),
        kustomization.as_ref(),
        Payload::Whole(CONFIG_MAP.as_bytes()),
    );
    assert!(found.unwrap_err().message.contains(word));
}

#[rstest]
#[case::objects(CONFIG_MAP, None)]
#[case::values("replicas: 3\n", Some("document 1 of the payload has no apiVersion"))]
#[case::page("<!doctype html>", Some("an HTML page"))]
fn a_file_that_is_named_like_a_manifest(#[case] payload: &str, #[case] says: Option<&str>) {
    let note = no_manifest(&path("a/app.yaml"), payload.as_bytes());
    match (note, says) {
        (None, None) => {}
        (Some(note), Some(says)) => {
            assert!(
                note.starts_with("a Kustomization fails on a/app.yaml, because ") && note.contains(says),
                "{note}"
            );
        }
        (note, says) => panic!("{note:?} instead of {says:?}"),
    }
}

#[test]
fn what_has_to_be_read_is_not_taken_unread() {
    let refusal = Shape::Manifest
        .shape(&Destination::default(), &path("a.yaml"), None, Payload::Spooled)
        .unwrap_err();
    assert_eq!(refusal.reason, "SizeLimitExceeded");
}

fn some_json() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        "[ -~\\n\\t\u{0}-\u{1f}\u{7f}-\u{a0}\u{2028}\u{feff}ä]{0,12}",
        Just("yes".to_owned()),
        Just("0x1f".to_owned()),
        Just("1e3".to_owned()),
        Just("~".to_owned()),
        Just("2001-01-01".to_owned())
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        text.clone().prop_map(Value::from)
    ];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(text.clone(), inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect()))
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// YAML of ours reads back as the JSON that it was made of.
    #[test]
    fn yaml_is_the_json(value in some_json()) {
        let text = yaml::document(&value);
        let read: Value = serde_saphyr::from_str(&text).map_err(|error| TestCaseError::fail(format!("{error}: {text}")))?;
        prop_assert_eq!(read, value, "{}", text);
    }

    /// Whatever bytes come, a ConfigMap and a Secret give them back.
    #[test]
    fn data_is_kept(payload in prop_oneof![proptest::collection::vec(any::<u8>(), 0..200), "\\PC{0,60}".prop_map(String::into_bytes)]) {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let secret = yaml_of(&shaped(&Shape::Secret(wrap("a")), &payload).unwrap()).remove(0);
        prop_assert_eq!(&STANDARD.decode(secret["data"]["app.yaml"].as_str().unwrap()).unwrap(), &payload);
        let map = yaml_of(&shaped(&Shape::ConfigMap(wrap("a")), &payload).unwrap()).remove(0);
        let back = match map["data"]["app.yaml"].as_str() {
            Some(text) => text.as_bytes().to_vec(),
            None => STANDARD.decode(map["binaryData"]["app.yaml"].as_str().unwrap()).unwrap(),
        };
        prop_assert_eq!(back, payload);
    }
}
