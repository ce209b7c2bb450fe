//! Random policies that the API server admits, each with what it asks for in numbers, and random neighbours.

use std::collections::BTreeMap;

use proptest::{
    option,
    prelude::*,
    sample::{select, subsequence},
};
use trellis_api::{
    CircuitBreaker, FailureAccrualMethod, LoadBias, ResiliencePolicySpec, Retry, SuccessRate, TargetRef, Timeout,
};
use trellis_resilience::annotations::{BREAKER, LOAD_BIAS, RETRY, TIMEOUTS};

const DAY: u64 = 86_400_000;

/// A duration as the user writes it, and its milliseconds.
type Time = (String, u64);

/// First and last status.
type Range = (u16, u16);

/// The one way to write a set of statuses: ascending ranges that neither overlap nor touch.
pub(crate) fn union(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_unstable();
    let mut all: Vec<Range> = Vec::new();
    for (low, high) in ranges {
        match all.last_mut() {
            Some(last) if low <= last.1 + 1 => last.1 = last.1.max(high),
            _ => all.push((low, high)),
        }
    }
    all
}

/// A policy, and what it asks for.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) spec: ResiliencePolicySpec,
    /// Shortest and longest penalty, in milliseconds.
    pub(crate) penalties: (Option<u64>, Option<u64>),
    /// Milliseconds of the window of `unified`, and of the two durations of the load bias.
    pub(crate) window: Option<u64>,
    pub(crate) bias: (Option<u64>, Option<u64>),
    /// Every status that is retried, as a [`union`].
    pub(crate) statuses: Vec<Range>,
    /// Time for one try, in milliseconds.
    pub(crate) per_try: Option<u64>,
    /// Request, response and idle timeout, in milliseconds.
    pub(crate) timeouts: [Option<u64>; 3],
}

impl Asked {
    /// Whether it asks for what came with Linkerd 2.20.
    pub(crate) fn newest(&self) -> bool {
        self.unified() || self.load_bias().is_some()
    }

    pub(crate) fn unified(&self) -> bool {
        self.breaker()
            .is_some_and(|breaker| breaker.failure_accrual_method == FailureAccrualMethod::Unified)
    }

    pub(crate) fn load_bias(&self) -> Option<&LoadBias> {
        self.spec.load_bias.as_ref().filter(|section| section.enabled)
    }

    pub(crate) fn breaker(&self) -> Option<&CircuitBreaker> {
        self.spec.circuit_breaker.as_ref().filter(|section| section.enabled)
    }

    pub(crate) fn retry(&self) -> Option<&Retry> {
        self.spec.retry.as_ref().filter(|section| section.enabled)
    }

    pub(crate) fn timeout(&self) -> Option<&Timeout> {
        self.spec.timeout.as_ref().filter(|section| section.enabled)
    }
}

fn time(at_most: u64) -> impl Strategy<Value = Time> + Clone {
    let units = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", DAY)];
    let units: Vec<(&str, u64)> = units.into_iter().filter(|(_, factor)| *factor <= at_most).collect();
    (select(units), any::<u64>(), any::<bool>()).prop_map(move |((unit, factor), random, small)| {
        let most = at_most / factor;
        let number = 1 + random % if small { most.min(20) } else { most };
        (format!("{number}{unit}"), number * factor)
    })
}

fn split(time: Option<Time>) -> (Option<String>, Option<u64>) {
    time.map_or((None, None), |(text, milliseconds)| (Some(text), Some(milliseconds)))
}

/// The fields of `unified`, and the window in milliseconds.
fn unified() -> impl Strategy<Value = (Option<SuccessRate>, Option<bool>, Option<u64>)> {
    let threshold = option::of(prop_oneof![Just(0.0), Just(1.0), 0.0..=1.0_f64]);
    let window = option::of(time(DAY).prop_filter("long enough for the proxies", |window| window.1 >= 10));
    let min_requests = option::of(prop_oneof![1_u32..20, 1_u32..=1_000_000]);
    let rate = (any::<bool>(), threshold, window, min_requests);
    (rate, option::of(any::<bool>())).prop_map(|((present, threshold, window, min_requests), honor)| {
        let (window, milliseconds) = split(window);
        let rate = SuccessRate {
            threshold,
            window,
            min_requests,
        };
        (present.then_some(rate), honor, milliseconds.filter(|_| present))
    })
}

fn load_bias() -> impl Strategy<Value = (LoadBias, (Option<u64>, Option<u64>))> {
    (prop::bool::weighted(0.8), option::of(time(DAY)), option::of(time(DAY))).prop_map(|(enabled, a, b)| {
        let ((penalty, a), (max_retry_after, b)) = (split(a), split(b));
        let section = LoadBias {
            enabled,
            penalty,
            max_retry_after,
        };
        (section, (a, b))
    })
}

fn breaker() -> impl Strategy<Value = (CircuitBreaker, (Option<u64>, Option<u64>))> {
    // With one penalty alone, Linkerd's default of the other must fit.
    let penalties = prop_oneof![
        Just((None, None)),
        time(60_000).prop_map(|min| (Some(min), None)),
        time(DAY)
            .prop_filter("at least the default minimum", |max| max.1 >= 1000)
            .prop_map(|max| (None, Some(max))),
        (time(DAY), time(DAY)).prop_map(|(a, b)| if a.1 <= b.1 {
            (Some(a), Some(b))
        } else {
            (Some(b), Some(a))
        }),
    ];
    let jitter = option::of(prop_oneof![
        Just(0.0),
        Just(100.0),
        0.0..=100.0_f64,
        (0_u8..=100).prop_map(f64::from)
    ]);
    (any::<bool>(), 1_u32..=100, penalties, jitter).prop_map(
        |(enabled, failure_threshold, (min, max), jitter_ratio)| {
            let ((min_penalty, min), (max_penalty, max)) = (split(min), split(max));
            let rest = CircuitBreaker::default();
            (
                CircuitBreaker {
                    enabled,
                    failure_threshold,
                    min_penalty,
                    max_penalty,
                    jitter_ratio,
                    ..rest
                },
                (min, max),
            )
        },
    )
}

