//! Conditional requests: one `GET`, never a `HEAD`.

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    body::Body,
    extract::Request as Asked,
    http::{Method, StatusCode},
    response::Response,
};
use rstest::rstest;
use trellis_fetch::{Fetched, Generator as _, HttpGenerator, Method as How, Order, Validators};

use crate::support::{Server, client, quick, serve};

const WHEN: &str = "Fri, 31 Dec 1999 23:59:59 GMT";

/// Knows one state; answers nothing but `GET` and `POST`; notes the methods that it saw.
async fn upstream(etag: Option<&'static str>, last_modified: bool) -> (Server, Arc<Mutex<Vec<Method>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let note = seen.clone();
    let server = serve(Router::new().fallback(move |asked: Asked| {
        note.lock().unwrap().push(asked.method().clone());
        async move {
            if asked.method() == Method::HEAD {
                return Response::builder()
                    .status(StatusCode::METHOD_NOT_ALLOWED)
                    .body(Body::empty())
                    .unwrap();
            }
            let header = |name: &str| asked.headers().get(name).and_then(|value| value.to_str().ok());
            let same = match (header("if-none-match"), etag) {
                // RFC 9110, 13.1.2: weak comparison, and no look at the date if there is an entity tag.
                (Some(known), Some(etag)) => known.trim_start_matches("W/") == etag.trim_start_matches("W/"),
                _ => last_modified && header("if-modified-since") == Some(WHEN),
            };
            let mut answer = Response::builder().status(if same { 304 } else { 200 });
            if let Some(etag) = etag {
                answer = answer.header("etag", etag);
            }
            if last_modified {
                answer = answer.header("last-modified", WHEN);
            }
            answer
                .body(if same { Body::empty() } else { Body::from("data") })
                .unwrap()
        }
    }))
    .await;
    (server, seen)
}

#[rstest]
#[case::strong(Some("\"v1\""), false)]
#[case::weak(Some("W/\"v1\""), false)]
#[case::both(Some("\"v1\""), true)]
#[case::last_modified_only(None, true)]
#[tokio::test]
async fn what_is_known_is_not_sent_again(#[case] etag: Option<&'static str>, #[case] last_modified: bool) {
    let (server, seen) = upstream(etag, last_modified).await;
    let generator = HttpGenerator::new(client(quick()), server.get("/x"));
    assert!(generator.supports_conditional_fetch());
    let mut sink = Vec::new();
    let Fetched::Body(body) = generator.generate(&Order::default(), &mut sink).await.unwrap() else {
        panic!()
    };
    assert_eq!(sink, b"data");
    assert_eq!(body.size, 4);
    // `printf data | sha256sum`
    assert_eq!(
        body.digest.to_string(),
        "sha256:3a6eb0790f39ac87c94f3856b2dd2c5d110e6811602261a9a923d3bb23adc8b7"
    );
    assert_eq!(body.validators.etag.as_deref(), etag);
    assert_eq!(body.validators.last_modified.is_some(), last_modified);

    let known = Order {
        known: body.validators,
        ..Order::default()
    };
    let mut sink = Vec::new();
    assert_eq!(
        generator.generate(&known, &mut sink).await.unwrap(),
        Fetched::NotModified
    );
    assert!(sink.is_empty());
    assert_eq!(
        *seen.lock().unwrap(),
        [Method::GET, Method::GET],
        "server without HEAD: it was never asked for one"
    );
    assert_eq!(server.accepts(), 1);
}

#[tokio::test]
async fn another_state_is_sent() {
    let (server, _) = upstream(Some("\"v2\""), false).await;
    let known = Order {
        known: Validators {
            etag: Some("\"v1\"".into()),
            last_modified: None,
        },
        ..Order::default()
    };
    let mut sink = Vec::new();
    let fetched = client(quick())
        .fetch(&server.get("/"), &known, &mut sink)
        .await
        .unwrap();
    assert!(matches!(fetched, Fetched::Body(_)));
}

#[tokio::test]
async fn last_modified_is_asked_for_without_a_head() {
    let (server, seen) = upstream(None, true).await;
    let generator = HttpGenerator::new(client(quick()), server.get("/x"));
    assert_eq!(generator.last_modified().await.unwrap().as_deref(), Some(WHEN));
    assert_eq!(*seen.lock().unwrap(), [Method::GET]);
}

#[tokio::test]
async fn a_post_is_not_conditional() {
    let (server, seen) = upstream(Some("\"v1\""), false).await;
    let request = server.get("/").method(How::Post, "{}").unwrap();
    let generator = HttpGenerator::new(client(quick()), request);
    assert!(!generator.supports_conditional_fetch());
    let known = Order {
        known: Validators {
            etag: Some("\"v1\"".into()),
            last_modified: None,
        },
        ..Order::default()
    };
    assert!(matches!(
        generator.generate(&known, &mut Vec::new()).await.unwrap(),
        Fetched::Body(_)
    ));
    assert_eq!(*seen.lock().unwrap(), [Method::POST]);
}

#[tokio::test]
async fn a_304_that_nobody_asked_for_is_a_failure() {
    let server = serve(Router::new().fallback(async || StatusCode::NOT_MODIFIED)).await;
    let error = crate::support::fails(&client(quick()), &server.get("/")).await;
    assert!(matches!(error, trellis_fetch::Error::Status { status: 304, .. }));
}
