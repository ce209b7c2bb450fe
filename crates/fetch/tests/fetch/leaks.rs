//! A secret in a link, a header, a body, a proxy or a redirect is in no error, no `Debug` and no log line.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, http::StatusCode};
use tracing_subscriber::fmt::MakeWriter;
use trellis_fetch::{Link, Method, Order, Proxy, Request, Settings, Via};

use crate::support::{Server, client, quick, says, serve};

const SECRET: &str = "GEHEIM";

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

fn secret(base: &str) -> Request {
    Request::get(Link::parse(&format!("{base}/shown?token={SECRET}")).unwrap())
        .header("X-API-Key", &SECRET.into())
        .unwrap()
        .header("Authorization", &format!("Bearer {SECRET}").into())
        .unwrap()
}

fn at(server: &Server) -> Request {
    secret(&format!("http://{}", server.at))
}

#[tokio::test]
async fn no_secret_is_shown_for_any_failure() {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(lines.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let head = "HTTP/1.1 200 OK\r\n";
    let status = serve(Router::new().fallback(async || {
        (
            StatusCode::FORBIDDEN,
            [("retry-after", SECRET), ("x-ratelimit-x", SECRET)],
        )
    }))
    .await;
    let redirect = |to: &'static str| {
        serve(Router::new().fallback(async move || (StatusCode::TEMPORARY_REDIRECT, [("location", to)])))
    };
    let servers = [
        status,
        redirect("/again?token=GEHEIM").await,
        redirect("http://GEHEIM:GEHEIM@a.test/").await,
        redirect("http://denied.test/?token=GEHEIM").await,
        redirect("http://169.254.169.254/?token=GEHEIM").await,
        redirect("http://nowhere.test/?token=GEHEIM").await,
        redirect("ftp://a.test/?token=GEHEIM").await,
        redirect("http://a.test:1/?token=GEHEIM").await,
        says("", true).await,
        says("", false).await,
        says("GEHEIM\r\n\r\n", true).await,
        says(format!("{head}Content-Length: 99\r\n\r\n"), true).await,
        says(format!("{head}Content-Length: 99\r\n\r\n"), false).await,
        says(format!("{head}Content-Length: 999999999\r\n\r\n"), false).await,
        says(format!("{head}Content-Encoding: GEHEIM\r\n\r\n"), true).await,
        says(format!("{head}Content-Encoding: gzip\r\n\r\nGEHEIM"), true).await,
    ];
    let proxied = says(
        "HTTP/1.1 407 GEHEIM\r\nProxy-Authenticate: GEHEIM\r\nContent-Length: 0\r\n\r\n",
        true,
    )
    .await;
    let mut requests: Vec<Request> = servers.iter().map(at).collect();
    requests.push(secret("http://nowhere.test"));
    requests.push(secret("http://127.0.0.1:1"));
    requests.push(secret("http://denied.test"));
    requests.push(secret(&format!("https://{}", servers[0].at)));
    requests.push(at(&servers[3]).method(Method::Post, SECRET).unwrap());
    let proxy = Proxy::parse(&format!("http://user:{SECRET}@{}", proxied.at).into()).unwrap();
    requests.push(secret("https://a.test").via(Via::Proxy(proxy)));

    let client = client(Settings {
        header_timeout: Duration::from_millis(200),
        idle_timeout: Duration::from_millis(200),
        ..quick()
    });
    let mut kinds = std::collections::BTreeSet::new();
    for request in &requests {
        let error = client
            .fetch(request, &Order::default(), &mut Vec::new())
            .await
            .unwrap_err();
        let mut shown = format!("{error} {error:?} {error:#?} {request:?} {client:?}");
        let mut cause = std::error::Error::source(&error);
        while let Some(next) = cause {
            shown = format!("{shown} {next} {next:?}");
            cause = next.source();
        }
        assert!(!shown.contains(SECRET), "{shown}");
        kinds.insert(format!("{error:?}").split([' ', '(']).next().unwrap().to_owned());
    }
    for link in [format!("http://u:{SECRET}@a.test/"), format!("x{SECRET}")] {
        let error = Link::parse(&link).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(SECRET));
    }
    let expected = [
        "Broken", "Connect", "Cut", "Denied", "Dns", "Encoding", "Protocol", "Proxy", "Redirect", "Status", "Timeout",
        "TooLarge",
    ];
    for kind in expected {
        assert!(kinds.contains(kind), "{kind} is not among {kinds:?}");
    }
    drop(client);
    let lines = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(lines.contains("answered"), "the log was on");
    let ours: Vec<_> = lines.lines().filter(|line| line.contains(SECRET)).collect();
    assert!(ours.is_empty(), "{ours:#?}");
}
