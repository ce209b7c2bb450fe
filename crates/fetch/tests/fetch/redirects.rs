//! Redirects: followed one hop at a time, under the policy, without what is secret.

use std::sync::{Arc, Mutex, atomic::Ordering};

use axum::{
    Router,
    extract::Request as Asked,
    http::{HeaderMap, StatusCode},
};
use rstest::rstest;
use trellis_fetch::{Client, Error, Link, Method, RedirectFault, Request};

use crate::support::{Names, Rules, Server, client, fails, fetch, quick, serve};

/// Redirects to a place, with a status.
async fn to(status: u16, location: String) -> Server {
    serve(Router::new().fallback(async move || (StatusCode::from_u16(status).unwrap(), [("location", location)]))).await
}

/// Notes the headers of every request.
async fn notes() -> (Server, Arc<Mutex<Vec<(String, HeaderMap)>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let note = seen.clone();
    let server = serve(Router::new().fallback(move |asked: Asked| {
        note.lock()
            .unwrap()
            .push((asked.method().to_string(), asked.headers().clone()));
        async { "here" }
    }))
    .await;
    (server, seen)
}

const SECRETS: [&str; 4] = ["Authorization", "X-API-Key", "PRIVATE-TOKEN", "Cookie"];

fn with_secrets(request: Request) -> Request {
    SECRETS
        .iter()
        .fold(request, |request, name| request.header(name, &"geheim".into()).unwrap())
}

#[rstest]
#[case(301)]
#[case(302)]
#[case(303)]
#[case(307)]
#[case(308)]
#[tokio::test]
async fn another_origin_gets_no_secret_header(#[case] status: u16) {
    let (there, seen) = notes().await;
    let here = to(status, there.link("/x").to_string()).await;
    let (body, sink) = fetch(&client(quick()), &with_secrets(here.get("/"))).await.unwrap();
    assert_eq!(sink, b"here");
    assert_eq!(body.link, there.link("/x").shown());
    let seen = seen.lock().unwrap();
    for name in SECRETS {
        assert!(!seen[0].1.contains_key(name), "{name}");
    }
    assert!(!format!("{seen:?}").contains("geheim"));
}

#[tokio::test]
async fn coming_back_brings_no_secret_back() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let note = seen.clone();
    let back = Arc::new(Mutex::new(String::new()));
    let first = back.clone();
    let here = serve(Router::new().fallback(move |asked: Asked| {
        let at = asked.uri().path().to_owned();
        note.lock()
            .unwrap()
            .push((at.clone(), asked.headers().contains_key("x-api-key")));
        let location = first.lock().unwrap().clone();
        async move {
            if at == "/end" {
                (StatusCode::OK, [("location", String::new())])
            } else {
                (StatusCode::FOUND, [("location", location)])
            }
        }
    }))
    .await;
    let there = to(302, here.link("/end").to_string()).await;
    *back.lock().unwrap() = there.link("/").to_string();
    fetch(&client(quick()), &with_secrets(here.get("/start")))
        .await
        .unwrap();
    assert_eq!(
        *seen.lock().unwrap(),
        [("/start".to_owned(), true), ("/end".to_owned(), false)]
    );
}

#[tokio::test]
async fn the_same_origin_keeps_them() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let note = seen.clone();
    let server = serve(Router::new().fallback(move |asked: Asked| {
        note.lock().unwrap().push(asked.headers().get("x-api-key").cloned());
        let end = asked.uri().path() == "/end";
        async move {
            (
                if end { StatusCode::OK } else { StatusCode::FOUND },
                [("location", "/end")],
            )
        }
    }))
    .await;
    fetch(&client(quick()), &with_secrets(server.get("/"))).await.unwrap();
    assert_eq!(seen.lock().unwrap().iter().filter(|value| value.is_some()).count(), 2);
}

