//! The streaming form on the real process: any size in constant memory, and an end that cannot be missed.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    reason = "a test that cannot go on fails"
)]

#[path = "sidecar/support.rs"]
#[expect(dead_code, reason = "shared by several test binaries")]
mod support;

use std::{io, time::Duration};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use http_body_util::{Full, StreamBody};
use hyper::body::{Body, Frame};
use serde_json::json;
use support::{Process, hook, mark, marked, shell, until};
use trellis_hooks::{Client, Endpoint, Error, Hook};

const MIB: usize = 1024 * 1024;

/// Bytes that differ from place to place.
fn bytes(from: usize, length: usize) -> Bytes {
    (from..from + length)
        .map(|place| (place.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0])
        .collect::<Vec<u8>>()
        .into()
}

fn body(size: usize) -> impl Body<Data = Bytes, Error = io::Error> + Send + Unpin + 'static {
    let chunks = (0..size)
        .step_by(64 * 1024)
        .map(move |from| Ok(Frame::data(bytes(from, (64 * 1024).min(size - from)))));
    StreamBody::new(stream::iter(chunks))
}

/// Memory that a sidecar may have at most, whatever flows through it.
const MEMORY: u64 = 64 * MIB as u64;

#[tokio::test]
async fn a_hundred_mib_flow_through_three_cats_in_constant_memory() {
    let process = Process::start(json!({}));
    let (client, cat, size) = (process.client(), hook("cat", &[]), 100 * MIB);
    let first = client.run(&cat, body(size)).await.unwrap();
    let second = client.run(&cat, first.into_body()).await.unwrap();
    let mut third = client.run(&cat, second.into_body()).await.unwrap();
    let mut total = 0;
    while let Some(chunk) = third.try_next().await.unwrap() {
        assert!(chunk == bytes(total, chunk.len()), "other bytes near {total}");
        total += chunk.len();
    }
    assert_eq!(total, size);
    let peak = process.peak();
    assert!(peak <= MEMORY, "{peak} bytes at most");
    eprintln!("peak of the sidecar: {} MiB", peak / MIB as u64);
}

#[tokio::test]
async fn a_reader_that_stops_holds_the_hook_not_the_memory() {
    let process = Process::start(json!({ "stdout": u64::MAX }));
    let client = process.client();
    let mut output = client.run(&hook("yes", &[]), Full::default()).await.unwrap();
    output.next().await.unwrap().unwrap();
    // Others go on meanwhile.
    for _ in 0..20 {
        let other = client.run(&hook("cat", &[]), body(MIB)).await.unwrap();
        assert_eq!(other.collect(2 * MIB).await.unwrap().len(), MIB);
    }
    let peak = process.peak();
    assert!(peak <= MEMORY, "{peak} bytes at most");
}

#[tokio::test]
async fn a_hook_that_does_not_read_holds_up_nobody_else() {
    let process = Process::start(json!({ "at_once": 8 }));
    let (client, mark) = (process.client(), mark());
    let mut stuck = Vec::new();
    for _ in 0..6 {
        stuck.push(client.run(&hook("sleep", &[&mark]), body(8 * MIB)).await.unwrap());
    }
    let other = client.run(&hook("sha256sum", &[]), body(8 * MIB)).await.unwrap();
    assert_eq!(other.collect(100).await.unwrap().len(), 68);
    drop(stuck);
    until("all have ended", || marked(&mark).is_empty()).await;
    let peak = process.peak();
    assert!(peak <= MEMORY, "{peak} bytes at most");
}

#[tokio::test]
async fn many_runs_at_once_keep_apart() {
    let process = Process::start(json!({ "at_once": 4, "queue": 100 }));
    let client = process.client();
    let runs = (0..40).map(|number: usize| {
        let client = client.clone();
        tokio::spawn(async move {
            let input = Full::from(number.to_string());
            let output = client
                .run(&shell("sleep 0.0$((RANDOM % 9)); cat"), input)
                .await
                .unwrap();
            assert_eq!(output.collect(100).await.unwrap(), number.to_string());
        })
    });
    for run in runs.collect::<Vec<_>>() {
        run.await.unwrap();
    }
}

