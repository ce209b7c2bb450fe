//! What the operator tells about its work, in metrics and logs, compared with the work.

use std::collections::BTreeMap;

use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;
use serde_json::{Value, json};
use trellis_testkit::{eventually, operator::Operator};

use crate::{site::Site, stand_in::Says};

const PAGE: &str = include_str!("../../docs/spec/metrics.md");
const STATUSES: [&str; 6] = [
    "Ready",
    "Reconciling",
    "Stalled",
    "Suspended",
    "Terminating",
    "Unreadable",
];

/// Whole numbers by series, as they stand in the text.
struct Scrape {
    text: String,
    values: BTreeMap<String, i64>,
}

impl Scrape {
    async fn of(operator: &Operator) -> Self {
        let (status, text) = operator.get("/metrics").await.unwrap();
        assert_eq!(status, 200, "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let values = samples.filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series.to_owned(), value.parse().ok()?))
        });
        Self {
            values: values.collect(),
            text,
        }
    }

    /// Of one series, without the controller's prefix.
    fn value(&self, series: &str) -> Option<i64> {
        self.values.get(&format!("resilience_operator_{series}")).copied()
    }

    /// All series of a metric.
    fn sum(&self, name: &str) -> i64 {
        let name = format!("resilience_operator_{name}{{");
        let series = self.values.iter().filter(|(series, _)| series.starts_with(&name));
        series.map(|(_, value)| value).sum()
    }

    /// The names of the metrics of the controller.
    fn names(&self) -> Vec<String> {
        let types = self.text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let names = types.map(|line| match line.split_once(' ').unwrap() {
            (name, "counter") => format!("{name}_total"),
            (name, _) => name.to_owned(),
        });
        names.filter(|name| name.starts_with("resilience_operator_")).collect()
    }
}

/// The gauges of the namespace: policies by status, sections in force, routes.
struct Gauges {
    standings: BTreeMap<&'static str, i64>,
    breakers: i64,
    retries: i64,
    timeouts: i64,
    routes: i64,
}

impl Gauges {
    /// `None`: the namespace has no series.
    fn expected(&self, namespace: &str) -> BTreeMap<String, Option<i64>> {
        let lives = !self.standings.is_empty();
        let mut expected = BTreeMap::from([
            ("circuit_breakers_configured".to_owned(), Some(self.breakers)),
            ("retries_configured".to_owned(), Some(self.retries)),
            ("timeouts_configured".to_owned(), Some(self.timeouts)),
            (
                format!("httproutes_created{{namespace=\"{namespace}\"}}"),
                lives.then_some(self.routes),
            ),
        ]);
        for status in STATUSES {
            let series = format!("policies_total{{namespace=\"{namespace}\",status=\"{status}\"}}");
            let number = self.standings.get(status).copied().unwrap_or_default();
            expected.insert(series, lives.then_some(number));
        }
        expected
    }

    async fn shown(&self, site: &Site) {
        let expected = self.expected(site.namespace.name());
        eventually("the gauges show what there is", async || {
            let scrape = Scrape::of(&site.operator).await;
            let found: BTreeMap<_, _> = expected.keys().map(|key| (key.clone(), scrape.value(key))).collect();
            if found == expected {
                Ok(())
            } else {
                Err(format!("{found:#?}\ninstead of\n{expected:#?}"))
            }
        })
        .await;
    }
}

fn target(name: &str) -> Value {
    json!({ "targetRef": { "name": name, "port": 80 } })
}

fn with(mut spec: Value, more: &Value) -> Value {
    let fields = more.as_object().unwrap().clone();
    spec.as_object_mut().unwrap().extend(fields);
    spec
}

