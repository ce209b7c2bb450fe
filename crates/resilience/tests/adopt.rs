//! Hand-written annotations, a ServiceProfile, and what differs: from other forms to policies.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, like tests")]

use proptest::{prelude::*, test_runner::FileFailurePersistence};
use rstest::rstest;
use serde_json::{Value, json};
use trellis_bindings::linkerd::ServiceProfile;
use trellis_resilience::{
    adopt::adopt,
    annotations::{Place, keys},
    diff::{Change, diff, effect},
    enact, explain,
    migrate::service_profile,
    project::project,
};

#[path = "explain/clusters.rs"]
#[expect(dead_code, reason = "what is asked of a cluster is decided here")]
mod clusters;

fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    /// The annotations that a policy takes over go, the policy comes, and no call notices.
    #[test]
    fn adoption_changes_nothing(case in clusters::case()) {
        let mut cluster = case.cluster;
        cluster.http_routes.clear();
        cluster.grpc_routes.clear();
        cluster.profiles.clear();
        let service = cluster.services[0].clone();
        let adoption = adopt(&service.metadata, Place::Service, &cluster.mesh.version);
        let told = |cluster: &trellis_resilience::Cluster| {
            [80, 81, 3306].map(|port| explain(cluster, "shop", "web", port, "shop").ok().map(|told| effect(&told)))
        };
        let before = told(&cluster);
        let Some(policy) = adoption.policy else { return Ok(()) };
        // What the policy spells otherwise is removed first, as the adoption says.
        for key in adoption.respelt.keys() {
            cluster.services[0].metadata.annotations.as_mut().unwrap().remove(key);
        }
        cluster.policies = vec![policy].into();
        let enacted = enact(&cluster.policies[0], &cluster);
        if enacted.targets.iter().any(|target| target.refusal().is_some()) {
            return Ok(());
        }
        let (mut after, conflicts) = project(&cluster);
        prop_assert!(conflicts.is_empty(), "{:?}", conflicts);
        prop_assert_eq!(told(&after), before.clone());
        // Now the hand-written ones may go as well.
        let section_keys: Vec<&str> =
            cluster.policies[0].spec.sections().flat_map(|section| keys(section).iter().copied()).collect();
        let written = &enacted.targets[0].annotations;
        let kept = after.services[0].metadata.annotations.as_mut().unwrap();
        kept.retain(|key, _| !section_keys.contains(&key.as_str()) || written.contains_key(key.as_str()));
        prop_assert_eq!(told(&after), before);
    }
}

fn meta(annotations: &Value) -> k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
    serde_json::from_value(json!({"name": "web", "namespace": "shop", "annotations": annotations})).unwrap()
}

#[rstest]
#[case::all(
    Place::Service,
    json!({
        "balancer.linkerd.io/failure-accrual": "consecutive", "balancer.linkerd.io/failure-accrual-consecutive-max-failures": "3",
        "retry.linkerd.io/limit": "2", "retry.linkerd.io/http": "5xx,429", "timeout.linkerd.io/request": " 2s ",
    }),
    json!({
        "targetRef": {"kind": "Service", "name": "web"}, "strategy": "Defaults",
        "circuitBreaker": {"enabled": true, "failureThreshold": 3, "failureAccrualMethod": "consecutive"},
        "retry": {"enabled": true, "maxAttempts": 2, "retryableStatusCodes": "429,5xx"},
        "timeout": {"enabled": true, "requestTimeout": "2s"},
    }),
    &["retry.linkerd.io/http", "timeout.linkerd.io/request"],
)]
#[case::route(
    Place::GrpcRoute,
    json!({"retry.linkerd.io/limit": "2", "retry.linkerd.io/grpc": "Unavailable"}),
    json!({
        "targetRef": {"kind": "GRPCRoute", "name": "web"}, "strategy": "Defaults",
        "retry": {"enabled": true, "maxAttempts": 2, "retryableStatusCodes": "5xx", "retryableGrpcCodes": "unavailable"},
    }),
    &["retry.linkerd.io/grpc"],
)]
fn a_policy_says_the_same(
    #[case] place: Place,
    #[case] annotations: Value,
    #[case] spec: Value,
    #[case] respelt: &[&str],
) {
    let found = adopt(&meta(&annotations), place, &"2.20".parse().unwrap());
    assert_eq!(serde_json::to_value(found.policy.unwrap().spec).unwrap(), spec);
    assert_eq!(found.respelt.keys().collect::<Vec<_>>(), respelt);
    assert!(found.left.is_empty(), "{:?}", found.left);
}

