//! At rest the operator writes nothing: not once a minute, not after a restart, not because others write.
//!
//! The audit log is the witness; only the renewals of the Lease are excepted.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use serde_json::json;
use trellis_api::ResiliencePolicy;
use trellis_testkit::{
    audit::{Event, Mark},
    calls, eventually,
    fixtures::{policy, service},
    operator::Operator,
    plane::{Isolated, Plane, Shared},
    rest,
};

static PLANE: Shared = trellis_tests::operator_plane();

const POLICIES: usize = 30;
/// How long nothing may be written.
const WINDOW: Duration = Duration::from_mins(1);
/// How long after something that concerns nobody.
const SHORT: Duration = Duration::from_secs(5);

fn is_ready(policy: &ResiliencePolicy) -> bool {
    let conditions = policy.status.iter().flat_map(|status| &status.common.conditions);
    let mut ready = conditions.filter(|condition| condition.type_ == "Ready" && condition.status == "True");
    ready.any(|ready| ready.observed_generation == policy.metadata.generation)
}

/// Anything written by this operator, Leases excepted, Events not.
fn is_write(event: &Event, identity: &str) -> bool {
    event.identity() == Some(identity) && calls().writes().except("leases").matches(&event.info())
}

fn writes(plane: &Plane, since: Mark, identity: &str) -> Vec<String> {
    let events = plane.audit().since(since).unwrap();
    let writes = events.iter().filter(|event| is_write(event, identity));
    writes.map(ToString::to_string).collect()
}

/// How many reconciles have ended so, as the metrics count them.
async fn reconciled(operator: &Operator, verdict: &str) -> u64 {
    let (_, text) = operator.get("/metrics").await.unwrap_or_default();
    let wanted = format!("result=\"{verdict}\"");
    let lines = text
        .lines()
        .filter(|line| line.starts_with("resilience_operator_reconciliations_total") && line.contains(&wanted));
    lines
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok())
        .sum()
}

async fn start(isolated: &Isolated, identity: &str) -> Operator {
    let account = trellis_tests::account(isolated.plane()).await.unwrap();
    let launch = trellis_tests::launch(account.path(), identity, &[isolated.name()]);
    let operator = launch
        .lease(trellis_tests::NAMESPACE, isolated.name())
        .start()
        .await
        .unwrap();
    operator.ready().await;
    operator
}

#[tokio::test(flavor = "multi_thread")]
async fn zero_writes_at_rest() {
    let plane = PLANE.get().await.unwrap();
    let isolated = plane.isolated("rest").await.unwrap();
    let names: Vec<String> = (0..POLICIES).map(|index| format!("web-{index}")).collect();
    for name in names.iter().map(String::as_str).chain(["unrelated"]) {
        isolated.create_object(service(name).port(80).build()).await.unwrap();
    }
    let before = plane.audit().mark().unwrap();
    let identity = isolated.name().to_owned();
    let operator = start(&isolated, &identity).await;
    for (index, name) in names.iter().enumerate() {
        let policy = policy(name).breaker(5).retry(3, "5xx,429").request_timeout("2s");
        // Some are refused: they rest as well.
        let policy = if index % 10 == 9 {
            policy.target("nobody")
        } else {
            policy
        };
        isolated.create_object(policy.build()).await.unwrap();
    }
    for (index, name) in names.iter().enumerate() {
        let reached = |policy: &ResiliencePolicy| index % 10 == 9 && policy.status.is_some() || is_ready(policy);
        isolated.until(name, "reported on", reached).await;
    }
    // The last Events may still be under way.
    rest(plane.audit(), SHORT, |event| is_write(event, &identity))
        .await
        .unwrap();
    assert!(
        !writes(plane, before, &identity).is_empty(),
        "the audit log shows our writes"
    );

    let quiet = plane.audit().mark().unwrap();
    tokio::time::sleep(WINDOW).await;
    assert_eq!(writes(plane, quiet, &identity), Vec::<String>::new());
    println!("{POLICIES} policies, {WINDOW:?}: no write");

    // Somebody else's Service, and somebody else's annotation on ours.
    let seen = reconciled(&operator, "Unchanged").await;
    for name in ["unrelated", "web-0"] {
        let patch = json!({ "metadata": { "annotations": { "example.org/team": "payments" } } });
        isolated.merge::<Service>(name, patch).await.unwrap();
    }
    eventually("the operator has looked at its Service", async || {
        let now = reconciled(&operator, "Unchanged").await;
        if now > seen {
            Ok(())
        } else {
            Err(format!("{now} reconciles without a change"))
        }
    })
    .await;
    rest(plane.audit(), SHORT, |event| is_write(event, &identity))
        .await
        .unwrap();
    assert_eq!(
        writes(plane, quiet, &identity),
        Vec::<String>::new(),
        "after somebody else's changes"
    );

    // A new process knows nothing, and still finds nothing to do.
    operator.kill9().await;
    let operator = start(&isolated, &identity).await;
    eventually("every policy has been looked at", async || {
        let seen = reconciled(&operator, "Unchanged").await + reconciled(&operator, "Refused").await;
        if seen >= POLICIES.try_into().unwrap() {
            Ok(())
        } else {
            Err(format!("{seen} reconciles"))
        }
    })
    .await;
    rest(plane.audit(), SHORT, |event| is_write(event, &identity))
        .await
        .unwrap();
    assert_eq!(writes(plane, quiet, &identity), Vec::<String>::new(), "after a restart");
}
