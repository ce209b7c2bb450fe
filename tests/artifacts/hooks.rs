//! Hooks around the request, run by a real sidecar.

use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};
use trellis_api::ExternalSource;
use trellis_testkit::eventually;

use crate::{
    archive::config_map,
    hooked::RULES,
    site::{Site, said},
    taken::{download, unpacked},
    upstream::Answer,
};

/// A hook that runs a script.
fn script(name: &str, text: &str) -> Value {
    json!({ "name": name, "command": "bash", "args": ["-c", text] })
}

fn with(mut hook: Value, more: Value) -> Value {
    if let (Some(hook), Value::Object(more)) = (hook.as_object_mut(), more) {
        hook.extend(more);
    }
    hook
}

fn secret(name: &str, value: &str) -> Secret {
    let manifest = json!({ "metadata": { "name": name }, "stringData": { "value": value } });
    serde_json::from_value(manifest).unwrap()
}

/// What the artifact of a source holds under its first name.
async fn content(site: &Site, name: &str, other_than: &str) -> String {
    let artifact = site.published(name, other_than).await;
    unpacked(&download(&artifact.url).await).remove(0).1
}

/// postRequest hooks: each reads what the one before it wrote; more of them than the sidecar has places for.
#[tokio::test(flavor = "multi_thread")]
async fn post_request_hooks_are_a_chain_of_any_length() {
    let site = Site::hooked("chain", RULES).await;
    site.upstream.serves("1", "{\"items\":[\"a\",\"b\"]}");
    let mut hooks = vec![json!({ "name": "pick", "command": "jq", "args": ["-c", ".items"] })];
    hooks.extend((0..9).map(|number| script(&format!("add-{number}"), &format!("cat; echo {number}"))));
    site.source("app", "app.json", json!({ "hooks": { "postRequest": hooks } }))
        .await;
    let found = content(&site, "app", "").await;
    assert_eq!(found, "[\"a\",\"b\"]\n0\n1\n2\n3\n4\n5\n6\n7\n8\n");
    site.ready("app", "True", "Succeeded").await;
    // A check without news runs none of them.
    site.request("app", "again").await;
    site.handled("app", "again").await;
    assert_eq!(site.upstream.told(), [200, 304]);
}

/// preRequest hooks run before the request, see it, and change its query, its headers and its body; each sees what the one
/// before it changed.
#[tokio::test(flavor = "multi_thread")]
async fn pre_request_hooks_run_before_the_request_and_change_it() {
    let mut site = Site::hooked("before", RULES).await;
    site.upstream.serves("1", "{}");
    let seen = site.sidecar().file("seen");
    let hooks = [
        json!({ "name": "sign", "command": "jq", "args": ["-c", "{headers: (.headers + {\"x-signature\": [.query.token[0] + .body]})}"] }),
        script("watch", &format!("cat > {}", seen.display())),
        json!({ "name": "page", "command": "jq", "args": ["-c", "{query: {page: \"2\"}, body: \"changed\"}"] }),
    ];
    let http = json!({
        "url": site.upstream.url("app.json?token=abc"), "method": "POST", "body": { "content": "body" },
    });
    let spec = json!({ "generator": { "type": "http", "http": http }, "hooks": { "preRequest": hooks } });
    site.source("app", "", spec).await;
    site.ready("app", "True", "Succeeded").await;
    assert_eq!(site.upstream.last()["x-signature"], "abcbody");
    assert_eq!(site.upstream.last_query(), "page=2");
    assert_eq!(site.upstream.last_body(), "changed");
    let seen: Value = serde_json::from_slice(&std::fs::read(seen).unwrap()).unwrap();
    assert_eq!(seen["method"], "POST");
    assert_eq!(seen["query"], json!({ "token": ["abc"] }));
    assert_eq!(seen["headers"]["x-signature"], json!(["abcbody"]));
}