#[rstest]
#[case::unreadable(json!({"timeout.linkerd.io/idle": "1m30s"}), "must be a whole number")]
#[case::zero(json!({"timeout.linkerd.io/request": "0s"}), "0s")]
#[case::no_statuses(json!({"retry.linkerd.io/limit": "2"}), "without retry.linkerd.io/http")]
#[case::too_many(json!({"retry.linkerd.io/limit": "50", "retry.linkerd.io/http": "5xx"}), "between 1 and 10")]
#[case::never(json!({"balancer.linkerd.io/failure-accrual": "consecutive", "balancer.linkerd.io/failure-accrual-consecutive-max-failures": "0"}), "between 1 and 100")]
#[case::implicit(json!({"balancer.linkerd.io/failure-accrual-consecutive-max-failures": "3"}), "ignores it")]
fn what_no_policy_says_is_left(#[case] annotations: Value, #[case] words: &str) {
    let found = adopt(&meta(&annotations), Place::Service, &"2.20".parse().unwrap());
    assert_eq!(found.policy, None);
    assert!(
        found.left.len() == 1 && found.left[0].contains(words),
        "{:?}",
        found.left
    );
}

fn profile(namespace: &str, spec: &Value) -> ServiceProfile {
    serde_json::from_value(json!({
        "apiVersion": "linkerd.io/v1alpha2", "kind": "ServiceProfile",
        "metadata": {"name": "web.shop.svc.cluster.local", "namespace": namespace}, "spec": spec,
    }))
    .unwrap()
}

#[test]
fn a_profile_becomes_policies() {
    let spec = json!({
        "routes": [
            {"name": "GET /cart", "condition": {"method": "GET", "pathRegex": "/cart"}, "isRetryable": true, "timeout": "1.5s"},
            {"name": "PUT /cart/{id}", "condition": {"method": "PUT", "pathRegex": "/cart/[^/]*"}, "isRetryable": true, "timeout": "1500ms"},
            {"name": "slow", "condition": {"pathRegex": "/slow"}, "timeout": "1m30s"},
            {"name": "plain", "condition": {"pathRegex": "/plain"}},
            {"name": "odd", "condition": {"not": {"method": "GET"}}, "isRetryable": true},
        ],
        "retryBudget": {"retryRatio": 0.2, "minRetriesPerSecond": 10, "ttl": "10s"},
        "dstOverrides": [{"authority": "web-v2", "weight": "1"}],
    });
    let found = service_profile(&profile("shop", &spec), "cluster.local").unwrap();
    let specs: Vec<Value> = found.policies.iter().map(|policy| json!(policy.spec)).collect();
    assert_eq!(
        found
            .policies
            .iter()
            .map(|it| it.metadata.name.as_deref().unwrap())
            .collect::<Vec<_>>(),
        ["web-profile-1", "web-profile-2"]
    );
    assert_eq!(
        specs[0],
        json!({
            "targetRef": {"kind": "Service", "name": "web"}, "strategy": "Defaults",
            "routes": [
                {"name": "get-cart-1", "http": {"matches": [{"method": "GET", "path": {"type": "Exact", "value": "/cart"}}]}},
                {"name": "put-cart-id-2", "http": {"matches": [{"method": "PUT", "path": {"type": "RegularExpression", "value": "^(?:/cart/[^/]*)$"}}]}},
            ],
            "retry": {"enabled": true, "maxAttempts": 1, "retryableStatusCodes": "5xx"},
            "timeout": {"enabled": true, "requestTimeout": "1500ms"},
        })
    );
    assert_eq!(specs[1]["timeout"]["requestTimeout"], "90s");
    for words in [
        "route odd",
        "retryBudget",
        "dstOverrides",
        "maxAttempts is 1",
        "once ServiceProfile",
    ] {
        assert!(
            found.notes.iter().any(|note| note.contains(words)),
            "{words}: {:?}",
            found.notes
        );
    }
}

