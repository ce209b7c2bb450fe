//! P12: whatever stands on an object under our managers is in the narrowest grammar that any version of Linkerd reads,
//! and within what its proxies take.
//!
//! stored version ─▶ keys that only we own ─▶ grammar of each ─▶ the first value that is outside

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::{routed::laws::RECORD, verdict::owned};

/// A day, which is the longest time that the API server admits.
const DAY: u64 = 86_400_000;

/// Every value that our managers own, alone or with others.
pub(crate) fn strict(meta: &ObjectMeta) -> Result<usize, String> {
    let mut ours = owned(meta, |by| by.starts_with("trellis-resilience/"));
    // Not for Linkerd.
    ours.remove(RECORD);
    let all = meta.annotations.clone().unwrap_or_default();
    for key in &ours {
        let Some(value) = all.get(key) else {
            return Err(format!("{key} is owned and not there"));
        };
        if !fits(key, value) {
            return Err(format!("{key}: {value:?} is outside the grammar"));
        }
    }
    Ok(ours.len())
}

/// The facts' tables of keys, read strictly: no blanks, no empty items, no zero where zero means something else.
fn fits(key: &str, value: &str) -> bool {
    let within = |low: u64, high: u64| number(value).is_some_and(|n| (low..=high).contains(&n));
    let real = |high: f64| {
        let (whole, part) = value.split_once('.').unwrap_or((value, "0"));
        number(whole).is_some()
            && part.bytes().all(|byte| byte.is_ascii_digit())
            && value.parse().is_ok_and(|n: f64| (0.0..=high).contains(&n))
    };
    let truth = ["true", "false"].contains(&value);
    let Some((domain, name)) = key.split_once('/') else {
        return false;
    };
    match (domain, name) {
        ("balancer.linkerd.io", "failure-accrual") => ["consecutive", "unified"].contains(&value),
        ("balancer.linkerd.io", "failure-accrual-consecutive-max-failures") => within(1, 100),
        ("balancer.linkerd.io", "failure-accrual-consecutive-jitter-ratio") => real(100.0),
        (
            "balancer.linkerd.io",
            "failure-accrual-consecutive-min-penalty" | "failure-accrual-consecutive-max-penalty",
        )
        | ("retry.linkerd.io", "timeout")
        | ("timeout.linkerd.io", "request" | "response" | "idle")
        | ("balancer.alpha.linkerd.io", "load-biaser-penalty" | "load-biaser-max-retry-after") => time(value, 1),
        // A proxy refuses a window below 10 ms, and more than a million requests.
        ("balancer.alpha.linkerd.io", "failure-accrual-success-rate-window") => time(value, 10),
        ("balancer.alpha.linkerd.io", "failure-accrual-success-rate-min-requests") => within(1, 1_000_000),
        ("balancer.alpha.linkerd.io", "failure-accrual-success-rate-threshold") => real(1.0),
        ("balancer.alpha.linkerd.io", "failure-accrual-honor-retry-after" | "penalize-failures") => truth,
        ("retry.linkerd.io", "limit") => within(1, 10),
        ("retry.linkerd.io", "http") => value.split(',').all(status),
        ("retry.linkerd.io", "grpc") => value.split(',').all(|code| GRPC.contains(&code)),
        _ => false,
    }
}

const GRPC: [&str; 5] = [
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];

/// Digits alone, without a zero before them.
fn number(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

/// One unit, at least so many milliseconds, at most a day.
fn time(value: &str, least: u64) -> bool {
    let digits = value.trim_end_matches(|unit: char| unit.is_ascii_lowercase());
    let factor = match &value[digits.len()..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => DAY,
        _ => return false,
    };
    let found = number(digits).and_then(|number| number.checked_mul(factor));
    found.is_some_and(|found| (least..=DAY).contains(&found))
}

fn status(item: &str) -> bool {
    let code = |text: &str| text.len() == 3 && text.parse().is_ok_and(|code: u16| (100..=599).contains(&code));
    match item.split_once('-') {
        Some(("gateway", "error")) => true,
        Some((low, high)) => code(low) && code(high) && low <= high,
        None => item == "5xx" || code(item),
    }
}

/// The check itself knows good from bad.
#[test]
fn the_grammar_is_strict() {
    let good = [
        ("balancer.linkerd.io/failure-accrual", "consecutive"),
        ("balancer.linkerd.io/failure-accrual-consecutive-jitter-ratio", "0.125"),
        ("retry.linkerd.io/http", "5xx,429,500-504,gateway-error"),
        ("retry.linkerd.io/limit", "10"),
        ("timeout.linkerd.io/request", "1d"),
    ];
    for (key, value) in good {
        assert!(fits(key, value), "{key}: {value}");
    }
    let bad = [
        ("balancer.linkerd.io/failure-accrual", "Consecutive"),
        ("balancer.linkerd.io/failure-accrual-consecutive-max-failures", "0"),
        ("balancer.linkerd.io/failure-accrual-consecutive-jitter-ratio", "NaN"),
        ("balancer.alpha.linkerd.io/failure-accrual-success-rate-window", "9ms"),
        (
            "balancer.alpha.linkerd.io/failure-accrual-success-rate-min-requests",
            "1000001",
        ),
        ("balancer.alpha.linkerd.io/load-biaser-penalty", "50d"),
        ("retry.linkerd.io/http", "5xx, 429"),
        ("retry.linkerd.io/http", ""),
        ("retry.linkerd.io/http", "504-500"),
        ("retry.linkerd.io/http", "4xx"),
        ("retry.linkerd.io/grpc", "ok"),
        ("retry.linkerd.io/limit", " 3"),
        ("retry.linkerd.io/limits", "3"),
        ("timeout.linkerd.io/request", "0s"),
        ("timeout.linkerd.io/request", "1m30s"),
        ("timeout.linkerd.io/request", "1.5s"),
        ("timeout.linkerd.io/request", "25h"),
    ];
    for (key, value) in bad {
        assert!(!fits(key, value), "{key}: {value}");
    }
}
