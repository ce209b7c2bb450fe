//! The breaker, as Linkerd reads it from a Service or an EgressNetwork.

use std::str::FromStr;

use serde::Serialize;

use super::{Bad, DURATION, Stored, duration, read, truth};
use crate::{
    LinkerdVersion,
    annotations::{
        FAILURE_ACCRUAL, HONOR_RETRY_AFTER, JITTER_RATIO, MAX_FAILURES, MAX_PENALTY, MIN_PENALTY, SUCCESS_MIN_REQUESTS,
        SUCCESS_THRESHOLD, SUCCESS_WINDOW,
    },
};

/// A circuit breaker, per endpoint and client proxy. Times are milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Breaker {
    /// How failures are counted.
    pub mode: Mode,
    /// Failures in a row that take an endpoint out; 0: never.
    pub max_failures: u32,
    /// Shortest time out.
    pub min_penalty: u64,
    /// Longest time out.
    pub max_penalty: u64,
    /// Random share added.
    pub jitter_ratio: f32,
    /// The second dimension of `unified`.
    #[serde(flatten)]
    pub success_rate: Option<SuccessRate>,
}

/// How failures are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Mode {
    /// In a row.
    Consecutive,
    /// In a row, or by a low share of successes.
    Unified,
}

/// A share of successes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SuccessRate {
    /// Lowest share; 0: off.
    pub threshold: f64,
    /// Time over which it is measured, in milliseconds.
    pub window: u64,
    /// Requests below which nothing is decided.
    pub min_requests: u32,
    /// Whether Retry-After is honoured.
    pub honor_retry_after: bool,
}

impl Breaker {
    /// The breaker that these annotations give; none without a mode.
    pub fn read(stored: &Stored, linkerd: &LinkerdVersion) -> Result<Option<Self>, Bad> {
        let newer = linkerd.at_least(2, 20);
        let must = if newer {
            "be consecutive or unified"
        } else {
            "be consecutive; unified needs Linkerd 2.20"
        };
        let mode = read(stored, FAILURE_ACCRUAL, must, |text| match text {
            "consecutive" => Some(Mode::Consecutive),
            "unified" => newer.then_some(Mode::Unified),
            _ => None,
        })?;
        let Some(mode) = mode else { return Ok(None) };
        let success_rate = (mode == Mode::Unified).then(|| SuccessRate::read(stored)).transpose()?;

        let count = "be a whole number from 0 to 4294967295, without blanks";
        let max_failures = read(stored, MAX_FAILURES, count, |text| number(text, newer))?;
        let (min, max) = (duration(stored, MIN_PENALTY)?, duration(stored, MAX_PENALTY)?);
        let (min_penalty, max_penalty) = (min.unwrap_or(1000), max.unwrap_or(60_000));
        let ratio = read(
            stored,
            JITTER_RATIO,
            "be a number from 0 to 100, without blanks",
            |text| number(text, newer).filter(|ratio: &f32| (0.0..=100.0).contains(ratio)),
        )?;
        if max_penalty == 0 {
            return Err(Bad::new(MAX_PENALTY, text(stored, MAX_PENALTY), "be longer than 0"));
        }
        if min_penalty > max_penalty {
            let key = if min.is_some() { MIN_PENALTY } else { MAX_PENALTY };
            let must = "keep the shortest penalty (1s if absent) within the longest (60s if absent)";
            return Err(Bad::new(key, text(stored, key), must));
        }
        Ok(Some(Self {
            mode,
            max_failures: max_failures.unwrap_or(7),
            min_penalty,
            max_penalty,
            jitter_ratio: ratio.unwrap_or(0.5),
            success_rate,
        }))
    }

    /// What the control plane passes on and the proxies then refuse, failing every request to the target.
    #[must_use]
    pub fn refused_by_proxies(&self, stored: &Stored) -> Option<Bad> {
        let rate = self.success_rate.filter(|rate| rate.threshold != 0.0)?;
        if rate.window < 10 {
            return Some(Bad::new(
                SUCCESS_WINDOW,
                text(stored, SUCCESS_WINDOW),
                "be at least 10ms",
            ));
        }
        (rate.min_requests > 1_000_000).then(|| {
            Bad::new(
                SUCCESS_MIN_REQUESTS,
                text(stored, SUCCESS_MIN_REQUESTS),
                "be at most 1000000",
            )
        })
    }
}

impl SuccessRate {
    fn read(stored: &Stored) -> Result<Self, Bad> {
        let threshold = read(stored, SUCCESS_THRESHOLD, "be a number from 0 to 1", |text| {
            number(text, true).filter(|share: &f64| (0.0..=1.0).contains(share))
        })?;
        let window = read(stored, SUCCESS_WINDOW, DURATION, |text| {
            crate::duration::linkerd(text).filter(|window| *window > 0)
        })?;
        let count = "be a whole number from 0 to 4294967295";
        let min_requests = read(stored, SUCCESS_MIN_REQUESTS, count, |text| number(text, true))?;
        Ok(Self {
            threshold: threshold.unwrap_or(0.8),
            window: window.unwrap_or(10_000),
            min_requests: min_requests.unwrap_or(5),
            honor_retry_after: stored
                .get(HONOR_RETRY_AFTER)
                .and_then(|text| truth(text))
                .unwrap_or(false),
        })
    }
}

fn text<'a>(stored: &'a Stored, key: &str) -> &'a str {
    stored.get(key).map_or("", String::as_str)
}

/// Blanks around the number are dropped since 2.20 only.
fn number<N: FromStr>(text: &str, trims: bool) -> Option<N> {
    if trims { text.trim() } else { text }.parse().ok()
}