/// What hooks may not change, they do not change: the request goes where the spec says, and the change must be one.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_pre_request_hook_may_not_change_is_refused() {
    let site = Site::hooked("refused", RULES).await;
    site.upstream.serves("1", "{}");
    for (name, said_by_hook, part) in [
        (
            "url",
            "{\"url\":\"http://169.254.169.254/\"}",
            "other than query, headers and body",
        ),
        (
            "host",
            "{\"headers\":{\"host\":\"other\"}}",
            "header host is not a hook's to set",
        ),
        ("range", "{\"headers\":{\"range\":\"bytes=0-1\"}}", "cannot be set"),
        ("body", "{\"body\":\"x\"}", "a GET has no body"),
        ("text", "token=geheim", "it is not JSON"),
    ] {
        let hook = script("change", &format!("echo '{said_by_hook}'"));
        site.source(name, "app.json", json!({ "hooks": { "preRequest": [hook] } }))
            .await;
        let refused = site.ready(name, "False", "HookFailed").await;
        let (_, _, message) = said(&refused, "Ready");
        assert!(message.contains("hook change: ") && message.contains(part), "{message}");
        assert!(!message.contains("geheim"), "{message}");
    }
    assert!(site.upstream.told().is_empty());
}

/// Variables: literal, and from a Secret, which is waited for; another value makes another artifact; no value is told.
#[tokio::test(flavor = "multi_thread")]
async fn variables_come_from_the_spec_and_from_secrets_and_are_never_told() {
    let site = Site::hooked("variables", RULES).await;
    site.upstream.serves("1", "{}");
    let env = json!([
        { "name": "GREETING", "value": "hello" },
        { "name": "TOKEN", "valueFrom": { "secretKeyRef": { "name": "token", "key": "value" } } },
    ]);
    let hook = with(
        script("greet", "echo $GREETING; echo -n $TOKEN | sha256sum"),
        json!({ "env": env }),
    );
    site.source("app", "app.txt", json!({ "hooks": { "postRequest": [hook] } }))
        .await;
    let waiting = site.ready("app", "False", "ConfigurationError").await;
    let (_, _, message) = said(&waiting, "Ready");
    assert!(message.contains("there is no Secret token"), "{message}");
    assert!(
        message.contains("spec.hooks.postRequest[0].env[1].valueFrom.secretKeyRef"),
        "{message}"
    );
    site.namespace.create_object(secret("token", "geheim-1")).await.unwrap();
    let first = site.published("app", "").await;
    let found = unpacked(&download(&first.url).await).remove(0).1;
    assert_eq!(found, format!("hello\n{}  -\n", crate::archive::sha256(b"geheim-1")));
    site.ready("app", "True", "Succeeded").await;
    let rotated = json!({ "stringData": { "value": "geheim-2" } });
    site.namespace.merge::<Secret>("token", rotated).await.unwrap();
    let found = content(&site, "app", &first.revision).await;
    assert_eq!(found, format!("hello\n{}  -\n", crate::archive::sha256(b"geheim-2")));

    let env = json!([{ "name": "TOKEN", "valueFrom": { "secretKeyRef": { "name": "token", "key": "value" } } }]);
    let hook = with(
        script("leak", "echo \"wrong token $TOKEN\" >&2; exit 4"),
        json!({ "env": env }),
    );
    site.source("app", "app.txt", json!({ "hooks": { "postRequest": [hook] } }))
        .await;
    let failed = site.ready("app", "False", "HookFailed").await;
    let (_, _, message) = said(&failed, "Ready");
    assert!(
        message.contains("hook leak: exited with code 4: wrong token …"),
        "{message}"
    );
    assert!(!serde_json::to_string(&failed.status).unwrap().contains("geheim"));
}

/// What a hook says of data that becomes a Secret is not told: programs repeat what they cannot read.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_told_of_data_that_becomes_a_secret() {
    let site = Site::hooked("private", RULES).await;
    site.upstream.serves("1", "\"geheim\"");
    let hook = json!({ "name": "pick", "command": "jq", "args": [".[]"] });
    let output = json!({ "as": "Secret", "object": { "name": "token", "key": "token" } });
    site.source(
        "app",
        "app.json",
        json!({ "hooks": { "postRequest": [hook] }, "output": output }),
    )
    .await;
    let failed = site.ready("app", "False", "HookFailed").await;
    let (_, _, message) = said(&failed, "Ready");
    assert!(
        message.contains("hook pick: exited with code 5: (what it said is not shown"),
        "{message}"
    );
    assert!(!serde_json::to_string(&failed.status).unwrap().contains("geheim"));
}

