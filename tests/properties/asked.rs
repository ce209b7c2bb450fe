//! What a stored policy asks for, read a second time: which keys it needs, and what Linkerd has to make of them.
//!
//! policy ─▶ Asked ─▶ keys, in the user's own words │ compared with the model's reading of a Service

use std::collections::{BTreeMap, BTreeSet};

use trellis_api::{CircuitBreaker, ResiliencePolicySpec, Retry, Timeout};
use trellis_model::{Effective, Mode, Outlook, RuleOutlook};

const MODE: &str = "balancer.linkerd.io/failure-accrual";
const MAX_FAILURES: &str = "balancer.linkerd.io/failure-accrual-consecutive-max-failures";
const MIN_PENALTY: &str = "balancer.linkerd.io/failure-accrual-consecutive-min-penalty";
const MAX_PENALTY: &str = "balancer.linkerd.io/failure-accrual-consecutive-max-penalty";
const JITTER: &str = "balancer.linkerd.io/failure-accrual-consecutive-jitter-ratio";
const LIMIT: &str = "retry.linkerd.io/limit";
const HTTP: &str = "retry.linkerd.io/http";
pub(crate) const GRPC: &str = "retry.linkerd.io/grpc";
const TRY: &str = "retry.linkerd.io/timeout";
pub(crate) const REQUEST: &str = "timeout.linkerd.io/request";
const RESPONSE: &str = "timeout.linkerd.io/response";
const IDLE: &str = "timeout.linkerd.io/idle";

/// Every key that a policy may write to a Service.
pub(crate) const KEYS: [&str; 11] = [
    MODE,
    MAX_FAILURES,
    MIN_PENALTY,
    MAX_PENALTY,
    JITTER,
    LIMIT,
    HTTP,
    TRY,
    REQUEST,
    RESPONSE,
    IDLE,
];

/// The sections of a policy that are switched on.
pub(crate) struct Asked {
    breaker: Option<CircuitBreaker>,
    retry: Option<Retry>,
    timeout: Option<Timeout>,
}

impl Asked {
    pub(crate) fn of(spec: &ResiliencePolicySpec) -> Self {
        Self {
            breaker: spec.circuit_breaker.clone().filter(|section| section.enabled),
            retry: spec.retry.clone().filter(|section| section.enabled),
            timeout: spec.timeout.clone().filter(|section| section.enabled),
        }
    }

