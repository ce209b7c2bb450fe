//! Connections: kept, shared, bounded.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, http::StatusCode};
use tokio::sync::Barrier;
use trellis_fetch::{Client, ConnectFault, Error, Fetched, Order, Request, Settings, Trust, Validators};

use crate::support::{client, fails, fetch, quick, raw, serve};

#[tokio::test]
async fn five_hundred_checks_use_one_connection() {
    let server = serve(Router::new().fallback(async || StatusCode::NOT_MODIFIED)).await;
    let client = client(quick());
    let order = Order {
        known: Validators {
            etag: Some("\"v\"".into()),
            last_modified: None,
        },
        ..Order::default()
    };
    for _ in 0..500 {
        let fetched = client.fetch(&server.get("/"), &order, &mut Vec::new()).await.unwrap();
        assert_eq!(fetched, Fetched::NotModified);
    }
    assert_eq!(server.accepts(), 1);
    assert_eq!(client.connections(), 1);
    assert_eq!(client.pools(), 1);
}

#[tokio::test]
async fn failures_and_bodies_use_the_same_connection() {
    let server = serve(Router::new().route("/ok", axum::routing::get(async || "x"))).await;
    let client = client(quick());
    for _ in 0..20 {
        assert!(matches!(
            fails(&client, &server.get("/none")).await,
            Error::Status { status: 404, .. }
        ));
        fetch(&client, &server.get("/ok")).await.unwrap();
    }
    assert_eq!(server.accepts(), 1);
}

#[tokio::test]
async fn one_host_has_a_limited_number_of_places() {
    const LIMIT: usize = 8;
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let together = Arc::new(Barrier::new(LIMIT));
    let high = most.clone();
    let server = serve(Router::new().fallback(move || {
        let (now, high, together) = (now.clone(), high.clone(), together.clone());
        async move {
            high.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            // As many as there are places are here at the same time, or this never ends.
            together.wait().await;
            now.fetch_sub(1, Ordering::SeqCst);
            "x"
        }
    }))
    .await;
    let client = client(Settings {
        max_connections_per_host: 8,
        ..quick()
    });
    let all: Vec<_> = (0..64)
        .map(|_| {
            let (client, request) = (client.clone(), server.get("/"));
            tokio::spawn(async move { fetch(&client, &request).await.map(drop) })
        })
        .collect();
    for one in all {
        one.await.unwrap().unwrap();
    }
    assert_eq!(most.load(Ordering::SeqCst), LIMIT);
    assert!(server.accepts() <= 64);
}

#[tokio::test]
async fn a_host_that_asks_to_wait_is_left_alone_by_all() {
    let server = serve(Router::new().fallback(async || {
        (
            StatusCode::TOO_MANY_REQUESTS,
            [("retry-after", "120"), ("x-ratelimit-reset", "1700000000")],
        )
    }))
    .await;
    let client = client(quick());
    let error = fails(&client, &server.get("/one")).await;
    let Error::Status { status: 429, hints, .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!(hints.retry_after.as_deref(), Some("120"));
    assert_eq!(
        hints.rate_limit,
        [("x-ratelimit-reset".to_owned(), "1700000000".to_owned())]
    );
    let before = server.accepts();
    let other = client.clone();
    let error = fails(&other, &server.get("/another")).await;
    assert!(
        matches!(error, Error::Held { wait, .. } if wait > Duration::from_secs(100)),
        "{error:?}"
    );
    assert_eq!(server.accepts(), before);
}

/// What `Client::fetch` says to an order.
async fn ordered(client: &Client, request: &Request, order: &Order) -> Error {
    client.fetch(request, order, &mut Vec::new()).await.unwrap_err()
}

#[tokio::test]
async fn a_wait_is_for_those_whom_it_was_said_to() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let server = serve(Router::new().fallback(move || {
        count.fetch_add(1, Ordering::SeqCst);
        async { (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "999999999")]) }
    }))
    .await;
    let client = client(quick());
    let plain = server.get("/");
    let token = |value: &str| server.get("/").header("X-Token", &value.into()).unwrap();
    let tenant = |name: &str| Order {
        tenant: Some(name.to_owned()),
        ..Order::default()
    };
    let (shop, bank) = (tenant("shop"), tenant("bank"));
    let error = ordered(&client, &token("one"), &shop).await;
    assert!(matches!(error, Error::Status { .. }), "{error:?}");
    let most = Settings::default().longest_hold;
    let held = |error: &Error| matches!(error, Error::Held { wait, .. } if *wait <= most);
    let error = ordered(&client, &token("one"), &shop).await;
    assert!(held(&error), "{error:?}");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    // Another token, none at all, and another tenant with the very same: three who were not told to wait.
    for (request, order) in [(token("two"), &shop), (plain.clone(), &shop), (token("one"), &bank)] {
        let error = ordered(&client, &request, order).await;
        assert!(matches!(error, Error::Status { .. }), "{error:?}");
        let error = ordered(&client, &request, order).await;
        assert!(held(&error), "{error:?}");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 4);
    // A person who insists is let through.
    let insists = Order { insists: true, ..shop };
    let error = ordered(&client, &token("one"), &insists).await;
    assert!(matches!(error, Error::Status { .. }), "{error:?}");
    assert_eq!(asked.load(Ordering::SeqCst), 5);
}

