//! A source becomes a packed file without any cluster, as `trellis source render` and `trellis source try` have it.

#[path = "production/limits.rs"]
mod limits;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use k8s_openapi::{ByteString, api::core::v1::Secret};
use serde_json::{Value, json};
use tempfile::TempDir;
use trellis_api::ExternalSource;
use trellis_fetch::{Client, Generators};
use trellis_operator::external_source::{
    Failed, Known, Order, Packed, Product, Production, Progress, Secrets, Settings, secrets,
};
use trellis_testkit::eventually;

use crate::{
    archive::sha256,
    hooked::{Hooked, RULES},
    site::Anywhere,
    taken::unpacked,
    upstream::Upstream,
};

/// What a command has: no cluster, a spool, and a sidecar.
struct Bench {
    upstream: Upstream,
    hooked: Hooked,
    spool: TempDir,
    steps: Arc<Mutex<Vec<String>>>,
}

impl Bench {
    async fn new(rules: &str) -> Self {
        Self {
            upstream: Upstream::start().await,
            hooked: Hooked::start(rules),
            spool: tempfile::tempdir().unwrap(),
            steps: Arc::default(),
        }
    }

    fn source(&self, more: Value) -> ExternalSource {
        let mut spec = json!({
            "interval": "1h", "generator": { "type": "http", "http": { "url": self.upstream.url("app.json") } },
        });
        if let (Some(spec), Value::Object(more)) = (spec.as_object_mut(), more) {
            spec.extend(more);
        }
        let manifest = json!({ "metadata": { "name": "app", "namespace": "default" }, "spec": spec });
        serde_json::from_value(manifest).unwrap()
    }

    fn settings(&self) -> Settings {
        let mut settings = Settings::new("http://localhost", self.spool.path());
        settings.hooks = Some(self.hooked.settings());
        settings
    }

    fn production(&self) -> Production {
        let client = Client::new(trellis_fetch::Settings::default(), Arc::new(Anywhere));
        Production::new(&self.settings(), Generators::standard(&client))
    }

    async fn make(&self, order: &Order, known: &Known) -> Result<Product, Failed> {
        let steps = Arc::clone(&self.steps);
        let progress: Progress = Arc::new(move |step| {
            let mut steps = steps.lock().unwrap();
            let step = step.to_string();
            if steps.last() != Some(&step) {
                steps.push(step);
            }
        });
        self.production().make(order, known, &progress).await
    }

    async fn packed(&self, order: &Order) -> Packed {
        let Product::Packed(packed) = self.make(order, &Known::default()).await.unwrap() else {
            unreachable!("nothing was known");
        };
        *packed
    }
}

fn secret(name: &str, value: &str) -> Secrets {
    let secret = Secret {
        data: Some(BTreeMap::from([("X-Key".to_owned(), ByteString(value.into()))])),
        ..Secret::default()
    };
    Secrets::from([(name.to_owned(), Some(Arc::new(secret)))])
}

/// What is asked and made is shown without a value that could be secret; what is missing is said.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_rendered_without_secrets() {
    let bench = Bench::new(RULES).await;
    let variable = json!({ "name": "KEY", "valueFrom": { "secretKeyRef": { "name": "key", "key": "X-Key" } } });
    let http = json!({
        "url": "https://a.example/v1/app?token=geheim-1", "method": "POST", "body": { "content": "geheim-2" },
        "query": [{ "name": "page", "value": "geheim-3" }], "headersSecretRef": { "name": "key" },
    });
    let source = bench.source(json!({
        "generator": { "type": "http", "http": http },
        "hooks": { "preRequest": [{ "name": "sign", "command": "jq", "args": ["-c"], "env": [variable] }] },
        "transforms": [{ "type": "cel", "expression": "body.a" }],
        "output": { "as": "Manifest" }, "interval": "10s",
    }));
    assert_eq!(secrets(&source.spec).into_iter().collect::<Vec<_>>(), ["key"]);
    let refused = Order::of(&source, &Secrets::new(), &bench.settings()).unwrap_err();
    assert!(refused.to_string().contains("there is no Secret key"), "{refused}");
    let order = Order::of(&source, &secret("key", "geheim-4"), &bench.settings()).unwrap();
    let rendered = serde_json::to_value(order.rendered()).unwrap();
    let expected = json!({
        "request": {
            "method": "POST", "url": "https://a.example/v1/app", "query": ["token", "page"],
            "headers": ["X-Key", "content-type"], "bodyBytes": 8,
        },
        "intervalSeconds": 60, "note": "the interval is raised to 1m, the shortest",
        "preRequest": [{
            "name": "sign", "command": "jq", "args": ["-c"], "env": ["KEY"], "timeout": "30s", "retryPolicy": "fail",
        }],
        "maxRetries": 3, "transforms": 1, "output": "Manifest", "path": "app.yaml", "maxBytes": 100 << 20,
    });
    assert_eq!(rendered, expected);
    assert!(!format!("{order:?}{rendered}").contains("geheim"));
}