#[tokio::test]
async fn a_loop_ends() {
    let server = to(302, "/again".into()).await;
    let error = fails(&client(quick()), &server.get("/")).await;
    assert!(
        matches!(
            error,
            Error::Redirect {
                fault: RedirectFault::TooMany { limit: 10 },
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(server.accepts(), 1, "the hops shared a connection");
}

#[rstest]
#[case::metadata("http://169.254.169.254/latest/meta-data/")]
#[case::metadata_in_ipv6("http://[::ffff:169.254.169.254]/")]
#[case::metadata_as_number("http://2852039166/")]
#[case::loopback_in_ipv6("http://[::1]:1/")]
#[case::name_of_loopback("http://d.test:1/")]
#[case::denied_name("http://denied.test:1/")]
#[tokio::test]
async fn a_redirect_to_where_nobody_may_go(#[case] location: &str) {
    let server = to(302, location.to_owned()).await;
    let error = fails(&client(quick()), &server.get("/file?token=geheim")).await;
    assert!(matches!(error, Error::Denied { .. }), "{error:?}");
    // What the user named is told beside what is refused: the one is theirs to change, the other the upstream's.
    let (message, source) = (error.to_string(), server.link("/file"));
    let begin = format!("{source} redirects to http://");
    assert!(
        message.starts_with(&begin) && message.contains(", which may not be reached: "),
        "{message}"
    );
}

#[tokio::test]
async fn a_name_that_turns_to_loopback_gains_nothing() {
    let (inside, seen) = notes().await;
    let names = Names::of([("rebind.test", &["192.0.2.1", "127.0.0.1"])]);
    let rules = Arc::new(Rules {
        trusted: vec![],
        denied: vec![],
    });
    let settings = trellis_fetch::Settings {
        connect_timeout: std::time::Duration::from_millis(200),
        ..quick()
    };
    let client = Client::with_resolver(settings, rules, names.clone());
    let request = Request::get(Link::parse(&format!("http://rebind.test:{}/", inside.at.port())).unwrap());
    // The judged address is the one that is connected to: there is no second look-up that could differ.
    let first = fails(&client, &request).await;
    assert!(
        matches!(first, Error::Connect { .. } | Error::Timeout { .. }),
        "{first:?}"
    );
    assert_eq!(names.asked.load(Ordering::SeqCst), 1);
    let second = fails(&client, &request).await;
    assert!(
        matches!(second, Error::Denied { address: Some(address), .. } if address.is_loopback()),
        "{second:?}"
    );
    assert_eq!(inside.accepts(), 0);
    assert!(seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_address_as_host_is_judged_too() {
    let (inside, _) = notes().await;
    let rules = Arc::new(Rules {
        trusted: vec![],
        denied: vec![],
    });
    let client = Client::with_resolver(quick(), rules, Names::of([]));
    let error = fails(&client, &inside.get("/")).await;
    assert!(matches!(error, Error::Denied { .. }), "{error:?}");
    assert_eq!(inside.accepts(), 0);
}

#[rstest]
#[case::see_other(303, "GET")]
#[case::temporary(307, "POST")]
#[case::permanent(308, "POST")]
#[case::found(302, "GET")]
#[tokio::test]
async fn methods_after_a_redirect(#[case] status: u16, #[case] method: &str) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let note = seen.clone();
    let server = serve(Router::new().fallback(move |asked: Asked| {
        let note = note.clone();
        async move {
            let method = asked.method().to_string();
            let end = asked.uri().path() == "/end";
            let body = axum::body::to_bytes(asked.into_body(), 100).await.unwrap();
            note.lock().unwrap().push((method, body.len()));
            (
                if end {
                    StatusCode::OK
                } else {
                    StatusCode::from_u16(status).unwrap()
                },
                [("location", "/end")],
            )
        }
    }))
    .await;
    let request = server.get("/").method(Method::Post, "four").unwrap();
    fetch(&client(quick()), &request).await.unwrap();
    let length = if method == "POST" { 4 } else { 0 };
    assert_eq!(
        *seen.lock().unwrap(),
        [("POST".to_owned(), 4), (method.to_owned(), length)]
    );
}