#[tokio::test]
async fn what_else_asks_for_patience_holds_as_well() {
    let server = serve(Router::new().fallback(async || (StatusCode::FORBIDDEN, [("ratelimit-reset", "45")]))).await;
    let client = client(Settings {
        patience: |status, hints| {
            let reset = hints.rate_limit.iter().find(|(name, _)| name == "ratelimit-reset")?;
            (status == 403).then(|| Duration::from_secs(reset.1.parse().unwrap()))
        },
        ..quick()
    });
    let error = fails(&client, &server.get("/")).await;
    assert!(matches!(error, Error::Status { .. }), "{error:?}");
    let error = fails(&client, &server.get("/")).await;
    let least = Duration::from_secs(30);
    assert!(
        matches!(error, Error::Held { wait, .. } if wait > least && wait <= Duration::from_secs(45)),
        "{error:?}"
    );
}

#[tokio::test]
async fn the_number_of_pools_is_bounded() {
    let server = serve(Router::new().fallback(async || "x")).await;
    let client = client(Settings {
        max_pools: 3,
        ..quick()
    });
    for n in 0..10 {
        let own = rcgen::generate_simple_self_signed([format!("n{n}.test")])
            .unwrap()
            .cert
            .pem();
        let request = server.get("/").trust(Trust::Only(own.into_bytes()));
        fetch(&client, &request).await.unwrap();
    }
    assert_eq!(client.pools(), 3);
    // What is let go closes its connections.
    while client.connections() > 3 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_request_that_is_given_up_leaves_its_place() {
    let server = raw(async |tcp| {
        let _open = tcp;
        std::future::pending::<()>().await;
    })
    .await;
    let client = client(Settings {
        max_connections_per_host: 1,
        ..quick()
    });
    for _ in 0..3 {
        let before = server.accepts();
        let task = tokio::spawn({
            let (client, request) = (client.clone(), server.get("/"));
            async move { fetch(&client, &request).await.map(drop) }
        });
        while server.accepts() == before {
            tokio::task::yield_now().await;
        }
        task.abort();
        let _ = task.await;
    }
    assert!(client.hosts().enter(&server.at.to_string(), None).await.is_ok());
}

#[tokio::test]
async fn nothing_listens() {
    let server = serve(Router::new()).await;
    let request = server.get("/");
    drop(server);
    let client = client(quick());
    // Until the listener's task has ended, its backlog still takes connections.
    loop {
        match fails(&client, &request).await {
            Error::Connect {
                fault: ConnectFault::Refused,
                ..
            } => break,
            Error::Status { .. } | Error::Broken { .. } | Error::Connect { .. } => tokio::task::yield_now().await,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn no_such_name() {
    let request = trellis_fetch::Request::get(trellis_fetch::Link::parse("http://nowhere.test/").unwrap());
    assert!(matches!(fails(&client(quick()), &request).await, Error::Dns { host, .. } if host == "nowhere.test"));
}

#[tokio::test]
async fn closed_without_an_answer() {
    let server = crate::support::says("", true).await;
    assert!(matches!(
        fails(&client(quick()), &server.get("/")).await,
        Error::Broken { .. }
    ));
}

#[tokio::test]
async fn not_http() {
    let server = crate::support::says("SSH-2.0-OpenSSH_9.2\r\n\r\n", true).await;
    assert!(matches!(
        fails(&client(quick()), &server.get("/")).await,
        Error::Protocol { .. }
    ));
}

#[tokio::test]
async fn a_kept_connection_that_dies_under_a_check_is_no_failure() {
    let server = raw(async |mut tcp| {
        crate::support::request_head(&mut tcp).await;
        let _ = tokio::io::AsyncWriteExt::write_all(&mut tcp, b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx").await;
        // Closed when the next request is here already, which a server's idle timeout can do at any moment.
        crate::support::request_head(&mut tcp).await;
    })
    .await;
    let client = client(quick());
    for _ in 0..3 {
        fetch(&client, &server.get("/")).await.unwrap();
    }
    assert_eq!(server.accepts(), 3);
}

#[tokio::test]
async fn what_is_kept_is_bounded_over_all_hosts() {
    let server = serve(Router::new().fallback(async || "x")).await;
    let client = client(Settings { max_idle: 2, ..quick() });
    for host in ["a.test", "b.test", "c.test", "127.0.0.1", "localhost"]
        .iter()
        .cycle()
        .take(50)
    {
        let link = trellis_fetch::Link::parse(&format!("http://{host}:{}/", server.at.port())).unwrap();
        fetch(&client, &trellis_fetch::Request::get(link)).await.unwrap();
        // What is let go closes a moment later; at most one is opened before that is looked at again.
        while client.connections() > 3 {
            tokio::task::yield_now().await;
        }
    }
}
