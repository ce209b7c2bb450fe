//! What a policy writes on a Service, an EgressNetwork or a route: the annotations, and nothing else.
//!
//! ```text
//!  spec.circuitBreaker ─▶ balancer.linkerd.io/failure-accrual*      Service, EgressNetwork
//!  spec.retry          ─▶ retry.linkerd.io/{limit,http,grpc,timeout}  everywhere
//!  spec.timeout        ─▶ timeout.linkerd.io/{request,response,idle}  everywhere
//!  spec.loadBias       ─▶ balancer.alpha.linkerd.io/…               Service
//! ```
//!
//! Invariants: a disabled or absent section writes no key; every value is one that the given Linkerd parses, in the
//! place where it is written; what it cannot do is refused, never approximated.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use trellis_api::{ResiliencePolicySpec, Section};
use trellis_core::Refusal;

use crate::{LinkerdVersion, Reason, duration};

mod breaker;
mod load_bias;
mod retry;
mod timeouts;

/// Mode of the breaker: `consecutive`, or since 2.20 `unified`.
pub const FAILURE_ACCRUAL: &str = "balancer.linkerd.io/failure-accrual";
/// Failures in a row that take an endpoint out.
pub const MAX_FAILURES: &str = "balancer.linkerd.io/failure-accrual-consecutive-max-failures";
/// Shortest time out; a duration.
pub const MIN_PENALTY: &str = "balancer.linkerd.io/failure-accrual-consecutive-min-penalty";
/// Longest time out; a duration.
pub const MAX_PENALTY: &str = "balancer.linkerd.io/failure-accrual-consecutive-max-penalty";
/// Random share added to the time out.
pub const JITTER_RATIO: &str = "balancer.linkerd.io/failure-accrual-consecutive-jitter-ratio";
/// `unified`: lowest share of successes; a number from 0 to 1.
pub const SUCCESS_THRESHOLD: &str = "balancer.alpha.linkerd.io/failure-accrual-success-rate-threshold";
/// `unified`: time over which the share is measured; a duration.
pub const SUCCESS_WINDOW: &str = "balancer.alpha.linkerd.io/failure-accrual-success-rate-window";
/// `unified`: requests below which nothing is decided.
pub const SUCCESS_MIN_REQUESTS: &str = "balancer.alpha.linkerd.io/failure-accrual-success-rate-min-requests";
/// `unified`: whether Retry-After is honoured.
pub const HONOR_RETRY_AFTER: &str = "balancer.alpha.linkerd.io/failure-accrual-honor-retry-after";
/// Whether the load bias is on.
pub const PENALIZE_FAILURES: &str = "balancer.alpha.linkerd.io/penalize-failures";
/// Latency that a failure counts for; a duration.
pub const BIAS_PENALTY: &str = "balancer.alpha.linkerd.io/load-biaser-penalty";
/// Longest Retry-After that is believed; a duration.
pub const BIAS_MAX_RETRY_AFTER: &str = "balancer.alpha.linkerd.io/load-biaser-max-retry-after";
/// Number of retries.
pub const RETRY_LIMIT: &str = "retry.linkerd.io/limit";
/// Statuses of HTTP that are retried.
pub const RETRY_HTTP: &str = "retry.linkerd.io/http";
/// Statuses of gRPC that are retried.
pub const RETRY_GRPC: &str = "retry.linkerd.io/grpc";
/// Time that one try may take until the response headers are there; a duration.
pub const RETRY_TIMEOUT: &str = "retry.linkerd.io/timeout";
/// Longest life of a request; a duration.
pub const TIMEOUT_REQUEST: &str = "timeout.linkerd.io/request";
/// Longest time from request to end of response; a duration.
pub const TIMEOUT_RESPONSE: &str = "timeout.linkerd.io/response";
/// Longest silence; a duration.
pub const TIMEOUT_IDLE: &str = "timeout.linkerd.io/idle";

/// Keys of the breaker.
pub const BREAKER: [&str; 9] = [
    FAILURE_ACCRUAL,
    MAX_FAILURES,
    MIN_PENALTY,
    MAX_PENALTY,
    JITTER_RATIO,
    SUCCESS_THRESHOLD,
    SUCCESS_WINDOW,
    SUCCESS_MIN_REQUESTS,
    HONOR_RETRY_AFTER,
];
/// Keys of the retries.
pub const RETRY: [&str; 4] = [RETRY_LIMIT, RETRY_HTTP, RETRY_GRPC, RETRY_TIMEOUT];
/// Keys of the timeouts.
pub const TIMEOUTS: [&str; 3] = [TIMEOUT_REQUEST, TIMEOUT_RESPONSE, TIMEOUT_IDLE];
/// Keys of the load bias.
pub const LOAD_BIAS: [&str; 3] = [PENALIZE_FAILURES, BIAS_PENALTY, BIAS_MAX_RETRY_AFTER];

