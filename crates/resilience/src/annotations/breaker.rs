//! `spec.circuitBreaker` as annotations.

use trellis_api::{CircuitBreaker, FailureAccrualMethod, SuccessRate};
use trellis_core::Refusal;

use super::{
    Annotations, FAILURE_ACCRUAL, HONOR_RETRY_AFTER, JITTER_RATIO, MAX_FAILURES, MAX_PENALTY, MIN_PENALTY,
    SUCCESS_MIN_REQUESTS, SUCCESS_THRESHOLD, SUCCESS_WINDOW, since_2_20, time, within,
};
use crate::{LinkerdVersion, Reason};

/// Shortest window that the proxies take, in milliseconds.
const SHORTEST_WINDOW: u64 = 10;

pub(super) fn write(
    asked: &CircuitBreaker,
    linkerd: &LinkerdVersion,
    annotations: &mut Annotations,
) -> Result<(), Refusal> {
    within("spec.circuitBreaker.failureThreshold", asked.failure_threshold, 1, 100)?;
    let mode = match asked.failure_accrual_method {
        FailureAccrualMethod::Consecutive => "consecutive",
        FailureAccrualMethod::Unified => {
            since_2_20("spec.circuitBreaker.failureAccrualMethod", "unified", linkerd)?;
            "unified"
        }
    };
    annotations.insert(FAILURE_ACCRUAL, mode.into());
    annotations.insert(MAX_FAILURES, asked.failure_threshold.to_string());
    penalties(asked, annotations)?;
    if let Some(ratio) = asked.jitter_ratio {
        number("spec.circuitBreaker.jitterRatio", ratio, 100.0)?;
        annotations.insert(JITTER_RATIO, ratio.abs().to_string());
    }

    let unified = asked.failure_accrual_method == FailureAccrualMethod::Unified;
    if !unified && (asked.success_rate.is_some() || asked.honor_retry_after.is_some()) {
        return Err(Reason::Invalid
            .refuse("successRate and honorRetryAfter act only with failureAccrualMethod unified")
            .field("spec.circuitBreaker"));
    }
    if let Some(rate) = &asked.success_rate {
        success_rate(rate, annotations)?;
    }
    if let Some(honor) = asked.honor_retry_after {
        annotations.insert(HONOR_RETRY_AFTER, honor.to_string());
    }
    Ok(())
}

fn penalties(asked: &CircuitBreaker, annotations: &mut Annotations) -> Result<(), Refusal> {
    let (shortest, longest) = ("spec.circuitBreaker.minPenalty", "spec.circuitBreaker.maxPenalty");
    let min = time(shortest, MIN_PENALTY, asked.min_penalty.as_deref(), annotations)?;
    let max = time(longest, MAX_PENALTY, asked.max_penalty.as_deref(), annotations)?;
    let (min_or_default, max_or_default) = (min.unwrap_or(1000), max.unwrap_or(60_000));
    if min_or_default <= max_or_default {
        return Ok(());
    }
    Err(Reason::Invalid
        .refuse(format!(
            "the shortest penalty, {min_or_default}ms, exceeds the longest, {max_or_default}ms"
        ))
        .field(if min.is_some() { shortest } else { longest })
        .hint("where one is absent, Linkerd takes 1s and 60s; set both"))
}

fn success_rate(rate: &SuccessRate, annotations: &mut Annotations) -> Result<(), Refusal> {
    if let Some(threshold) = rate.threshold {
        number("spec.circuitBreaker.successRate.threshold", threshold, 1.0)?;
        annotations.insert(SUCCESS_THRESHOLD, threshold.abs().to_string());
    }
    let path = "spec.circuitBreaker.successRate.window";
    let window = time(path, SUCCESS_WINDOW, rate.window.as_deref(), annotations)?;
    if window.is_some_and(|window| window < SHORTEST_WINDOW) {
        return Err(Reason::Invalid
            .refuse(format!("Linkerd's proxies refuse a window below {SHORTEST_WINDOW}ms"))
            .field(path)
            .hint("1s and more give a share that means something"));
    }
    if let Some(requests) = rate.min_requests {
        within("spec.circuitBreaker.successRate.minRequests", requests, 1, 1_000_000)?;
        annotations.insert(SUCCESS_MIN_REQUESTS, requests.to_string());
    }
    Ok(())
}

fn number(path: &str, value: f64, most: f64) -> Result<(), Refusal> {
    if (0.0..=most).contains(&value) {
        return Ok(());
    }
    Err(Reason::Invalid
        .refuse(format!("{value} is not between 0 and {most}"))
        .field(path))
}
