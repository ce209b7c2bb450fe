//! Several policies for one Service: who decides which section, and what happens when that changes.

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use rstest::rstest;
use serde_json::{Value, json};
use trellis_api::ResiliencePolicy;
use trellis_testkit::eventually;

use crate::site::{Site, not_ready, ready, targets};

const RETRY: &str = "retry.linkerd.io/limit";
const HTTP: (&str, &str) = ("retry.linkerd.io/http", "5xx");
const REQUEST: &str = "timeout.linkerd.io/request";
const MODE: (&str, &str) = ("balancer.linkerd.io/failure-accrual", "consecutive");
const FAILURES: &str = "balancer.linkerd.io/failure-accrual-consecutive-max-failures";

fn retries(number: u32) -> Value {
    json!({ "maxAttempts": number })
}

/// Until another policy would be younger: the API server counts whole seconds.
async fn a_second_later(site: &Site, than: &str) {
    let policy: ResiliencePolicy = site.namespace.get(than).await.unwrap();
    let born = policy.creation_timestamp().unwrap().0.as_second();
    eventually("a second later", async || {
        let now = Timestamp::now().as_second();
        if now > born { Ok(()) } else { Err(now) }
    })
    .await;
}

/// Section by section the older policy wins, whatever the names; and the loser takes over when the winner goes, no
/// longer sets the section, or turns to another Service.
#[rstest]
#[case("a-older", "b", "a")]
#[case("b-older", "a", "b")]
#[tokio::test(flavor = "multi_thread")]
async fn the_older_policy_wins_each_section(
    #[case] story: &'static str,
    #[case] young: &'static str,
    #[case] old: &'static str,
) {
    let site = Site::new(story, "2.18").await;
    for name in ["web", "api"] {
        site.service(name).await;
    }
    let target = json!({ "name": "web" });
    let older = json!({ "targetRef": target, "circuitBreaker": { "failureThreshold": 5 }, "retry": retries(3) });
    site.policy(old, older).await;
    site.stands(old, &["circuitBreaker InForce", "retry InForce"]).await;
    a_second_later(&site, old).await;
    let younger = json!({ "targetRef": target, "retry": retries(7), "timeout": { "requestTimeout": "10s" } });
    site.policy(young, younger).await;
    let overridden = format!("retry Overridden {old}");
    let loser = site.stands(young, &[&overridden, "timeout InForce"]).await;
    assert_eq!(ready(&loser).0, "True", "the rest is in force: {}", ready(&loser).2);
    let told = &targets(&loser)[0];
    let winner = format!("policy {}/{old} sets retry", site.namespace.name());
    assert_eq!(
        (told.reason.as_str(), told.message.as_str()),
        ("PartiallyOverridden", winner.as_str())
    );
    let breaker = [MODE, (FAILURES, "5")];
    let all = [&breaker[..], &[(RETRY, "3"), HTTP, (REQUEST, "10s")]].concat();
    site.carries("web", &all).await;

    // One that wins nothing says so, and names who does.
    a_second_later(&site, young).await;
    site.policy("c", json!({ "targetRef": target, "retry": retries(9) }))
        .await;
    let third = site.until("c", "Overridden").await;
    not_ready(&third, "Overridden");
    assert!(ready(&third).2.contains(&winner), "{}", ready(&third).2);
    site.remove("c").await;

    // Switched off, a section still decides: there are no retries.
    site.edit(old, json!({ "retry": { "enabled": false } })).await;
    site.carries("web", &[&breaker[..], &[(REQUEST, "10s")]].concat()).await;
    site.stands(young, &[&overridden, "timeout InForce"]).await;
    // Not set any more, it is the other's.
    site.edit(old, json!({ "retry": null })).await;
    let taken_over = [&breaker[..], &[(RETRY, "7"), HTTP, (REQUEST, "10s")]].concat();
    site.carries("web", &taken_over).await;
    site.stands(young, &["retry InForce", "timeout InForce"]).await;
    site.edit(old, json!({ "retry": retries(4) })).await;
    site.carries("web", &[&breaker[..], &[(RETRY, "4"), HTTP, (REQUEST, "10s")]].concat())
        .await;
    site.stands(young, &[&overridden, "timeout InForce"]).await;

    // Elsewhere, and back.
    site.edit(old, json!({ "targetRef": { "name": "api" } })).await;
    site.carries("web", &[(RETRY, "7"), HTTP, (REQUEST, "10s")]).await;
    site.carries("api", &[&breaker[..], &[(RETRY, "4"), HTTP]].concat())
        .await;
    site.stands(young, &["retry InForce", "timeout InForce"]).await;
    site.edit(old, json!({ "targetRef": { "name": "web" } })).await;
    site.carries("api", &[]).await;
    site.stands(young, &[&overridden, "timeout InForce"]).await;
    // To a Service that does not exist: what the policy set on the former one stands in nobody's way.
    site.edit(old, json!({ "targetRef": { "name": "none" } })).await;
    site.until(old, "TargetServiceNotFound").await;
    site.carries("web", &[(RETRY, "7"), HTTP, (REQUEST, "10s")]).await;
    site.stands(young, &["retry InForce", "timeout InForce"]).await;
    site.edit(old, json!({ "targetRef": { "name": "web" } })).await;
    site.stands(young, &[&overridden, "timeout InForce"]).await;

    site.remove(old).await;
    site.carries("web", &[(RETRY, "7"), HTTP, (REQUEST, "10s")]).await;
    site.stands(young, &["retry InForce", "timeout InForce"]).await;
    site.remove(young).await;
    site.carries("web", &[]).await;
    site.finish().await;
}

