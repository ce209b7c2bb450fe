//! The model against single facts: every row here was read in Linkerd's code or seen on a running control plane.

#![expect(clippy::unnecessary_wraps, reason = "the helpers spell what a table expects")]

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use rstest::rstest;
use trellis_model::{Breaker, Effective, Inert, Mode, Profile, Retry, SuccessRate, Timeouts, Version, effective};

const MODE: &str = "balancer.linkerd.io/failure-accrual";
const FAILURES: &str = "balancer.linkerd.io/failure-accrual-consecutive-max-failures";
const MIN: &str = "balancer.linkerd.io/failure-accrual-consecutive-min-penalty";
const MAX: &str = "balancer.linkerd.io/failure-accrual-consecutive-max-penalty";
const JITTER: &str = "balancer.linkerd.io/failure-accrual-consecutive-jitter-ratio";
const THRESHOLD: &str = "balancer.alpha.linkerd.io/failure-accrual-success-rate-threshold";
const WINDOW: &str = "balancer.alpha.linkerd.io/failure-accrual-success-rate-window";
const REQUESTS: &str = "balancer.alpha.linkerd.io/failure-accrual-success-rate-min-requests";
const HONOR: &str = "balancer.alpha.linkerd.io/failure-accrual-honor-retry-after";
const LIMIT: &str = "retry.linkerd.io/limit";
const HTTP: &str = "retry.linkerd.io/http";
const GRPC: &str = "retry.linkerd.io/grpc";
const TRY: &str = "retry.linkerd.io/timeout";
const REQUEST: &str = "timeout.linkerd.io/request";
const RESPONSE: &str = "timeout.linkerd.io/response";
const IDLE: &str = "timeout.linkerd.io/idle";

type Pairs<'a> = &'a [(&'a str, &'a str)];