    /// The keys that have to be on the Service, with values that mean what is asked; the product may spell the list of
    /// statuses in another way.
    pub(crate) fn keys(&self) -> BTreeMap<&'static str, String> {
        let mut keys = BTreeMap::new();
        if let Some(breaker) = &self.breaker {
            keys.insert(MODE, "consecutive".to_owned());
            keys.insert(MAX_FAILURES, breaker.failure_threshold.to_string());
            keys.extend(breaker.min_penalty.clone().map(|time| (MIN_PENALTY, time)));
            keys.extend(breaker.max_penalty.clone().map(|time| (MAX_PENALTY, time)));
            keys.extend(breaker.jitter_ratio.map(|ratio| (JITTER, ratio.to_string())));
        }
        if let Some(retry) = &self.retry {
            keys.insert(LIMIT, retry.max_attempts.to_string());
            keys.insert(HTTP, retry.retryable_status_codes.clone());
            keys.extend(retry.retry_timeout.clone().map(|time| (TRY, time)));
        }
        if let Some(timeout) = &self.timeout {
            keys.extend(timeout.request_timeout.clone().map(|time| (REQUEST, time)));
            keys.extend(timeout.response_timeout.clone().map(|time| (RESPONSE, time)));
            keys.extend(timeout.idle_timeout.clone().map(|time| (IDLE, time)));
        }
        keys
    }

    /// The names of the sections that are switched on.
    pub(crate) fn enabled(&self) -> Vec<&'static str> {
        let all = [
            ("circuitBreaker", self.breaker.is_some()),
            ("retry", self.retry.is_some()),
            ("timeout", self.timeout.is_some()),
        ];
        all.into_iter().filter_map(|(name, on)| on.then_some(name)).collect()
    }

    /// The keys that have to be on a route.
    pub(crate) fn route_keys(&self, grpc: bool) -> BTreeSet<&'static str> {
        let mut keys: BTreeSet<&'static str> = self.keys().into_keys().collect();
        if grpc && keys.remove(HTTP) {
            keys.insert(GRPC);
        }
        keys
    }

    /// Whether the requests of a rule get what a section asks for. What it leaves open may be anything that somebody
    /// else (`theirs`) says, and else nothing.
    pub(crate) fn acts(&self, section: &str, outlook: &Outlook, rule: &RuleOutlook, theirs: &BTreeSet<String>) -> bool {
        let optional = |asked: &Option<String>, key, found: Option<u64>| match asked {
            Some(text) => found == Some(milliseconds(text)),
            None => found.is_none() || theirs.contains(key),
        };
        match (section, &self.retry, &self.timeout) {
            ("retry", Some(asked), _) => rule.retry.as_ref().is_some_and(|found| {
                let listed = if outlook.grpc {
                    let list = asked.retryable_grpc_codes.iter().flat_map(|list| list.split(','));
                    let found: BTreeSet<&str> = found.codes.iter().map(String::as_str).collect();
                    !found.is_empty() && found == list.collect()
                } else {
                    let ranges = found.retry.statuses.iter();
                    let found: BTreeSet<u16> = ranges.flat_map(|(low, high)| *low..=*high).collect();
                    Some(found) == statuses(&asked.retryable_status_codes)
                };
                listed
                    && u32::from(found.retry.limit) == asked.max_attempts
                    && optional(&asked.retry_timeout, TRY, found.retry.timeout)
            }),
            ("timeout", _, Some(asked)) => {
                let found = rule.timeouts;
                optional(&asked.request_timeout, REQUEST, found.request)
                    && optional(&asked.response_timeout, RESPONSE, found.response)
                    && optional(&asked.idle_timeout, IDLE, found.idle)
            }
            _ => false,
        }
    }

    /// How what Linkerd does differs from what is asked. What the policy leaves open may be anything that somebody
    /// else (`theirs`) says, and else Linkerd's default.
    pub(crate) fn differs(&self, effective: &Effective, theirs: &BTreeSet<String>) -> Option<String> {
        let open = |key: &str| theirs.contains(key);
        let mut wrong = Vec::new();
        let mut check = |what: &str, right: bool| {
            if !right {
                wrong.push(what.to_owned());
            }
        };
        if let Some(asked) = &self.breaker {
            let time = |asked: &Option<String>, key, found: u64, default: u64| match asked {
                Some(text) => found == milliseconds(text),
                None => found == default || open(key),
            };
            match &effective.breaker {
                None => check("no breaker", false),
                Some(found) => {
                    check("mode", found.mode == Mode::Consecutive);
                    check("max failures", found.max_failures == asked.failure_threshold);
                    check(
                        "min penalty",
                        time(&asked.min_penalty, MIN_PENALTY, found.min_penalty, 1000),
                    );
                    check(
                        "max penalty",
                        time(&asked.max_penalty, MAX_PENALTY, found.max_penalty, 60_000),
                    );
                    let jitter = match asked.jitter_ratio {
                        Some(ratio) => (f64::from(found.jitter) - ratio).abs() < 1e-5,
                        None => (found.jitter - 0.5).abs() < 1e-6 || open(JITTER),
                    };
                    check("jitter", jitter);
                }
            }
        }
        let optional = |asked: &Option<String>, key, found: Option<u64>| match asked {
            Some(text) => found == Some(milliseconds(text)),
            None => found.is_none() || open(key),
        };
        if let Some(asked) = &self.retry {
            match &effective.retry {
                None => check("no retry", false),
                Some(found) => {
                    check("limit", u32::from(found.limit) == asked.max_attempts);
                    let found_statuses: BTreeSet<u16> =
                        found.statuses.iter().flat_map(|(low, high)| *low..=*high).collect();
                    check(
                        "statuses",
                        Some(found_statuses) == statuses(&asked.retryable_status_codes),
                    );
                    check("try timeout", optional(&asked.retry_timeout, TRY, found.timeout));
                }
            }
        }
        if let Some(asked) = &self.timeout {
            let found = effective.timeouts;
            check("request", optional(&asked.request_timeout, REQUEST, found.request));
            check("response", optional(&asked.response_timeout, RESPONSE, found.response));
            check("idle", optional(&asked.idle_timeout, IDLE, found.idle));
        }
        (!wrong.is_empty()).then(|| format!("{} is not as asked: {effective:?}", wrong.join(", ")))
    }
}

/// A duration that the API server has admitted.
fn milliseconds(text: &str) -> u64 {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let factor = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => 86_400_000,
    };
    text[..text.len() - unit.len()].parse::<u64>().unwrap() * factor
}

/// Whether two lists mean the same statuses.
pub(crate) fn same_statuses(one: &str, other: &str) -> bool {
    statuses(one).is_some_and(|found| Some(found) == statuses(other))
}

/// The statuses of a list; `None` when it is no list.
fn statuses(list: &str) -> Option<BTreeSet<u16>> {
    let range = |item: &str| match item {
        "5xx" => Some(500..=599),
        "gateway-error" => Some(502..=504),
        _ => {
            let (low, high) = item.split_once('-').unwrap_or((item, item));
            Some(low.parse().ok()?..=high.parse().ok()?)
        }
    };
    let ranges: Option<Vec<_>> = list.split(',').map(range).collect();
    Some(ranges?.into_iter().flatten().collect())
}
