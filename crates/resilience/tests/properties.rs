//! P3, P4, P5, P9, P12 and P13 without a cluster: what a policy writes, read back by an independent model of Linkerd,
//! is what was asked for, whatever else is on the Service. `PROPTEST_CASES` sets the number of cases.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use proptest::{prelude::*, sample::select, test_runner::FileFailurePersistence};
use trellis_api::CircuitBreaker;
use trellis_model::{Effective, Mode, effective};
use trellis_resilience::{
    LinkerdVersion,
    annotations::{self, Annotations, BREAKER, LOAD_BIAS, Place, RETRY, TIMEOUTS},
    siblings,
};

#[path = "properties/policies.rs"]
mod policies;

use policies::{Asked, asked, foreign, union};

const VERSIONS: [&str; 6] = [
    "2.16",
    "stable-2.17.1",
    "2.18.1",
    "enterprise-2.19.1",
    "2.20",
    "edge-26.8.3",
];

fn service(annotations: BTreeMap<String, String>) -> Service {
    let ports = vec![ServicePort {
        port: 80,
        ..ServicePort::default()
    }];
    Service {
        metadata: ObjectMeta {
            name: Some("web".into()),
            namespace: Some("shop".into()),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            cluster_ip: Some("10.0.0.1".into()),
            ports: Some(ports),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// What the Service carries after server-side apply: ours where we have something to say, theirs elsewhere.
fn merged(foreign: &BTreeMap<String, String>, desired: &Annotations) -> BTreeMap<String, String> {
    let mut all = foreign.clone();
    all.extend(desired.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    all
}

#[expect(clippy::cast_possible_truncation, reason = "Linkerd keeps the ratio in 32 bits")]
fn same(found: f32, asked: f64) -> bool {
    found.to_bits() == (asked as f32).to_bits()
}

/// Whether the proxies do what every enabled section asks; an absent field may be anybody's.
fn as_asked(asked: &Asked, found: &Effective) -> bool {
    let may = |found: Option<u64>, asked: Option<u64>| asked.is_none() || found == asked;
    let breaker = asked.breaker().is_none_or(|section| {
        found.breaker.is_some_and(|breaker| {
            counted(asked, section, breaker.mode)
                && breaker.max_failures == section.failure_threshold
                && may(Some(breaker.min_penalty), asked.penalties.0)
                && may(Some(breaker.max_penalty), asked.penalties.1)
                && section.jitter_ratio.is_none_or(|ratio| same(breaker.jitter, ratio))
        })
    });
    let retry = asked.retry().is_none_or(|section| {
        found.retry.as_ref().is_some_and(|retry| {
            u32::from(retry.limit) == section.max_attempts
                && union(retry.statuses.clone()) == asked.statuses
                && may(retry.timeout, asked.per_try)
        })
    });
    let timeouts = asked.timeout().is_none_or(|_| {
        let [request, response, idle] = asked.timeouts;
        may(found.timeouts.request, request) && may(found.timeouts.response, response) && may(found.timeouts.idle, idle)
    });
    let bias = asked.load_bias().is_none_or(|_| {
        found
            .bias
            .is_some_and(|bias| may(Some(bias.penalty), asked.bias.0) && may(Some(bias.max_retry_after), asked.bias.1))
    });
    breaker && retry && timeouts && bias
}

/// Whether failures are counted as asked.
fn counted(asked: &Asked, section: &CircuitBreaker, mode: Mode) -> bool {
    match mode {
        Mode::Consecutive => !asked.unified(),
        Mode::Unified(found) => {
            let rate = section.success_rate.clone().unwrap_or_default();
            asked.unified()
                && rate
                    .threshold
                    .is_none_or(|threshold| threshold.to_bits() == found.threshold.to_bits())
                && asked.window.is_none_or(|window| window == found.window)
                && rate.min_requests.is_none_or(|requests| requests == found.min_requests)
                && section
                    .honor_retry_after
                    .is_none_or(|honor| honor == found.honor_retry_after)
        }
    }
}

/// Alone on a Service, nothing is anybody else's: absent fields have Linkerd's defaults, sections that are off are off.
fn exactly_as_asked(asked: &Asked, found: &Effective) -> bool {
    let defaults = found.breaker.is_none_or(|breaker| {
        breaker.min_penalty == asked.penalties.0.unwrap_or(1000)
            && breaker.max_penalty == asked.penalties.1.unwrap_or(60_000)
            && asked
                .breaker()
                .is_some_and(|section| same(breaker.jitter, section.jitter_ratio.unwrap_or(0.5)))
    });
    let timeouts = [found.timeouts.request, found.timeouts.response, found.timeouts.idle];
    let rate = found
        .breaker
        .is_none_or(|breaker| match (breaker.mode, asked.breaker()) {
            (Mode::Unified(found), Some(section)) => {
                let rate = section.success_rate.clone().unwrap_or_default();
                found.threshold.to_bits() == rate.threshold.unwrap_or(0.8).to_bits()
                    && found.window == asked.window.unwrap_or(10_000)
                    && found.min_requests == rate.min_requests.unwrap_or(5)
                    && found.honor_retry_after == section.honor_retry_after.unwrap_or(false)
            }
            _ => true,
        });
    let bias = found.bias.map(|bias| (bias.penalty, bias.max_retry_after));
    let asked_bias = asked
        .load_bias()
        .map(|_| (asked.bias.0.unwrap_or(5000), asked.bias.1.unwrap_or(300_000)));
    as_asked(asked, found)
        && defaults
        && rate
        && bias == asked_bias
        && found.breaker.is_some() == asked.breaker().is_some()
        && found.retry.is_some() == asked.retry().is_some()
        && found.retry.as_ref().is_none_or(|retry| retry.timeout == asked.per_try)
        && timeouts == asked.timeout().map_or([None; 3], |_| asked.timeouts)
}

fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    }
}

/// What is written, or nothing where the version has no such feature and the policy says so.
fn desired(asked: &Asked, version: &LinkerdVersion) -> Result<Option<Annotations>, TestCaseError> {
    match annotations::desired(&asked.spec, version) {
        Ok(desired) => {
            prop_assert!(!asked.newest() || version.at_least(2, 20));
            Ok(Some(desired))
        }
        Err(refusal) => {
            prop_assert!(asked.newest() && !version.at_least(2, 20), "{refusal}");
            prop_assert_eq!(refusal.reason, "FeatureNotInVersion");
            Ok(None)
        }
    }
}

proptest! {
    #![proptest_config(config())]

    /// P3, P4, P5: on a Service without annotations, Linkerd of every version does exactly what was asked.
    #[test]
    fn alone_the_effect_is_exactly_what_was_asked(asked in asked(), version in select(VERSIONS.to_vec())) {
        let version: LinkerdVersion = version.parse().unwrap();
        let Some(desired) = desired(&asked, &version)? else { return Ok(()) };
        let service = service(merged(&BTreeMap::new(), &desired));
        siblings::check(&desired, &service.metadata, "other", Place::Service, &version).unwrap();
        let found = effective(&service, &[], version.release(), 80);
        prop_assert!(exactly_as_asked(&asked, &found), "{desired:?} reads as {found:?}");
    }

    /// P3, P4, P5 among hostile neighbours: either the effect is there, or the policy says whose key prevents it.
    #[test]
    fn among_neighbours_the_effect_is_there_or_refused(
        asked in asked(), foreign in foreign(), version in select(VERSIONS.to_vec()),
    ) {
        let version: LinkerdVersion = version.parse().unwrap();
        let Some(desired) = desired(&asked, &version)? else { return Ok(()) };
        let found = effective(&service(merged(&foreign, &desired)), &[], version.release(), 80);
        let verdict = siblings::check(&desired, &service(foreign).metadata, "ours", Place::Service, &version);
        // Zero is never ours, and ends every request, whatever else is asked for.
        let times = &found.timeouts;
        let deadly = [times.request, times.response, times.idle].contains(&Some(0));
        let acts = desired.is_empty() || (found.inert.is_none() && as_asked(&asked, &found) && !deadly);
        prop_assert_eq!(verdict.is_ok(), acts, "{:?}, {:?} reads as {:?}", verdict, desired, found);
    }

    /// P9: turning a section off takes its keys, and leaves the effect of the others and of the neighbours.
    #[test]
    fn turning_a_section_off_takes_only_its_keys(asked in asked(), foreign in foreign(), which in 0_usize..4) {
        let version: LinkerdVersion = "2.20".parse().unwrap();
        let before = annotations::desired(&asked.spec, &version).unwrap();
        let mut spec = asked.spec;
        let block = match which {
            0 => { if let Some(section) = &mut spec.circuit_breaker { section.enabled = false; } &BREAKER[..] }
            1 => { if let Some(section) = &mut spec.retry { section.enabled = false; } &RETRY[..] }
            2 => { if let Some(section) = &mut spec.timeout { section.enabled = false; } &TIMEOUTS[..] }
            _ => { if let Some(section) = &mut spec.load_bias { section.enabled = false; } &LOAD_BIAS[..] }
        };
        let after = annotations::desired(&spec, &version).unwrap();
        let mut kept = before.clone();
        kept.retain(|key, _| !block.contains(key));
        prop_assert_eq!(&after, &kept);

        let read = |annotations| effective(&service(annotations), &[], (2, 20), 80);
        let (with, without) = (read(merged(&foreign, &before)), read(merged(&foreign, &after)));
        let theirs = read(foreign);
        prop_assume!([&with, &without, &theirs].iter().all(|found| found.inert.is_none()));
        prop_assert_eq!(without.breaker, if which == 0 { theirs.breaker } else { with.breaker });
        prop_assert_eq!(without.bias, if which == 3 { theirs.bias } else { with.bias });
        prop_assert_eq!(without.retry, if which == 1 { theirs.retry } else { with.retry });
        prop_assert_eq!(without.timeouts, if which == 2 { theirs.timeouts } else { with.timeouts });
    }

    /// P12: every value stands in the narrowest grammar that any version reads; P13: no key is anybody else's.
    #[test]
    fn nothing_is_written_outside_the_grammars(asked in asked()) {
        let desired = annotations::desired(&asked.spec, &"2.20".parse().unwrap()).unwrap();
        let known: Vec<&str> = [&BREAKER[..], &RETRY[..], &TIMEOUTS[..], &LOAD_BIAS[..]].concat();
        let digits = |text: &str| {
            text.starts_with(|c: char| ('1'..='9').contains(&c)) && text.bytes().all(|byte| byte.is_ascii_digit())
        };
        let status = |item: &str| {
            item == "5xx" || item == "gateway-error" || item.split('-').all(|code| digits(code) && code.len() == 3)
        };
        for (key, value) in &desired {
            prop_assert!(known.contains(key), "{}", key);
            let fits = match key.rsplit(['/', '-']).next().unwrap() {
                "accrual" => value == "consecutive" || value == "unified",
                "failures" if key.ends_with("penalize-failures") => value == "true",
                "failures" | "limit" => digits(value) && value.len() <= 3,
                "requests" => digits(value) && value.parse::<u32>().is_ok_and(|requests| requests <= 1_000_000),
                "after" if key.ends_with("honor-retry-after") => value == "true" || value == "false",
                "grpc" => value.split(',').all(|code| code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')),
                "ratio" | "threshold" => value.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') && value.parse::<f32>().is_ok(),
                "http" => value.split(',').all(status),
                _ => ["ms", "s", "m", "h", "d"].iter().any(|unit| value.strip_suffix(unit).is_some_and(digits)),
            };
            prop_assert!(fits, "{}: {}", key, value);
        }
    }

    /// The same policy gives the same bytes, and the canonical form of a canonical list is itself.
    #[test]
    fn the_canonical_form_is_a_fixed_point(asked in asked()) {
        let version: LinkerdVersion = "2.20".parse().unwrap();
        let once = annotations::desired(&asked.spec, &version).unwrap();
        let mut spec = asked.spec;
        if let (Some(section), Some(codes)) = (&mut spec.retry, once.get("retry.linkerd.io/http")) {
            section.retryable_status_codes.clone_from(codes);
        }
        prop_assert_eq!(annotations::desired(&spec, &version).unwrap(), once);
    }
}
