//! Where a value comes from.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::Service, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Resource as _, ResourceExt as _};
use serde::Serialize;

use crate::{
    Cluster, PolicyName,
    annotations::{
        BIAS_MAX_RETRY_AFTER, BIAS_PENALTY, FAILURE_ACCRUAL, HONOR_RETRY_AFTER, JITTER_RATIO, MAX_FAILURES,
        MAX_PENALTY, MIN_PENALTY, PENALIZE_FAILURES, RETRY_GRPC, RETRY_HTTP, RETRY_LIMIT, RETRY_TIMEOUT,
        SUCCESS_MIN_REQUESTS, SUCCESS_THRESHOLD, SUCCESS_WINDOW, TIMEOUT_IDLE, TIMEOUT_REQUEST, TIMEOUT_RESPONSE,
    },
    effect::Stored,
    route::{Route, RouteName},
};

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase", tag = "from")]
pub enum Origin {
    /// An annotation that policies wrote.
    #[serde(rename_all = "camelCase")]
    Policy {
        /// The policies; more than one if they agree.
        policies: Vec<PolicyName>,
        /// The annotation.
        key: &'static str,
        /// The route that carries it; the Service when absent.
        #[serde(skip_serializing_if = "Option::is_none")]
        route: Option<RouteName>,
    },
    /// An annotation of the Service that somebody else wrote.
    Service {
        /// The annotation.
        key: &'static str,
    },
    /// An annotation of a route that somebody else wrote.
    Route {
        /// The route.
        route: RouteName,
        /// The annotation.
        key: &'static str,
    },
    /// A field of a route.
    Field {
        /// The route.
        route: RouteName,
        /// The field.
        field: &'static str,
    },
    /// Nobody said anything.
    Linkerd,
}

/// Fields of a block, each with the annotation that sets it.
pub(super) type Fields = [(&'static str, &'static str)];

pub(super) const BREAKER: [(&str, &str); 9] = [
    ("mode", FAILURE_ACCRUAL),
    ("maxFailures", MAX_FAILURES),
    ("minPenalty", MIN_PENALTY),
    ("maxPenalty", MAX_PENALTY),
    ("jitterRatio", JITTER_RATIO),
    ("threshold", SUCCESS_THRESHOLD),
    ("window", SUCCESS_WINDOW),
    ("minRequests", SUCCESS_MIN_REQUESTS),
    ("honorRetryAfter", HONOR_RETRY_AFTER),
];

/// Fields of a breaker that only `unified` has.
pub(super) const UNIFIED: [&str; 4] = ["threshold", "window", "minRequests", "honorRetryAfter"];

pub(super) const LOAD_BIAS: [(&str, &str); 3] = [
    ("enabled", PENALIZE_FAILURES),
    ("penalty", BIAS_PENALTY),
    ("maxRetryAfter", BIAS_MAX_RETRY_AFTER),
];

pub(super) const HTTP_RETRY: [(&str, &str); 3] = [
    ("limit", RETRY_LIMIT),
    ("statuses", RETRY_HTTP),
    ("timeout", RETRY_TIMEOUT),
];

pub(super) const GRPC_RETRY: [(&str, &str); 3] = [
    ("limit", RETRY_LIMIT),
    ("codes", RETRY_GRPC),
    ("timeout", RETRY_TIMEOUT),
];

pub(super) const TIMEOUTS: [(&str, &str); 3] = [
    ("request", TIMEOUT_REQUEST),
    ("response", TIMEOUT_RESPONSE),
    ("idle", TIMEOUT_IDLE),
];

/// The origins of a block that was read from the Service.
pub(super) fn of_service(cluster: &Cluster, service: &Service, fields: &Fields) -> BTreeMap<&'static str, Origin> {
    origins(cluster, service.meta(), service.annotations(), None, fields)
}

/// The origins of a block that was read from a route.
pub(super) fn of_route(cluster: &Cluster, route: Route<'_>, fields: &Fields) -> BTreeMap<&'static str, Origin> {
    origins(cluster, route.meta(), route.annotations(), Some(route), fields)
}

fn origins(
    cluster: &Cluster,
    meta: &ObjectMeta,
    stored: &Stored,
    route: Option<Route<'_>>,
    fields: &Fields,
) -> BTreeMap<&'static str, Origin> {
    let of = |key: &'static str| {
        if !stored.contains_key(key) {
            return Origin::Linkerd;
        }
        let policies = crate::owner::policies_of(meta, key, &cluster.policies);
        let route = route.map(Route::full_name);
        match (policies.is_empty(), route) {
            (false, route) => Origin::Policy { policies, key, route },
            (true, Some(route)) => Origin::Route { route, key },
            (true, None) => Origin::Service { key },
        }
    };
    fields.iter().map(|(field, key)| (*field, of(key))).collect()
}
