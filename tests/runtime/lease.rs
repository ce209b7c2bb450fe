//! The Lease when somebody meddles with it.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use tokio_util::sync::CancellationToken;
use trellis_runtime::lease::{Elector, Options};
use trellis_testkit::{Disturb, Fault, Recording, Script, Verb, calls, eventually, plane::Isolated};

use crate::stage::isolated;

const DURATION: Duration = Duration::from_secs(2);

/// A candidate, and what it meets.
fn candidate(isolated: &Isolated, identity: &str) -> (Elector, Script, Recording) {
    let (script, recording) = (Script::new(), Recording::new());
    let client = Disturb::new(&script, &recording).client(isolated.plane().config());
    let options = Options {
        namespace: isolated.name().to_owned(),
        name: "trellis".to_owned(),
        identity: identity.to_owned(),
        duration: DURATION,
    };
    (Elector::new(client.unwrap(), options), script, recording)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_deleted_under_its_holder_is_not_free_while_the_holder_may_write() {
    let isolated = isolated().await;
    let stop = CancellationToken::new();
    let (holder, _, _) = candidate(&isolated, "a");
    let term = holder.claim(&stop).await.unwrap();
    let (standby, script, _) = candidate(&isolated, "b");
    let waiting = {
        let stop = stop.clone();
        tokio::spawn(async move { (standby.claim(&stop).await.is_some(), Instant::now()) })
    };
    eventually("the standby watches", async || match script.open_watches(&calls()) {
        0 => Err("not yet"),
        _ => Ok(()),
    })
    .await;
    let deleted = Instant::now();
    isolated.delete::<Lease>("trellis").await.unwrap();
    let (taken, at) = waiting.await.unwrap();
    assert!(taken);
    assert!(
        at.duration_since(deleted) >= DURATION,
        "{:?}",
        at.duration_since(deleted)
    );
    assert!(term.fence.remaining().is_zero());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_read_the_lease_is_no_candidate_until_it_may() {
    let isolated = isolated().await;
    let (elector, script, recording) = candidate(&isolated, "a");
    let refused = script.add(calls().verb(Verb::Get).then(Fault::fail(403)));
    let reading = tokio::spawn(async move { elector.readable(&CancellationToken::new()).await });
    recording.ended(&calls().verb(Verb::Get), 2).await;
    assert!(!reading.is_finished());
    refused.lift();
    assert!(reading.await.unwrap(), "a Lease that does not exist can be read");
}
