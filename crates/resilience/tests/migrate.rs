//! Policies from a ServiceProfile are such as the API server takes, by the rules of the schema itself.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, like tests")]

use kube::CustomResourceExt as _;
use regex::Regex;
use rstest::rstest;
use serde_json::{Value, json};
use trellis_api::ResiliencePolicy;
use trellis_resilience::migrate::{Migration, service_profile};

fn migrated(routes: &Value) -> Migration {
    let profile = json!({
        "apiVersion": "linkerd.io/v1alpha2", "kind": "ServiceProfile",
        "metadata": {"name": "web.shop.svc.cluster.local", "namespace": "shop"}, "spec": {"routes": routes},
    });
    service_profile(&serde_json::from_value(profile).unwrap(), "cluster.local").unwrap()
}

/// Every rule of the CRD, wherever it stands.
fn rules(schema: &Value, found: &mut Vec<String>) {
    match schema {
        Value::Object(fields) => {
            let here = fields.get("x-kubernetes-validations").and_then(Value::as_array);
            found.extend(
                here.into_iter()
                    .flatten()
                    .map(|rule| rule["rule"].as_str().unwrap().to_owned()),
            );
            fields.values().for_each(|value| rules(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| rules(value, found)),
        _ => {}
    }
}

/// The expressions that the one rule with these words asks for, and those that it forbids.
fn expressions(words: &str) -> Vec<(bool, Regex)> {
    let mut all = Vec::new();
    rules(&json!(ResiliencePolicy::crd()), &mut all);
    let rule = all.into_iter().find(|rule| rule.contains(words)).unwrap();
    let call = Regex::new(r"(!?)self(?:\.value)?\.matches\('((?:[^'\\]|\\.)*)'\)").unwrap();
    let unescaped = |text: &str| text.replace("\\'", "'").replace("\\\\", "\\");
    call.captures_iter(&rule)
        .map(|found| (found[1].is_empty(), Regex::new(&unescaped(&found[2])).unwrap()))
        .collect()
}

fn fits(rule: &[(bool, Regex)], text: &str) -> bool {
    rule.iter()
        .all(|(wanted, expression)| expression.is_match(text) == *wanted)
}

#[rstest]
#[case::reserved("rest", "/a", true)]
#[case::reserved_by_case("REST", "/a", true)]
#[case::reserved_with_a_port("rest-80", "/a", true)]
#[case::for_all("all", "/a", true)]
#[case::no_letters("***", "/a", true)]
#[case::a_request("GET /a/b", "/a/b", true)]
#[case::two_slashes("a", "/a//b", false)]
#[case::a_dot("a", "/a/\\./b", false)]
#[case::a_blank("a", "/a b", false)]
#[case::escaped_slash("a", "/a%2Fb", false)]
#[case::long("a", &format!("/{}", "x".repeat(512)), false)]
#[case::not_too_long("a", &format!("/{}", "x".repeat(511)), true)]
#[case::long_expression("a", &format!("/{}.*", "x".repeat(505)), false)]
#[case::expression("a", "/a//.*", true)]
fn what_the_schema_does_not_take_is_a_note(#[case] name: &str, #[case] path: &str, #[case] taken: bool) {
    let (names, paths) = (expressions("rest(-"), expressions("%2[fF]"));
    assert!(names.len() == 2 && paths.len() == 2, "the rules are found");
    assert!(!fits(&names, "rest-1") && !fits(&paths, "/a//b"), "and are read");
    let routes = json!([{"name": name, "condition": {"pathRegex": path}, "isRetryable": true}]);
    let found = migrated(&routes);
    assert_eq!(found.policies.len(), usize::from(taken), "{:?}", found.notes);
    let by_hand = found
        .notes
        .iter()
        .any(|note| note.contains("write a policy for it by hand"));
    assert_eq!(by_hand, !taken, "{:?}", found.notes);
    for entry in found
        .policies
        .iter()
        .flat_map(|policy| json!(policy.spec.routes).as_array().unwrap().clone())
    {
        assert!(fits(&names, entry["name"].as_str().unwrap()), "{entry}");
        for wanted in entry["http"]["matches"].as_array().unwrap() {
            let value = wanted["path"]["value"].as_str().unwrap();
            assert!((1..=512).contains(&value.chars().count()), "{value}");
            assert!(
                wanted["path"]["type"] == "RegularExpression" || fits(&paths, value),
                "{value}"
            );
        }
    }
}