/// A policy that turns to routes lets go of the Service, though its routes cannot act: another one waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_turns_to_routes_lets_the_service_go() {
    let site = Site::new("turns", "2.18").await;
    site.service("web").await;
    site.policy("old", json!({ "targetRef": { "name": "web" }, "retry": retries(1) }))
        .await;
    site.carries("web", &[(RETRY, "1"), HTTP]).await;
    site.policy("young", json!({ "targetRef": { "name": "web" }, "retry": retries(2) }))
        .await;
    site.stands("young", &["retry Overridden old"]).await;
    let entry = json!({ "name": "carts", "http": { "matches": [{ "path": { "value": "/carts" } }] } });
    site.edit("old", json!({ "targetRef": { "port": 9999 }, "routes": [entry] }))
        .await;
    not_ready(&site.until("old", "PortNotFound").await, "PortNotFound");
    site.carries("web", &[(RETRY, "2"), HTTP]).await;
    site.until("young", "Applied").await;
    for name in ["old", "young"] {
        site.remove(name).await;
    }
    site.finish().await;
}

/// The closer policy wins, however young; one that overrides wins over any, however far; and back.
#[tokio::test(flavor = "multi_thread")]
async fn closeness_and_strategy_decide_before_age() {
    let site = Site::new("close", "2.18").await;
    site.service("web").await;
    let far = json!({ "targetRef": { "kind": "Namespace", "name": site.namespace.name() }, "retry": retries(1) });
    site.policy("far", far).await;
    site.carries("web", &[(RETRY, "1"), HTTP]).await;
    let some = json!({ "targetSelector": { "matchLabels": { "app": "web" } }, "retry": retries(2) });
    site.policy("some", some).await;
    site.carries("web", &[(RETRY, "2"), HTTP]).await;
    site.stands("far", &["retry Overridden some"]).await;
    site.policy("near", json!({ "targetRef": { "name": "web" }, "retry": retries(3) }))
        .await;
    site.carries("web", &[(RETRY, "3"), HTTP]).await;
    site.stands("far", &["retry Overridden near"]).await;
    let some = site.stands("some", &["retry Overridden near"]).await;
    not_ready(&some, "Overridden");

    site.edit("far", json!({ "strategy": "Overrides" })).await;
    site.carries("web", &[(RETRY, "1"), HTTP]).await;
    for name in ["some", "near"] {
        not_ready(&site.stands(name, &["retry Overridden far"]).await, "Overridden");
    }
    // Among those that override, the farther one wins.
    site.edit("near", json!({ "strategy": "Overrides" })).await;
    site.stands("near", &["retry Overridden far"]).await;
    site.edit("far", json!({ "strategy": "Defaults" })).await;
    site.carries("web", &[(RETRY, "3"), HTTP]).await;
    site.stands("far", &["retry Overridden near"]).await;

    site.remove("near").await;
    site.carries("web", &[(RETRY, "2"), HTTP]).await;
    site.remove("some").await;
    site.carries("web", &[(RETRY, "1"), HTTP]).await;
    site.until("far", "Applied").await;
    site.finish().await;
}
