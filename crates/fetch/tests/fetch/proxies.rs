//! Proxies: a tunnel for `https`, whole URLs for `http`, credentials for the proxy only.

use std::{
    io,
    net::IpAddr,
    sync::{Arc, Mutex},
};

use axum::Router;
use tokio::{
    io::{AsyncWriteExt as _, copy_bidirectional},
    net::TcpStream,
};
use trellis_fetch::{Client, Error, Link, Proxies, Proxy, Request, Resolve, Settings, Via};

use crate::{
    support::{Names, Rules, Server, client, fails, fetch, quick, raw, request_head, serve},
    tls,
};

/// `user:geheim`
const BASIC: &str = "Basic dXNlcjpnZWhlaW0=";

/// Wants credentials; connects every target to this server, whatever it is called; notes the heads of requests.
async fn proxy(target: &Server) -> (Server, Arc<Mutex<Vec<String>>>) {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let note = heads.clone();
    let at = target.at;
    let server = raw(move |mut tcp| {
        let note = note.clone();
        async move {
            let head = request_head(&mut tcp).await;
            note.lock().unwrap().push(head.clone());
            if !head.contains(BASIC) {
                let _ = tcp
                    .write_all(b"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n")
                    .await;
                return;
            }
            let mut to = TcpStream::connect(at).await.unwrap();
            if head.starts_with("CONNECT") {
                tcp.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            } else {
                to.write_all(head.as_bytes()).await.unwrap();
            }
            let _ = copy_bidirectional(&mut tcp, &mut to).await;
        }
    })
    .await;
    (server, heads)
}

fn through(proxy: &Server, user: &str) -> Proxy {
    Proxy::parse(&format!("http://{user}@{}", proxy.at).into()).unwrap()
}

#[tokio::test]
async fn https_goes_through_a_tunnel() {
    let ca = tls::ca();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let note = seen.clone();
    let target = tls::server(
        &tls::good(&ca),
        true,
        Router::new().fallback(move |asked: axum::extract::Request| {
            note.lock().unwrap().push(asked.headers().clone());
            async { "x" }
        }),
    )
    .await;
    let (server, heads) = proxy(&target).await;
    let client = client(quick());
    let request = tls::get(&target, "a.test")
        .trust(tls::only(&ca))
        .via(Via::Proxy(through(&server, "user:geheim")));
    let request = request.header("X-Key", &"inside".into()).unwrap();
    for _ in 0..3 {
        fetch(&client, &request).await.unwrap();
    }
    assert_eq!(server.accepts(), 1, "the tunnel is kept");
    let heads = heads.lock().unwrap();
    assert!(
        heads[0].starts_with(&format!("CONNECT a.test:{} HTTP/1.1", target.at.port())),
        "{}",
        heads[0]
    );
    assert!(!heads[0].contains("inside") && !heads[0].contains("/x"));
    assert!(
        seen.lock()
            .unwrap()
            .iter()
            .all(|headers| !headers.contains_key("proxy-authorization"))
    );
}

#[tokio::test]
async fn http_is_asked_for_by_its_whole_url() {
    let target = serve(Router::new().fallback(async || "x")).await;
    let (server, heads) = proxy(&target).await;
    // The proxy resolves the name; here nobody knows it.
    let request = Request::get(Link::parse("http://only-there.test/x?q").unwrap());
    fetch(
        &client(quick()),
        &request.via(Via::Proxy(through(&server, "user:geheim"))),
    )
    .await
    .unwrap();
    let heads = heads.lock().unwrap();
    assert!(
        heads[0].starts_with("GET http://only-there.test/x?q HTTP/1.1"),
        "{}",
        heads[0]
    );
    assert!(heads[0].contains(BASIC));
}

#[tokio::test]
async fn wrong_credentials_are_told() {
    let ca = tls::ca();
    let target = tls::server(&tls::good(&ca), true, Router::new()).await;
    let (server, _) = proxy(&target).await;
    let request = tls::get(&target, "a.test").via(Via::Proxy(through(&server, "user:wrong")));
    let error = fails(&client(quick()), &request).await;
    assert!(matches!(error, Error::Proxy { status: Some(407), .. }), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("wrong"));
}

