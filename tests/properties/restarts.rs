//! Random stories while their operator is killed and stopped in the middle of its work.
//!
//! stories ─▶ writes of the operator ─▶ after so many: SIGKILL or SIGTERM ─▶ the next one ─▶ … ─▶ the same laws

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use proptest::{collection::vec, prelude::any};
use tokio::{sync::Mutex, time::interval};
use trellis_testkit::{
    operator::{Launch, Operator, Signal},
    plane::Plane,
};

use crate::{
    OTHER,
    audited::is_work,
    lifecycle::{self, Ran, cases, proving, seed},
    property::{Plot, Property, draw},
};

/// How often the audit log is read.
const LOOK: Duration = Duration::from_millis(20);

/// Ends the operator after so many of its writes each time, and starts the next one.
async fn disturb(
    plane: &Plane,
    launch: &Launch,
    operator: &Mutex<Operator>,
    plan: Vec<(usize, bool)>,
    ended: &AtomicUsize,
) {
    let mut tail = plane.audit().tail(plane.audit().mark().unwrap());
    let mut look = interval(LOOK);
    for (writes, kill) in plan {
        let mut seen = 0;
        while seen < writes {
            look.tick().await;
            let events = tail.read().unwrap();
            seen += events
                .iter()
                .filter(|event| is_work(event) && event.identity() == Some(launch.identity()))
                .count();
        }
        let mut operator = operator.lock().await;
        if kill {
            operator.kill9().await;
        } else {
            assert_eq!(operator.stop(Signal::Term).await.code(), Some(0), "a stop is clean");
        }
        *operator = launch.start().await.unwrap();
        // Only a process that listens handles signals, and only its own writes count from here.
        operator.ready().await;
        tail = plane.audit().tail(plane.audit().mark().unwrap());
        ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// P2, P6, P7, P9 and P13 hold whenever the operator ends, by SIGKILL or SIGTERM, and another one goes on: also in the middle
/// of a deletion.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_depends_on_the_operator_staying_alive() {
    let plane = OTHER.get().await.unwrap();
    let properties = [Property::P2, Property::P6, Property::P7, Property::P9, Property::P13];
    let cases: Vec<_> = cases(&properties)
        .into_iter()
        .filter(|case| {
            let whole = matches!(case.plot, Plot::Whole(_));
            (proving() && whole) || case.number % 4 == 0 || case.number % 5 == 4
        })
        .collect();
    let places = crate::places(plane, "again-", &cases).await;
    let account = trellis_tests::account(plane).await.unwrap();
    let launch = trellis_tests::launch(account.path(), "restarted", &[])
        .lease(trellis_tests::NAMESPACE, "restarted")
        .lease_duration("2s");
    let operator = Mutex::new(launch.start().await.unwrap());
    let ends = if proving() { 25 } else { 5 };
    let plan = draw(&vec((5..60usize, any::<bool>()), ends), seed(), 0, 201);
    let (total, ended) = (cases.len(), AtomicUsize::new(0));
    let ran: Vec<Ran> = lifecycle::run(
        plane,
        cases,
        places,
        disturb(plane, &launch, &operator, plan, &ended),
        async {
            let mut operator = operator.lock().await;
            if !operator.running() {
                *operator = launch.start().await.unwrap();
            }
        },
    )
    .await;
    let failures: Vec<String> = ran
        .iter()
        .filter_map(|ran| Some(format!("{}\n{}", ran.failure.as_ref()?, ran.case.describe())))
        .collect();
    assert!(
        failures.is_empty(),
        "{} of {total} stories failed:\n{}",
        failures.len(),
        failures.join("\n\n")
    );
    let ended = ended.into_inner();
    assert!(ended > 0, "the operator was never ended");
    eprintln!("{total} stories while the operator ended {ended} times");
}
