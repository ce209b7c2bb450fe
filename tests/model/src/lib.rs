//! What Linkerd makes of a Service's annotations: an independent reading of its documented and observed behaviour,
//! to compare the product with.
//!
//! ```text
//!  Service + ServiceProfiles + version + port ─▶ inert?  ─▶ breaker │ retry │ timeouts, each whole or not at all
//!  State: the same for a whole cluster ─▶ the routes that count, for the clients of a namespace ─▶ rule by rule
//! ```
//!
//! It shares no code with the product, and its tables pin it to single facts. It assumes a default installation
//! (opaque ports, cluster domain). [`effective`] is for a client in the Service's namespace, and no routes: then Linkerd
//! makes up one default HTTP route that carries what the Service says. gRPC retries never act without a `GRPCRoute`.
//! [`outlook`] is for any client, with routes.

mod bias;
mod breaker;
mod inert;
mod outlook;
mod parse;
mod retry;
mod route;
mod timeouts;

use k8s_openapi::api::core::v1::Service;

pub use bias::Bias;
pub use breaker::{Breaker, Mode, SuccessRate};
pub use inert::{Inert, Profile};
pub use outlook::{Outlook, RuleOutlook, State, outlook};
pub use retry::{Block, Retry};
pub use route::{Kind, Route};
pub use timeouts::Timeouts;

/// A release of Linkerd: major and minor.
pub type Version = (u32, u32);

/// What the proxies of clients do when they call one port of a Service.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Effective {
    /// Why nothing else here acts; then everything else is empty.
    pub inert: Option<Inert>,
    /// Circuit breaker.
    pub breaker: Option<Breaker>,
    /// Bias against endpoints that fail.
    pub bias: Option<Bias>,
    /// Retries of HTTP requests.
    pub retry: Option<Retry>,
    /// Timeouts.
    pub timeouts: Timeouts,
}

/// Reads the Service as Linkerd of this version would, for one port.
#[must_use]
pub fn effective(service: &Service, profiles: &[Profile<'_>], version: Version, port: i32) -> Effective {
    if let Some(inert) = inert::of(service, profiles, version, port) {
        return Effective {
            inert: Some(inert),
            ..Effective::default()
        };
    }
    let read = |key: &str| {
        service
            .metadata
            .annotations
            .as_ref()
            .and_then(|annotations| annotations.get(key))
            .map(String::as_str)
    };
    let breaker = breaker::of(read, version);
    let bias = bias::of(read, version);
    if breaker.as_ref().is_some_and(Breaker::fails_in_the_proxy) || bias.as_ref().is_some_and(Bias::fails_in_the_proxy)
    {
        return Effective {
            inert: Some(Inert::RejectedByProxy),
            ..Effective::default()
        };
    }
    Effective {
        inert: None,
        breaker,
        bias,
        retry: retry::of(read),
        timeouts: timeouts::of(read),
    }
}