#[tokio::test]
async fn a_failure_after_good_bytes_is_an_error_at_the_end() {
    let process = Process::start(json!({}));
    let mut output = process
        .client()
        .run(&shell("echo part; echo why >&2; exit 9"), Full::default())
        .await
        .unwrap();
    assert_eq!(output.next().await.unwrap().unwrap(), "part\n");
    let error = output.next().await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "hook exited with code 9: why");
    assert!(output.next().await.is_none());
}

#[tokio::test]
async fn standard_error_of_a_good_run_can_be_read() {
    let process = Process::start(json!({}));
    let mut output = process
        .client()
        .run(&shell("cat; echo note >&2"), Full::from("x"))
        .await
        .unwrap();
    while output.try_next().await.unwrap().is_some() {}
    assert_eq!(output.stderr(), "note\n");
}

#[tokio::test]
async fn an_input_that_breaks_is_never_taken_for_the_whole() {
    let process = Process::start(json!({}));
    let chunks = [
        Ok(Frame::data(Bytes::from("half"))),
        Err(io::Error::other("upstream was cut")),
    ];
    // The second chunk comes when the first is on its way.
    let chunks = stream::iter(chunks).then(|chunk| async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        chunk
    });
    let output = process
        .client()
        .run(&hook("cat", &[]), StreamBody::new(Box::pin(chunks)))
        .await;
    let error = match output {
        Ok(output) => output.collect(MIB).await.unwrap_err(),
        Err(error) => error,
    };
    assert!(
        matches!(&error, Error::Input(why) if why.contains("upstream was cut")),
        "{error:?}"
    );
    until("the run has ended", || process.folders() == 0).await;
}

#[tokio::test]
async fn a_failed_link_fails_the_chain() {
    let process = Process::start(json!({}));
    let client = process.client();
    let first = client
        .run(&shell("head -c 1000; echo no >&2; exit 2"), body(MIB))
        .await
        .unwrap();
    // The end of the first may come before the second has answered, or after.
    let error = match client.run(&hook("cat", &[]), first.into_body()).await {
        Ok(second) => second.collect(MIB).await.unwrap_err(),
        Err(error) => error,
    };
    assert!(
        matches!(&error, Error::Input(why) if why.contains("exited with code 2: no")),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_sidecar_that_dies_is_never_a_clean_end_and_a_new_one_is_found() {
    let mut process = Process::start(json!({}));
    let client = process.client();
    let mut output = client
        .run(&shell("echo part; sleep 60"), Full::default())
        .await
        .unwrap();
    assert_eq!(output.next().await.unwrap().unwrap(), "part\n");
    process.kill();
    let error = output.next().await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert!(matches!(client.healthy().await, Err(Error::Unreachable { .. })));
    let _next = Process::start(json!({ "socket": process.socket(), "work": process.work }));
    client.healthy().await.unwrap();
    assert_eq!(
        client.execute(&hook("cat", &[]), b"again").await.unwrap().stdout,
        "again"
    );
}

#[tokio::test]
async fn no_sidecar_is_unreachable_with_the_reason() {
    let client = Client::new(Endpoint::parse("unix:///nowhere/s", None).unwrap());
    let error = client
        .run(&hook("cat", &[]), Full::<Bytes>::default())
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "hook executor is unreachable: No such file or directory (os error 2)"
    );
}

#[tokio::test]
async fn the_json_form_has_the_same_errors() {
    let process = Process::start(json!({}));
    let client = process.client();
    let error = client.execute(&shell("echo why >&2; exit 9"), b"").await.unwrap_err();
    assert_eq!(error.to_string(), "hook exited with code 9: why");
    let late = Hook {
        timeout: Some(Duration::from_millis(300)),
        ..shell("sleep 60")
    };
    assert!(matches!(client.execute(&late, b"").await, Err(Error::TimedOut { .. })));
    assert!(matches!(
        client.execute(&hook("rm", &[]), b"").await,
        Err(Error::NotAllowed(_))
    ));
    assert!(matches!(
        client.execute(&hook("cat", &[]), &vec![0; 9 * MIB]).await,
        Err(Error::TooLarge(_))
    ));
}
