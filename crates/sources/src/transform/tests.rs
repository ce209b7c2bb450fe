use proptest::prelude::*;
use rstest::rstest;
use serde_json::json;

use super::*;

fn run(expression: &str, payload: &str) -> Result<String, Refusal> {
    let result = Transform::cel("pick", expression)?.run(payload.as_bytes(), &Bounds::default())?;
    Ok(String::from_utf8(result).unwrap())
}

const BODY: &str =
    r#"{"items": [{"name": "b", "on": true}, {"name": "a", "on": false}], "text": "hello", "n": 3, "s3cret": null}"#;

#[rstest]
#[case("body.text", "hello")]
#[case("body.n + 1", "4\n")]
#[case("body.items.map(i, i.name)", "[\"b\",\"a\"]\n")]
#[case("body.items.filter(i, i.on)", "[{\"name\":\"b\",\"on\":true}]\n")]
#[case("body.items.map(i, i.name).sort().join(',')", "a,b")]
#[case("{'z': body.n, 'a': body.text}", "{\"a\":\"hello\",\"z\":3}\n")]
#[case("body.map(k, k).sort()", "[\"items\",\"n\",\"s3cret\",\"text\"]\n")]
#[case("has(body.missing) ? body.missing : 'none'", "none")]
#[case("body.items[0].on", "true\n")]
fn an_expression(#[case] expression: &str, #[case] expected: &str) {
    assert_eq!(run(expression, BODY).unwrap(), expected);
}

#[test]
fn yaml_is_read_too() {
    assert_eq!(run("body.a[1]", "a:\n- x\n- z # comment\n").unwrap(), "z");
}

#[rstest]
#[case::parse("body.", "{}", "ConfigurationError", "does not parse")]
#[case::unknown_variable("input.a", "{}", "TransformFailed", "no variable or function input")]
#[case::range("lists.range(1000000000)", "{}", "ConfigurationError", "not available")]
#[case::missing("body.missing", BODY, "TransformFailed", "no field \"missing\"")]
#[case::types("body.text + body.n", BODY, "TransformFailed", "types")]
#[case::index("body.items[7]", BODY, "TransformFailed", "types, or the result is out of range")]
#[case::no_json("body.a", "a: [s3cret", "PermanentError", "neither JSON nor")]
fn a_failure_says_which_and_why(
    #[case] expression: &str,
    #[case] payload: &str,
    #[case] reason: &str,
    #[case] word: &str,
) {
    let refusal = run(expression, payload).unwrap_err();
    assert_eq!(refusal.reason, reason, "{refusal}");
    assert!(
        refusal.message.starts_with("transform pick: ") && refusal.message.contains(word),
        "{refusal}"
    );
    assert!(
        !refusal.to_string().contains("s3cret") && !refusal.to_string().contains("hello"),
        "{refusal}"
    );
}

/// With 20 fields an order that happens to be the same four times is out of the question.
#[test]
fn what_depends_on_the_order_of_a_map_is_refused() {
    let fields: serde_json::Map<String, Value> = (0..20).map(|n| (format!("k{n}"), json!(n))).collect();
    let refusal = run("body.map(k, k)", &Value::Object(fields).to_string()).unwrap_err();
    assert!(
        refusal.message.contains("order") && refusal.hint.as_deref().unwrap().contains("sort"),
        "{refusal}"
    );
}

#[rstest]
#[case::loops("body.map(a, body.map(b, body.map(c, body.map(d, a))))")]
#[case::strings(
    "body.map(a, body.map(b, string(a)).join('')).map(s, s.replace('1', s)).map(s, s.replace('1', s)).join('')"
)]
#[case::doubling(
    "[body].map(a, [a + a].map(b, [b + b].map(c, [c + c].map(d, [d + d].map(e, [e + e].map(f, f + f))))))"
)]
#[case::replace(
    "string(body[0]).replace('1', string(body)).replace('1', string(body)).replace('1', string(body)).replace('1', string(body))"
)]
fn what_could_take_for_ever_does_not_start(#[case] expression: &str) {
    let body = json!(vec![1111; 2000]).to_string();
    let refusal = run(expression, &body).unwrap_err();
    assert_eq!(refusal.reason, "SizeLimitExceeded", "{refusal}");
}

/// Not even where the expression has no loop.
#[rstest]
#[case::values("1", format!("[{}1]", "1,".repeat(500_000)), "more than 500000 values")]
#[case::sums(&["body"; 100].join("+"), format!("\"{}\"", "a".repeat(1 << 20)), "copy too much")]
#[case::calls(&format!("[{}]", ["body.upperAscii()"; 100].join(",")), format!("\"{}\"", "a".repeat(1 << 20)), "copy too much")]
#[case::text(&format!("[{}]", ["body"; 100].join(",")), format!("\"{}\"", "a".repeat(1 << 20)), "too many values or bytes")]
#[case::lists(&format!("[{}]", ["body"; 100].join(",")), json!(vec![1; 10_000]).to_string(), "too many values or bytes")]
fn what_would_take_much_memory_does_not_start(#[case] expression: &str, #[case] payload: String, #[case] says: &str) {
    let refusal = run(expression, &payload).unwrap_err();
    assert_eq!(
        (refusal.reason, refusal.message.contains(says)),
        ("SizeLimitExceeded", true),
        "{refusal}"
    );
}

#[test]
fn a_loop_over_very_many_items_is_for_a_hook() {
    let items: Vec<Value> = (0..5000).map(|n| json!({ "name": format!("n{n}") })).collect();
    let refusal = run("body.map(i, i.name)", &Value::from(items).to_string()).unwrap_err();
    assert!(refusal.hint.as_deref().unwrap().contains("hook"), "{refusal}");
}

#[test]
fn ordinary_work_over_some_hundred_items_is_let_through() {
    let items: Vec<Value> = (0..200)
        .map(|n| json!({ "name": format!("n{n}"), "on": n % 2 == 0 }))
        .collect();
    let body = json!({ "items": items }).to_string();
    let result = run("body.items.filter(i, i.on).map(i, i.name)", &body).unwrap();
    assert_eq!(serde_json::from_str::<Vec<String>>(&result).unwrap().len(), 100);
}

#[rstest]
#[case(Bounds { input: 10, ..Bounds::default() }, "payload has more than 10 bytes")]
#[case(Bounds { output: 2, ..Bounds::default() }, "result has more than 2 bytes")]
#[case(Bounds { steps: 3, ..Bounds::default() }, "more than 3 steps")]
fn bounds_hold(#[case] bounds: Bounds, #[case] says: &str) {
    let refusal = Transform::cel("pick", "body.text")
        .unwrap()
        .run(BODY.as_bytes(), &bounds)
        .unwrap_err();
    assert!(refusal.message.contains(says), "{refusal}");
}

#[test]
fn an_expression_is_not_endless() {
    assert!(Transform::cel("pick", &"1+".repeat(LENGTH_LIMIT)).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// The identity gives the payload back, in one spelling, every time.
    #[test]
    fn the_identity(fields in proptest::collection::btree_map("[a-z]{1,6}", any::<i32>(), 0..12)) {
        let body = json!(fields);
        let once = run("body", &body.to_string()).unwrap();
        prop_assert_eq!(&once, &run("body", &once).unwrap());
        prop_assert_eq!(serde_json::from_str::<Value>(&once).unwrap(), body);
    }

    /// Whatever is written, it is read or refused, and never brings the program down.
    #[test]
    fn noise_is_survived(expression in "[a-z0-9.()\\[\\]{}'\",:?+*<>=!&| -]{0,40}") {
        let _ = run(&expression, BODY);
    }
}
