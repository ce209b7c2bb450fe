//! A block of annotations in the words of a policy.

use serde_json::{Map, Value, json};
use trellis_api::Section;

use crate::{
    LinkerdVersion,
    annotations::{
        BIAS_MAX_RETRY_AFTER, BIAS_PENALTY, HONOR_RETRY_AFTER, JITTER_RATIO, MAX_PENALTY, MIN_PENALTY, Place,
        RETRY_GRPC, RETRY_HTTP, RETRY_TIMEOUT, SUCCESS_MIN_REQUESTS, SUCCESS_THRESHOLD, SUCCESS_WINDOW, TIMEOUT_IDLE,
        TIMEOUT_REQUEST, TIMEOUT_RESPONSE,
    },
    effect::{Bad, Breaker, LoadBias, Mode, Protocol, Retry, Stored, Timeouts},
};

/// The section that says what the annotations mean; or why there is none.
pub(super) fn section(
    section: Section,
    stored: &Stored,
    place: Place,
    linkerd: &LinkerdVersion,
) -> Result<Value, String> {
    let nothing = || "Linkerd ignores it as it is".to_owned();
    match section {
        Section::CircuitBreaker => breaker(stored, linkerd)
            .map_err(|bad| bad_text(&bad))?
            .ok_or_else(nothing),
        Section::Retry => retry(stored, place)?.ok_or_else(nothing),
        Section::Timeout => timeouts(stored).map_err(|bad| bad_text(&bad)),
        Section::LoadBias => bias(stored, linkerd).map_err(|bad| bad_text(&bad))?.ok_or_else(nothing),
        Section::RateLimit => Err(nothing()),
    }
}

fn bad_text(bad: &Bad) -> String {
    format!("{bad}, and Linkerd drops it with its block")
}

fn breaker(stored: &Stored, linkerd: &LinkerdVersion) -> Result<Option<Value>, Bad> {
    let Some(found) = Breaker::read(stored, linkerd)? else {
        return Ok(None);
    };
    let mut fields = Map::new();
    fields.insert("failureThreshold".into(), json!(found.max_failures));
    time(&mut fields, "minPenalty", stored, MIN_PENALTY, Some(found.min_penalty));
    time(&mut fields, "maxPenalty", stored, MAX_PENALTY, Some(found.max_penalty));
    number(&mut fields, "jitterRatio", stored, JITTER_RATIO);
    if found.mode == Mode::Unified {
        fields.insert("failureAccrualMethod".into(), json!("unified"));
        let mut rate = Map::new();
        number(&mut rate, "threshold", stored, SUCCESS_THRESHOLD);
        time(
            &mut rate,
            "window",
            stored,
            SUCCESS_WINDOW,
            found.success_rate.map(|rate| rate.window),
        );
        number(&mut rate, "minRequests", stored, SUCCESS_MIN_REQUESTS);
        if !rate.is_empty() {
            fields.insert("successRate".into(), Value::Object(rate));
        }
        if stored.contains_key(HONOR_RETRY_AFTER) {
            let honor = found.success_rate.is_some_and(|rate| rate.honor_retry_after);
            fields.insert("honorRetryAfter".into(), json!(honor));
        }
    }
    Ok(Some(Value::Object(fields)))
}

