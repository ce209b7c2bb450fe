//! What requests get, rule by rule: the rule's own block, or else the Service's, whole.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt as _;
use serde::Serialize;

use super::{
    From,
    origin::{self, Fields, Origin},
    text,
};
use crate::{
    Cluster,
    effect::{Protocol, Retry, Timeouts},
    route::{Route, RouteName},
    served::{self, Served, route_retry, rule_timeouts},
};

/// What the requests of a rule get.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// The route; absent: the default route, which takes every request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<RouteName>,
    /// Index of the rule in the route.
    pub index: usize,
    /// Which requests, in words.
    pub matches: Vec<String>,
    /// The route that gets all of these requests instead, since it is older and names the same: no request takes this
    /// rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub taken_by: Option<RouteName>,
    /// Retries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<From<Retry>>,
    /// Timeouts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<From<Timeouts>>,
}

pub(super) fn rules(cluster: &Cluster, service: &Service, served: &Served<'_>) -> Vec<Rule> {
    let retry = Retry::read(service.annotations(), served.protocol).unwrap_or_default();
    let timeouts = Timeouts::read(service.annotations()).unwrap_or_default();
    let retry = retry.map(|values| {
        let origins = origin::of_service(cluster, service, retry_fields(served.protocol));
        From { values, origins }
    });
    let timeouts = (!timeouts.is_empty()).then(|| {
        let origins = origin::of_service(cluster, service, &origin::TIMEOUTS);
        timed(timeouts, origins)
    });
    if served.routes.is_empty() {
        return vec![Rule {
            route: None,
            index: 0,
            matches: vec!["every request".into()],
            taken_by: None,
            retry,
            timeouts,
        }];
    }
    let mut rules = Vec::new();
    for (route, takers) in served.routes.iter().zip(served::takers(&served.routes)) {
        let own_retry = route_retry(*route).map(|values| From {
            values,
            origins: origin::of_route(cluster, *route, retry_fields(served.protocol)),
        });
        let timed_rules = rule_timeouts(*route, cluster).into_iter().zip(takers);
        for (index, ((own, from_field), taker)) in timed_rules.enumerate() {
            rules.push(Rule {
                route: Some(route.full_name()),
                index,
                matches: text::matches(*route, index),
                taken_by: taker.map(Route::full_name),
                retry: own_retry.clone().or_else(|| retry.clone()),
                timeouts: if own.is_empty() {
                    timeouts.clone()
                } else {
                    Some(timed(own, route_origins(cluster, *route, from_field)))
                },
            });
        }
    }
    rules
}

fn route_origins(cluster: &Cluster, route: Route<'_>, from_field: bool) -> BTreeMap<&'static str, Origin> {
    let mut origins = origin::of_route(cluster, route, &origin::TIMEOUTS);
    if from_field {
        let field = Origin::Field {
            route: route.full_name(),
            field: "spec.rules.timeouts.request",
        };
        origins.insert("request", field);
    }
    origins
}

/// A timeout that is not set has no origin: there is no default.
fn timed(values: Timeouts, mut origins: BTreeMap<&'static str, Origin>) -> From<Timeouts> {
    origins.retain(|_, origin| *origin != Origin::Linkerd);
    From { values, origins }
}

fn retry_fields(protocol: Protocol) -> &'static Fields {
    match protocol {
        Protocol::Http => &origin::HTTP_RETRY,
        Protocol::Grpc => &origin::GRPC_RETRY,
    }
}