fn item() -> impl Strategy<Value = (String, Range)> {
    let code = 100_u16..=599;
    prop_oneof![
        Just(("5xx".to_owned(), (500, 599))),
        Just(("gateway-error".to_owned(), (502, 504))),
        code.clone().prop_map(|code| (code.to_string(), (code, code))),
        (code.clone(), code).prop_map(|(a, b)| (format!("{}-{}", a.min(b), a.max(b)), (a.min(b), a.max(b)))),
    ]
}

fn retry() -> impl Strategy<Value = (Retry, Vec<Range>, Option<u64>)> {
    let codes = option::of(prop::collection::vec(item(), 1..9));
    let grpc = [
        "cancelled",
        "deadline-exceeded",
        "internal",
        "resource-exhausted",
        "unavailable",
    ];
    let grpc = option::of(subsequence(grpc.to_vec(), 1..=5).prop_shuffle());
    let all = (any::<bool>(), 1_u32..=10, codes, grpc, option::of(time(DAY)));
    all.prop_map(|(enabled, max_attempts, codes, grpc, per_try)| {
        let (retry_timeout, per_try) = split(per_try);
        let mut section = Retry {
            enabled,
            max_attempts,
            retryable_grpc_codes: grpc.map(|codes| codes.join(",")),
            retry_timeout,
            ..Retry::default()
        };
        let Some(items) = codes else {
            return (section, vec![(500, 599)], per_try);
        };
        let (texts, ranges): (Vec<String>, Vec<Range>) = items.into_iter().unzip();
        section.retryable_status_codes = texts.join(",");
        (section, union(ranges), per_try)
    })
}

fn timeout() -> impl Strategy<Value = (Timeout, [Option<u64>; 3])> {
    let times = (time(DAY), time(DAY), time(DAY));
    (any::<bool>(), times, subsequence(vec![0, 1, 2], 1..=3)).prop_map(|(enabled, (a, b, c), which)| {
        let pick = |index: usize, time: Time| split(which.contains(&index).then_some(time));
        let ((request_timeout, a), (response_timeout, b), (idle_timeout, c)) = (pick(0, a), pick(1, b), pick(2, c));
        (
            Timeout {
                enabled,
                request_timeout,
                response_timeout,
                idle_timeout,
            },
            [a, b, c],
        )
    })
}

prop_compose! {
    /// A policy that the API server admits: at least one section, possibly all of them disabled.
    pub(crate) fn asked()(
        breaker in option::of(breaker()), unified in option::weighted(0.3, unified()), retry in option::of(retry()),
        bias in option::weighted(0.3, load_bias()), timeout in timeout(), timed in any::<bool>(),
    ) -> Asked {
        let timed = timed || (breaker.is_none() && retry.is_none());
        let (mut circuit_breaker, penalties) = breaker.unzip();
        let (load_bias, bias) = bias.unzip();
        let mut window = None;
        if let (Some(breaker), Some((rate, honor, milliseconds))) = (&mut circuit_breaker, unified) {
            breaker.failure_accrual_method = FailureAccrualMethod::Unified;
            (breaker.success_rate, breaker.honor_retry_after, window) = (rate, honor, milliseconds);
        }
        let (retry, statuses, per_try) =
            retry.map_or((None, Vec::new(), None), |(section, codes, time)| (Some(section), codes, time));
        let (timeout, timeouts) = timed.then_some(timeout).unzip();
        let target_ref = Some(TargetRef { name: "web".into(), ..TargetRef::default() });
        Asked {
            spec: ResiliencePolicySpec { target_ref, circuit_breaker, retry, timeout, load_bias, ..ResiliencePolicySpec::default() },
            penalties: penalties.unwrap_or_default(),
            window,
            bias: bias.unwrap_or_default(),
            statuses,
            per_try,
            timeouts: timeouts.unwrap_or_default(),
        }
    }
}

/// Anything that somebody else may have written: Linkerd's keys with good and bad values, look-alikes, noise.
pub(crate) fn foreign() -> impl Strategy<Value = BTreeMap<String, String>> {
    let others = [
        "retry.linkerd.io/http-status-codes",
        "config.linkerd.io/failure-accrual",
        "balancer.linkerd.io/failure-accrual-consecutive-failures",
        "balancer.alpha.linkerd.io/failure-accrual-success-rate-treshold",
        "timeout.linkerd.io/Request",
        "example.org/owner",
    ];
    let keys: Vec<&str> = [&BREAKER[..], &RETRY[..], &TIMEOUTS[..], &LOAD_BIAS[..], &others[..]].concat();
    let values = vec![
        "",
        "0",
        "1",
        "3",
        " 3",
        "0.5",
        " 0.5",
        "100.5",
        "NaN",
        "-1",
        "65536",
        "consecutive",
        "unified",
        "Consecutive",
        "5xx",
        "4xx",
        "5xx, 429",
        "unavailable",
        "true",
        "2000000",
        "60d",
        "0s",
        "1s",
        " 2s ",
        "5ms",
        "70s",
        "1m",
        "25h",
        "1.5s",
        "1m30s",
        "10S",
        "999999999999999999999d",
    ];
    prop::collection::btree_map(
        select(keys).prop_map(Into::into),
        select(values).prop_map(Into::into),
        0..8,
    )
}
