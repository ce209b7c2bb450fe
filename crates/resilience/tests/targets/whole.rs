//! Policies for whole Services.

use rstest::rstest;
use serde_json::{Value, json};
use trellis_api::{MAX_SERVICES, Readiness, Section};
use trellis_resilience::Standing;

use crate::stage::{cluster, done, policy, reason, route};

#[rstest]
#[case::service(json!({"targetRef": {"name": "api"}}), "TargetServiceNotFound")]
#[case::elsewhere(json!({"targetRef": {"name": "web", "namespace": "other"}}), "TargetServiceNotFound")]
#[case::network(json!({"targetRef": {"kind": "EgressNetwork", "name": "internet"}}), "TargetNotFound")]
#[case::network_elsewhere(json!({"targetRef": {"kind": "EgressNetwork", "name": "internet", "namespace": "other"}}), "CrossNamespaceTarget")]
#[case::route(json!({"targetRef": {"kind": "HTTPRoute", "name": "web-search"}}), "TargetNotFound")]
#[case::route_elsewhere(json!({"targetRef": {"kind": "HTTPRoute", "name": "web-search", "namespace": "other"}}), "CrossNamespaceTarget")]
#[case::namespace(json!({"targetRef": {"kind": "Namespace", "name": "other"}}), "CrossNamespaceTarget")]
#[case::labels(json!({"targetSelector": {"matchLabels": {"app": "api"}}}), "NoTargets")]
fn a_target_must_be_there(#[case] mut spec: Value, #[case] expected: &str) {
    spec["retry"] = json!({});
    let found = done(&cluster("2.20"), &spec);
    assert!(found.targets.is_empty());
    let refusal = found.refusal.unwrap();
    assert_eq!(refusal.reason, expected);
    assert!(refusal.field.is_some_and(|field| field.starts_with("spec.target")));
}

#[test]
fn a_namespace_is_all_its_services() {
    let mut cluster = cluster("2.20");
    let mut other = cluster.services[0].clone();
    other.metadata.name = Some("api".into());
    cluster.services.push(other);
    let found = done(
        &cluster,
        &json!({"targetRef": {"kind": "Namespace", "name": "shop"}, "retry": {}}),
    );
    let names: Vec<&str> = found
        .targets
        .iter()
        .map(|enacted| enacted.target.name.as_str())
        .collect();
    assert_eq!(names, ["api", "web"]);
    assert!(
        found
            .targets
            .iter()
            .all(|enacted| enacted.in_force() && enacted.annotations.len() == 2)
    );
}

/// A newer feature is refused, not the policy.
#[test]
fn a_section_that_linkerd_lacks_leaves_the_others() {
    let spec = json!({
        "targetRef": {"name": "web"}, "circuitBreaker": {"failureAccrualMethod": "unified"}, "loadBias": {}, "retry": {},
    });
    let found = done(&cluster("2.19"), &spec);
    let enacted = &found.targets[0];
    assert_eq!(
        enacted.annotations.keys().copied().collect::<Vec<_>>(),
        ["retry.linkerd.io/http", "retry.linkerd.io/limit"]
    );
    assert_eq!(enacted.sections[&Section::Retry], Standing::Won);
    let status = enacted.status();
    assert_eq!(
        (status.ready, status.reason.as_str()),
        (Readiness::False, "FeatureNotInVersion")
    );
    assert_eq!(
        serde_json::to_value(status.sections).unwrap(),
        json!([
            {"section": "circuitBreaker", "state": "Inert"},
            {"section": "retry", "state": "InForce"},
            {"section": "loadBias", "state": "Inert"},
        ])
    );
}

#[test]
fn an_overridden_section_names_the_winner() {
    let mut cluster = cluster("2.20");
    cluster.policies.push(policy("all", &json!({"targetRef": {"kind": "Namespace", "name": "shop"}, "strategy": "Overrides", "retry": {"maxAttempts": 1}})));
    let both = done(
        &cluster,
        &json!({"targetRef": {"name": "web"}, "retry": {}, "timeout": {"requestTimeout": "1s"}}),
    );
    let status = both.targets[0].status();
    assert_eq!(
        (status.ready, status.reason.as_str()),
        (Readiness::True, "PartiallyOverridden")
    );
    assert_eq!(status.sections[0].by.as_deref(), Some("shop/all"));
    assert_eq!(
        both.targets[0].annotations.keys().copied().collect::<Vec<_>>(),
        ["timeout.linkerd.io/request"]
    );
    let one = done(&cluster, &json!({"targetRef": {"name": "web"}, "retry": {}}));
    let status = one.targets[0].status();
    assert_eq!((status.ready, status.reason.as_str()), (Readiness::False, "Overridden"));
    assert!(status.message.contains("shop/all") && one.targets[0].annotations.is_empty());
}