#[test]
fn a_clients_profile_becomes_consumer_policies() {
    let spec = json!({"routes": [{"name": "a", "condition": {"method": "GET"}, "isRetryable": true, "responseClasses": [
        {"condition": {"status": {"min": 500, "max": 504}}, "isFailure": true}, {"condition": {"status": {"min": 429, "max": 429}}, "isFailure": true},
    ]}]});
    let found = service_profile(&profile("other", &spec), "cluster.local").unwrap();
    let policy = &found.policies[0];
    assert_eq!(policy.metadata.namespace.as_deref(), Some("other"));
    assert_eq!(
        policy.spec.target_ref.as_ref().unwrap().namespace.as_deref(),
        Some("shop")
    );
    assert_eq!(
        policy.spec.retry.as_ref().unwrap().retryable_status_codes,
        "429,500-504"
    );
}

#[test]
fn more_than_fits_becomes_several_policies() {
    let routes: Vec<Value> = (0..20)
        .map(|index| json!({"name": format!("r{index}"), "condition": {"pathRegex": format!("/r{index}")}, "isRetryable": true}))
        .collect();
    let found = service_profile(&profile("shop", &json!({"routes": routes})), "cluster.local").unwrap();
    assert_eq!(
        found
            .policies
            .iter()
            .map(|policy| policy.spec.routes.len())
            .collect::<Vec<_>>(),
        [8, 8, 4]
    );
}

#[test]
fn the_order_of_a_profile_is_told_where_it_matters() {
    let routes = json!([
        {"name": "health", "condition": {"pathRegex": "/api/health"}},
        {"name": "purge", "condition": {"method": "PURGE"}, "isRetryable": true},
        {"name": "api", "condition": {"pathRegex": "/api/.*"}, "isRetryable": true},
        {"name": "cart", "condition": {"pathRegex": "/cart"}, "isRetryable": true},
    ]);
    let found = service_profile(&profile("shop", &json!({"routes": routes})), "cluster.local").unwrap();
    let told = |words: &str| found.notes.iter().filter(|note| note.contains(words)).count();
    assert_eq!(told("route health comes before route api"), 1, "{:?}", found.notes);
    assert_eq!(
        told("comes before"),
        1,
        "disjoint or of the same settings: {:?}",
        found.notes
    );
    assert_eq!(told("method \"PURGE\" has no counterpart"), 1, "{:?}", found.notes);
    let entries = found.policies.iter().flat_map(|policy| &policy.spec.routes);
    assert_eq!(entries.count(), 2, "one bad route leaves the others");
}

#[test]
fn a_route_that_nobody_can_read_may_fit_anything() {
    for unreadable in [json!({"method": "PURGE"}), json!({"any": []}), json!(null)] {
        let routes = json!([
            {"name": "odd", "condition": unreadable},
            {"name": "cart", "condition": {"pathRegex": "/cart"}, "isRetryable": true},
        ]);
        let found = service_profile(&profile("shop", &json!({"routes": routes})), "cluster.local").unwrap();
        for words in [
            "route odd: its condition|route odd: it has no condition|route odd: its method",
            "route odd comes before route cart",
        ] {
            let told = |note: &String| words.split('|').any(|words| note.contains(words));
            assert!(found.notes.iter().any(told), "{words}: {:?}", found.notes);
        }
    }
}

#[test]
fn notes_about_pairs_are_bounded() {
    let routes: Vec<Value> = (1..=10)
        .map(|n| json!({"name": n.to_string(), "condition": {"pathRegex": ".*"}, "timeout": format!("{n}s")}))
        .collect();
    let found = service_profile(&profile("shop", &json!({"routes": routes})), "cluster.local").unwrap();
    let told = found.notes.iter().filter(|note| note.contains("has what fits both"));
    assert_eq!(told.count(), 20);
    assert!(
        found.notes.iter().any(|note| note.starts_with("and 25 more")),
        "{:?}",
        found.notes
    );
}

