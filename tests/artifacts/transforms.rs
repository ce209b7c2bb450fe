//! Transforms inside the operator, after the hooks.

use serde_json::json;

use crate::{
    hooked::RULES,
    site::{Site, said},
    taken::{download, unpacked},
};

async fn files(site: &Site, name: &str) -> Vec<(String, String)> {
    let artifact = site.published(name, "").await;
    unpacked(&download(&artifact.url).await)
}

/// CEL over the data, one expression after another, in today's form and in the older one, without any sidecar.
#[tokio::test(flavor = "multi_thread")]
async fn cel_transforms_the_data_in_both_forms() {
    let site = Site::new("cel").await;
    site.upstream
        .serves("1", "{\"settings\":{\"replicas\":3,\"region\":\"eu\",\"more\":[1,2]}}");
    let transforms = json!([
        { "type": "cel", "expression": "body.settings" },
        { "type": "cel", "expression": "{'replicas': body.replicas, 'region': body.region}" },
    ]);
    let output = json!({ "as": "ConfigMap", "object": { "name": "settings", "key": "settings.json" } });
    site.source(
        "today",
        "app.json",
        json!({ "transforms": transforms, "output": output }),
    )
    .await;
    let found = files(&site, "today").await;
    let made: serde_json::Value = serde_saphyr::from_str(&found[0].1).unwrap();
    assert_eq!(made["data"]["settings.json"], "{\"region\":\"eu\",\"replicas\":3}\n");
    let legacy = json!({ "type": "cel", "expression": "body.settings.region" });
    site.source("older", "app.txt", json!({ "transform": legacy })).await;
    assert_eq!(files(&site, "older").await, [("app.txt".to_owned(), "eu".to_owned())]);
}

/// Hooks first, transforms after them.
#[tokio::test(flavor = "multi_thread")]
async fn transforms_read_what_the_hooks_wrote() {
    let site = Site::hooked("after", RULES).await;
    site.upstream.serves("1", "no JSON");
    let hook = json!({ "name": "json", "command": "jq", "args": ["-Rc", "{said: .}"] });
    let spec = json!({
        "hooks": { "postRequest": [hook] },
        "transforms": [{ "type": "cel", "expression": "body.said + '!'" }],
    });
    site.source("app", "app.txt", spec).await;
    assert_eq!(files(&site, "app").await[0].1, "no JSON!");
}

/// What is wrong with an expression is said, and what it says of the data names the transform.
#[tokio::test(flavor = "multi_thread")]
async fn a_transform_that_cannot_work_says_why() {
    let site = Site::new("wrong").await;
    site.upstream.serves("1", "{\"a\":1}");
    for (name, type_, expression, reason, part) in [
        (
            "syntax",
            "cel",
            "body.(",
            "ConfigurationError",
            "spec.transforms[0].expression: transform 1: ",
        ),
        (
            "field",
            "cel",
            "body.b",
            "TransformFailed",
            "transform 1: there is no field \"b\"",
        ),
        (
            "jq",
            "jq",
            ".a",
            "ConfigurationError",
            "spec.transforms[0].type: jq does not run inside the operator",
        ),
    ] {
        let transforms = json!([{ "type": type_, "expression": expression }]);
        site.source(name, "app.json", json!({ "transforms": transforms })).await;
        let refused = site.ready(name, "False", reason).await;
        let (_, _, message) = said(&refused, "Ready");
        assert!(message.contains(part), "{message}");
    }
}
