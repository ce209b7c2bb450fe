//! The faults of an earlier operator for the same policies, one test each: none of them may come back.
//!
//! Each test has a namespace and an operator of its own on the shared plane: the shipped binary under its generated
//! permissions.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "regressions/linkerd.rs"]
mod linkerd;
#[path = "regressions/site.rs"]
mod site;
#[path = "regressions/spoken.rs"]
mod spoken;
#[path = "regressions/successor.rs"]
mod successor;

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt as _;
use serde_json::{Value, json};
use trellis_api::{InventoryEntry, REQUESTED_AT, ResiliencePolicy};
use trellis_model::{Mode, effective};
use trellis_testkit::{
    Fault, Script, Verb,
    audit::Event,
    calls, eventually,
    fixtures::{policy, service},
    plane::Shared,
};
use trellis_tests::LINKERD_RELEASE;

use self::site::{Site, says};

static PLANE: Shared = trellis_tests::operator_plane();

const FINALIZER: &str = "resilience.trellis.dev/finalizer";

fn retarget(name: &str) -> Value {
    json!({ "spec": { "targetRef": { "name": name } } })
}

/// a: `config.linkerd.io/failure-accrual*`, `retry.linkerd.io/http: "3"` and `…/http-status-codes` mean nothing to
/// Linkerd.
#[tokio::test(flavor = "multi_thread")]
async fn a_the_keys_are_those_that_linkerd_reads() {
    let site = Site::new("keys").await;
    site.namespace
        .create_object(service("web").port(80).build())
        .await
        .unwrap();
    let whole = policy("web")
        .breaker(5)
        .retry(3, "5xx,429")
        .retry_timeout("300ms")
        .request_timeout("10s")
        .response_timeout("5s");
    site.namespace.apply(whole.json()).await.unwrap();
    site.until("web", "Applied").await;
    let service = site.service("web").await;
    assert!(
        service
            .annotations()
            .keys()
            .all(|key| !key.starts_with("config.linkerd.io/")),
        "{:?}",
        service.annotations()
    );
    assert!(!service.annotations().contains_key("retry.linkerd.io/http-status-codes"));
    let found = effective(&service, &[], *LINKERD_RELEASE, 80);
    assert_eq!(
        found.breaker.map(|breaker| (breaker.mode, breaker.max_failures)),
        Some((Mode::Consecutive, 5))
    );
    let retry = found.retry.unwrap();
    assert_eq!((retry.limit, retry.timeout), (3, Some(300)));
    let mut statuses = retry.statuses;
    statuses.sort_unstable();
    assert_eq!(statuses, [(429, 429), (500, 599)]);
    assert_eq!(
        (found.timeouts.request, found.timeouts.response),
        (Some(10_000), Some(5000))
    );
}

/// c: writing the whole Service back loses what others write meanwhile, and conflicts with them.
#[tokio::test(flavor = "multi_thread")]
async fn c_a_service_is_never_written_as_a_whole() {
    let site = Site::new("whole").await;
    site.namespace
        .create_object(service("web").port(80).build())
        .await
        .unwrap();
    site.namespace
        .apply(policy("web").retry(1, "5xx").json())
        .await
        .unwrap();
    for turn in 1..=10_u32 {
        let (label, retries) = (turn.to_string(), turn);
        let metadata =
            json!({ "metadata": { "labels": { "turn": label }, "annotations": { "example.com/turn": label } } });
        let spec = json!({ "spec": { "retry": { "maxAttempts": retries } } });
        let (theirs, ours) = tokio::join!(
            site.namespace.merge::<Service>("web", metadata),
            site.namespace.merge::<ResiliencePolicy>("web", spec)
        );
        theirs.unwrap();
        ours.unwrap();
    }
    site.until("web", "Applied").await;
    let service = site.service("web").await;
    let read = |key: &str| service.annotations().get(key).map(String::as_str);
    assert_eq!(
        (read("example.com/turn"), read("retry.linkerd.io/limit")),
        (Some("10"), Some("10"))
    );
    assert_eq!(service.labels()["turn"], "10");
    let to_service: Vec<Event> = site
        .written()
        .into_iter()
        .filter(|event| event.info().resource == "services")
        .collect();
    assert!(!to_service.is_empty());
    for event in to_service {
        assert_eq!((event.info().verb, event.code()), (Verb::Patch, 200), "{event}");
        let body = event.request_object.unwrap();
        assert!(
            body.get("spec").is_none() && body.pointer("/metadata/resourceVersion").is_none(),
            "{body}"
        );
    }
}