/// Annotations to have, by key.
pub type Annotations = BTreeMap<&'static str, String>;

/// Where annotations are written. Linkerd reads different keys in different places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the kinds of Kubernetes objects")]
pub enum Place {
    Service,
    EgressNetwork,
    HttpRoute,
    GrpcRoute,
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

impl Place {
    /// The kind.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::EgressNetwork => "EgressNetwork",
            Self::HttpRoute => "HTTPRoute",
            Self::GrpcRoute => "GRPCRoute",
        }
    }

    /// The sections that can act here; the rate limit has an object of its own, at a Service.
    #[must_use]
    pub fn sections(self) -> BTreeSet<Section> {
        match self {
            Self::Service => BTreeSet::from([
                Section::CircuitBreaker,
                Section::Retry,
                Section::Timeout,
                Section::LoadBias,
                Section::RateLimit,
            ]),
            Self::EgressNetwork => BTreeSet::from([Section::CircuitBreaker, Section::Retry, Section::Timeout]),
            Self::HttpRoute | Self::GrpcRoute => BTreeSet::from([Section::Retry, Section::Timeout]),
        }
    }
}

/// The keys that a section may write.
#[must_use]
pub fn keys(section: Section) -> &'static [&'static str] {
    match section {
        Section::CircuitBreaker => &BREAKER,
        Section::Retry => &RETRY,
        Section::Timeout => &TIMEOUTS,
        Section::LoadBias => &LOAD_BIAS,
        Section::RateLimit => &[],
    }
}

/// The annotations that a policy for a whole Service asks for, all sections together.
///
/// Refuses with `Invalid` and the offending field what Linkerd would not parse, whether or not the API server would
/// have let it pass; with `FeatureNotInVersion` what the version does not have.
pub fn desired(policy: &ResiliencePolicySpec, linkerd: &LinkerdVersion) -> Result<Annotations, Refusal> {
    if policy.sections().next().is_none() {
        return Err(Reason::Invalid
            .refuse("a policy needs at least one of circuitBreaker, retry, timeout, loadBias and rateLimit")
            .field("spec"));
    }
    let mut all = Annotations::new();
    for one in policy.sections() {
        all.append(&mut section(policy, one, Place::Service, linkerd)?);
    }
    Ok(all)
}

/// The annotations that one section of a policy asks for in one place; none when it is absent, disabled, or has none.
///
/// Refuses as [`desired`], and with `Invalid` a section that Linkerd does not read in this place.
pub fn section(
    policy: &ResiliencePolicySpec,
    section: Section,
    place: Place,
    linkerd: &LinkerdVersion,
) -> Result<Annotations, Refusal> {
    let mut annotations = Annotations::new();
    if !policy.enables(section) {
        return Ok(annotations);
    }
    if !place.sections().contains(&section) {
        return Err(Reason::Invalid
            .refuse(format!("Linkerd reads no {section} here; only a Service can have it"))
            .field(format!("spec.{section}")));
    }
    match section {
        Section::CircuitBreaker => {
            if let Some(asked) = &policy.circuit_breaker {
                breaker::write(asked, linkerd, &mut annotations)?;
            }
        }
        Section::Retry => {
            if let Some(asked) = &policy.retry {
                retry::write(asked, place, &mut annotations)?;
            }
        }
        Section::Timeout => {
            if let Some(asked) = &policy.timeout {
                timeouts::write(asked, &mut annotations)?;
            }
        }
        Section::LoadBias => {
            if let Some(asked) = &policy.load_bias {
                load_bias::write(asked, linkerd, &mut annotations)?;
            }
        }
        Section::RateLimit => {}
    }
    Ok(annotations)
}

/// Writes a duration as the user spelt it, and says how long it is.
fn time(
    path: &str,
    key: &'static str,
    text: Option<&str>,
    annotations: &mut Annotations,
) -> Result<Option<u64>, Refusal> {
    let Some(text) = text else { return Ok(None) };
    let milliseconds = duration::field(path, text)?;
    annotations.insert(key, text.into());
    Ok(Some(milliseconds))
}

fn within(path: &str, value: u32, low: u32, high: u32) -> Result<(), Refusal> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(Reason::Invalid
        .refuse(format!("{value} is not between {low} and {high}"))
        .field(path))
}

fn since_2_20(path: &str, what: &str, linkerd: &LinkerdVersion) -> Result<(), Refusal> {
    if linkerd.at_least(2, 20) {
        return Ok(());
    }
    Err(Reason::FeatureNotInVersion
        .refuse(format!("{what} needs Linkerd 2.20; this is {linkerd}"))
        .field(path)
        .hint("upgrade Linkerd, or leave it out"))
}
