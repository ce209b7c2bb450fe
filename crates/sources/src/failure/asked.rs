//! How long upstream asks to be left alone.
//!
//! ```text
//!  Retry-After (RFC 9110, 10.2.3) ─▶ RateLimit (IETF draft) ─▶ RateLimit-Reset ─▶ X-RateLimit-Reset: the first that is there
//! ```

use std::time::Duration;

use jiff::{Timestamp, civil::DateTime, fmt::rfc2822, fmt::strtime, tz::TimeZone};

/// Longest wait that is believed: limits of public services renew within the hour.
pub const LONGEST_WAIT: Duration = Duration::from_hours(1);
/// A wait of nothing would be a loop.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);

/// The headers that ask for patience, as they came; none: the header is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Headers<'a> {
    /// `Retry-After`: seconds, or an HTTP date.
    pub retry_after: Option<&'a str>,
    /// `RateLimit`: `"default";r=0;t=30`, or `limit=10, remaining=0, reset=30` in older drafts.
    pub rate_limit: Option<&'a str>,
    /// `RateLimit-Reset`: seconds.
    pub rate_limit_reset: Option<&'a str>,
    /// `X-RateLimit-Reset`: seconds since 1970, or seconds.
    pub x_rate_limit_reset: Option<&'a str>,
    /// `RateLimit-Remaining`, else `X-RateLimit-Remaining`.
    pub remaining: Option<&'a str>,
}

/// How long to wait after an answer with this code; between one second and [`LONGEST_WAIT`].
///
/// None: nothing is asked. 429 and 503 may ask in every way; 403 only beside the word that nothing remains, as GitHub says
/// it. A reset beside requests that remain is not a wait.
#[must_use]
pub fn asked(code: u16, headers: Headers<'_>, now: Timestamp) -> Option<Duration> {
    let spent = headers.remaining.and_then(seconds).is_some_and(|left| left.is_zero());
    if !matches!(code, 429 | 503) && !(code == 403 && (spent || headers.retry_after.is_some())) {
        return None;
    }
    let left = headers.remaining.and_then(seconds).is_some_and(|left| !left.is_zero());
    let wait = headers
        .retry_after
        .and_then(|text| seconds(text).or_else(|| until(text, now)))
        .or_else(|| {
            if left {
                return None;
            }
            let structured = headers.rate_limit.and_then(reset);
            let plain = || headers.rate_limit_reset.and_then(|text| renewed(text, now));
            structured
                .or_else(plain)
                .or_else(|| headers.x_rate_limit_reset.and_then(|text| renewed(text, now)))
        })?;
    Some(wait.clamp(SHORTEST_WAIT, LONGEST_WAIT))
}

/// Whole seconds; a fraction, which some servers send, is rounded up.
fn seconds(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return None;
    }
    // More digits than fit are more than we wait.
    let whole = whole.parse().unwrap_or(u64::MAX);
    let more = u64::from(fraction.bytes().any(|byte| byte != b'0'));
    Some(Duration::from_secs(whole.saturating_add(more)))
}

/// The time until an HTTP date, in any of its three forms (RFC 9110, 5.6.7); nothing for one that has passed.
fn until(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    let civil = |format: &str| {
        strtime::parse(format, text)
            .and_then(|parsed| parsed.to_datetime())
            .ok()
    };
    let utc = |time: DateTime| time.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp());
    let then = match rfc2822::parse(text) {
        Ok(zoned) => zoned.timestamp(),
        Err(_) => civil("%A, %d-%b-%y %H:%M:%S GMT")
            .or_else(|| civil("%a %b %e %H:%M:%S %Y"))
            .and_then(utc)?,
    };
    Some(Duration::try_from(then.duration_since(now)).unwrap_or(Duration::ZERO))
}

/// A reset that is either a number of seconds or a point in time; what is too large for the one is the other.
fn renewed(text: &str, now: Timestamp) -> Option<Duration> {
    const SECONDS_SINCE_1970: u64 = 1_000_000_000;
    let Some(number) = seconds(text) else {
        return until(text, now);
    };
    let number = number.as_secs();
    let since = match number {
        0..SECONDS_SINCE_1970 => return Some(Duration::from_secs(number)),
        _ if number >= SECONDS_SINCE_1970.saturating_mul(1000) => number / 1000,
        _ => number,
    };
    let now = u64::try_from(now.as_second()).unwrap_or(0);
    Some(Duration::from_secs(since.saturating_sub(now)))
}

/// The longest reset of a `RateLimit` field whose quota is used up.
fn reset(text: &str) -> Option<Duration> {
    let value = |item: &str, names: [&str; 2]| {
        item.split([';', ','])
            .filter_map(|part| part.split_once('='))
            .find(|(name, _)| names.contains(&name.trim()))
            .and_then(|(_, value)| seconds(value))
    };
    // In older drafts the field is one list with one meaning; in newer ones each item is a policy of its own.
    let items: Vec<&str> = if text.contains(';') {
        text.split(',').collect()
    } else {
        vec![text]
    };
    let spent = items
        .into_iter()
        .filter(|item| value(item, ["r", "remaining"]).is_none_or(|left| left.is_zero()));
    spent.filter_map(|item| value(item, ["t", "reset"])).max()
}