#[test]
fn a_profile_of_something_else_is_refused() {
    let refusal = service_profile(&profile("shop", &json!({})), "corp.example").unwrap_err();
    assert!(refusal.message.contains("corp.example"));
}

#[test]
fn a_diff_says_what_is_stored_and_what_calls_get() {
    let service = json!({
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 80}]},
    });
    let mut cluster = trellis_resilience::Cluster::of(trellis_resilience::Mesh::from_flag("2.20").unwrap());
    cluster.services = vec![serde_json::from_value(service).unwrap()].into();
    cluster.policies = vec![
        serde_json::from_value(json!({
            "apiVersion": "resilience.trellis.dev/v1alpha1", "kind": "ResiliencePolicy",
            "metadata": {"name": "p", "namespace": "shop"},
            "spec": {"targetRef": {"name": "web"}, "timeout": {"requestTimeout": "1s"}},
        }))
        .unwrap(),
    ]
    .into();
    let (after, _) = project(&cluster);
    let found = diff(&cluster, &after);
    assert_eq!(found.objects.len(), 1);
    assert_eq!(
        (found.objects[0].object.as_str(), found.objects[0].change),
        ("Service shop/web", Change::Changed)
    );
    assert_eq!(
        found.objects[0].annotations["timeout.linkerd.io/request"],
        (None, Some("1s".to_owned()))
    );
    assert_eq!(found.calls.len(), 1);
    let rule = &found.calls[0].after.as_ref().unwrap().rules[0];
    assert_eq!(rule.timeouts.as_ref().unwrap().values.request, Some(1000));
    assert_eq!(
        serde_json::to_value(&rule.timeouts.as_ref().unwrap().origins).unwrap(),
        json!({"request": {"from": "policy", "policies": ["shop/p"], "key": "timeout.linkerd.io/request"}})
    );
    assert_eq!(diff(&after, &after), trellis_resilience::diff::Diff::default());
}

#[test]
fn a_diff_shows_rate_limits_and_what_is_made_for_policies() {
    let mut cluster = trellis_resilience::Cluster::of(trellis_resilience::Mesh::from_flag("2.20").unwrap());
    cluster.services = vec![
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"clusterIP": "10.0.0.1", "selector": {"app": "web"}, "ports": [{"port": 80}]},
        }))
        .unwrap(),
    ]
    .into();
    let policy = |rate: u32| {
        serde_json::from_value(json!({
            "apiVersion": "resilience.trellis.dev/v1alpha1", "kind": "ResiliencePolicy",
            "metadata": {"name": "p", "namespace": "shop"},
            "spec": {"targetRef": {"name": "web", "port": 80}, "rateLimit": {
                "enabled": true, "requestsPerSecond": rate, "createServer": {"accessPolicy": "deny"}}},
        }))
        .unwrap()
    };
    let none = project(&cluster).0;
    cluster.policies = vec![policy(5)].into();
    let five = project(&cluster).0;
    cluster.policies = vec![policy(9)].into();
    let nine = project(&cluster).0;

    let made = diff(&none, &five).objects;
    let kinds: Vec<_> = made.iter().map(|it| (it.object.as_str(), it.change)).collect();
    assert_eq!(
        kinds,
        [
            ("HTTPLocalRateLimitPolicy shop/p", Change::Added),
            ("Server shop/p", Change::Added)
        ]
    );
    assert_eq!(made[1].fields["accessPolicy"], (None, Some("deny".to_owned())));
    let edited = diff(&five, &nine).objects;
    assert_eq!(edited.len(), 1);
    assert_eq!(
        edited[0].fields["total.requestsPerSecond"],
        (Some("5".to_owned()), Some("9".to_owned()))
    );
    // Projected again, what was made for the policy is what it is.
    assert_eq!(
        diff(&nine, &project(&nine).0),
        trellis_resilience::diff::Diff::default()
    );
}