/// Other sections are on when they are there; this one has to be switched on.
#[test]
fn a_rate_limit_that_is_not_switched_on_says_so() {
    let limit = json!({"requestsPerSecond": 1, "serverRef": {"name": "web-http"}});
    let spec = json!({"targetRef": {"name": "web"}, "retry": {}, "rateLimit": limit});
    let found = &done(&cluster("2.20"), &spec).targets[0];
    assert_eq!(found.limit, None);
    let status = found.status();
    assert_eq!(status.reason, "Applied");
    assert!(status.message.contains("rateLimit.enabled"), "{}", status.message);
}

/// Each with a route, a profile elsewhere and an older policy of its own: what is not about a Service is not looked at for
/// it, and the policy acts on every one.
#[test]
fn a_full_namespace_is_no_matter_of_squares() {
    let mut cluster = cluster("2.20");
    let web = cluster.services.remove(0);
    for index in 0..MAX_SERVICES {
        let name = format!("s{index:04}");
        let mut service = web.clone();
        service.metadata.name = Some(name.clone());
        cluster.services.push(service);
        let parent = json!({"group": "", "kind": "Service", "name": name});
        let mut route = route(
            "HTTPRoute",
            &json!({"metadata": {"name": name}, "spec": {"parentRefs": [parent]}}),
        );
        route["status"]["parents"][0]["parentRef"]["name"] = json!(name);
        cluster.http_routes.push(serde_json::from_value(route).unwrap());
        let profile = json!({
            "metadata": {"name": format!("{name}.shop.svc.cluster.local"), "namespace": "other"},
            "spec": {"routes": [{}]},
        });
        cluster.profiles.push(serde_json::from_value(profile).unwrap());
        let spec = json!({"targetRef": {"name": name}, "timeout": {"requestTimeout": "1s"}});
        cluster.policies.push(policy(&name, &spec));
    }
    let spec = json!({
        "targetRef": {"kind": "Namespace", "name": "shop"}, "retry": {}, "timeout": {"requestTimeout": "2s"},
    });
    let found = done(&cluster, &spec);
    assert_eq!((reason(&found), found.targets.len()), (None, MAX_SERVICES));
    for (enacted, index) in found.targets.iter().zip(0..) {
        assert_eq!(enacted.sections[&Section::Retry], Standing::Won);
        let Standing::Overridden(by) = &enacted.sections[&Section::Timeout] else {
            panic!("{:?}", enacted.sections);
        };
        assert_eq!(by.name(), format!("s{index:04}"));
        let told = format!("their own ServiceProfile s{index:04}.shop.svc.cluster.local");
        assert!(
            enacted.notes.iter().any(|note| note.contains(&told)),
            "{:?}",
            enacted.notes
        );
    }
}

/// Beyond the bound what is there goes on, and nothing is added.
#[test]
fn a_policy_is_for_a_bounded_number_of_services() {
    let mut cluster = cluster("2.20");
    let mut first = cluster.services.remove(0);
    first.metadata.annotations = Some([("retry.linkerd.io/limit".to_owned(), "3".to_owned())].into());
    let fields = json!([{"manager": "trellis-resilience/shop/p", "operation": "Apply",
                         "fieldsV1": {"f:metadata": {"f:annotations": {"f:retry.linkerd.io/limit": {}}}}}]);
    first.metadata.managed_fields = serde_json::from_value(fields).unwrap();
    for index in 0..MAX_SERVICES {
        let mut service = first.clone();
        service.metadata.name = Some(format!("s{index:04}"));
        if index > 0 {
            service.metadata.managed_fields = None;
        }
        cluster.services.push(service);
    }
    let spec = json!({"targetRef": {"kind": "Namespace", "name": "shop"}, "timeout": {"requestTimeout": "1s"}});
    let all = done(&cluster, &spec);
    assert_eq!((reason(&all), all.targets.len()), (None, MAX_SERVICES));
    cluster.services.push(first);
    let found = done(&cluster, &spec);
    assert_eq!(reason(&found), Some("TooManyServices"));
    let names: Vec<&str> = found.targets.iter().map(|target| target.target.name.as_str()).collect();
    assert_eq!(names, ["s0000", "web"]);
    assert!(found.targets.iter().all(trellis_resilience::Enacted::in_force));
}
