//! The user's part: one policy from its creation to its deletion.

use k8s_openapi::api::core::v1::Service;
use serde_json::json;
use trellis_api::ResiliencePolicy;
use trellis_testkit::{
    fixtures::{policy, service},
    plane::Isolated,
};

/// How many steps the story has.
pub(crate) const STEPS: usize = NAMES.len();
/// The steps.
pub(crate) const NAMES: [&str; 6] = ["create", "change", "retarget", "disable", "return", "delete"];
/// Services and the policy appear.
pub(crate) const CREATE: usize = 0;
/// The policy turns to another Service.
pub(crate) const RETARGET: usize = 2;
/// The policy goes.
pub(crate) const DELETE: usize = 5;

const NAME: &str = "web";
/// The annotation by which a step sees which Service has the policy's threshold.
const THRESHOLD: &str = "balancer.linkerd.io/failure-accrual-consecutive-max-failures";
const LIMIT: &str = "retry.linkerd.io/limit";

/// Takes a step.
pub(crate) async fn act(isolated: &Isolated, step: usize) {
    let change = async |spec| {
        isolated
            .merge::<ResiliencePolicy>(NAME, json!({ "spec": spec }))
            .await
            .unwrap();
    };
    match step {
        CREATE => {
            for name in ["one", "two"] {
                let service = service(name)
                    .port(80)
                    .selector("app", name)
                    .annotation("example.org/team", "payments");
                isolated.create_object(service.build()).await.unwrap();
            }
            let policy = policy(NAME)
                .target("one")
                .breaker(5)
                .retry(3, "5xx")
                .request_timeout("2s");
            isolated.create_object(policy.build()).await.unwrap();
        }
        1 => change(json!({ "circuitBreaker": { "failureThreshold": 7 } })).await,
        RETARGET => change(json!({ "targetRef": { "name": "two" } })).await,
        3 => change(json!({ "retry": { "enabled": false } })).await,
        4 => change(json!({ "targetRef": { "name": "one" } })).await,
        _ => isolated.delete::<ResiliencePolicy>(NAME).await.unwrap(),
    }
}

/// Waits until the operator has done its part of a step.
pub(crate) async fn reached(isolated: &Isolated, step: usize) {
    if step == DELETE {
        isolated.gone::<ResiliencePolicy>(NAME).await;
        return;
    }
    isolated.until(NAME, "Ready in this generation", is_ready).await;
    let (with, without) = if matches!(step, RETARGET | 3) {
        ("two", "one")
    } else {
        ("one", "two")
    };
    let threshold = if step == CREATE { "5" } else { "7" };
    let found: Service = isolated.get(with).await.unwrap();
    assert_eq!(annotation(&found, THRESHOLD), Some(threshold), "Ready, but not written");
    assert_eq!(
        annotation(&found, LIMIT).is_some(),
        step < 3,
        "retries are off from step 3 on"
    );
    let other: Service = isolated.get(without).await.unwrap();
    assert_eq!(
        annotation(&other, THRESHOLD),
        None,
        "Ready, but the other Service has it still"
    );
}

fn is_ready(policy: &ResiliencePolicy) -> bool {
    let conditions = policy.status.iter().flat_map(|status| &status.common.conditions);
    let mut ready = conditions.filter(|condition| condition.type_ == "Ready" && condition.status == "True");
    ready.any(|ready| ready.observed_generation == policy.metadata.generation)
}

fn annotation<'a>(service: &'a Service, key: &str) -> Option<&'a str> {
    service.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}
