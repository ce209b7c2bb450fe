//! Every rule of the linter finds what it is for, and nothing where nothing is wrong.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, like tests")]

use std::collections::BTreeSet;

use rstest::rstest;
use serde_json::{Value, json};
use strum::IntoEnumIterator as _;
use trellis_resilience::{
    Cluster, Mesh,
    lint::{Finding, Rule, lint},
};

fn route(kind: &str, annotations: &Value, rule: &Value, parent: &Value) -> Value {
    let verdict = json!({
        "controllerName": "linkerd.io/policy-controller", "parentRef": parent,
        "conditions": [{"type": "Accepted", "status": "True"}],
    });
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": kind,
        "metadata": {"name": "r", "namespace": "shop", "annotations": annotations},
        "spec": {"parentRefs": [parent], "rules": [rule]},
        "status": {"parents": [verdict]},
    })
}

fn cluster(version: &str, annotations: &Value, routes: &[Value], policy: &Value) -> Cluster {
    let service = json!({
        "metadata": {"name": "web", "namespace": "shop", "annotations": annotations},
        "spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 80}]},
    });
    let of = |kind: &str| {
        routes
            .iter()
            .filter(|route| route["kind"] == kind)
            .cloned()
            .collect::<Vec<_>>()
    };
    let policies = policy.as_object().map(|_| {
        serde_json::from_value(json!({
            "apiVersion": "resilience.trellis.dev/v1alpha1", "kind": "ResiliencePolicy",
            "metadata": {"name": "p", "namespace": "shop"}, "spec": policy,
        }))
        .unwrap()
    });
    Cluster {
        services: vec![serde_json::from_value(service).unwrap()].into(),
        http_routes: of("HTTPRoute")
            .into_iter()
            .map(|it| serde_json::from_value(it).unwrap())
            .collect(),
        grpc_routes: of("GRPCRoute")
            .into_iter()
            .map(|it| serde_json::from_value(it).unwrap())
            .collect(),
        policies: policies.into_iter().collect(),
        ..Cluster::of(Mesh::from_flag(version).unwrap())
    }
}

fn web() -> Value {
    json!({"group": "", "kind": "Service", "name": "web"})
}

fn service(version: &str, annotations: &Value) -> Vec<Finding> {
    lint(&cluster(version, annotations, &[], &Value::Null))
}

#[rstest]
#[case::statuses(json!({"retry.linkerd.io/http": "3"}), Rule::InvalidAnnotation, "retry.linkerd.io/http: \"3\"")]
#[case::mode(json!({"balancer.linkerd.io/failure-accrual": "Consecutive"}), Rule::InvalidAnnotation, "be consecutive or unified")]
#[case::idle(json!({"timeout.linkerd.io/idle": "1m30s"}), Rule::InvalidAnnotation, "one unit")]
#[case::earlier_count(json!({"config.linkerd.io/failure-accrual-consecutive-max-failures": "3"}), Rule::LegacyAnnotation, "write balancer.linkerd.io/failure-accrual-consecutive-max-failures")]
#[case::earlier_mode(json!({"config.linkerd.io/failure-accrual": "consecutive"}), Rule::LegacyAnnotation, "write balancer.linkerd.io/failure-accrual")]
#[case::earlier_codes(json!({"retry.linkerd.io/http-status-codes": "5xx"}), Rule::LegacyAnnotation, "write retry.linkerd.io/http")]
#[case::typo(json!({"timeout.linkerd.io/requests": "1s"}), Rule::UnknownAnnotation, "timeout.linkerd.io/requests")]
#[case::no_mode(json!({"balancer.linkerd.io/failure-accrual-consecutive-max-failures": "3"}), Rule::DeadAnnotation, "there is no balancer.linkerd.io/failure-accrual")]
#[case::no_statuses(json!({"retry.linkerd.io/limit": "3"}), Rule::DeadAnnotation, "no response is retried")]
#[case::limit_zero(json!({"retry.linkerd.io/limit": "0", "retry.linkerd.io/http": "5xx"}), Rule::DeadAnnotation, "switches nothing off")]
#[case::zero(json!({"timeout.linkerd.io/request": "0s"}), Rule::ZeroTimeout, "ends every request")]
#[case::window(json!({"balancer.linkerd.io/failure-accrual": "unified", "balancer.alpha.linkerd.io/failure-accrual-success-rate-window": "5ms"}), Rule::RejectedByProxy, "every request fails")]
#[case::many(json!({"retry.linkerd.io/limit": "9", "retry.linkerd.io/http": "503"}), Rule::RetryAmplification, "1000 calls of one")]
#[case::post(json!({"retry.linkerd.io/http": "503"}), Rule::PostRetries, "POST")]
#[case::post_slow(json!({"retry.linkerd.io/timeout": "1s"}), Rule::PostRetries, "longer than its timeout")]
#[case::honor(json!({"balancer.linkerd.io/failure-accrual": "unified", "balancer.alpha.linkerd.io/failure-accrual-honor-retry-after": "yes"}), Rule::InvalidAnnotation, "takes it for false")]
#[case::penalize(json!({"balancer.alpha.linkerd.io/penalize-failures": "yes"}), Rule::InvalidAnnotation, "be true or false")]
#[case::long(json!({"retry.linkerd.io/http": "x".repeat(5000)}), Rule::InvalidAnnotation, "… (5000 characters)")]
#[case::useless_try(json!({"retry.linkerd.io/http": "503", "retry.linkerd.io/timeout": "2s", "timeout.linkerd.io/request": "2s"}), Rule::RetryTimeout, "nothing is ever retried")]
#[case::long_tries(json!({"retry.linkerd.io/http": "503", "retry.linkerd.io/timeout": "2s", "timeout.linkerd.io/request": "3s"}), Rule::RetryTimeout, "2 tries of 2000ms")]
fn a_services_annotations_are_judged(#[case] annotations: Value, #[case] rule: Rule, #[case] words: &str) {
    let found = service("2.20", &annotations);
    let hit = found.iter().find(|finding| finding.rule == rule);
    assert!(
        hit.is_some_and(|finding| finding.to_string().contains(words)),
        "{found:#?}"
    );
    assert!(hit.is_some_and(|finding| finding.object == "Service shop/web"));
}

