//! The whitelist of hooks: asked by the controller before the sidecar is, and read again whenever it changes.

use serde_json::{Value, json};
use trellis_api::ExternalSource;
use trellis_testkit::eventually;

use crate::{
    hooked::RULES,
    site::{Site, said},
};

fn hooks(command: &str, args: &[&str]) -> Value {
    json!({ "hooks": { "postRequest": [{ "name": "work", "command": command, "args": args }] } })
}

/// Waits until the message of `Ready` has this in it.
async fn says(site: &Site, name: &str, part: &str) -> ExternalSource {
    let has = |source: &ExternalSource| said(source, "Ready").2.contains(part);
    site.namespace.until(name, part, has).await
}

/// A command that is not allowed is the user's to change: nothing is asked, nobody is asked to run it, and nothing is tried
/// until the whitelist changes; then it is at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_not_allowed_waits_for_another_whitelist() {
    let mut site = Site::hooked(
        "allowed",
        "commands:\n  jq: { allowed: true, argumentPatterns: ['\\.[a-z]+'] }\n",
    )
    .await;
    site.upstream.serves("1", "{\"a\":1}");
    // Nobody is there to be asked: what is refused is refused before.
    site.sidecar().stop();
    for (name, spec, part) in [
        ("command", hooks("cat", &[]), "command \"cat\" is not allowed"),
        ("argument", hooks("jq", &[".a|.b"]), "argument 1 matches none"),
        (
            "elsewhere",
            hooks("/tmp/cat", &[]),
            "command \"/tmp/cat\" is not allowed",
        ),
    ] {
        site.source(name, "app.json", spec).await;
        let refused = site.ready(name, "False", "AccessDenied").await;
        let (_, _, message) = said(&refused, "Ready");
        assert!(
            message.contains("spec.hooks.postRequest[0]: ") && message.contains(part),
            "{message}"
        );
        assert_eq!(said(&refused, "Stalled").0, "True");
        assert_eq!(said(&refused, "Reconciling").0, "");
    }
    assert!(site.upstream.told().is_empty());
    site.sidecar().again();
    site.sidecar().rules(RULES);
    site.ready("command", "True", "Succeeded").await;
    site.ready("argument", "False", "HookFailed").await;
    site.ready("elsewhere", "False", "AccessDenied").await;
}

/// What the whitelist allows and the sidecar does not may be behind a whitelist that it has yet to read, or a program that is
/// yet to be installed: it is asked again.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_sidecar_alone_denies_is_asked_again() {
    let site = Site::hooked("denied", RULES).await;
    site.upstream.serves("1", "{\"a\":1}");
    site.source("app", "app.json", hooks("/opt/nowhere/cat", &[])).await;
    let denied = site.ready("app", "False", "AccessDenied").await;
    let (_, _, message) = said(&denied, "Ready");
    assert!(message.contains("asked again at the interval"), "{message}");
    assert_eq!(said(&denied, "Stalled").0, "");
    assert_eq!(said(&denied, "Reconciling").0, "True");
}

/// Another whitelist is a change: what was made with the old one is made again, or refused while the old is served.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_whitelist_is_looked_at_at_once() {
    let mut site = Site::hooked("changed", RULES).await;
    site.upstream.serves("1", "{\"a\":1}");
    site.source("hooked", "app.json", hooks("jq", &["-c", ".a"])).await;
    site.source("plain", "app.json", json!({})).await;
    let first = site.published("hooked", "").await;
    for name in ["hooked", "plain"] {
        site.ready(name, "True", "Succeeded").await;
    }
    let asked = site.upstream.told().len();
    let before = hash(&site, "hooked").await;
    // A comment changes nothing …
    site.sidecar().rules(&format!("# nothing new\n{RULES}"));
    // … and another rule does: the body is asked for again, and the same artifact comes of it.
    site.sidecar().rules(&format!("{RULES}  sort: {{ allowed: true }}\n"));
    eventually("made again", async || match hash(&site, "hooked").await {
        now if now != before => Ok(()),
        now => Err(now),
    })
    .await;
    assert_eq!(site.upstream.told()[asked..], [200], "of the source with hooks alone");
    let artifact = site.published("hooked", "").await;
    assert_eq!(artifact, first, "the same artifact, untouched");

    site.sidecar().rules("commands: {}\n");
    let refused = site.ready("hooked", "False", "AccessDenied").await;
    let (_, _, message) = said(&refused, "Ready");
    assert!(
        message.contains(&format!("revision {}", first.revision)) && message.contains("still served"),
        "{message}"
    );
    assert_eq!(refused.status.unwrap().artifact.unwrap().revision, first.revision);
    site.ready("plain", "True", "Succeeded").await;
    site.sidecar().rules(RULES);
    site.ready("hooked", "True", "Succeeded").await;
}

