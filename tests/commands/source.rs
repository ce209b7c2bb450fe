//! `trellis source`: the real binary, an upstream whose answers a test chooses, no cluster.

use std::{fs, path::PathBuf};

use serde_json::json;
use tempfile::TempDir;

use super::{Said, trellis};
use crate::upstream::{Answer, Upstream};

/// A folder with the manifests of one source, and its upstream.
struct Desk {
    folder: TempDir,
    upstream: Upstream,
}

impl Desk {
    /// A source of `settings.json` with more in its spec.
    async fn new(more: &str) -> Self {
        let desk = Self {
            folder: tempfile::tempdir().unwrap(),
            upstream: Upstream::start().await,
        };
        let url = desk.upstream.url("v1/settings.json?token=hush");
        let manifests = format!(
            "apiVersion: source.flux.oddkin.co/v1alpha1\nkind: ExternalSource\nmetadata: {{ name: settings }}\n\
             spec:\n  interval: 5m\n  generator: {{ type: http, http: {{ url: '{url}', headersSecretRef: {{ name: key }} }} }}\n\
             {more}---\napiVersion: v1\nkind: Secret\nmetadata: {{ name: key }}\nstringData: {{ X-Key: s3cret }}\n"
        );
        fs::write(desk.file("source.yaml"), manifests).unwrap();
        desk.serves("{\"region\":\"eu\"}");
        desk
    }

    fn serves(&self, body: &str) {
        self.upstream.answers(Answer {
            status: 200,
            etag: Some("\"7\"".to_owned()),
            content_type: "application/json",
            headers: Vec::new(),
            body: body.as_bytes().to_vec(),
        });
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn run(&self, arguments: &[&str]) -> Said {
        let source = self.file("source.yaml");
        let arguments: Vec<&str> = arguments
            .iter()
            .map(|argument| {
                if *argument == "FILE" {
                    source.to_str().unwrap()
                } else {
                    argument
                }
            })
            .collect();
        // There is no cluster, and none is asked for.
        let said = trellis(&self.file("no.kubeconfig"), &arguments).await;
        for secret in ["s3cret", "hush"] {
            assert!(
                !said.data.contains(secret) && !said.talk.contains(secret),
                "{} {}",
                said.data,
                said.talk
            );
        }
        said
    }
}

const ALLOW: &[&str] = &["--egress-allow-cidr", "127.0.0.0/8"];

#[tokio::test(flavor = "multi_thread")]
async fn a_source_is_rendered_without_asking_anybody() {
    let desk = Desk::new("  output: { as: ConfigMap, object: { name: settings } }\n  intervall: 5m\n").await;
    let said = desk.run(&["source", "render", "FILE", "--json"]).await;
    assert_eq!(said.code, Some(0), "{}", said.talk);
    let rendered = said.json();
    let source = rendered.pointer("/0/source").unwrap();
    assert_eq!(source.pointer("/request/headers").unwrap(), &json!(["X-Key"]));
    assert_eq!(source.pointer("/request/query").unwrap(), &json!(["token"]));
    assert_eq!(source.pointer("/intervalSeconds").unwrap(), &json!(300));
    assert_eq!(source.pointer("/output").unwrap(), "ConfigMap");
    assert!(said.talk.contains("spec.intervall is no field"), "{}", said.talk);
    assert_eq!(desk.upstream.told(), Vec::<u16>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_is_tried_as_the_operator_would_make_it() {
    let desk = Desk::new("  output: { as: ConfigMap, object: { name: settings } }\n").await;
    let out = desk.file("artifact.tar.gz");
    let arguments = ["source", "try", "FILE", "--json", "--out", out.to_str().unwrap()];
    let said = desk.run(&[&arguments[..], ALLOW].concat()).await;
    assert_eq!(said.code, Some(0), "{}", said.talk);
    let made = said.json();
    let digest = trellis_core::Digest::of(&fs::read(&out).unwrap()).to_string();
    assert_eq!(made.pointer("/digest").unwrap(), digest.as_str());
    assert_eq!(made.pointer("/etag").unwrap(), "\"7\"");
    assert_eq!(made.pointer("/files/0/path").unwrap(), "settings.yaml");
    assert_eq!(desk.upstream.last().get("x-key").unwrap(), "s3cret");
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(fs::File::open(&out).unwrap()));
    let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut entry, &mut text).unwrap();
    let map: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
    // The key is the name that the data has upstream.
    assert_eq!(
        map.pointer("/data").unwrap(),
        &json!({ "settings.json": "{\"region\":\"eu\"}" })
    );

    let words = desk.run(&[&arguments[..3], ALLOW].concat()).await;
    assert!(words.data.contains("revision   latest@sha256:"), "{}", words.data);
    assert!(words.data.contains("file       settings.yaml"), "{}", words.data);
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_run_under_a_whitelist_and_what_fails_is_told() {
    let hooks =
        "  hooks: { postRequest: [{ name: shout, command: tr, args: [a-z, A-Z] }] }\n  destinationPath: loud.txt\n";
    let desk = Desk::new(hooks).await;
    let attempt = ["source", "try", "FILE", "--json"];
    let said = desk.run(&[&attempt[..], ALLOW].concat()).await;
    assert_eq!(said.code, Some(1));
    assert!(said.talk.contains("--whitelist"), "{}", said.talk);

    let whitelist = desk.file("whitelist.yaml");
    fs::write(
        &whitelist,
        "commands: { tr: { allowed: true, argumentPatterns: ['[a-z-]+', '[A-Z-]+'] } }",
    )
    .unwrap();
    let allowed = ["--whitelist", whitelist.to_str().unwrap()];
    let out = desk.file("a.tar.gz");
    let said = desk
        .run(&[&attempt[..], ALLOW, &allowed, &["--out", out.to_str().unwrap()]].concat())
        .await;
    assert_eq!(said.code, Some(0), "{}", said.talk);
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(fs::File::open(&out).unwrap()));
    let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut entry, &mut text).unwrap();
    assert_eq!(text, "{\"REGION\":\"EU\"}");

    fs::write(&whitelist, "commands: { wc: { allowed: true } }").unwrap();
    let said = desk.run(&[&attempt[..], ALLOW, &allowed].concat()).await;
    assert_eq!(said.code, Some(1));
    assert!(
        said.talk.contains("tr") && said.talk.contains("whitelist"),
        "{}",
        said.talk
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_asked_and_what_does_not_answer_is_told() {
    let desk = Desk::new("").await;
    let denied = desk.run(&["source", "try", "FILE"]).await;
    assert_eq!(denied.code, Some(1));
    assert!(denied.talk.contains("--egress-trust-host 127.0.0.1"), "{}", denied.talk);
    assert_eq!(desk.upstream.told(), Vec::<u16>::new());
    desk.upstream.fails(404);
    let missing = desk.run(&[&["source", "try", "FILE"], ALLOW].concat()).await;
    assert_eq!(missing.code, Some(1));
    assert!(missing.talk.contains("404"), "{}", missing.talk);
}