#[test]
fn what_needs_2_20_is_said_before_it() {
    let annotations = json!({"balancer.alpha.linkerd.io/penalize-failures": "true"});
    let rules = |version| {
        service(version, &annotations)
            .into_iter()
            .map(|it| it.rule)
            .collect::<Vec<_>>()
    };
    assert_eq!(rules("2.19"), [Rule::NotInVersion]);
    assert_eq!(rules("2.20"), []);
}

#[rstest]
#[case::breaker("HTTPRoute", json!({"balancer.linkerd.io/failure-accrual": "consecutive"}), json!({}), web(), Rule::MisplacedAnnotation)]
#[case::grpc("HTTPRoute", json!({"retry.linkerd.io/grpc": "internal"}), json!({}), web(), Rule::MisplacedAnnotation)]
#[case::http("GRPCRoute", json!({"retry.linkerd.io/http": "5xx"}), json!({}), web(), Rule::MisplacedAnnotation)]
#[case::bad("HTTPRoute", json!({"retry.linkerd.io/http": "4xx"}), json!({}), web(), Rule::InvalidAnnotation)]
#[case::filter("HTTPRoute", json!({}), json!({"filters": [{"type": "URLRewrite"}]}), web(), Rule::RouteDropped)]
#[case::group("HTTPRoute", json!({}), json!({}), json!({"group": "gateway.networking.k8s.io", "kind": "Service", "name": "web"}), Rule::InertParent)]
#[case::backend_request("HTTPRoute", json!({}), json!({"timeouts": {"backendRequest": "1s"}}), web(), Rule::IgnoredField)]
#[case::compound("HTTPRoute", json!({}), json!({"timeouts": {"request": "1m30s"}}), web(), Rule::IgnoredField)]
#[case::retry("HTTPRoute", json!({}), json!({"retry": {"attempts": 3}}), web(), Rule::IgnoredField)]
#[case::patch("HTTPRoute", json!({"retry.linkerd.io/http": "5xx"}), json!({"matches": [{"method": "PATCH"}]}), web(), Rule::PostRetries)]
fn a_route_is_judged(
    #[case] kind: &str,
    #[case] annotations: Value,
    #[case] rule: Value,
    #[case] parent: Value,
    #[case] expected: Rule,
) {
    let found = lint(&cluster(
        "2.20",
        &json!({}),
        &[route(kind, &annotations, &rule, &parent)],
        &Value::Null,
    ));
    assert!(
        found
            .iter()
            .any(|finding| finding.rule == expected && finding.object == format!("{kind} shop/r")),
        "{found:#?}"
    );
}

