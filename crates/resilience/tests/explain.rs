//! P11: what `explain` says of a random cluster is what the independent model says, field by field.
//! `PROPTEST_CASES` sets the number of cases.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, like tests")]

use proptest::{prelude::*, test_runner::FileFailurePersistence};
use trellis_model::{Mode, Outlook, outlook};
use trellis_resilience::{
    Explanation,
    effect::{Mode as Counted, Protocol},
    explain,
};

#[path = "explain/clusters.rs"]
mod clusters;

use clusters::{Case, case};

/// Both, in one shape that has every value and no origin.
#[derive(Debug, PartialEq)]
struct Told {
    inert: Option<String>,
    grpc: bool,
    breaker: Option<(bool, u32, u64, u64, u32)>,
    share: Option<(u64, u64, u32, bool)>,
    bias: Option<(u64, u64)>,
    rules: Vec<Rule>,
    others_refused: bool,
}

type Retry = (u16, Vec<(u16, u16)>, Vec<String>, Option<u64>);
type Rule = (Option<String>, usize, Option<String>, Option<Retry>, [Option<u64>; 3]);

fn by_product(found: &Explanation) -> Told {
    let breaker = found.breaker.as_ref().map(|breaker| breaker.values);
    Told {
        inert: found.inert.as_ref().map(|inert| inert.reason.clone()),
        grpc: found.protocol == Protocol::Grpc,
        breaker: breaker.map(|it| {
            let unified = it.mode == Counted::Unified;
            (
                unified,
                it.max_failures,
                it.min_penalty,
                it.max_penalty,
                it.jitter_ratio.to_bits(),
            )
        }),
        share: breaker.and_then(|it| it.success_rate).map(|rate| {
            (
                rate.threshold.to_bits(),
                rate.window,
                rate.min_requests,
                rate.honor_retry_after,
            )
        }),
        bias: found
            .load_bias
            .as_ref()
            .map(|bias| (bias.values.penalty, bias.values.max_retry_after)),
        rules: found
            .rules
            .iter()
            .map(|rule| {
                let retry = rule.retry.as_ref().map(|retry| {
                    let values = &retry.values;
                    let codes = values.codes.iter().map(|&code| code.to_owned()).collect();
                    (values.limit, values.statuses.clone(), codes, values.timeout)
                });
                let timeouts = rule.timeouts.as_ref().map(|it| it.values).unwrap_or_default();
                let route = rule.route.as_ref().map(ToString::to_string);
                (
                    route,
                    rule.index,
                    rule.taken_by.as_ref().map(ToString::to_string),
                    retry,
                    [timeouts.request, timeouts.response, timeouts.idle],
                )
            })
            .collect(),
        others_refused: found.others_refused,
    }
}

fn by_model(found: &Outlook) -> Told {
    Told {
        inert: found.inert.map(|inert| format!("{inert:?}")),
        grpc: found.grpc,
        breaker: found.breaker.map(|it| {
            let unified = it.mode != Mode::Consecutive;
            (
                unified,
                it.max_failures,
                it.min_penalty,
                it.max_penalty,
                it.jitter.to_bits(),
            )
        }),
        share: found.breaker.and_then(|it| match it.mode {
            Mode::Consecutive => None,
            Mode::Unified(rate) => Some((
                rate.threshold.to_bits(),
                rate.window,
                rate.min_requests,
                rate.honor_retry_after,
            )),
        }),
        bias: found.bias.map(|bias| (bias.penalty, bias.max_retry_after)),
        rules: found
            .rules
            .iter()
            .map(|rule| {
                let retry = rule.retry.as_ref().map(|it| {
                    (
                        it.retry.limit,
                        it.retry.statuses.clone(),
                        it.codes.clone(),
                        it.retry.timeout,
                    )
                });
                let timeouts = [rule.timeouts.request, rule.timeouts.response, rule.timeouts.idle];
                (rule.route.clone(), rule.index, rule.taken_by.clone(), retry, timeouts)
            })
            .collect(),
        others_refused: found.others_refused,
    }
}

fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn explain_is_true(case in case()) {
        let Case { ref cluster, port, client, .. } = case;
        let found = explain(cluster, "shop", "web", port, client);
        let expected = outlook(&case.state(), "shop", "web", port.into(), client);
        match found {
            Ok(found) => {
                prop_assert_eq!(by_product(&found), by_model(&expected));
                // A value has an origin, and an origin a value.
                for rule in &found.rules {
                    prop_assert!(rule.retry.as_ref().is_none_or(|retry| retry.origins.len() == 3));
                    let set = rule.timeouts.as_ref().map_or(0, |timeouts| timeouts.origins.len());
                    let timeouts = rule.timeouts.as_ref().map(|timeouts| timeouts.values).unwrap_or_default();
                    let values = [timeouts.request, timeouts.response, timeouts.idle];
                    prop_assert_eq!(set, values.iter().flatten().count());
                }
            }
            Err(refusal) => prop_assert_eq!(Some(refusal.reason.to_owned()), by_model(&expected).inert),
        }
    }

    /// The order in which the API server lists things is irrelevant.
    #[test]
    fn order_is_irrelevant(case in case()) {
        let mut turned = case.cluster.clone();
        turned.http_routes.reverse();
        turned.grpc_routes.reverse();
        turned.linkerd_routes.reverse();
        turned.profiles.reverse();
        let told = |cluster| explain(cluster, "shop", "web", case.port, case.client).map(|found| by_product(&found));
        prop_assert_eq!(told(&turned), told(&case.cluster));
    }
}

/// The generator reaches what it is there for.
#[test]
fn random_clusters_are_varied() {
    use proptest::{strategy::ValueTree as _, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let (mut inert, mut grpc, mut routed, mut retried, mut timed, mut broken, mut unified, mut biased) =
        (0, 0, 0, 0, 0, 0, 0, 0);
    let (mut taken, mut linkerds) = (0, 0);
    for _ in 0..4000 {
        let case = case().new_tree(&mut runner).unwrap().current();
        let found = outlook(&case.state(), "shop", "web", case.port.into(), case.client);
        inert += i32::from(found.inert.is_some());
        grpc += i32::from(found.grpc);
        routed += i32::from(found.others_refused);
        retried += i32::from(
            found
                .rules
                .iter()
                .any(|rule| rule.route.is_some() && rule.retry.is_some()),
        );
        timed += i32::from(
            found
                .rules
                .iter()
                .any(|rule| rule.route.is_some() && rule.timeouts.request.is_some()),
        );
        taken += i32::from(found.rules.iter().any(|rule| rule.taken_by.is_some()));
        let own = |route: &String| route.starts_with("HTTPRoute.policy.linkerd.io ");
        linkerds += i32::from(found.rules.iter().any(|rule| rule.route.as_ref().is_some_and(own)));
        broken += i32::from(found.breaker.is_some());
        unified += i32::from(found.breaker.is_some_and(|breaker| breaker.mode != Mode::Consecutive));
        biased += i32::from(found.bias.is_some());
    }
    for (what, count) in [
        ("inert", inert),
        ("grpc", grpc),
        ("routed", routed),
        ("retried", retried),
        ("timed", timed),
        ("broken", broken),
        ("unified", unified),
        ("biased", biased),
        ("taken", taken),
        ("linkerds", linkerds),
    ] {
        assert!((60..3900).contains(&count), "{what}: {count} of 4000");
    }
}