/// d: a policy without a breaker deleted the breaker keys that the user had set.
#[tokio::test(flavor = "multi_thread")]
async fn d_the_users_own_breaker_stays() {
    let site = Site::new("own").await;
    let mode = "balancer.linkerd.io/failure-accrual";
    let failures = "balancer.linkerd.io/failure-accrual-consecutive-max-failures";
    let own = service("web")
        .port(80)
        .annotation(mode, "consecutive")
        .annotation(failures, "9");
    site.namespace.create_object(own.build()).await.unwrap();
    let own = site.annotations("web").await;
    let still = async |what: &str| {
        let now = site.annotations("web").await;
        assert!(
            own.iter().all(|(key, value)| now.get(key) == Some(value)),
            "{what}: {now:?}"
        );
    };
    site.namespace
        .apply(policy("web").retry(3, "5xx").json())
        .await
        .unwrap();
    site.until("web", "Applied").await;
    still("applied").await;
    site.namespace
        .apply(
            policy("web")
                .retry(3, "5xx")
                .breaker(9)
                .disabled("circuitBreaker")
                .json(),
        )
        .await
        .unwrap();
    site.until("web", "Applied").await;
    still("disabled").await;
    site.namespace
        .apply(policy("web").retry(3, "5xx").breaker(9).json())
        .await
        .unwrap();
    site.until("web", "Applied").await;
    still("the same value").await;
    site.namespace
        .apply(policy("web").retry(3, "5xx").breaker(4).json())
        .await
        .unwrap();
    site.until("web", "ForeignOwner").await;
    still("another value").await;
    site.namespace.delete::<ResiliencePolicy>("web").await.unwrap();
    site.namespace.gone::<ResiliencePolicy>("web").await;
    assert_eq!(site.annotations("web").await, own);
}

/// f: two policies for one Service collided for ever, over one fixed name.
#[tokio::test(flavor = "multi_thread")]
async fn f_two_policies_share_a_service() {
    let site = Site::new("share").await;
    site.namespace
        .create_object(service("web").port(80).build())
        .await
        .unwrap();
    site.namespace
        .apply(policy("breaker").target("web").breaker(5).json())
        .await
        .unwrap();
    site.namespace
        .apply(policy("retry").target("web").retry(3, "5xx").json())
        .await
        .unwrap();
    site.until("breaker", "Applied").await;
    site.until("retry", "Applied").await;
    let found = effective(&site.service("web").await, &[], *LINKERD_RELEASE, 80);
    assert!(found.breaker.is_some() && found.retry.is_some(), "{found:?}");
    // A third one that wants something else for the same key is told so, by name, and changes nothing.
    site.namespace
        .apply(policy("late").target("web").breaker(6).json())
        .await
        .unwrap();
    let late = site.until("late", "Overridden").await;
    let ready = &late.status.unwrap().common.conditions[0];
    assert!(
        ready
            .message
            .contains(&format!("policy {}/breaker sets", site.namespace.name())),
        "{}",
        ready.message
    );
    site.namespace.delete::<ResiliencePolicy>("breaker").await.unwrap();
    site.namespace.gone::<ResiliencePolicy>("breaker").await;
    site.until("late", "Applied").await;
    let found = effective(&site.service("web").await, &[], *LINKERD_RELEASE, 80);
    assert_eq!(found.breaker.map(|breaker| breaker.max_failures), Some(6));
    assert_eq!(found.retry.map(|retry| retry.limit), Some(3));
}

/// i: the annotations stayed on the old Service when a policy moved to another one.
#[tokio::test(flavor = "multi_thread")]
async fn i_nothing_stays_on_the_old_target() {
    let site = Site::new("move").await;
    for name in ["old", "new"] {
        site.namespace
            .create_object(service(name).port(80).build())
            .await
            .unwrap();
    }
    site.namespace
        .apply(policy("web").target("old").breaker(5).json())
        .await
        .unwrap();
    site.until("web", "Applied").await;
    site.namespace
        .merge::<ResiliencePolicy>("web", retarget("new"))
        .await
        .unwrap();
    site.until("web", "Applied").await;
    assert!(site.annotations("old").await.is_empty());
    assert!(!site.annotations("new").await.is_empty());
    // Deleted while it waits for a Service that does not exist, and carries the one before.
    site.namespace
        .merge::<ResiliencePolicy>("web", retarget("none"))
        .await
        .unwrap();
    site.until("web", "TargetServiceNotFound").await;
    site.namespace.delete::<ResiliencePolicy>("web").await.unwrap();
    site.namespace.gone::<ResiliencePolicy>("web").await;
    assert!(site.annotations("new").await.is_empty());
}