fn retry(stored: &Stored, place: Place) -> Result<Option<Value>, String> {
    let (has_http, has_grpc) = (stored.contains_key(RETRY_HTTP), stored.contains_key(RETRY_GRPC));
    let read = |protocol| Retry::read(stored, protocol).map_err(|bad| bad_text(&bad));
    let http = if place == Place::GrpcRoute {
        None
    } else {
        read(Protocol::Http)?
    };
    let grpc = if place == Place::HttpRoute || !has_grpc {
        None
    } else {
        read(Protocol::Grpc)?
    };
    let Some(any) = http.as_ref().or(grpc.as_ref()) else {
        return Ok(None);
    };
    if place != Place::GrpcRoute && !has_http {
        return Err("without retry.linkerd.io/http it retries on no status, which a policy cannot say".into());
    }
    let mut fields = Map::new();
    fields.insert("maxAttempts".into(), json!(any.limit));
    if let Some(http) = &http {
        let ranges = http.statuses.iter().map(|(low, high)| format!("{low}-{high}"));
        let ranges = ranges.collect::<Vec<_>>().join(",");
        let spelt = crate::codes::canonical("spec.retry.retryableStatusCodes", &ranges).unwrap_or(ranges);
        fields.insert("retryableStatusCodes".into(), json!(spelt));
    }
    if let Some(grpc) = &grpc {
        fields.insert("retryableGrpcCodes".into(), json!(grpc.codes.join(",")));
    }
    time(&mut fields, "retryTimeout", stored, RETRY_TIMEOUT, any.timeout);
    Ok(Some(Value::Object(fields)))
}

fn timeouts(stored: &Stored) -> Result<Value, Bad> {
    let found = Timeouts::read(stored)?;
    let mut fields = Map::new();
    time(&mut fields, "requestTimeout", stored, TIMEOUT_REQUEST, found.request);
    time(&mut fields, "responseTimeout", stored, TIMEOUT_RESPONSE, found.response);
    time(&mut fields, "idleTimeout", stored, TIMEOUT_IDLE, found.idle);
    Ok(Value::Object(fields))
}

fn bias(stored: &Stored, linkerd: &LinkerdVersion) -> Result<Option<Value>, Bad> {
    let Some(found) = LoadBias::read(stored, linkerd)? else {
        return Ok(None);
    };
    let mut fields = Map::new();
    time(&mut fields, "penalty", stored, BIAS_PENALTY, Some(found.penalty));
    time(
        &mut fields,
        "maxRetryAfter",
        stored,
        BIAS_MAX_RETRY_AFTER,
        Some(found.max_retry_after),
    );
    Ok(Some(Value::Object(fields)))
}

/// A duration that is written, as it is if a policy can say it so, or else in the largest unit that fits.
fn time(fields: &mut Map<String, Value>, name: &str, stored: &Stored, key: &str, milliseconds: Option<u64>) {
    let (Some(text), Some(milliseconds)) = (stored.get(key), milliseconds) else {
        return;
    };
    let text = if crate::duration::field(name, text).is_ok() {
        text.clone()
    } else {
        spelt(milliseconds)
    };
    fields.insert(name.into(), json!(text));
}

fn number(fields: &mut Map<String, Value>, name: &str, stored: &Stored, key: &str) {
    let text = stored.get(key).map(|text| text.trim());
    let whole = text
        .and_then(|text| text.parse::<u64>().ok())
        .map(|number| json!(number));
    let number = whole.or_else(|| {
        text.and_then(|text| text.parse::<f64>().ok())
            .map(|number| json!(number))
    });
    if let Some(number) = number {
        fields.insert(name.into(), number);
    }
}

/// A duration in the largest unit that divides it.
pub(crate) fn spelt(milliseconds: u64) -> String {
    let units = [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "m"),
        (1000, "s"),
        (1, "ms"),
    ];
    let fits = units
        .into_iter()
        .find(|(factor, _)| milliseconds >= *factor && milliseconds.is_multiple_of(*factor));
    fits.map_or_else(
        || "0s".into(),
        |(factor, unit)| format!("{}{unit}", milliseconds / factor),
    )
}

/// The one way to write a set of statuses: ascending ranges that neither overlap nor touch.
pub(crate) fn union(mut ranges: Vec<(u16, u16)>) -> Vec<(u16, u16)> {
    ranges.sort_unstable();
    let mut all: Vec<(u16, u16)> = Vec::new();
    for (low, high) in ranges {
        match all.last_mut() {
            Some(last) if low <= last.1.saturating_add(1) => last.1 = last.1.max(high),
            _ => all.push((low, high)),
        }
    }
    all
}
