//! The breaker: one block of keys, all good or no breaker.

use crate::{
    Version,
    parse::{Bad, duration, number, optional, truth},
};

const KEY: &str = "balancer.linkerd.io/failure-accrual";
const ALPHA: &str = "balancer.alpha.linkerd.io/failure-accrual";

/// How failures are counted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mode {
    /// Failures in a row.
    Consecutive,
    /// Failures in a row, or a low rate of successes (2.20 and newer).
    Unified(SuccessRate),
}

/// The second dimension of `unified`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SuccessRate {
    /// Lowest rate that keeps an endpoint in; 0 switches this dimension off.
    pub threshold: f64,
    /// Window of measurement, in milliseconds.
    pub window: u64,
    /// Requests in the window below which nothing is decided.
    pub min_requests: u32,
    /// Whether `Retry-After` of responses is honoured.
    pub honor_retry_after: bool,
}

/// A circuit breaker, per endpoint.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Breaker {
    /// How failures are counted.
    pub mode: Mode,
    /// Failures in a row that take an endpoint out; 0: never.
    pub max_failures: u32,
    /// Shortest time out, in milliseconds.
    pub min_penalty: u64,
    /// Longest time out, in milliseconds.
    pub max_penalty: u64,
    /// Random share added.
    pub jitter: f32,
}

impl Breaker {
    /// The control plane passes some values on that the proxy then rejects, and with them every request.
    pub(crate) fn fails_in_the_proxy(&self) -> bool {
        match self.mode {
            Mode::Consecutive => false,
            Mode::Unified(rate) => rate.threshold != 0.0 && (rate.window < 10 || rate.min_requests > 1_000_000),
        }
    }
}

pub(crate) fn of<'a>(read: impl Fn(&str) -> Option<&'a str>, version: Version) -> Option<Breaker> {
    let mode = read(KEY)?;
    whole(
        mode,
        |suffix| read(&format!("{KEY}-consecutive-{suffix}")),
        |suffix| read(&format!("{ALPHA}-{suffix}")),
        version,
    )
    .ok()
}

fn whole<'a>(
    mode: &str,
    consecutive: impl Fn(&str) -> Option<&'a str>,
    alpha: impl Fn(&str) -> Option<&'a str>,
    version: Version,
) -> Result<Breaker, Bad> {
    let trims = version >= (2, 20);
    let mode = match mode {
        "consecutive" => Mode::Consecutive,
        "unified" if version >= (2, 20) => Mode::Unified(success_rate(alpha)?),
        _ => return Err(Bad),
    };
    let max_failures = optional(consecutive("max-failures"), |text| number(text, trims))?.unwrap_or(7);
    let min_penalty = optional(consecutive("min-penalty"), duration)?.unwrap_or(1000);
    let max_penalty = optional(consecutive("max-penalty"), duration)?.unwrap_or(60_000);
    let jitter: f32 = optional(consecutive("jitter-ratio"), |text| number(text, trims))?.unwrap_or(0.5);
    if min_penalty > max_penalty || max_penalty == 0 || !(0.0..=100.0).contains(&jitter) {
        return Err(Bad);
    }
    Ok(Breaker {
        mode,
        max_failures,
        min_penalty,
        max_penalty,
        jitter,
    })
}

fn success_rate<'a>(alpha: impl Fn(&str) -> Option<&'a str>) -> Result<SuccessRate, Bad> {
    let threshold: f64 = optional(alpha("success-rate-threshold"), |text| number(text, true))?.unwrap_or(0.8);
    let window = optional(alpha("success-rate-window"), duration)?.unwrap_or(10_000);
    let min_requests = optional(alpha("success-rate-min-requests"), |text| number(text, true))?.unwrap_or(5);
    let honor_retry_after = alpha("honor-retry-after").is_some_and(|text| truth(text) == Ok(true));
    if !(0.0..=1.0).contains(&threshold) || window == 0 {
        return Err(Bad);
    }
    Ok(SuccessRate {
        threshold,
        window,
        min_requests,
        honor_retry_after,
    })
}