#[tokio::test]
async fn settings_choose_the_proxy_and_its_exceptions() {
    let target = serve(Router::new().fallback(async || "x")).await;
    let (server, heads) = proxy(&target).await;
    let text = format!("http://user:geheim@{}", server.at).into();
    let proxies = Proxies::parse(Some(&text), None, "127.0.0.1").unwrap();
    let client = client(Settings { proxies, ..quick() });
    fetch(&client, &target.get("/")).await.unwrap();
    assert!(heads.lock().unwrap().is_empty(), "exempt");
    let named = Request::get(Link::parse(&format!("http://a.test:{}/", target.at.port())).unwrap());
    fetch(&client, &named).await.unwrap();
    assert_eq!(heads.lock().unwrap().len(), 1);
    fetch(&client, &named.via(Via::Direct)).await.unwrap();
    assert_eq!(heads.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn the_policy_judges_the_proxy_and_the_target() {
    let target = serve(Router::new().fallback(async || "x")).await;
    let (server, heads) = proxy(&target).await;
    let via = Via::Proxy(through(&server, "user:geheim"));
    let link = |text: &str| Request::get(Link::parse(text).unwrap()).via(via.clone());

    let nobody = Client::with_resolver(
        quick(),
        Arc::new(Rules {
            trusted: vec![],
            denied: vec![],
        }),
        Names::of([]),
    );
    let error = fails(&nobody, &link("http://public.test/")).await;
    assert!(
        matches!(error, Error::Denied { address: Some(_), .. }),
        "the proxy's address: {error:?}"
    );

    let client = client(quick());
    for target in [
        "http://denied.test/",
        "http://169.254.169.254/",
        "http://[::ffff:169.254.169.254]/",
        // A tenant's own name for it.
        "http://d.test/",
        "https://d.test/",
    ] {
        let error = fails(&client, &link(target)).await;
        assert!(matches!(error, Error::Denied { .. }), "the target: {error:?}");
    }
    assert!(heads.lock().unwrap().is_empty());
}

/// Resolves every name to an address outside and one inside.
struct Both;

#[async_trait::async_trait]
impl Resolve for Both {
    async fn resolve(&self, _: &str) -> io::Result<Vec<IpAddr>> {
        Ok(vec![[192, 0, 2, 1].into(), [127, 0, 0, 1].into()])
    }
}

#[tokio::test]
async fn one_denied_address_is_enough_since_the_proxy_chooses() {
    let target = serve(Router::new().fallback(async || "x")).await;
    let (server, heads) = proxy(&target).await;
    let rules = Rules {
        trusted: vec!["127.0.0.1"],
        denied: vec![],
    };
    let client = Client::with_resolver(quick(), Arc::new(rules), Arc::new(Both));
    for link in ["http://both.test/", "https://both.test/"] {
        let request = Request::get(Link::parse(link).unwrap());
        let error = fails(&client, &request.via(Via::Proxy(through(&server, "user:geheim")))).await;
        assert!(
            matches!(error, Error::Denied { address: Some(address), .. } if address.is_loopback()),
            "{error:?}"
        );
    }
    assert!(heads.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_redirect_behind_a_proxy_is_judged_by_address_too() {
    let away = || async { axum::response::Redirect::temporary("http://d.test/") };
    let target = serve(Router::new().fallback(away)).await;
    let (server, heads) = proxy(&target).await;
    let request = Request::get(Link::parse("http://only-there.test/").unwrap());
    let error = fails(
        &client(quick()),
        &request.via(Via::Proxy(through(&server, "user:geheim"))),
    )
    .await;
    assert!(
        matches!(&error, Error::Denied { from: Some(from), .. } if from.as_str() == "http://only-there.test/"),
        "{error:?}"
    );
    assert_eq!(heads.lock().unwrap().len(), 1, "the second hop never reached the proxy");
}
