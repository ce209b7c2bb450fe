//! What clients may not do to the server: hold connections for nothing, or more than there are.

use std::{sync::Arc, time::Duration};

use rstest::rstest;
use trellis_store::{Disk, ServerSettings};

use super::{MIB, serve, settings, stored};
use crate::{
    backend::bytes,
    client::{Connection, ask},
};

/// The clock stands still but where it is moved: a limit on the time of an answer would cut the client at once.
#[tokio::test(start_paused = true)]
async fn a_client_that_reads_slowly_is_not_cut() {
    let root = tempfile::tempdir().unwrap();
    let disk = Arc::new(Disk::open(root.path()).await.unwrap());
    let file = bytes(1, 20 * MIB);
    let path = format!("/{}", stored(&*disk, &file).await);
    let running = serve(disk, settings()).await;
    let mut connection = Connection::to(running.address).await;
    connection.ask("GET", &path, &[]).await;
    let head = connection.head().await.unwrap();
    assert_eq!((head.status, head.length()), (200, file.len()));
    let mut read = Vec::new();
    for _ in 0..24 {
        read.extend(connection.take(10_000).await);
        tokio::time::advance(Duration::from_hours(1)).await;
    }
    read.extend(connection.take(file.len() - read.len()).await);
    assert!(read == file);
    // And the connection still serves.
    connection.ask("HEAD", &path, &[]).await;
    assert_eq!(connection.head().await.unwrap().status, 200);
}

#[rstest]
#[case::nothing("")]
#[case::half_a_head("GET /readyz HTTP/1.1\r\nhost: files\r\nx: ")]
#[case::after_an_answer("GET /readyz HTTP/1.1\r\nhost: files\r\n\r\n")]
#[tokio::test(start_paused = true)]
async fn a_connection_without_a_request_is_closed(#[case] sent: &str) {
    let root = tempfile::tempdir().unwrap();
    let disk = Arc::new(Disk::open(root.path()).await.unwrap());
    let running = serve(disk, settings()).await;
    let mut connection = Connection::to(running.address).await;
    let started = tokio::time::Instant::now();
    connection.send(sent).await;
    connection.rest().await;
    let passed = started.elapsed();
    assert!(
        passed >= Duration::from_secs(30) && passed < Duration::from_secs(40),
        "{passed:?}"
    );
}

#[tokio::test]
async fn connections_are_bounded_and_the_next_one_waits() {
    let root = tempfile::tempdir().unwrap();
    let disk = Arc::new(Disk::open(root.path()).await.unwrap());
    let running = serve(
        disk,
        ServerSettings {
            connections: 2,
            ..settings()
        },
    )
    .await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut connection = Connection::to(running.address).await;
        connection.ask("GET", "/readyz", &[]).await;
        assert_eq!(connection.head().await.unwrap().status, 200);
        open.push(connection);
    }
    let third = ask(running.address, "GET", "/readyz", &[]);
    let mut third = std::pin::pin!(third);
    // The others are answered again and again meanwhile; the third never is.
    for _ in 0..50 {
        assert!(futures::poll!(&mut third).is_pending());
        let length = "ok\n".len();
        open[0].take(length).await;
        open[0].ask("GET", "/readyz", &[]).await;
        assert_eq!(open[0].head().await.unwrap().status, 200);
    }
    open.pop();
    assert_eq!(third.await.0.status, 200);
}
