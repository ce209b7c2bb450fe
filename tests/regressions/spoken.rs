//! P7, the race in it: a status speaks of the spec that was carried out, also when the next one comes in between.

use serde_json::Value;
use trellis_api::ResiliencePolicy;
use trellis_testkit::{
    Fault, Gate, Script, Verb, calls,
    fixtures::{policy, service},
};

use crate::{PLANE, site::condition};

/// `Ready=True` for a generation is written only after the Service carries what that generation asks for.
#[tokio::test(flavor = "multi_thread")]
async fn a_status_speaks_of_the_spec_that_was_carried_out() {
    let plane = PLANE.get().await.unwrap();
    let namespace = plane.isolated("spoken").await.unwrap();
    let account = trellis_tests::account(plane).await.unwrap();
    let (script, gate) = (Script::new(), Gate::new());
    let status = calls().verb(Verb::Patch).resource("resiliencepolicies/status");
    script.add(status.nth(1).then(Fault::hold(&gate)));
    let proxy = plane.proxy(&account, &script).await.unwrap();
    let launch = trellis_tests::launch(proxy.kubeconfig(), "spoken", &[namespace.name()])
        .lease(trellis_tests::NAMESPACE, "spoken");
    let mark = plane.audit().mark().unwrap();
    let _operator = launch.start().await.unwrap();
    namespace.create_object(service("web").port(80).build()).await.unwrap();
    namespace.apply(policy("web").breaker(5).json()).await.unwrap();
    // The first thing that is told is still on its way when the spec changes.
    gate.reached(1).await;
    namespace.apply(policy("web").breaker(9).json()).await.unwrap();
    gate.open();
    let applied = |policy: &ResiliencePolicy| {
        let status = policy.status.as_ref();
        status.is_some_and(|status| status.common.observed_generation == Some(2))
            && condition(policy, "Ready").is_some_and(|ready| ready.status == "True")
    };
    namespace.until("web", "the second spec is applied", applied).await;

    let events = plane.audit().since(mark).unwrap();
    let here = events
        .iter()
        .filter(|event| event.identity() == Some("spoken") && event.succeeded() && event.info().verb.writes());
    let mut carried = false;
    for event in here {
        let body = event.request_object.clone().unwrap_or_default();
        match event.info().resource.as_str() {
            "services" => carried |= body.to_string().contains("max-failures\":\"9\""),
            "resiliencepolicies/status" => {
                let conditions = body.pointer("/status/conditions").and_then(Value::as_array).cloned();
                let ready = conditions
                    .iter()
                    .flatten()
                    .any(|found| found["type"] == "Ready" && found["status"] == "True");
                let of_second = body.pointer("/status/observedGeneration") == Some(&2.into());
                assert!(carried || !(ready && of_second), "Ready=True before it was so: {body}");
            }
            _ => {}
        }
    }
    assert!(carried);
}