/// `ignore` passes the input on, and says so; `fail` fails at once; `retry` tries again until maxRetries of the whole chain is
/// used up, across both lists.
#[tokio::test(flavor = "multi_thread")]
async fn each_retry_policy_does_what_it_says() {
    let mut site = Site::hooked("policies", RULES).await;
    site.upstream.serves("1", "data");
    let tries = site.sidecar().file("tries");
    let count = |more: &str| format!("echo >> {}; {more}", tries.display());
    let counted = || std::fs::read_to_string(&tries).unwrap_or_default().lines().count();

    let hook = with(script("optional", "cat; exit 3"), json!({ "retryPolicy": "ignore" }));
    site.source(
        "ignored",
        "app.txt",
        json!({ "hooks": { "postRequest": [hook, script("after", "cat; echo -n !")] } }),
    )
    .await;
    assert_eq!(content(&site, "ignored", "").await, "data!");
    let ready = site.ready("ignored", "True", "Succeeded").await;
    let (_, _, message) = said(&ready, "Ready");
    assert!(
        message.contains("hook optional failed and was ignored: exit code 3"),
        "{message}"
    );

    let hook = script("strict", &count("echo the key is missing >&2; exit 3"));
    site.source("failed", "app.txt", json!({ "hooks": { "postRequest": [hook] } }))
        .await;
    let failed = site.ready("failed", "False", "HookFailed").await;
    let (_, _, message) = said(&failed, "Ready");
    assert!(
        message.contains("hook strict: exited with code 3: the key is missing"),
        "{message}"
    );
    assert_eq!(counted(), 1);
    assert_eq!(said(&failed, "Reconciling").1, "ProgressingWithRetry");

    // The first hook needs one of two retries; one is left for the other, which needs two.
    std::fs::remove_file(&tries).unwrap();
    let flag = site.sidecar().file("flag");
    let once = format!("test -e {0} || {{ touch {0}; exit 1; }}", flag.display());
    let spec = json!({
        "maxRetries": 2,
        "hooks": {
            "preRequest": [with(script("once", &once), json!({ "retryPolicy": "retry" }))],
            "postRequest": [with(script("never", &count("exit 5")), json!({ "retryPolicy": "retry" }))],
        },
    });
    site.source("retried", "app.txt", spec).await;
    let failed = site.ready("retried", "False", "MaxRetriesExceeded").await;
    let (_, _, message) = said(&failed, "Ready");
    assert!(message.contains("hook never: exited with code 5"), "{message}");
    assert_eq!(said(&failed, "Stalled").0, "True");
    assert_eq!(counted(), 2, "one try and one retry");

    // With a retry that is enough it succeeds; 0 means none.
    std::fs::remove_file(&flag).unwrap();
    let hook = |retries: u32| {
        let text = format!("test -e {0} || {{ touch {0}; exit 1; }}; cat", flag.display());
        json!({ "maxRetries": retries, "hooks": { "postRequest": [with(script("once", &text), json!({ "retryPolicy": "retry" }))] } })
    };
    site.source("none", "app.txt", hook(0)).await;
    site.ready("none", "False", "MaxRetriesExceeded").await;
    std::fs::remove_file(&flag).unwrap();
    site.source("enough", "app.txt", hook(1)).await;
    assert_eq!(content(&site, "enough", "").await, "data");
}

/// A hook that takes too long is ended with all that it started, and one that writes too much as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_hook_has_limits_of_time_and_of_output() {
    let site = Site::hooked("limits", RULES).await;
    site.upstream.serves("1", "data");
    let slow = with(script("slow", "sleep 300 & sleep 300"), json!({ "timeout": "500ms" }));
    site.source("slow", "app.txt", json!({ "hooks": { "postRequest": [slow] } }))
        .await;
    let failed = site.ready("slow", "False", "HookFailed").await;
    let (_, _, message) = said(&failed, "Ready");
    assert!(message.contains("hook slow: timed out after 500ms"), "{message}");
    let much = with(script("much", "head -c 100 /dev/zero"), json!({ "maxOutputBytes": 99 }));
    site.source("much", "app.txt", json!({ "hooks": { "postRequest": [much] } }))
        .await;
    let failed = site.ready("much", "False", "SizeLimitExceeded").await;
    let (_, _, message) = said(&failed, "Ready");
    assert!(
        message.contains("hook much: stdout has more than 99 bytes"),
        "{message}"
    );
}