/// Every step is told, the file is what its digest says, and it goes with its owner.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_becomes_a_packed_file_without_a_cluster() {
    let bench = Bench::new(RULES).await;
    bench.upstream.serves("1", "{\"a\":{\"b\":1}}");
    let source = bench.source(json!({
        "hooks": {
            "preRequest": [{ "name": "look", "command": "cat" , "retryPolicy": "ignore" }],
            "postRequest": [{ "name": "pick", "command": "jq", "args": ["-c", ".a"] }],
        },
        "transforms": [{ "type": "cel", "expression": "body.b" }],
    }));
    let order = Order::of(&source, &Secrets::new(), &bench.settings()).unwrap();
    let packed = bench.packed(&order).await;
    let bytes = std::fs::read(&packed.file).unwrap();
    assert_eq!(packed.measure.digest.to_string(), format!("sha256:{}", sha256(&bytes)));
    assert_eq!(
        packed.revision().to_string(),
        format!("latest@{}", packed.measure.digest)
    );
    assert_eq!(unpacked(&bytes), [("app.json".to_owned(), "1\n".to_owned())]);
    assert_eq!(packed.fetched, 13);
    let expected = [
        "running hook look",
        "asking",
        "fetched 13 of 13 bytes",
        "running hook pick",
        "running transform 1",
        "packing 2 bytes",
    ];
    let told = bench.steps.lock().unwrap().clone();
    let told: Vec<&str> = told
        .iter()
        .map(String::as_str)
        .filter(|step| *step != "fetched 0 of 13 bytes")
        .collect();
    assert_eq!(told, expected);
    // `cat` says again what the description is, which is no change: it is ignored, and said.
    assert!(packed.provisional);
    assert!(
        packed
            .warnings
            .iter()
            .any(|warning| warning == "hook look failed and was ignored: no change of a request"),
        "{:?}",
        packed.warnings
    );
    drop(packed);
    assert_eq!(std::fs::read_dir(bench.spool.path()).unwrap().count(), 0);
}

/// Validators are good for one request: where hooks change it, what is known of another one is not sent.
#[tokio::test(flavor = "multi_thread")]
async fn validators_are_those_of_the_request_that_hooks_made() {
    let bench = Bench::new(RULES).await;
    bench.upstream.serves("1", "{}");
    let page = bench.hooked.file("page");
    std::fs::write(&page, "1").unwrap();
    let text = format!("echo '{{\"query\":{{\"page\":\"'$(cat {})'\"}}}}'", page.display());
    let source = bench.source(json!({
        "hooks": { "preRequest": [{ "name": "page", "command": "bash", "args": ["-c", text] }] },
    }));
    let order = Order::of(&source, &Secrets::new(), &bench.settings()).unwrap();
    let packed = bench.packed(&order).await;
    let known = Known {
        validators: packed.validators.clone(),
        asked: packed.asked,
    };
    let unchanged = bench.make(&order, &known).await.unwrap();
    assert!(matches!(unchanged, Product::Unchanged), "{unchanged:?}");
    std::fs::write(&page, "2").unwrap();
    let other = bench.make(&order, &known).await.unwrap();
    assert!(matches!(other, Product::Packed(_)), "{other:?}");
    assert_eq!(bench.upstream.told(), [200, 304, 200]);
    assert_eq!(bench.upstream.last_query(), "page=2");
}

/// So are those of another header: a 304 of the one variant is nothing to the other. What signs a request does not count.
#[tokio::test(flavor = "multi_thread")]
async fn validators_are_those_of_the_headers_that_hooks_made() {
    let bench = Bench::new(RULES).await;
    bench.upstream.serves("1", "{}");
    let headers = bench.hooked.file("headers");
    let text = format!("echo '{{\"headers\":{{'$(cat {})'}}}}'", headers.display());
    let source = bench.source(json!({
        "hooks": { "preRequest": [{ "name": "tenant", "command": "bash", "args": ["-c", text] }] },
    }));
    let order = Order::of(&source, &Secrets::new(), &bench.settings()).unwrap();
    std::fs::write(&headers, "\"x-tenant\":\"a\",\"authorization\":\"1\"").unwrap();
    let packed = bench.packed(&order).await;
    let known = Known {
        validators: packed.validators.clone(),
        asked: packed.asked,
    };
    std::fs::write(&headers, "\"x-tenant\":\"a\",\"authorization\":\"2\"").unwrap();
    let unchanged = bench.make(&order, &known).await.unwrap();
    assert!(matches!(unchanged, Product::Unchanged), "{unchanged:?}");
    std::fs::write(&headers, "\"x-tenant\":\"b\",\"authorization\":\"2\"").unwrap();
    let other = bench.make(&order, &known).await.unwrap();
    assert!(matches!(other, Product::Packed(_)), "{other:?}");
    assert_eq!(bench.upstream.told(), [200, 304, 200]);
}