async fn hash(site: &Site, name: &str) -> String {
    let source: ExternalSource = site.namespace.get(name).await.unwrap();
    source
        .status
        .and_then(|status| status.pipeline_hash)
        .unwrap_or_default()
}

/// A broken whitelist keeps the last good one in force, and whoever uses hooks is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_whitelist_keeps_the_last_good_one_and_is_told() {
    let mut site = Site::hooked("broken", RULES).await;
    site.upstream.serves("1", "{\"a\":1}");
    site.source("app", "app.json", hooks("jq", &["-c", ".a"])).await;
    site.source("plain", "app.json", json!({})).await;
    for name in ["app", "plain"] {
        site.ready(name, "True", "Succeeded").await;
    }
    let asked = site.upstream.told().len();
    let good = |site: &Site, number: u8| {
        let line = format!("external_source_operator_hook_whitelist_good {number}\n");
        site.metrics.render().unwrap().contains(&line)
    };
    assert!(good(&site, 1));
    site.sidecar().rules("commands: [");
    let told = says(
        &site,
        "app",
        "the whitelist of hooks is broken; the last good one counts",
    )
    .await;
    assert_eq!(said(&told, "Ready").0, "True");
    assert!(good(&site, 0));
    // It still runs what it ran.
    site.upstream.serves("2", "{\"a\":2}");
    site.request("app", "now").await;
    site.handled("app", "now").await;
    assert_eq!(site.upstream.told()[asked..], [200]);
    let ready = site.ready("app", "True", "Succeeded").await;
    assert!(said(&ready, "Ready").2.contains("is broken"));
    let plain: ExternalSource = site.namespace.get("plain").await.unwrap();
    assert!(!said(&plain, "Ready").2.contains("whitelist"));
    site.sidecar().rules(RULES);
    let cured = |source: &ExternalSource| !said(source, "Ready").2.contains("whitelist");
    let cured: ExternalSource = site.namespace.until("app", "no longer told", cured).await;
    assert_eq!(said(&cured, "Ready").0, "True");
    assert!(good(&site, 1));
}

/// Without a good whitelist no hook runs, sources without hooks are served, and the first good one is enough.
#[tokio::test(flavor = "multi_thread")]
async fn no_whitelist_is_needed_where_no_hook_is() {
    let mut site = Site::hooked("without", "commands: [").await;
    site.upstream.serves("1", "{\"a\":1}");
    site.source("plain", "app.json", json!({})).await;
    site.source("hooked", "app.json", hooks("jq", &["-c", ".a"])).await;
    site.ready("plain", "True", "Succeeded").await;
    let refused = site.ready("hooked", "False", "AccessDenied").await;
    let (_, _, message) = said(&refused, "Ready");
    assert!(message.contains("whitelist of hooks is broken"), "{message}");
    site.sidecar().rules(RULES);
    site.ready("hooked", "True", "Succeeded").await;
}

/// An operator without a sidecar says so, and serves the others.
#[tokio::test(flavor = "multi_thread")]
async fn hooks_without_an_executor_are_refused() {
    let site = Site::new("nobody").await;
    site.upstream.serves("1", "{\"a\":1}");
    site.source("hooked", "app.json", hooks("jq", &["-c", ".a"])).await;
    let refused = site.ready("hooked", "False", "ConfigurationError").await;
    let (_, _, message) = said(&refused, "Ready");
    assert!(message.contains("without a hook executor"), "{message}");
    assert!(site.upstream.told().is_empty());
}