/// A sidecar that does not answer is waited for, with backoff, while the last artifact is served.
#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_that_is_away_is_waited_for() {
    let mut site = Site::hooked("away", RULES).await;
    site.upstream.serves("1", "one");
    let hooks = json!({ "hooks": { "postRequest": [script("add", "cat; echo -n !")] } });
    site.source("app", "app.txt", hooks).await;
    let first = site.published("app", "").await;
    site.ready("app", "True", "Succeeded").await;
    site.sidecar().stop();
    site.upstream.serves("2", "two");
    site.request("app", "while away").await;
    let failed = site.ready("app", "False", "HookFailed").await;
    let (_, _, message) = said(&failed, "Ready");
    assert!(
        message.contains("executor is unreachable") && message.contains(&first.revision),
        "{message}"
    );
    assert_eq!(said(&failed, "Reconciling").1, "ProgressingWithRetry");
    let more = |source: &ExternalSource| source.status.as_ref().is_some_and(|status| status.failures >= 2);
    site.namespace.until("app", "tried again", more).await;
    site.sidecar().again();
    assert_eq!(content(&site, "app", &first.revision).await, "two!");
}

/// Work that takes long is told while it lasts, and not afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn hooks_that_take_long_are_told_while_they_run() {
    let mut site = Site::hooked("long", RULES).await;
    site.upstream.serves("1", "data");
    let go = site.sidecar().file("go");
    let wait = format!("while ! test -e {}; do sleep 0.1; done; cat", go.display());
    site.source(
        "app",
        "app.txt",
        json!({ "hooks": { "postRequest": [script("wait", &wait)] } }),
    )
    .await;
    let running = |source: &ExternalSource| said(source, "ExecutingHooks").0 == "True";
    let found: ExternalSource = site.namespace.until("app", "executing hooks", running).await;
    assert_eq!(said(&found, "ExecutingHooks").2, "running hook wait");
    assert_eq!(said(&found, "Reconciling").1, "Progressing");
    std::fs::write(&go, "").unwrap();
    let ready = site.ready("app", "True", "Succeeded").await;
    for condition in ["ExecutingHooks", "Fetching", "Storing", "Reconciling"] {
        assert_eq!(said(&ready, condition).0, "", "{condition}");
    }
}

/// 401 and 403 are the user's to mend: nothing is tried before the interval, but a new Secret is tried at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_request_is_made_again_when_its_secret_changes() {
    let site = Site::new("authorised").await;
    site.upstream.answers(Answer {
        status: 401,
        ..Answer::default()
    });
    site.namespace.create_object(secret("headers", "old")).await.unwrap();
    let http = json!({ "url": site.upstream.url("app.yaml"), "headersSecretRef": { "name": "headers" } });
    site.source("app", "", json!({ "generator": { "type": "http", "http": http } }))
        .await;
    let refused = site.ready("app", "False", "PermanentError").await;
    assert_eq!(said(&refused, "Reconciling").1, "ProgressingWithRetry");
    assert_eq!(site.upstream.told(), [401]);
    site.upstream.serves("1", config_map("one", "number", "1"));
    let rotated = json!({ "stringData": { "value": "new" } });
    site.namespace.merge::<Secret>("headers", rotated).await.unwrap();
    site.ready("app", "True", "Succeeded").await;
    assert_eq!(site.upstream.told(), [401, 200]);
    assert_eq!(site.upstream.last()["value"], "new");
    eventually("nothing is left of it", async || {
        let source: ExternalSource = site.namespace.get("app").await.unwrap();
        match source.status.map(|status| status.failures) {
            Some(0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}
