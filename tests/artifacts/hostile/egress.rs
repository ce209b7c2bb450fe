//! Where nobody gets by default, however it is written, and whatever a name resolved to before.

use std::{
    io,
    net::IpAddr,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use futures::future::join_all;
use serde_json::json;
use trellis_fetch::Resolve;
use trellis_operator::external_source::Policy;
use trellis_sources::egress::EgressPolicy;

use super::{Names, SECRET, keeps_secrets, logs, yaml};
use crate::{
    archive::config_map,
    site::{Setup, Site, said},
    taken::download,
    wire::Wire,
};

/// What each is called, how its host is written, the address that this means (or a name), and the rule.
const REFUSED: &[(&str, &str, &str, &str)] = &[
    (
        "loopback",
        "127.0.0.1",
        "127.0.0.1 is",
        "loopback addresses (127.0.0.0/8)",
    ),
    (
        "loopback-far",
        "127.8.9.10",
        "127.8.9.10 is",
        "loopback addresses (127.0.0.0/8)",
    ),
    ("short", "127.1", "127.0.0.1 is", "loopback addresses (127.0.0.0/8)"),
    (
        "decimal",
        "2130706433",
        "127.0.0.1 is",
        "loopback addresses (127.0.0.0/8)",
    ),
    (
        "hexadecimal",
        "0x7f000001",
        "127.0.0.1 is",
        "loopback addresses (127.0.0.0/8)",
    ),
    (
        "octal",
        "0177.0.0.1",
        "127.0.0.1 is",
        "loopback addresses (127.0.0.0/8)",
    ),
    ("loopback-6", "[::1]", "::1 is", "loopback addresses (::1/128)"),
    (
        "mapped",
        "[::ffff:127.0.0.1]",
        "::ffff:7f00:1 leads",
        "loopback addresses (127.0.0.0/8)",
    ),
    (
        "mapped-metadata",
        "[::ffff:a9fe:a9fe]",
        "::ffff:a9fe:a9fe leads",
        "metadata addresses (169.254.169.254/32)",
    ),
    (
        "translated",
        "[64:ff9b::a9fe:a9fe]",
        "64:ff9b::a9fe:a9fe is",
        "metadata addresses (169.254.169.254/32)",
    ),
    (
        "unspecified",
        "0.0.0.0",
        "0.0.0.0 is",
        "unspecified addresses (0.0.0.0/8)",
    ),
    (
        "metadata",
        "169.254.169.254",
        "169.254.169.254 is",
        "metadata addresses (169.254.169.254/32)",
    ),
    (
        "metadata-decimal",
        "2852039166",
        "169.254.169.254 is",
        "metadata addresses (169.254.169.254/32)",
    ),
    (
        "link-local",
        "169.254.7.7",
        "169.254.7.7 is",
        "link-local addresses (169.254.0.0/16)",
    ),
    (
        "link-local-6",
        "[fe80::1]",
        "fe80::1 is",
        "link-local addresses (fe80::/10)",
    ),
    (
        "multicast",
        "224.0.0.1",
        "224.0.0.1 is",
        "multicast addresses (224.0.0.0/4)",
    ),
    ("localhost", "localhost", "localhost leads", "loopback addresses"),
    (
        "name",
        "inside.test",
        "inside.test leads",
        "loopback addresses (127.0.0.0/8)",
    ),
];

/// By default no source reaches the machine itself, its links or the metadata services: nobody is even connected to.
#[tokio::test(flavor = "multi_thread")]
async fn by_default_no_spelling_of_an_inner_address_is_reached() {
    logs::keep();
    let setup = Setup {
        egress: Arc::new(Policy::default()),
        resolve: Arc::new(Names),
        ..Setup::default()
    };
    let site = Site::with("hostile-egress", setup).await;
    let wire = Wire::start(yaml("1", &config_map("one", "number", "1"))).await;
    let refused = REFUSED.iter().map(|(name, host, where_, rule)| {
        // What a name leads to may be another address tomorrow.
        let leads = ["localhost", "name"].contains(name);
        let (site, port) = (&site, wire.port());
        async move {
            let url = format!("http://{host}:{port}/app.yaml?token={SECRET}");
            let spec = json!({ "generator": { "type": "http", "http": { "url": url } } });
            site.source(name, "", spec).await;
            let refused = site.ready(name, "False", "AccessDenied").await;
            let shown = where_.rsplit_once(' ').unwrap().0;
            let at = if shown.contains(':') {
                format!("[{shown}]")
            } else {
                shown.to_owned()
            };
            let (_, _, message) = said(&refused, "Ready");
            let begin = format!("http://{at}:{port}/ may not be reached: the egress policy denies {rule}");
            let hint = if rule.starts_with("metadata") || rule.starts_with("link-local") {
                "name another upstream; such addresses are no place for sources".to_owned()
            } else {
                format!(
                    "the operator allows it with --egress-trust-host {shown} (chart: egress.trustHosts), or a narrower \
                     range with --egress-allow-cidr (chart: egress.allowCIDRs)"
                )
            };
            let then = if leads {
                "asked again at the interval, and when the spec or a Secret changes"
            } else {
                "nothing is tried until the spec, or an object that it names, changes"
            };
            let end = format!(", where {where_}; hint: {hint}; {then}; nothing is served");
            assert!(
                message.starts_with(&begin) && message.ends_with(&end),
                "{name}: {message}"
            );
            let stalled = if leads { "" } else { "True" };
            assert_eq!(said(&refused, "Stalled").0, stalled, "{name}");
        }
    });
    join_all(refused).await;
    assert_eq!(wire.accepted(), 0);
    keeps_secrets(&site).await;
}

/// Resolves every name to what it is told.
struct Rebinding(Mutex<Vec<IpAddr>>);

#[async_trait]
impl Resolve for Rebinding {
    async fn resolve(&self, _: &str) -> io::Result<Vec<IpAddr>> {
        Ok(self.0.lock().unwrap().clone())
    }
}

/// A name that was allowed and then resolves to an inner address is refused then; beside an allowed address the inner one
/// is passed over.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_comes_to_mean_an_inner_address_is_refused() {
    let outside = Wire::at("127.0.0.2:0", yaml("1", &config_map("one", "number", "1"))).await;
    let inside = Wire::at(
        &format!("127.0.0.1:{}", outside.port()),
        yaml("2", &config_map("one", "number", "2")),
    )
    .await;
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    let names = Arc::new(Rebinding(Mutex::new(vec![address("127.0.0.1"), address("127.0.0.2")])));
    let policy = EgressPolicy {
        allow_ranges: vec!["127.0.0.2/32".parse().unwrap()],
        ..EgressPolicy::default()
    };
    let setup = Setup {
        egress: Arc::new(Policy(policy)),
        resolve: names.clone(),
        ..Setup::default()
    };
    let site = Site::with("hostile-rebinding", setup).await;
    let url = format!("http://moving.test:{}/app.yaml", outside.port());
    let spec = json!({ "generator": { "type": "http", "http": { "url": url } } });
    site.source("app", "", spec).await;
    let artifact = site.published("app", "").await;
    site.ready("app", "True", "Succeeded").await;

    *names.0.lock().unwrap() = vec![address("127.0.0.1")];
    site.request("app", "moved").await;
    let refused = site.ready("app", "False", "AccessDenied").await;
    let (_, _, message) = said(&refused, "Ready");
    let served = format!("revision {} of ", artifact.revision);
    assert!(
        message.contains("loopback addresses (127.0.0.0/8), where moving.test leads") && message.contains(&served),
        "{message}"
    );
    download(&artifact.url).await;
    assert_eq!((outside.accepted(), inside.accepted()), (1, 0));
}
