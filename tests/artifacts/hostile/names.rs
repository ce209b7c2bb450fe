//! Names and values that would be something else where they are put: headers, paths, URLs, statuses.

use futures::future::join_all;
use serde_json::{Value, json};
use trellis_bindings::flux::ExternalArtifact;

use super::{HOST, SECRET, keeps_secrets, secret, site};
use crate::{
    archive::config_map,
    site::{Site, said},
    taken::{download, unpacked},
    wire::{Wire, answers},
};

async fn good(headers: &str) -> Wire {
    let headers = format!("content-type: application/yaml\r\n{headers}");
    Wire::start(answers("200 OK", &headers, config_map("one", "number", "1").as_bytes())).await
}

async fn source(site: &Site, name: &str, wire: &Wire, path: &str, more: Value) {
    let mut http = json!({ "url": format!("http://{HOST}:{}/{path}", wire.port()) });
    super::merge(&mut http, more);
    let spec = json!({ "generator": { "type": "http", "http": http } });
    site.source(name, "", spec).await;
}

/// A Secret cannot put another header, another host or another part of the body into a request: nothing is asked.
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_adds_no_header_of_its_own() {
    let site = site("hostile-secrets").await;
    let wire = good("").await;
    let table = [
        (
            "split",
            json!({ "X-Key": format!("{SECRET}\r\nHost: other.test") }),
            "\"X-Key\" has a value that no header can hold",
        ),
        (
            "nul",
            json!({ "X-Key": format!("{SECRET}\0") }),
            "\"X-Key\" has a value that no header can hold",
        ),
        ("host", json!({ "Host": SECRET }), "\"Host\" cannot be set"),
        (
            "length",
            json!({ "Content-Length": SECRET }),
            "\"Content-Length\" cannot be set",
        ),
        (
            "coding",
            json!({ "Transfer-Encoding": SECRET }),
            "\"Transfer-Encoding\" cannot be set",
        ),
        ("part", json!({ "Range": SECRET }), "\"Range\" cannot be set"),
        (
            "condition",
            json!({ "If-None-Match": SECRET }),
            "\"If-None-Match\" cannot be set",
        ),
    ];
    let refused = table.into_iter().map(|(name, data, says)| {
        let (site, wire) = (&site, &wire);
        async move {
            secret(site, name, data).await;
            source(
                site,
                name,
                wire,
                "app.yaml",
                json!({ "headersSecretRef": { "name": name } }),
            )
            .await;
            let refused = site.ready(name, "False", "ConfigurationError").await;
            let expected = format!(
                "spec.generator.http.headersSecretRef: the request cannot be sent: header {says}; nothing is served"
            );
            assert_eq!(said(&refused, "Ready").2, expected, "{name}");
            assert_eq!(said(&refused, "Stalled").0, "True", "{name}");
        }
    });
    join_all(refused).await;
    assert_eq!(wire.accepted(), 0);
    keeps_secrets(&site).await;
}

/// What a URL is called by stays inside the artifact; a source may have the longest name that there is; what upstream calls
/// its version is kept unless it is too long for that.
#[tokio::test(flavor = "multi_thread")]
async fn names_of_upstream_stay_names() {
    let site = site("hostile-names").await;
    let long = "n".repeat(253);
    let version = |length| format!("etag: \"{}\"\r\n", "v".repeat(length));
    let versions = [version(4000), version(1000)];
    let table = [
        ("up", "..%2f..%2fetc%2fpasswd.yaml", ""),
        ("backslash", "..%5c..%5cpasswd.yaml", ""),
        ("nul", "a%00b.yaml", ""),
        ("new-line", "a%0d%0ab.yaml", ""),
        ("dots", "..%2f", ""),
        ("mark", "%e2%80%aelmay.yaml", ""),
        (
            "disposed",
            "app.yaml",
            "content-disposition: attachment; filename=\"../../x.yaml\"\r\n",
        ),
        ("version", "app.yaml", versions[0].as_str()),
        ("short-version", "app.yaml", &versions[1]),
        (&long, "app.yaml", ""),
    ];
    let published = table.into_iter().map(|(name, path, headers)| {
        let site = &site;
        async move {
            let wire = good(headers).await;
            source(site, name, &wire, path, json!({})).await;
            let ready = site.ready(name, "True", "Succeeded").await;
            let artifact = site.published(name, "").await;
            let files = unpacked(&download(&artifact.url).await);
            let [(file, text)] = files.as_slice() else {
                panic!("{name}: {files:?}")
            };
            assert_eq!(*text, config_map("one", "number", "1"), "{name}");
            let (_, ending) = file.split_once('.').unwrap();
            let plain = |c: char| !c.is_control() && !matches!(c, '/' | '\\' | '\u{202e}');
            assert!(
                file.chars().all(plain) && !file.starts_with('.') && ending.ends_with("yaml"),
                "{name}: {file:?}"
            );
            assert_eq!(
                ready.status.unwrap().artifact.unwrap().revision,
                artifact.revision,
                "{name}"
            );
        }
    });
    join_all(published).await;
    for (name, kept) in [("version", None), ("short-version", Some(1002))] {
        let published: ExternalArtifact = site.namespace.get(name).await.unwrap();
        let metadata = published.status.unwrap().artifact.unwrap().metadata;
        let version = metadata.map(|metadata| metadata["org.opencontainers.image.revision"].len());
        assert_eq!(version, kept, "{name}");
    }
}
