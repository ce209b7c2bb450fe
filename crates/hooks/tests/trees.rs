//! The end of a run is the end of all its processes: each way in which one could stay behind, tried on the real
//! process, under a kernel that allows namespaces and under one that refuses them.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    reason = "a test that cannot go on fails"
)]

#[path = "sidecar/support.rs"]
#[expect(dead_code, reason = "shared by several test binaries")]
mod support;

use std::{
    process::Command,
    time::{Duration, Instant},
};

use http_body_util::Full;
use rstest::rstest;
use serde_json::json;
use support::{Kernel, Process, hook, mark, marked, shell, until};
use trellis_hooks::{Client, Endpoint, Error, Hook};

/// Runs it and gives its output as text.
async fn said(process: &Process, hook: &Hook) -> Result<String, Error> {
    let output = process.client().run(hook, Full::default()).await?;
    output
        .collect(1 << 20)
        .await
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn short(hook: Hook, millis: u64) -> Hook {
    Hook {
        timeout: Some(Duration::from_millis(millis)),
        ..hook
    }
}

#[rstest]
#[tokio::test]
async fn a_run_has_its_own_process_group(#[values(Kernel::Allows, Kernel::Refuses)] kernel: Kernel) {
    let process = kernel.start(json!({}));
    let mark = mark();
    let output = process
        .client()
        .run(&hook("sleep", &[&mark]), Full::default())
        .await
        .unwrap();
    until("the hook runs", || !marked(&mark).is_empty()).await;
    let group = |pid: u32| {
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap());
        rustix::process::getpgid(pid).unwrap()
    };
    assert_ne!(group(marked(&mark)[0]), group(process.pid()));
    drop(output);
    until("the hook has ended", || marked(&mark).is_empty()).await;
}

/// The earlier one came back after 8 s, when the grandchild that held the pipe had ended.
#[rstest]
#[case::a_child("sleep MARK")]
#[case::a_child_in_the_background("sleep MARK & wait")]
#[case::a_grandchild("bash -c 'sleep MARK & wait' & wait")]
#[case::a_grandchild_that_ignores_signals("trap '' TERM HUP INT; bash -c 'sleep MARK & wait'; wait")]
#[case::an_orphan("(bash -c 'sleep MARK &'); sleep MARK")]
#[case::a_session_of_its_own("setsid -f sleep MARK; sleep MARK")]
#[case::a_daemon("setsid bash -c 'setsid sleep MARK & setsid sleep MARK & exit' & wait; sleep MARK")]
#[tokio::test]
async fn a_timeout_ends_the_whole_tree_at_once(
    #[case] script: &str,
    #[values(Kernel::Allows, Kernel::Refuses)] kernel: Kernel,
) {
    let process = kernel.start(json!({}));
    let mark = mark();
    let hook = short(shell(&script.replace("MARK", &mark)), 700);
    let start = Instant::now();
    let error = said(&process, &hook).await.unwrap_err();
    let took = start.elapsed();
    assert_eq!(error.to_string(), "hook timed out after 700ms");
    assert_eq!(marked(&mark), [0_u32; 0], "the tree has ended before the answer");
    assert!(
        took < Duration::from_secs(5),
        "{took:?}: something waited for a process that holds the pipe"
    );
    until("its directory is gone", || process.folders() == 0).await;
}

#[rstest]
#[tokio::test]
async fn a_run_ends_with_its_command(#[values(Kernel::Allows, Kernel::Refuses)] kernel: Kernel) {
    let process = kernel.start(json!({}));
    let mark = mark();
    let script = format!("sleep {mark} & setsid sleep {mark} & echo done");
    assert_eq!(said(&process, &shell(&script)).await.unwrap(), "done\n");
    assert_eq!(marked(&mark), [0_u32; 0]);
}

/// Holds the sidecar and all below it, whatever its own limits do.
const BELT: &[&str] = &["prlimit", "--nproc=600:600"];