/// What the sidecar alone does not allow is refused as what nobody allows, whatever the hook's policy.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_sidecar_denies_is_denied() {
    let bench = Bench::new(RULES).await;
    bench.upstream.serves("1", "{}");
    let hook = json!({ "name": "work", "command": "/opt/nowhere/cat", "retryPolicy": "ignore" });
    let source = bench.source(json!({ "hooks": { "postRequest": [hook] } }));
    let order = Order::of(&source, &Secrets::new(), &bench.settings()).unwrap();
    let failed = bench.make(&order, &Known::default()).await.unwrap_err();
    assert_eq!(failed.failure.reason(), "AccessDenied");
    assert!(failed.to_string().starts_with("hook work: "), "{failed}");
}

/// What a hook writes is bounded by what the operator allows of any source, and so is the disk that it takes.
#[tokio::test(flavor = "multi_thread")]
async fn the_disk_that_hooks_take_is_bounded() {
    let bench = Bench::new(RULES).await;
    bench.upstream.serves("1", "{}");
    let hook = json!({ "name": "much", "command": "bash", "args": ["-c", "yes"], "maxOutputBytes": 1 << 30 });
    let source = bench.source(json!({ "hooks": { "postRequest": [hook] } }));
    let mut settings = bench.settings();
    settings.max_bytes = 1 << 20;
    let order = Order::of(&source, &Secrets::new(), &settings).unwrap();
    let client = Client::new(trellis_fetch::Settings::default(), Arc::new(Anywhere));
    let production = Production::new(&settings, Generators::standard(&client));
    let quiet: Progress = Arc::new(|_| {});
    let failed = production.make(&order, &Known::default(), &quiet).await.unwrap_err();
    assert_eq!(failed.failure.reason(), "SizeLimitExceeded");
    assert_eq!(failed.to_string(), "hook much: stdout has more than 1048576 bytes");
    assert_eq!(std::fs::read_dir(bench.spool.path()).unwrap().count(), 0);
}

/// Many chains at once, each longer than the sidecar has places: none waits for another's place.
#[tokio::test(flavor = "multi_thread")]
async fn chains_do_not_wait_for_each_other() {
    let bench = Bench::new(RULES).await;
    bench.upstream.serves("1", "x".repeat(1 << 20));
    let cats: Vec<_> = (0..6)
        .map(|number| json!({ "name": format!("cat-{number}"), "command": "cat", "timeout": "20s" }))
        .collect();
    let source = bench.source(json!({ "hooks": { "postRequest": cats } }));
    let order = Order::of(&source, &Secrets::new(), &bench.settings()).unwrap();
    let production = bench.production();
    let quiet: Progress = Arc::new(|_| {});
    let known = Known::default();
    let made = (0..12).map(|_| production.make(&order, &known, &quiet));
    for made in futures::future::join_all(made).await {
        assert!(matches!(made.unwrap(), Product::Packed(_)));
    }
}

/// What nobody waits for any more ends, with what it started and all its files.
#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_production_leaves_nothing() {
    let bench = Bench::new(RULES).await;
    bench.upstream.serves("1", "{}");
    let begun = bench.hooked.file("begun");
    let text = format!("echo $BASHPID > {}; exec sleep 300", begun.display());
    let hook = json!({ "name": "wait", "command": "bash", "args": ["-c", text], "timeout": "5m" });
    let source = bench.source(json!({ "hooks": { "postRequest": [hook] } }));
    let order = Order::of(&source, &Secrets::new(), &bench.settings()).unwrap();
    let production = bench.production();
    let making = tokio::spawn(async move {
        let quiet: Progress = Arc::new(|_| {});
        production.make(&order, &Known::default(), &quiet).await.map(drop)
    });
    let running = || std::fs::read_to_string(&begun).is_ok_and(|text| !text.trim().is_empty());
    eventually("the hook runs", async || {
        running().then_some(()).ok_or_else(String::new)
    })
    .await;
    assert_eq!(bench.hooked.runs(), 1);
    making.abort();
    assert!(making.await.unwrap_err().is_cancelled());
    eventually("the hook has ended", async || match bench.hooked.runs() {
        0 => Ok(()),
        runs => Err(format!("{runs} runs")),
    })
    .await;
    assert_eq!(std::fs::read_dir(bench.spool.path()).unwrap().count(), 0);
}