/// j: errors of the clean-up were logged, and the finalizer was removed all the same.
#[tokio::test(flavor = "multi_thread")]
async fn j_the_finalizer_waits_for_the_clean_up() {
    let plane = PLANE.get().await.unwrap();
    let namespace = plane.isolated("cleanup").await.unwrap();
    let account = trellis_tests::account(plane).await.unwrap();
    let script = Script::new();
    let proxy = plane.proxy(&account, &script).await.unwrap();
    let launch = trellis_tests::launch(proxy.kubeconfig(), "cleanup", &[namespace.name()])
        .lease(trellis_tests::NAMESPACE, "cleanup");
    let _operator = launch.start().await.unwrap();
    namespace.create_object(service("web").port(80).build()).await.unwrap();
    namespace.apply(policy("web").breaker(5).json()).await.unwrap();
    namespace
        .until("web", "Applied", |policy| says(policy, "Applied"))
        .await;

    let broken = script.add(calls().verb(Verb::Patch).resource("services").then(Fault::fail(500)));
    namespace.delete::<ResiliencePolicy>("web").await.unwrap();
    eventually("the clean-up is tried again", async || {
        if broken.hits() >= 2 {
            Ok(())
        } else {
            Err(format!("{} tries", broken.hits()))
        }
    })
    .await;
    let waiting: ResiliencePolicy = namespace.get("web").await.unwrap();
    assert_eq!(waiting.finalizers(), [FINALIZER]);
    let service: Service = namespace.get("web").await.unwrap();
    assert!(!service.annotations().is_empty());
    broken.lift();
    namespace.gone::<ResiliencePolicy>("web").await;
    let service: Service = namespace.get("web").await.unwrap();
    assert!(service.annotations().is_empty(), "{:?}", service.annotations());
}

/// k: every reconcile moved `lastUpdateTime`, which caused the next reconcile, for ever.
#[tokio::test(flavor = "multi_thread")]
async fn k_a_reconcile_that_changes_nothing_writes_nothing() {
    let site = Site::new("hot").await;
    site.namespace
        .create_object(service("web").port(80).build())
        .await
        .unwrap();
    site.namespace.apply(policy("web").breaker(5).json()).await.unwrap();
    let before = site.until("web", "Applied").await;
    let time = before.status.as_ref().unwrap().last_update_time.clone().unwrap();
    for turn in 0..5 {
        let label = json!({ "metadata": { "labels": { "turn": turn.to_string() } } });
        site.namespace.merge::<Service>("web", label).await.unwrap();
    }
    site.everything_was_looked_at().await;
    let after = site.policy("web").await;
    assert_eq!(
        after.resource_version(),
        before.resource_version(),
        "nothing was written"
    );
    // What does change is told, once, with its time.
    let request = json!({ "metadata": { "annotations": { REQUESTED_AT: "now" } } });
    site.namespace.merge::<ResiliencePolicy>("web", request).await.unwrap();
    let handled = |policy: &ResiliencePolicy| {
        policy
            .status
            .as_ref()
            .is_some_and(|status| status.common.last_handled_reconcile_at.is_some())
    };
    let handled = site.namespace.until("web", "handled", handled).await;
    assert_ne!(handled.status.unwrap().last_update_time, Some(time));
}

/// l: a policy whose Service was missing listed it as one that it was applied to.
#[tokio::test(flavor = "multi_thread")]
async fn l_a_missing_service_is_not_listed() {
    let site = Site::new("list").await;
    site.namespace.apply(policy("web").breaker(5).json()).await.unwrap();
    let missing = site.until("web", "TargetServiceNotFound").await.status.unwrap();
    assert!(missing.applied_to_services.is_empty());
    assert_eq!(missing.common.inventory, Vec::<InventoryEntry>::new());
    site.namespace
        .create_object(service("web").port(80).build())
        .await
        .unwrap();
    let there = site.until("web", "Applied").await.status.unwrap();
    assert_eq!(there.applied_to_services, [format!("{}/web", site.namespace.name())]);
    site.namespace.delete::<Service>("web").await.unwrap();
    let gone = site.until("web", "TargetServiceNotFound").await.status.unwrap();
    assert!(gone.applied_to_services.is_empty());
}

/// m: Services were not watched, so what was changed by hand stayed changed.
#[tokio::test(flavor = "multi_thread")]
async fn m_drift_is_repaired_at_once() {
    let site = Site::new("drift").await;
    site.namespace
        .create_object(service("web").port(80).build())
        .await
        .unwrap();
    site.namespace
        .apply(policy("web").breaker(5).retry(3, "5xx").json())
        .await
        .unwrap();
    site.until("web", "Applied").await;
    let ours = site.annotations("web").await;
    let remove = json!({ "metadata": { "annotations": { "balancer.linkerd.io/failure-accrual": null, "retry.linkerd.io/limit": null } } });
    site.namespace.merge::<Service>("web", remove).await.unwrap();
    site.namespace
        .until("web", "repaired", |service: &Service| *service.annotations() == ours)
        .await;
    // The Service itself, too: another one of the same name gets the policy.
    site.namespace.delete::<Service>("web").await.unwrap();
    site.namespace.gone::<Service>("web").await;
    site.namespace
        .create_object(service("web").port(80).build())
        .await
        .unwrap();
    site.namespace
        .until("web", "written again", |service: &Service| {
            *service.annotations() == ours
        })
        .await;
    site.until("web", "Applied").await;
}
