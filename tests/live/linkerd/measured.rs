//! `Measured`: what was counted, against what was asked.
//!
//! ```text
//!  the client's proxy ─▶ attempts per request, ejected endpoints    the server's proxy ─▶ what arrived    Pods ─▶ sidecars
//! ```

use std::{
    collections::BTreeMap,
    fmt::{Display, Write as _},
};

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::prometheus::Samples;

/// Tries that a client's proxy sent to a backend: one per request, and one per retry.
const TRIES: &str = "outbound_http_route_backend_requests_total";
/// Of them, the retries.
const RETRIES: &str = "outbound_http_route_retry_requests_total";
/// Endpoints that a client's balancer knows, by `endpoint_state`.
const ENDPOINTS: &str = "outbound_http_balancer_endpoints";
/// Requests that reached a Pod, by `direction`.
const ARRIVED: &str = "request_total";
/// The container that the injector adds: since Linkerd 2.15 optionally an init container that stays.
const PROXY: &str = "linkerd-proxy";

/// One claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    what: &'static str,
    asked: String,
    found: String,
}

impl Claim {
    fn holds(&self) -> bool {
        self.asked == self.found
    }
}

/// Every claim.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Measured(Vec<Claim>);

impl Measured {
    fn claim(&mut self, what: &'static str, asked: &dyn Display, found: &dyn Display) {
        let (asked, found) = (asked.to_string(), found.to_string());
        self.0.push(Claim { what, asked, found });
    }

    /// Whether all is as asked; not when nothing was counted.
    pub(crate) fn holds(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(Claim::holds)
    }

    pub(crate) fn table(&self) -> String {
        let mut table = format!("{:<62} {:>7} {:>7}\n", "WHAT", "ASKED", "FOUND");
        for claim in &self.0 {
            let verdict = if claim.holds() { "" } else { "  NOT AS ASKED" };
            let _ = writeln!(
                table,
                "{:<62} {:>7} {:>7}{verdict}",
                claim.what, claim.asked, claim.found
            );
        }
        table.trim_end().to_owned()
    }

    /// Of a client that sent `requests` to a Service of which every endpoint always fails.
    pub(crate) fn attempts(&mut self, proxy: &Samples, service: &str, requests: u32, retries: u32) {
        let of = |name| number(proxy.sum(name, &[("parent_name", service)]));
        let asked = requests * (1 + retries);
        self.claim("tries that the client's proxy sent", &asked, &of(TRIES));
        self.claim("of them retries", &(requests * retries), &of(RETRIES));
    }

    /// Of a server: what arrived from everybody.
    pub(crate) fn arrived(&mut self, what: &'static str, proxy: &Samples, asked: u32) {
        let found = proxy.sum(ARRIVED, &[("direction", "inbound")]);
        self.claim(what, &asked, &number(found));
    }

    /// Of a client of a Service of which some endpoints always fail, and with a breaker.
    pub(crate) fn ejected(&mut self, proxy: &Samples, service: &str, good: u32, bad: u32) {
        let state = |state| number(proxy.sum(ENDPOINTS, &[("backend_name", service), ("endpoint_state", state)]));
        self.claim("endpoints that the breaker took out", &bad, &state("pending"));
        self.claim("endpoints that are left", &good, &state("ready"));
    }

    /// The answers that a client got, by status.
    pub(crate) fn answers(&mut self, what: &'static str, log: &str, status: &str, asked: u32) {
        let statuses = statuses(log);
        self.claim(what, &asked, &statuses.get(status).copied().unwrap_or_default());
    }

    /// The Pods of the namespace that have a sidecar.
    pub(crate) fn sidecars(&mut self, pods: &[Pod], asked: usize) {
        let found = pods.iter().filter(|pod| has_sidecar(pod)).count();
        self.claim("Pods with a sidecar", &asked, &found);
    }
}

/// A count as the metrics have it; `none` when they have none, which is not 0.
fn number(found: Option<f64>) -> String {
    found.map_or_else(|| "none".to_owned(), |found| format!("{found}"))
}

/// How often each line of a log is there.
fn statuses(log: &str) -> BTreeMap<&str, u32> {
    let mut statuses = BTreeMap::new();
    for line in log.lines() {
        *statuses.entry(line.trim()).or_default() += 1;
    }
    statuses
}

pub(crate) fn has_sidecar(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let beside = spec.init_containers.iter().flatten();
    let mut all = spec.containers.iter().chain(beside);
    all.any(|container: &Container| container.name == PROXY)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Lines as Linkerd's proxy writes them, shortened to the labels that tell them apart.
    const CLIENT: &str = r#"
# TYPE outbound_http_route_backend_requests counter
outbound_http_route_backend_requests_total{parent_name="failing",route_name="http",backend_name="failing"} 180
outbound_http_route_backend_requests_total{parent_name="other",route_name="http",backend_name="other"} 5
outbound_http_route_retry_requests_total{parent_name="failing",route_name="http"} 120
outbound_http_balancer_endpoints{endpoint_state="ready",parent_name="mixed",backend_name="mixed"} 2
outbound_http_balancer_endpoints{endpoint_state="pending",parent_name="mixed",backend_name="mixed"} 1
outbound_http_balancer_endpoints{endpoint_state="pending",parent_name="failing",backend_name="failing"} 0
request_total{direction="inbound",srv_name="a"} 200
request_total{direction="inbound",srv_name="b"} 40
request_total{direction="outbound",srv_name="a"} 7
"#;

    #[test]
    fn what_is_as_asked_holds_and_nothing_else_does() {
        let proxy = Samples::read(CLIENT);
        let mut measured = Measured::default();
        assert!(!measured.holds(), "nothing was counted");
        measured.attempts(&proxy, "failing", 60, 2);
        measured.ejected(&proxy, "mixed", 2, 1);
        measured.arrived("requests that arrived", &proxy, 240);
        measured.answers("failures", "503\n200\n503\n", "503", 2);
        assert!(measured.holds(), "{}", measured.table());

        let one_retry = |measured: &mut Measured| measured.attempts(&proxy, "failing", 60, 1);
        let no_breaker = |measured: &mut Measured| measured.ejected(&proxy, "failing", 1, 1);
        let unknown = |measured: &mut Measured| measured.attempts(&Samples::default(), "failing", 60, 0);
        let wrong: [&dyn Fn(&mut Measured); 3] = [&one_retry, &no_breaker, &unknown];
        for wrong in wrong {
            let mut measured = measured.clone();
            wrong(&mut measured);
            assert!(!measured.holds(), "{}", measured.table());
            assert!(measured.table().contains("NOT AS ASKED"));
        }
    }

    #[test]
    fn a_sidecar_is_a_container_or_an_init_container_that_stays() {
        let pod = |spec| serde_json::from_value::<Pod>(json!({ "spec": spec })).unwrap();
        let (app, proxy) = (json!({ "name": "app" }), json!({ "name": "linkerd-proxy" }));
        let classic = pod(json!({ "containers": [proxy, app], "initContainers": [{ "name": "linkerd-init" }] }));
        let native = pod(json!({ "containers": [app], "initContainers": [proxy] }));
        let outside = pod(json!({ "containers": [app] }));
        assert!(has_sidecar(&classic) && has_sidecar(&native) && !has_sidecar(&outside));
        let mut measured = Measured::default();
        measured.sidecars(&[classic, native, outside, Pod::default()], 2);
        assert!(measured.holds());
    }
}
