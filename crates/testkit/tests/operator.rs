//! `Operator` with a shell script in the binary's place: log, address, signals, memory, end.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use trellis_testkit::{
    eventually,
    operator::{Launch, Operator, Signal},
};

const SCRIPT: &str = r#"#!/bin/sh
echo "$@" "$KUBECONFIG"
echo "{\"fields\":{\"message\":\"listening\",\"address\":\"$ADDRESS\"}}"
trap 'echo bye; exit 3' TERM
while :; do sleep 0.02; done
"#;

fn script(directory: &Path) -> PathBuf {
    let path = directory.join("trellis");
    std::fs::write(&path, SCRIPT).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Says yes to everything.
async fn yes() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let _ = socket.read(&mut [0; 1024]).await;
            let _ = socket
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                .await;
        }
    });
    address
}

async fn operator(directory: &Path) -> Operator {
    let launch = Launch::new(Path::new("/kube config"), "a").program(&script(directory));
    let launch = launch
        .lease("sys", "l")
        .lease_duration("10s")
        .lease_duration("2s")
        .environment("ADDRESS", yes().await);
    launch.start().await.unwrap()
}

#[tokio::test]
async fn an_operator_is_started_heard_and_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let operator = operator(directory.path()).await;
    operator.ready().await;
    assert_eq!(operator.get("/metrics").await.unwrap(), (200, "ok".to_owned()));
    let said = operator.log().unwrap();
    let expected = "operator --identity a --listen 127.0.0.1:0 --log json --storage-backend memory --storage-addr 127.0.0.1:0 --lease-namespace sys --lease-name l --lease-duration 2s /kube config\n";
    assert!(said.starts_with(expected), "{said}");
    assert!((100_000..100_000_000).contains(&operator.memory().unwrap()));
    assert_eq!(operator.stop(Signal::Term).await.code(), Some(3));
    assert!(operator.log().unwrap().ends_with("bye\n"));
    assert!(!operator.running());
}

#[tokio::test]
async fn an_operator_is_frozen_thawed_and_killed() {
    let directory = tempfile::tempdir().unwrap();
    let operator = operator(directory.path()).await;
    operator.ready().await;
    operator.pause().await;
    assert!(operator.running());
    operator.resume().await;
    operator.pause().await;
    assert_eq!(operator.kill9().await.code(), None);
    assert!(operator.memory().is_err());
}

#[tokio::test]
async fn an_operator_ends_with_a_test_that_panics() {
    let directory = tempfile::tempdir().unwrap();
    let operator = operator(directory.path()).await;
    operator.ready().await;
    let pid = operator.pid();
    let test = tokio::spawn(async move {
        assert!(!operator.running(), "the test fails on purpose");
    });
    assert!(test.await.unwrap_err().is_panic());
    eventually("the process is gone", async || {
        match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) => Err(stat),
            Err(_) => Ok(()),
        }
    })
    .await;
}
