//! Retries that multiply calls, repeat what may not be repeatable, or do not fit into the whole; as they act, whoever
//! wrote them.

use kube::ResourceExt as _;

use super::{
    Finding, Rule,
    Severity::{Hint, Warning},
    clients,
};
use crate::{Cluster, effect::Protocol, explain, explain::Rule as Effective};

/// From this many tries of one call on, a chain of services multiplies a failure beyond use.
const MANY: u32 = 5;

pub(super) fn lint(cluster: &Cluster, findings: &mut Vec<Finding>) {
    for service in &cluster.services {
        let (namespace, name) = (service.namespace().unwrap_or_default(), service.name_any());
        let object = format!("Service {namespace}/{name}");
        for (port, clients) in clients(cluster, service) {
            for client in clients {
                let Ok(explained) = explain(cluster, &namespace, &name, port, &client) else {
                    continue;
                };
                // Of clients elsewhere only their own routes are news.
                let news = explained.rules.iter().filter(|rule| {
                    client == namespace || rule.route.as_ref().is_some_and(|route| route.namespace == client)
                });
                findings.extend(news.flat_map(|rule| of_rule(rule, explained.protocol, &object)));
            }
        }
    }
}

fn of_rule(rule: &Effective, protocol: Protocol, object: &str) -> Vec<Finding> {
    let Some(retry) = &rule.retry else { return Vec::new() };
    let retry = &retry.values;
    let place = rule
        .route
        .as_ref()
        .map_or_else(|| object.to_owned(), ToString::to_string);
    let mut found = Vec::new();
    let tries = u32::from(retry.limit) + 1;
    if tries >= MANY {
        let three = u64::from(tries).saturating_pow(3);
        let message = format!("{tries} tries of each call; three such services in a chain make {three} calls of one");
        found.push(
            Finding::new(Warning, Rule::RetryAmplification, &place, message).hint("retry in one place of a chain"),
        );
    }
    // Without statuses a try that takes too long is still repeated.
    let again = !retry.statuses.is_empty() || retry.timeout.is_some();
    if protocol == Protocol::Http && again && rule.matches.iter().any(|text| repeats(text)) {
        let when = if retry.statuses.is_empty() {
            " when a try takes longer than its timeout"
        } else {
            ""
        };
        let message = format!("requests with POST and PATCH are retried, too{when}");
        found.push(
            Finding::new(Hint, Rule::PostRetries, &place, message)
                .hint("list routes with the methods that can be repeated, if the service does not tell repeats apart"),
        );
    }
    let total = rule.timeouts.as_ref().and_then(|timeouts| timeouts.values.request);
    if let (Some(each), Some(total)) = (retry.timeout, total) {
        if each >= total {
            let message =
                format!("a try may take {each}ms, which is all of the request's {total}ms: nothing is ever retried");
            found.push(Finding::new(Warning, Rule::RetryTimeout, &place, message));
        } else if each.saturating_mul(tries.into()) > total {
            let message = format!("{tries} tries of {each}ms do not fit into the request's {total}ms");
            found.push(Finding::new(Hint, Rule::RetryTimeout, &place, message));
        }
    }
    found
}

/// Whether requests are meant that change something anew each time.
fn repeats(text: &str) -> bool {
    let first = text.split(' ').next().unwrap_or_default();
    let other = ["GET", "HEAD", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE"];
    !other.contains(&first)
}
