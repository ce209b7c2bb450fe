//! CEL rules shared by the kinds, each with the message that the API server gives.
//!
//! Invariant: a rule decides on its own; a value that is not even well formed fails one rule, with one message.

/// Longest duration that a field admits: 24 hours, in milliseconds. Linkerd itself has no such bound; a longer timeout
/// or penalty is a mistake, and a bound keeps every sum of durations far from overflow.
pub const MAX_DURATION_MS: u64 = 24 * 60 * 60 * 1000;

/// Longest list of status codes, in characters. It bounds what the API server spends on checking the list.
pub const MAX_STATUS_CODES_LENGTH: usize = 128;

/// A duration in Linkerd's grammar, not zero, at most [`MAX_DURATION_MS`].
pub(crate) fn duration() -> String {
    format!(
        "self.matches('^[1-9][0-9]{{0,7}}(ms|s|m|h|d)$') && {} <= {MAX_DURATION_MS}",
        milliseconds("self")
    )
}

/// Message of [`duration`].
pub(crate) const DURATION: &str = "must be a positive whole number with one unit of ms, s, m, h or d, such as 300ms \
     or 10s, and at most 24h; fractions and sums such as 1.5s or 1m30s are not understood by Linkerd";

/// `min ≤ max`, where an absent field counts as Linkerd's default.
pub(crate) fn penalties() -> String {
    let min = milliseconds("(has(self.minPenalty) ? self.minPenalty : '1s')");
    let max = milliseconds("(has(self.maxPenalty) ? self.maxPenalty : '1m')");
    let well_formed = |field: &str| format!("(!has({field}) || {field}.matches('^[1-9][0-9]{{0,7}}(ms|s|m|h|d)$'))");
    format!(
        "!{} || !{} || {min} <= {max}",
        well_formed("self.minPenalty"),
        well_formed("self.maxPenalty")
    )
}

/// Message of [`penalties`].
pub(crate) const PENALTIES: &str =
    "minPenalty must not exceed maxPenalty; where one is absent, Linkerd takes 1s and 60s";

/// A duration of at least 10 ms: below that, the proxy rejects the whole configuration.
pub(crate) fn window() -> String {
    format!(
        "self.matches('^[1-9][0-9]{{0,7}}(ms|s|m|h|d)$') && {ms} >= 10 && {ms} <= {MAX_DURATION_MS}",
        ms = milliseconds("self")
    )
}

/// Message of [`window`].
pub(crate) const WINDOW: &str = "must be a whole number with one unit of ms, s, m, h or d, at least 10ms and at most \
     24h; Linkerd's proxies refuse a shorter window, and with it every request";

/// What belongs to `unified` alone.
pub(crate) const UNIFIED: (&str, &str) = (
    "self.failureAccrualMethod == 'unified' || (!has(self.successRate) && !has(self.honorRetryAfter))",
    "successRate and honorRetryAfter act only with failureAccrualMethod unified",
);

const STATUS_CODE: &str = "(5xx|gateway-error|[1-5][0-9][0-9](-[1-5][0-9][0-9])?)";

/// A comma-separated list of status codes, ranges and the two words of Linkerd.
pub(crate) fn status_codes() -> String {
    format!("self.matches('^{STATUS_CODE}(,{STATUS_CODE})*$')")
}

/// Message of [`status_codes`].
pub(crate) const STATUS_CODES: &str = "must be a comma-separated list without blanks of: 5xx, gateway-error, a code \
     from 100 to 599, or a range such as 500-504; 4xx and other classes are not understood by Linkerd";

/// Every range of a list of status codes runs upwards.
pub(crate) const RANGES: (&str, &str) = (
    "self.split(',').all(item, !item.matches('^[1-5][0-9][0-9]-[1-5][0-9][0-9]$') \
     || item.substring(0, 3) <= item.substring(4, 7))",
    "a range of status codes must run upwards, such as 500-504",
);

const GRPC_CODE: &str = "(cancelled|deadline-exceeded|internal|resource-exhausted|unavailable)";

/// A comma-separated list of the gRPC statuses that Linkerd can retry on.
pub(crate) fn grpc_codes() -> String {
    format!("self.matches('^{GRPC_CODE}(,{GRPC_CODE})*$')")
}

/// Message of [`grpc_codes`].
pub(crate) const GRPC_CODES: &str = "must be a comma-separated list without blanks of: cancelled, deadline-exceeded, \
     internal, resource-exhausted, unavailable; Linkerd understands no other names and no numbers";

fn milliseconds(of: &str) -> String {
    format!(
        "({of}.endsWith('ms') ? int({of}.substring(0, size({of}) - 2)) : int({of}.substring(0, size({of}) - 1)) * \
         ({of}.endsWith('s') ? 1000 : {of}.endsWith('m') ? 60000 : {of}.endsWith('h') ? 3600000 : 86400000))"
    )
}
