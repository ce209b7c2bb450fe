//! What a production refuses, takes its turn for, and says.

use std::sync::{Arc, Mutex};

use serde_json::json;
use trellis_fetch::{Client, Generators};
use trellis_operator::external_source::{Known, Order, Product, Production, Progress, Secrets};

use super::Bench;
use crate::{hooked::RULES, site::Anywhere};

/// The bytes of all files in a folder, as far as they are still there.
fn bytes_in(folder: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.filter_map(|entry| {
        let metadata = entry.metadata().ok()?;
        Some(if metadata.is_dir() {
            bytes_in(&entry.path())
        } else {
            metadata.len()
        })
    });
    sizes.sum()
}

/// Many large sources at once never have more on the disk than they may together; each waits its turn, says so, and comes.
#[tokio::test(flavor = "multi_thread")]
async fn large_sources_wait_for_room_on_the_spool() {
    const MIB: u64 = 1 << 20;
    let bench = Bench::new(RULES).await;
    let large = vec![b'x'; 4 << 20];
    bench.upstream.serves("1", large);
    let hook = json!({ "name": "cat", "command": "cat", "maxOutputBytes": 4 * MIB });
    let source = bench.source(json!({ "hooks": { "postRequest": [hook] } }));
    let mut settings = bench.settings();
    settings.spool_bytes = 20 * MIB;
    let order = Order::of(&source, &Secrets::new(), &settings).unwrap();
    let client = Client::new(trellis_fetch::Settings::default(), Arc::new(Anywhere));
    let production = Production::new(&settings, Generators::standard(&client));
    let (most, waited) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(false)));
    let (spool, peak, waits) = (bench.spool.path().to_owned(), Arc::clone(&most), Arc::clone(&waited));
    let progress: Progress = Arc::new(move |step| {
        let there = bytes_in(&spool);
        let mut most = peak.lock().unwrap();
        *most = there.max(*most);
        *waits.lock().unwrap() |= step.to_string() == "waiting for room on the spool";
    });
    let known = Known::default();
    let made = (0..10).map(|_| async {
        let made = production.make(&order, &known, &progress).await.unwrap();
        assert!(matches!(made, Product::Packed(_)));
    });
    futures::future::join_all(made).await;
    let most = *most.lock().unwrap();
    // Beside what is counted each has the beginning of its body.
    assert!((4 * MIB..=30 * MIB).contains(&most), "{most}");
    assert!(*waited.lock().unwrap());
}

/// An empty answer is no order to remove everything; nor is what hooks or transforms leave empty.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_empty_is_not_published() {
    let bench = Bench::new(RULES).await;
    let hook = json!({ "name": "none", "command": "bash", "args": ["-c", "cat > /dev/null"] });
    for (body, spec, says) in [
        ("", json!({}), "upstream's answer is empty"),
        (
            "{}",
            json!({ "hooks": { "postRequest": [hook] } }),
            "the payload is empty after the hooks and transforms",
        ),
        (
            "{}",
            json!({ "transforms": [{ "type": "cel", "expression": "''" }] }),
            "the payload is empty after the hooks and transforms",
        ),
    ] {
        bench.upstream.serves("1", body);
        let order = Order::of(&bench.source(spec), &Secrets::new(), &bench.settings()).unwrap();
        let failed = bench.make(&order, &Known::default()).await.unwrap_err();
        assert_eq!(failed.failure.reason(), "PermanentError");
        assert!(failed.to_string().contains(says), "{failed}");
    }
}

/// The spec asks for more than the operator allows: that is said before, and when it is too much.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_is_told_with_whose_it_is() {
    let bench = Bench::new(RULES).await;
    bench.upstream.serves("1", "x".repeat(2000));
    let mut settings = bench.settings();
    settings.max_bytes = 1000;
    let limited = |most: Option<u64>| {
        let mut http = json!({ "url": bench.upstream.url("app.json") });
        if let Some(most) = most {
            http["maxBytes"] = json!(most);
        }
        bench.source(json!({ "generator": { "type": "http", "http": http } }))
    };
    for (most, note, whose) in [
        (
            Some(1_000_000_000_u64),
            Some("maxBytes 1000000000 is lowered to 1000, the operator's --artifact-max-bytes"),
            "more than the limit of 1000 bytes, the operator's --artifact-max-bytes",
        ),
        (
            None,
            None,
            "more than the limit of 1000 bytes, the operator's --artifact-max-bytes",
        ),
        (Some(500), None, "more than the limit of 500 bytes"),
    ] {
        let order = Order::of(&limited(most), &Secrets::new(), &settings).unwrap();
        assert_eq!(order.rendered().note.as_deref(), note);
        let failed = bench.make(&order, &Known::default()).await.unwrap_err();
        assert_eq!(failed.failure.reason(), "SizeLimitExceeded");
        assert!(failed.to_string().ends_with(whose), "{failed}");
    }
}

/// What a Kustomization makes of the artifact is said once.
#[tokio::test(flavor = "multi_thread")]
async fn what_flux_will_make_of_it_is_said_once() {
    let bench = Bench::new(RULES).await;
    bench.upstream.serves("1", "replicas: 3\n");
    for (path, note) in [
        (
            "app.txt",
            "the artifact holds no .yaml or .yml file, so a Kustomization applies nothing from it",
        ),
        (
            "app.yaml",
            "a Kustomization fails on app.yaml, because document 1 of the payload has no apiVersion or no kind, so it is \
             no Kubernetes object; give it another ending if it is no manifest",
        ),
    ] {
        let source = bench.source(json!({ "destinationPath": path }));
        let order = Order::of(&source, &Secrets::new(), &bench.settings()).unwrap();
        assert_eq!(bench.packed(&order).await.warnings, [note]);
    }
}