#[rstest]
#[tokio::test]
async fn processes_are_bounded(#[values(Kernel::Allows, Kernel::Refuses)] kernel: Kernel) {
    let process = kernel.start_below(BELT, json!({ "processes": 32, "user_processes": 200 }));
    let mark = mark();
    // No bomb that a fault of ours would let take the machine along: it ends by itself.
    let many = shell(&format!("for i in $(seq 1500); do sleep {mark} & done; wait"));
    let client = process.client();
    let run = tokio::spawn(async move {
        client
            .run(&short(many, 3000), Full::default())
            .await?
            .collect(1 << 20)
            .await
    });
    let mut most = 0;
    while !run.is_finished() {
        most = most.max(marked(&mark).len());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let error = run.await.unwrap().unwrap_err();
    assert!(
        matches!(error, Error::Failed { .. } | Error::TimedOut { .. }),
        "{error:?}"
    );
    assert_eq!(marked(&mark), [0_u32; 0]);
    // By the kernel exactly; elsewhere by the kernel for the whole user, until the next round of counting.
    let bound = if kernel == Kernel::Allows { 33 } else { 200 };
    assert!(most <= bound, "{most} processes");
    assert_eq!(said(&process, &shell("echo well")).await.unwrap(), "well\n");
}

#[tokio::test]
async fn what_a_crashed_sidecar_left_is_removed() {
    let mut process = Process::start(json!({}));
    let mark = mark();
    let _output = process
        .client()
        .run(&hook("sleep", &[&mark]), Full::default())
        .await
        .unwrap();
    until("the hook runs", || !marked(&mark).is_empty()).await;
    process.kill();
    until("the tree of a killed sidecar ends", || marked(&mark).is_empty()).await;
    assert_eq!(process.folders(), 1);
    let next = Process::start(json!({ "work": process.work, "socket": process.socket() }));
    assert_eq!(process.folders(), 0);
    Client::new(Endpoint::Socket(process.socket())).healthy().await.unwrap();
    drop(next);
}

#[rstest]
#[tokio::test]
async fn the_tree_ends_when_the_sidecar_is_killed(#[values(Kernel::Allows, Kernel::Refuses)] kernel: Kernel) {
    let mut process = kernel.start(json!({}));
    let mark = mark();
    let script = format!("setsid sleep {mark} & sleep {mark}");
    let output = process.client().run(&shell(&script), Full::default()).await.unwrap();
    until("the hook runs", || marked(&mark).len() >= 2).await;
    process.kill();
    until("the tree has ended", || marked(&mark).is_empty()).await;
    assert!(matches!(output.collect(1).await, Err(Error::Unreachable { .. })));
}

#[tokio::test]
async fn the_tree_ends_with_the_sidecar() {
    let mut process = Process::start(json!({}));
    let mark = mark();
    let output = process
        .client()
        .run(&hook("sleep", &[&mark]), Full::default())
        .await
        .unwrap();
    until("the hook runs", || !marked(&mark).is_empty()).await;
    assert!(process.terminate().success());
    assert_eq!(marked(&mark), [0_u32; 0]);
    assert_eq!(process.folders(), 0);
    assert!(!process.socket().exists());
    assert!(output.collect(1).await.is_err());
}

#[rstest]
#[tokio::test]
async fn a_client_that_hangs_up_ends_its_run(#[values(Kernel::Allows, Kernel::Refuses)] kernel: Kernel) {
    let process = kernel.start(json!({}));
    let mark = mark();
    let script = format!("setsid sleep {mark} & sleep {mark}");
    let output = process.client().run(&shell(&script), Full::default()).await.unwrap();
    until("the hook runs", || marked(&mark).len() >= 2).await;
    drop(output);
    until("the tree has ended", || {
        marked(&mark).is_empty() && process.folders() == 0
    })
    .await;

    let body = json!({ "command": "sleep", "args": [mark] }).to_string();
    let mut curl = Command::new("curl")
        .args([
            "-sS",
            "--data-binary",
            &body,
            "http://localhost/execute",
            "--unix-socket",
        ])
        .arg(process.socket())
        .spawn()
        .unwrap();
    until("the hook runs", || !marked(&mark).is_empty()).await;
    curl.kill().unwrap();
    curl.wait().unwrap();
    until("the tree has ended", || {
        marked(&mark).is_empty() && process.folders() == 0
    })
    .await;
}
