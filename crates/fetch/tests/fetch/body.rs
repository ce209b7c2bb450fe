//! Bodies that are endless, slow, cut, lied about or bombs.

use std::{
    io::Write as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use flate2::{Compression, write::GzEncoder};
use rstest::rstest;
use tokio::{io::AsyncWriteExt as _, time::Instant};
use trellis_fetch::{Error, Excess, Order, Settings, Timeout, Transferred};

use crate::support::{client, fails, fetch, quick, raw, request_head, says};

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn answer(headers: &str, body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 200 OK\r\n{headers}\r\n\r\n").as_bytes(), body].concat()
}

#[tokio::test]
async fn an_endless_body_ends_at_the_limit() {
    let server = raw(async |mut tcp| {
        request_head(&mut tcp).await;
        let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while tcp.write_all(&[b'x'; 16 * 1024]).await.is_ok() {}
    })
    .await;
    let mut sink = Vec::new();
    let order = Order {
        max_bytes: Some(100_000),
        ..Order::default()
    };
    let error = client(quick())
        .fetch(&server.get("/"), &order, &mut sink)
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::TooLarge {
                limit: 100_000,
                excess: Excess::Received,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(sink.len() <= 100_000, "nothing beyond the limit reaches the sink");
}

#[tokio::test]
async fn an_announced_size_beyond_the_limit_is_refused_before_the_body() {
    let server = says(answer("Content-Length: 99999999999", b""), false).await;
    let error = fails(&client(quick()), &server.get("/")).await;
    assert!(
        matches!(
            error,
            Error::TooLarge {
                excess: Excess::Declared(99_999_999_999),
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_body_of_just_the_limit_is_taken() {
    let server = says(answer("Content-Length: 1048576", &vec![b'x'; 1_048_576]), false).await;
    assert_eq!(
        fetch(&client(quick()), &server.get("/")).await.unwrap().1.len(),
        1_048_576
    );
}

#[tokio::test]
async fn silence_within_a_body_ends_it() {
    let server = says(answer("Content-Length: 10", b"abc"), false).await;
    let settings = Settings {
        idle_timeout: Duration::from_millis(200),
        ..quick()
    };
    let error = fails(&client(settings), &server.get("/")).await;
    assert!(
        matches!(
            error,
            Error::Timeout {
                which: Timeout::Idle,
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_drip_that_is_never_silent_ends_with_the_total_time() {
    let server = raw(async |mut tcp| {
        request_head(&mut tcp).await;
        let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while tcp.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let order = Order {
        total_timeout: Some(Duration::from_millis(500)),
        ..Order::default()
    };
    let error = client(quick())
        .fetch(&server.get("/"), &order, &mut Vec::new())
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::Timeout {
                which: Timeout::Total,
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn no_answer_ends_with_the_time_for_headers() {
    let server = says("", false).await;
    let settings = Settings {
        header_timeout: Duration::from_millis(200),
        ..quick()
    };
    let start = Instant::now();
    let error = fails(&client(settings), &server.get("/")).await;
    assert!(
        matches!(
            error,
            Error::Timeout {
                which: Timeout::Header,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "the time for connecting is not added"
    );
}

#[rstest]
#[case::length("Content-Length: 10", b"abc".as_slice())]
#[case::chunked("Transfer-Encoding: chunked", b"5\r\nab".as_slice())]
#[case::chunked_without_end("Transfer-Encoding: chunked", b"3\r\nabc\r\n".as_slice())]
#[tokio::test]
async fn a_cut_in_the_middle_is_a_failure(#[case] headers: &str, #[case] body: &[u8]) {
    let server = says(answer(headers, body), true).await;
    let error = fails(&client(quick()), &server.get("/")).await;
    assert!(matches!(error, Error::Cut { received: 2 | 3, .. }), "{error:?}");
}

#[tokio::test]
async fn more_than_was_announced_is_not_taken_and_not_read_as_the_next_answer() {
    let server = says(
        answer(
            "Content-Length: 3",
            b"abcHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        ),
        false,
    )
    .await;
    let client = client(quick());
    assert_eq!(fetch(&client, &server.get("/")).await.unwrap().1, b"abc");
    assert_eq!(fetch(&client, &server.get("/")).await.unwrap().1, b"abc");
    assert_eq!(server.accepts(), 2);
}

#[tokio::test]
async fn gzip_is_undone_and_the_digest_is_of_what_is_written() {
    let server = says(
        answer("Content-Encoding: gzip\r\nConnection: close", &gzip(b"data")),
        true,
    )
    .await;
    let (body, sink) = fetch(&client(quick()), &server.get("/")).await.unwrap();
    assert_eq!(sink, b"data");
    assert_eq!(
        body.digest.to_string(),
        "sha256:3a6eb0790f39ac87c94f3856b2dd2c5d110e6811602261a9a923d3bb23adc8b7"
    );
}

#[tokio::test]
async fn a_gzip_bomb_ends_at_the_limit() {
    let bomb = gzip(&vec![0; 64 * 1024 * 1024]);
    assert!(bomb.len() < 100_000);
    let head = format!("Content-Encoding: gzip\r\nContent-Length: {}", bomb.len());
    let server = says(answer(&head, &bomb), false).await;
    let mut sink = Vec::new();
    let error = client(quick())
        .fetch(&server.get("/"), &Order::default(), &mut sink)
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::TooLarge {
                excess: Excess::Decoded,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(sink.len() <= 1024 * 1024);
}

#[rstest]
#[case::unknown("br", b"x".to_vec())]
#[case::twice("gzip, gzip", gzip(&gzip(b"x")))]
#[case::damaged("gzip", b"not gzip at all".to_vec())]
#[case::cut("gzip", gzip(&[7; 5000])[..20].to_vec())]
#[tokio::test]
async fn a_coding_that_cannot_be_undone(#[case] coding: &str, #[case] body: Vec<u8>) {
    let head = format!("Content-Encoding: {coding}\r\nContent-Length: {}", body.len());
    let server = says(answer(&head, &body), false).await;
    let error = fails(&client(quick()), &server.get("/")).await;
    assert!(matches!(error, Error::Encoding { .. }), "{error:?}");
}

#[tokio::test]
async fn progress_is_told() {
    let server = says(answer("Content-Length: 300000", &vec![b'x'; 300_000]), false).await;
    let told = Arc::new(Mutex::new(Vec::<Transferred>::new()));
    let note = told.clone();
    let order = Order {
        progress: Some(Arc::new(move |now| note.lock().unwrap().push(now))),
        ..Order::default()
    };
    client(quick())
        .fetch(&server.get("/"), &order, &mut Vec::new())
        .await
        .unwrap();
    let told = told.lock().unwrap();
    assert!(told.is_sorted_by_key(|now| now.bytes));
    assert_eq!(
        told.last(),
        Some(&Transferred {
            bytes: 300_000,
            total: Some(300_000)
        })
    );
}

#[tokio::test]
async fn a_sink_that_fails_is_told_apart() {
    struct Full;
    impl tokio::io::AsyncWrite for Full {
        fn poll_write(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            _: &[u8],
        ) -> std::task::Poll<std::io::Result<usize>> {
            std::task::Poll::Ready(Err(std::io::ErrorKind::StorageFull.into()))
        }
        fn poll_flush(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            std::task::Poll::Ready(Ok(()))
        }
        fn poll_shutdown(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            std::task::Poll::Ready(Ok(()))
        }
    }
    let server = says(answer("Content-Length: 3", b"abc"), false).await;
    let error = client(quick())
        .fetch(&server.get("/"), &Order::default(), &mut Full)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Sink(why) if why.kind() == std::io::ErrorKind::StorageFull));
}