/// Every metric of the controller says what was done; the gauges go back to nothing with the policies.
#[tokio::test(flavor = "multi_thread")]
async fn metrics_tell_what_was_done() {
    let site = Site::new("metrics", "2.18").await;
    let namespace = site.namespace.name().to_owned();
    for name in ["web", "shop", "api"] {
        site.service(name).await;
    }
    site.linkerd.says(Says::Nothing);
    let all = json!({ "circuitBreaker": {}, "retry": {}, "timeout": { "requestTimeout": "2s" } });
    site.policy("web", with(target("web"), &all)).await;
    site.policy(
        "shop",
        with(
            target("shop"),
            &json!({ "retry": {}, "circuitBreaker": { "enabled": false } }),
        ),
    )
    .await;
    site.policy("nobody", with(target("nobody"), &all)).await;
    site.policy("quiet", with(target("quiet"), &json!({ "suspend": true, "retry": {} })))
        .await;
    let carts = json!([{ "name": "carts", "http": { "matches": [{ "path": { "value": "/carts" } }] } }]);
    site.policy("api", with(target("api"), &json!({ "routes": carts, "retry": {} })))
        .await;
    site.until("web", "Applied").await;
    site.until("api", "RoutePending").await;
    let mut gauges = Gauges {
        standings: BTreeMap::from([("Ready", 2), ("Stalled", 1), ("Suspended", 1), ("Reconciling", 1)]),
        breakers: 1,
        retries: 2,
        timeouts: 1,
        // One for the paths, one for the rest.
        routes: 2,
    };
    gauges.shown(&site).await;

    // What Linkerd accepts is in force.
    site.linkerd.says(Says::TheTruth);
    site.until("api", "Applied").await;
    gauges.standings = BTreeMap::from([("Ready", 3), ("Stalled", 1), ("Suspended", 1)]);
    gauges.retries = 3;
    gauges.shown(&site).await;

    // Nothing more is written, and what was is counted.
    let work = site.written().await;
    let written = work
        .iter()
        .filter(|event| event.info().resource != "events" && event.code() < 300);
    let scrape = Scrape::of(&site.operator).await;
    let by_namespace = |name: &str| scrape.value(&format!("{name}{{namespace=\"{namespace}\"}}")).unwrap();
    assert_eq!(by_namespace("writes_total"), i64::try_from(written.count()).unwrap());
    assert_eq!(
        by_namespace("reconciliation_duration_seconds_count"),
        scrape.sum("reconciliations_total")
    );
    let ended = |result: &str| {
        let series = format!("reconciliations_total{{namespace=\"{namespace}\",result=\"{result}\"}}");
        scrape.value(&series).unwrap_or_default()
    };
    for result in ["Changed", "Waiting", "Refused", "Suspended"] {
        assert!(ended(result) >= 1, "{result}: {}", scrape.text);
    }
    let missing = format!("errors_total{{namespace=\"{namespace}\",type=\"TargetServiceNotFound\"}}");
    assert_eq!(scrape.value(&missing), Some(ended("Refused")), "{}", scrape.text);
    assert_eq!(
        scrape.sum("errors_total"),
        ended("Refused") + ended("Failed"),
        "{}",
        scrape.text
    );
    assert_eq!(scrape.values["trellis_leader"], 1);
    is_documented(&scrape);

    // Another replica has nothing to tell.
    let account = trellis_tests::account(site.namespace.plane()).await.unwrap();
    let standby = trellis_tests::launch(account.path(), "metrics-standby", &[&namespace])
        .lease(trellis_tests::NAMESPACE, "metrics");
    let standby = standby.start().await.unwrap();
    standby.ready().await;
    let told = Scrape::of(&standby).await;
    assert_eq!(
        told.values,
        BTreeMap::from([("trellis_leader".to_owned(), 0)]),
        "{}",
        told.text
    );

    for name in ["web", "shop", "nobody", "quiet", "api"] {
        site.remove(name).await;
    }
    let nothing = Gauges {
        standings: BTreeMap::new(),
        breakers: 0,
        retries: 0,
        timeouts: 0,
        routes: 0,
    };
    nothing.shown(&site).await;
    let after = Scrape::of(&site.operator).await;
    assert!(
        after.sum("writes_total") > scrape.sum("writes_total"),
        "what was counted stays: {}",
        after.text
    );
    site.finish().await;
}

/// The page names every metric, and no other.
fn is_documented(scrape: &Scrape) {
    let mut found = scrape.names();
    let rows = PAGE
        .lines()
        .filter_map(|line| line.strip_prefix("| `resilience_operator_"));
    let mut documented: Vec<_> = rows
        .map(|row| format!("resilience_operator_{}", row.split(['`', '{']).next().unwrap()))
        .collect();
    found.sort();
    documented.sort();
    assert_eq!(documented, found);
}

/// From an Event one finds the line of its reconcile, and from that line, by `reconcile_id`, all others.
#[tokio::test(flavor = "multi_thread")]
async fn a_reconcile_is_found_by_its_id() {
    let site = Site::new("logs", "2.18").await;
    site.service("web").await;
    site.policy("web", with(target("web"), &json!({ "retry": {} }))).await;
    site.until("web", "Applied").await;
    let object = format!("{}/web", site.namespace.name());
    let events = eventually("there is an Event", async || {
        let api = site.namespace.api::<Event>();
        let mut events = api.list(&ListParams::default()).await.unwrap().items;
        // Kubernetes itself may have something to say about a Service.
        events.retain(|event| event.regarding.as_ref().and_then(|of| of.kind.as_deref()) == Some("ResiliencePolicy"));
        if events.is_empty() {
            Err("none".to_owned())
        } else {
            Ok(events)
        }
    })
    .await;
    let [event] = events.as_slice() else {
        panic!("{events:?}")
    };

    let lines = site.operator.log_lines().unwrap();
    for line in &lines {
        for field in ["timestamp", "level", "message", "target"] {
            assert!(line[field].is_string(), "{line}");
        }
    }
    let told: Vec<_> = lines.iter().filter(|line| line["message"] == "Ready changed").collect();
    let [told] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!(
        (told["reason"].as_str(), told["note"].as_str()),
        (event.reason.as_deref(), event.note.as_deref())
    );
    assert_eq!(
        (&told["span"]["object"], &told["span"]["controller"]),
        (&json!(object), &json!("resilience"))
    );
    let id = told["span"]["reconcile_id"].as_str().unwrap();
    assert_eq!(uuid_parts(id), [8, 4, 4, 4, 12], "{id}");
    let same = || lines.iter().filter(|line| line["span"]["reconcile_id"] == id);
    let messages: Vec<_> = same().map(|line| line["message"].as_str().unwrap()).collect();
    assert_eq!(messages, ["applied", "Ready changed"]);
    assert_eq!(same().next().unwrap()["item"], json!(format!("Service {object}")));
    site.finish().await;
}

fn uuid_parts(id: &str) -> Vec<usize> {
    id.split('-').map(str::len).collect()
}