#[test]
fn retries_of_other_namespaces_are_judged() {
    let parent = json!({"group": "", "kind": "Service", "name": "web", "namespace": "shop"});
    let retries = json!({"retry.linkerd.io/limit": "9", "retry.linkerd.io/http": "5xx"});
    let mut consumer = route("HTTPRoute", &retries, &json!({}), &parent);
    consumer["metadata"]["namespace"] = json!("desk");
    let found = lint(&cluster("2.20", &json!({}), &[consumer], &Value::Null));
    let said: Vec<_> = found.iter().map(|it| (it.rule, it.object.as_str())).collect();
    let at = "HTTPRoute desk/r";
    assert_eq!(said, [(Rule::RetryAmplification, at), (Rule::PostRetries, at)]);
}

#[test]
fn a_route_that_linkerd_did_not_take_is_said() {
    let mut refused = route("HTTPRoute", &json!({}), &json!({}), &web());
    refused["status"]["parents"][0]["conditions"][0]["status"] = json!("False");
    let found = lint(&cluster("2.20", &json!({}), &[refused], &Value::Null));
    assert_eq!(
        found.iter().map(|it| it.rule).collect::<Vec<_>>(),
        [Rule::RouteNotAccepted]
    );
}

#[test]
fn a_service_that_cannot_work_is_said_if_it_says_something() {
    let mut headless = cluster("2.20", &json!({"timeout.linkerd.io/request": "1s"}), &[], &Value::Null);
    headless.services[0].spec.as_mut().unwrap().cluster_ip = Some("None".into());
    assert_eq!(lint(&headless)[0].rule, Rule::InertService);
    headless.services[0].metadata.annotations = None;
    assert_eq!(lint(&headless), []);
    let mut shadowed = cluster("2.20", &json!({"timeout.linkerd.io/request": "1s"}), &[], &Value::Null);
    shadowed.profiles = vec![
        serde_json::from_value(json!({
            "apiVersion": "linkerd.io/v1alpha2", "kind": "ServiceProfile",
            "metadata": {"name": "web.shop.svc.cluster.local", "namespace": "shop"}, "spec": {"routes": [{}]},
        }))
        .unwrap(),
    ]
    .into();
    assert_eq!(lint(&shadowed)[0].rule, Rule::ServiceProfile);
}

#[rstest]
#[case::inert(json!({"targetRef": {"name": "api"}, "retry": {}}), Rule::InertPolicy, "TargetServiceNotFound")]
#[case::version(json!({"targetRef": {"name": "web"}, "loadBias": {}}), Rule::InertPolicy, "FeatureNotInVersion")]
#[case::tries(json!({"targetRef": {"name": "web"}, "retry": {"retryTimeout": "2s"}, "timeout": {"requestTimeout": "1s"}}), Rule::RetryTimeout, "never causes")]
fn a_policy_is_judged(#[case] spec: Value, #[case] rule: Rule, #[case] words: &str) {
    let found = lint(&cluster("2.19", &json!({}), &[], &spec));
    let hit = found.iter().find(|finding| finding.rule == rule);
    assert!(hit.is_some_and(|finding| finding.message.contains(words)), "{found:#?}");
}

#[test]
fn a_policy_that_another_one_decides_for_is_said() {
    let mut cluster = cluster(
        "2.20",
        &json!({}),
        &[],
        &json!({"targetRef": {"name": "web"}, "timeout": {"idleTimeout": "1m"}}),
    );
    let mut older = cluster.policies[0].clone();
    older.metadata.name = Some("a".into());
    cluster.policies.push(older);
    let found = lint(&cluster);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].rule, Rule::OverriddenPolicy);
    assert!(found[0].message.contains("policy shop/a"));
}

#[test]
fn nothing_is_found_where_nothing_is_wrong() {
    let annotations = json!({
        "balancer.linkerd.io/failure-accrual": "consecutive",
        "balancer.linkerd.io/failure-accrual-consecutive-max-failures": "3",
        "timeout.linkerd.io/request": "10s",
        "example.org/owner": "me",
    });
    let matches = json!({"matches": [{"path": {"type": "PathPrefix", "value": "/a"}, "method": "GET"}]});
    let routes = [route(
        "HTTPRoute",
        &json!({"retry.linkerd.io/limit": "2", "retry.linkerd.io/http": "5xx"}),
        &matches,
        &web(),
    )];
    let found = lint(&cluster("2.20", &annotations, &routes, &Value::Null));
    assert_eq!(found, []);
}

#[test]
fn every_rule_is_named_and_explained() {
    use strum::EnumMessage as _;
    let names: BTreeSet<String> = Rule::iter().map(|rule| rule.to_string()).collect();
    assert_eq!(names.len(), Rule::iter().count());
    for rule in Rule::iter() {
        assert!(rule.get_documentation().is_some_and(|text| text.len() > 20), "{rule}");
        assert_eq!(json!(rule), json!(rule.to_string()));
    }
}