fn map(pairs: Pairs<'_>) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn service(annotations: Pairs<'_>) -> Service {
    Service {
        metadata: ObjectMeta {
            name: Some("web".into()),
            namespace: Some("shop".into()),
            annotations: Some(map(annotations)),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            cluster_ip: Some("10.0.0.1".into()),
            ports: Some(vec![ServicePort {
                port: 80,
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

fn read(version: Version, annotations: Pairs<'_>) -> Effective {
    effective(&service(annotations), &[], version, 80)
}

fn consecutive(max_failures: u32, min_penalty: u64, max_penalty: u64, jitter: f32) -> Option<Breaker> {
    Some(Breaker {
        mode: Mode::Consecutive,
        max_failures,
        min_penalty,
        max_penalty,
        jitter,
    })
}

#[rstest]
#[case::absent(&[], None)]
#[case::keys_without_mode(&[(FAILURES, "3")], None)]
#[case::defaults(&[(MODE, "consecutive")], consecutive(7, 1000, 60_000, 0.5))]
#[case::all(&[(MODE, "consecutive"), (FAILURES, "3"), (MIN, "2s"), (MAX, "1m"), (JITTER, "0.1")], consecutive(3, 2000, 60_000, 0.1))]
#[case::zero_failures(&[(MODE, "consecutive"), (FAILURES, "0")], consecutive(0, 1000, 60_000, 0.5))]
#[case::duration_trimmed(&[(MODE, "consecutive"), (MIN, " 2s ")], consecutive(7, 2000, 60_000, 0.5))]
#[case::zero_min(&[(MODE, "consecutive"), (MIN, "0")], consecutive(7, 0, 60_000, 0.5))]
#[case::case(&[(MODE, "Consecutive")], None)]
#[case::mode_blank(&[(MODE, "consecutive ")], None)]
#[case::unknown_mode(&[(MODE, "rate")], None)]
#[case::bad_failures(&[(MODE, "consecutive"), (FAILURES, "three")], None)]
#[case::negative_failures(&[(MODE, "consecutive"), (FAILURES, "-1")], None)]
#[case::failures_overflow(&[(MODE, "consecutive"), (FAILURES, "4294967296")], None)]
#[case::bad_min(&[(MODE, "consecutive"), (FAILURES, "3"), (MIN, "1.5s")], None)]
#[case::bad_max(&[(MODE, "consecutive"), (FAILURES, "3"), (MAX, "1m30s")], None)]
#[case::zero_max(&[(MODE, "consecutive"), (MIN, "0"), (MAX, "0s")], None)]
#[case::min_above_max(&[(MODE, "consecutive"), (MIN, "3m"), (MAX, "2m")], None)]
#[case::min_above_default_max(&[(MODE, "consecutive"), (MIN, "61s")], None)]
#[case::max_below_default_min(&[(MODE, "consecutive"), (MAX, "999ms")], None)]
#[case::jitter_bounds(&[(MODE, "consecutive"), (JITTER, "100")], consecutive(7, 1000, 60_000, 100.0))]
#[case::jitter_above(&[(MODE, "consecutive"), (JITTER, "100.1")], None)]
#[case::jitter_below(&[(MODE, "consecutive"), (JITTER, "-0.1")], None)]
#[case::jitter_nan(&[(MODE, "consecutive"), (JITTER, "NaN")], None)]
#[case::jitter_inf(&[(MODE, "consecutive"), (JITTER, "inf")], None)]
#[case::bad_alpha_is_ignored(&[(MODE, "consecutive"), (FAILURES, "3"), (THRESHOLD, "2"), (WINDOW, "x"), (REQUESTS, "x")], consecutive(3, 1000, 60_000, 0.5))]
#[case::wrong_prefix(&[("config.linkerd.io/failure-accrual", "consecutive"), ("config.linkerd.io/failure-accrual-consecutive-failures", "3")], None)]
#[case::wrong_suffix(&[(MODE, "consecutive"), ("balancer.linkerd.io/failure-accrual-consecutive-failures", "3")], consecutive(7, 1000, 60_000, 0.5))]
fn the_breaker_is_whole_or_absent(
    #[case] annotations: Pairs<'_>,
    #[case] expected: Option<Breaker>,
    #[values((2, 16), (2, 19), (2, 20))] version: Version,
) {
    assert_eq!(read(version, annotations).breaker, expected);
}

#[rstest]
#[case::failures(FAILURES, " 3", consecutive(3, 1000, 60_000, 0.5))]
#[case::jitter(JITTER, "0.1 ", consecutive(7, 1000, 60_000, 0.1))]
fn blanks_around_numbers_are_dropped_since_2_20(
    #[case] key: &str,
    #[case] value: &str,
    #[case] since: Option<Breaker>,
) {
    let annotations = [(MODE, "consecutive"), (key, value)];
    assert_eq!(read((2, 20), &annotations).breaker, since);
    assert_eq!(read((2, 19), &annotations).breaker, None);
    assert_eq!(read((2, 16), &annotations).breaker, None);
}

fn unified(threshold: f64, window: u64, min_requests: u32, honor_retry_after: bool) -> Option<Breaker> {
    let mode = Mode::Unified(SuccessRate {
        threshold,
        window,
        min_requests,
        honor_retry_after,
    });
    Some(Breaker {
        mode,
        max_failures: 7,
        min_penalty: 1000,
        max_penalty: 60_000,
        jitter: 0.5,
    })
}

#[rstest]
#[case::defaults(&[], unified(0.8, 10_000, 5, false))]
#[case::all(&[(THRESHOLD, "0.5"), (WINDOW, "30s"), (REQUESTS, "0"), (HONOR, " T ")], unified(0.5, 30_000, 0, true))]
#[case::honor_false(&[(HONOR, "False")], unified(0.8, 10_000, 5, false))]
#[case::honor_bad(&[(HONOR, "yes")], unified(0.8, 10_000, 5, false))]
#[case::threshold_above(&[(THRESHOLD, "1.1")], None)]
#[case::threshold_nan(&[(THRESHOLD, "nan")], None)]
#[case::window_zero(&[(WINDOW, "0s")], None)]
#[case::requests_bad(&[(REQUESTS, "-1")], None)]
#[case::suffix_unknown(&[("balancer.alpha.linkerd.io/failure-accrual-success-rate-treshold", "2")], unified(0.8, 10_000, 5, false))]
#[case::off(&[(THRESHOLD, "0"), (WINDOW, "1ms"), (REQUESTS, "2000000")], unified(0.0, 1, 2_000_000, false))]
fn unified_needs_2_20(#[case] alpha: Pairs<'_>, #[case] expected: Option<Breaker>) {
    let mut annotations = vec![(MODE, "unified")];
    annotations.extend(alpha);
    assert_eq!(
        read((2, 20), &annotations),
        Effective {
            breaker: expected,
            ..Effective::default()
        }
    );
    assert_eq!(read((2, 19), &annotations).breaker, None);
}

#[rstest]
#[case(WINDOW, "9ms")]
#[case(REQUESTS, "1000001")]
fn what_only_the_proxy_rejects_fails_every_request(#[case] key: &str, #[case] value: &str) {
    let annotations = [(MODE, "unified"), (key, value), (REQUEST, "10s")];
    assert_eq!(read((2, 20), &annotations).inert, Some(Inert::RejectedByProxy));
    assert_eq!(read((2, 20), &annotations).timeouts, Timeouts::default());
    assert_eq!(read((2, 19), &annotations).inert, None);
}

fn retries(limit: u16, statuses: &[(u16, u16)], timeout: Option<u64>) -> Option<Retry> {
    Some(Retry {
        limit,
        statuses: statuses.to_vec(),
        timeout,
    })
}

#[rstest]
#[case::absent(&[], None)]
#[case::both(&[(LIMIT, "3"), (HTTP, "5xx,429")], retries(3, &[(500, 599), (429, 429)], None))]
#[case::statuses_alone(&[(HTTP, "gateway-error")], retries(1, &[(502, 504)], None))]
#[case::case(&[(HTTP, "5XX,Gateway-Error")], retries(1, &[(500, 599), (502, 504)], None))]
#[case::range(&[(HTTP, "500-504,100,599")], retries(1, &[(500, 504), (100, 100), (599, 599)], None))]
#[case::limit_alone(&[(LIMIT, "3")], retries(3, &[], None))]
#[case::timeout_alone(&[(TRY, "300ms")], retries(1, &[], Some(300)))]
#[case::timeout_trimmed(&[(TRY, " 300ms")], retries(1, &[], Some(300)))]
#[case::limit_zero_alone(&[(LIMIT, "0")], None)]
#[case::timeout_zero_alone(&[(TRY, "0s")], None)]
#[case::limit_zero(&[(LIMIT, "0"), (HTTP, "5xx")], retries(1, &[(500, 599)], None))]
#[case::timeout_zero(&[(LIMIT, "2"), (TRY, "0")], retries(2, &[], None))]
#[case::grpc_needs_a_route(&[(GRPC, "unavailable")], None)]
#[case::grpc_with_limit(&[(GRPC, "unavailable"), (LIMIT, "3")], retries(3, &[], None))]
#[case::grpc_bad(&[(GRPC, "14"), (LIMIT, "3"), (HTTP, "5xx")], retries(3, &[(500, 599)], None))]
#[case::earlier_limit(&[(HTTP, "3")], None)]
#[case::four(&[(LIMIT, "3"), (HTTP, "4xx")], None)]
#[case::low(&[(LIMIT, "3"), (HTTP, "99")], None)]
#[case::high(&[(LIMIT, "3"), (HTTP, "600")], None)]
#[case::empty(&[(LIMIT, "3"), (HTTP, "")], None)]
#[case::empty_item(&[(LIMIT, "3"), (HTTP, "5xx,")], None)]
#[case::blank(&[(LIMIT, "3"), (HTTP, "5xx, 429")], None)]
#[case::backwards(&[(LIMIT, "3"), (HTTP, "504-500")], None)]
#[case::limit_blank(&[(LIMIT, " 3"), (HTTP, "5xx")], None)]
#[case::limit_overflow(&[(LIMIT, "65536"), (HTTP, "5xx")], None)]
#[case::limit_negative(&[(LIMIT, "-1"), (HTTP, "5xx")], None)]
#[case::timeout_bad(&[(LIMIT, "3"), (HTTP, "5xx"), (TRY, "1.5s")], None)]
#[case::earlier_codes(&[("retry.linkerd.io/http-status-codes", "5xx,429")], None)]
fn retries_are_whole_or_absent(
    #[case] annotations: Pairs<'_>,
    #[case] expected: Option<Retry>,
    #[values((2, 16), (2, 20))] version: Version,
) {
    assert_eq!(read(version, annotations).retry, expected);
}

#[rstest]
#[case::absent(&[], [None, None, None])]
#[case::all(&[(REQUEST, "10s"), (RESPONSE, "5s"), (IDLE, "1m")], [Some(10_000), Some(5000), Some(60_000)])]
#[case::units(&[(REQUEST, "1d"), (RESPONSE, "2h"), (IDLE, "3ms")], [Some(86_400_000), Some(7_200_000), Some(3)])]
#[case::zero_is_real(&[(REQUEST, "0s"), (IDLE, "0")], [Some(0), None, Some(0)])]
#[case::trimmed(&[(REQUEST, "\t10s ")], [Some(10_000), None, None])]
#[case::compound(&[(REQUEST, "1m30s"), (IDLE, "1m")], [None, None, None])]
#[case::fraction(&[(REQUEST, "1.5s"), (IDLE, "1m")], [None, None, None])]
#[case::bare(&[(REQUEST, "10"), (IDLE, "1m")], [None, None, None])]
#[case::upper(&[(REQUEST, "10S"), (IDLE, "1m")], [None, None, None])]
#[case::signed(&[(REQUEST, "-1s"), (IDLE, "1m")], [None, None, None])]
#[case::inner_blank(&[(REQUEST, "1 s")], [None, None, None])]
#[case::empty(&[(REQUEST, ""), (IDLE, "1m")], [None, None, None])]
#[case::micro(&[(REQUEST, "1us")], [None, None, None])]
#[case::overflow(&[(REQUEST, "18446744073709551615s")], [None, None, None])]
#[case::largest(&[(REQUEST, "18446744073709551615ms")], [Some(u64::MAX), None, None])]
fn timeouts_are_whole_or_absent(#[case] annotations: Pairs<'_>, #[case] expected: [Option<u64>; 3]) {
    let [request, response, idle] = expected;
    for version in [(2, 16), (2, 20)] {
        assert_eq!(
            read(version, annotations).timeouts,
            Timeouts {
                request,
                response,
                idle
            }
        );
    }
}

/// One bad block leaves the others alone.
#[test]
fn blocks_fail_apart() {
    let good = [(MODE, "consecutive"), (LIMIT, "3"), (HTTP, "5xx"), (REQUEST, "10s")];
    let whole = read((2, 20), &good);
    let with = |bad| {
        let mut annotations = good.to_vec();
        annotations.push(bad);
        read((2, 20), &annotations)
    };
    assert_eq!(
        with((MIN, "x")),
        Effective {
            breaker: None,
            ..whole.clone()
        }
    );
    assert_eq!(
        with((TRY, "x")),
        Effective {
            retry: None,
            ..whole.clone()
        }
    );
    assert_eq!(
        with((IDLE, "x")),
        Effective {
            timeouts: Timeouts::default(),
            ..whole
        }
    );
}

#[rstest]
#[case("None", None)]
#[case("", None)]
#[case("10.0.0.1", Some("ExternalName"))]
fn without_a_cluster_ip_nothing_acts(#[case] ip: &str, #[case] type_: Option<&str>) {
    let mut service = service(&[(REQUEST, "10s")]);
    let spec = service.spec.as_mut().unwrap();
    spec.cluster_ip = Some(ip.into());
    spec.type_ = type_.map(Into::into);
    let found = effective(&service, &[], (2, 20), 80);
    assert_eq!(
        found,
        Effective {
            inert: Some(Inert::Headless),
            ..Effective::default()
        }
    );
}

#[test]
fn a_mirrored_service_is_somebody_elses() {
    let mut service = service(&[]);
    service.metadata.labels = Some(map(&[("mirror.linkerd.io/mirrored-service", "true")]));
    assert_eq!(
        effective(&service, &[], (2, 20), 80).inert,
        Some(Inert::MirroredService)
    );
    service.metadata.labels = Some(map(&[("mirror.linkerd.io/federated", "member")]));
    assert_eq!(effective(&service, &[], (2, 20), 80).inert, None);
}

#[rstest]
#[case::routes("shop", "web.shop.svc.cluster.local", 1, 0, Some(Inert::ServiceProfileShadowed))]
#[case::overrides("shop", "web.shop.svc.cluster.local", 0, 1, Some(Inert::ServiceProfileShadowed))]
#[case::empty("shop", "web.shop.svc.cluster.local", 0, 0, None)]
#[case::elsewhere("other", "web.shop.svc.cluster.local", 1, 0, None)]
#[case::another("shop", "api.shop.svc.cluster.local", 1, 0, None)]
fn a_profile_shadows(
    #[case] namespace: &str,
    #[case] name: &str,
    #[case] routes: usize,
    #[case] overrides: usize,
    #[case] expected: Option<Inert>,
) {
    let profile = Profile {
        namespace,
        name,
        routes,
        overrides,
    };
    assert_eq!(effective(&service(&[]), &[profile], (2, 20), 80).inert, expected);
}

fn port(number: i32, app_protocol: Option<&str>) -> ServicePort {
    ServicePort {
        port: number,
        app_protocol: app_protocol.map(Into::into),
        ..ServicePort::default()
    }
}

#[rstest]
#[case::listed(port(80, None), 80, None)]
#[case::unlisted(port(80, None), 81, Some(Inert::PortNotFound))]
#[case::mysql(port(3306, None), 3306, Some(Inert::Opaque))]
#[case::mysql_http(port(3306, Some("http")), 3306, None)]
#[case::http(port(80, Some("HTTP")), 80, None)]
#[case::h2c(port(80, Some("kubernetes.io/h2c")), 80, None)]
#[case::tcp(port(80, Some("linkerd.io/tcp")), 80, Some(Inert::Opaque))]
#[case::opaque(port(80, Some("linkerd.io/opaque")), 80, Some(Inert::Opaque))]
#[case::grpc(port(80, Some("grpc")), 80, Some(Inert::UnknownAppProtocol))]
#[case::https(port(80, Some("https")), 80, Some(Inert::UnknownAppProtocol))]
#[case::http2(port(80, Some("HTTP2")), 80, Some(Inert::UnknownAppProtocol))]
#[case::bare_h2c(port(80, Some("h2c")), 80, Some(Inert::UnknownAppProtocol))]
#[case::ws(port(80, Some("kubernetes.io/ws")), 80, Some(Inert::UnknownAppProtocol))]
#[case::udp(ServicePort { port: 80, protocol: Some("UDP".into()), ..ServicePort::default() }, 80, Some(Inert::NotTcp))]
fn a_port_decides(#[case] listed: ServicePort, #[case] asked: i32, #[case] expected: Option<Inert>) {
    let mut service = service(&[]);
    service.spec.as_mut().unwrap().ports = Some(vec![listed]);
    assert_eq!(effective(&service, &[], (2, 18), asked).inert, expected);
}

#[test]
fn before_2_18_the_app_protocol_is_not_read() {
    let mut service = service(&[]);
    service.spec.as_mut().unwrap().ports = Some(vec![port(80, Some("grpc")), port(3306, Some("http"))]);
    assert_eq!(effective(&service, &[], (2, 17), 80).inert, None);
    assert_eq!(effective(&service, &[], (2, 17), 3306).inert, Some(Inert::Opaque));
}

#[test]
fn of_two_ports_with_one_number_one_is_enough() {
    let mut service = service(&[]);
    let udp = ServicePort {
        protocol: Some("UDP".into()),
        ..port(80, None)
    };
    service.spec.as_mut().unwrap().ports = Some(vec![udp, port(80, None)]);
    assert_eq!(effective(&service, &[], (2, 20), 80).inert, None);
}

#[rstest]
#[case("80", Some(Inert::Opaque))]
#[case(" 79 - 81 ,", Some(Inert::Opaque))]
#[case("3306", None)]
#[case("", None)]
#[case::replaces("", None)]
#[case::invalid_is_empty("80,mysql", None)]
#[case::backwards_is_empty("80,90-10", None)]
#[case::zero_is_empty("80,0", None)]
fn the_services_list_replaces_the_default(#[case] list: &str, #[case] expected: Option<Inert>) {
    let mut service = service(&[("config.linkerd.io/opaque-ports", list)]);
    service.spec.as_mut().unwrap().ports = Some(vec![port(80, None), port(6379, None)]);
    assert_eq!(effective(&service, &[], (2, 20), 80).inert, expected);
    assert_eq!(effective(&service, &[], (2, 20), 6379).inert, None);
}
