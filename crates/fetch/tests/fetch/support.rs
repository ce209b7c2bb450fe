//! Servers that count their connections, a policy and a resolver that a test scripts.

use std::{
    collections::{HashMap, VecDeque},
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;
use trellis_fetch::{Body, Client, Denied, Egress, Error, Fetched, Link, Order, Request, Resolve, Settings};

/// A server, gone when it is dropped.
pub(crate) struct Server {
    pub(crate) at: SocketAddr,
    accepts: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Server {
    pub(crate) fn accepts(&self) -> usize {
        self.accepts.load(Ordering::SeqCst)
    }

    pub(crate) fn link(&self, path: &str) -> Link {
        Link::parse(&format!("http://{}{path}", self.at)).unwrap()
    }

    pub(crate) fn get(&self, path: &str) -> Request {
        Request::get(self.link(path))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A server that does with each connection what the function does.
pub(crate) async fn raw<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Server
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let accepts = Arc::new(AtomicUsize::new(0));
    let count = accepts.clone();
    let task = tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(serve(tcp));
        }
    });
    Server { at, accepts, task }
}

/// A server that answers the first request of each connection with these bytes and then stays silent, or closes.
pub(crate) async fn says(answer: impl Into<Vec<u8>>, then_close: bool) -> Server {
    let answer: Arc<[u8]> = answer.into().into();
    raw(move |mut tcp| {
        let answer = answer.clone();
        async move {
            request_head(&mut tcp).await;
            let _ = tcp.write_all(&answer).await;
            if !then_close {
                std::future::pending::<()>().await;
            }
            let _ = tcp.shutdown().await;
        }
    })
    .await
}

/// Read up to the empty line.
pub(crate) async fn request_head(tcp: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match tcp.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

/// A real HTTP server, HTTP/1.1 and HTTP/2.
pub(crate) async fn serve(router: Router) -> Server {
    raw(move |tcp| {
        let service = TowerToHyperService::new(router.clone());
        async move {
            let _ = auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(tcp), service)
                .await;
        }
    })
    .await
}

/// The same over TLS.
pub(crate) async fn serve_tls(router: Router, config: ServerConfig) -> Server {
    let acceptor = TlsAcceptor::from(Arc::new(config));
    raw(move |tcp| {
        let service = TowerToHyperService::new(router.clone());
        let acceptor = acceptor.clone();
        async move {
            if let Ok(tls) = acceptor.accept(tcp).await {
                let _ = auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(tls), service)
                    .await;
            }
        }
    })
    .await
}

/// Denies loopback and link-local addresses, except for hosts that are trusted.
pub(crate) struct Rules {
    pub(crate) trusted: Vec<&'static str>,
    pub(crate) denied: Vec<&'static str>,
}

impl Egress for Rules {
    fn host(&self, _: &str, host: &str, _: u16) -> Result<(), Denied> {
        if self.denied.contains(&host) {
            Err(Denied {
                rule: "that host is denied".into(),
            })
        } else {
            Ok(())
        }
    }

    fn address(&self, host: &str, address: IpAddr) -> Result<(), Denied> {
        let never = match address {
            IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local(),
        };
        if never && !self.trusted.contains(&host) {
            return Err(Denied {
                rule: "loopback and link-local addresses are denied".into(),
            });
        }
        Ok(())
    }
}

/// Answers that a test has set, one after the other; the last one stays.
#[derive(Default)]
pub(crate) struct Names {
    answers: Mutex<HashMap<&'static str, VecDeque<Vec<IpAddr>>>>,
    pub(crate) asked: AtomicUsize,
}

impl Names {
    pub(crate) fn of<const N: usize>(names: [(&'static str, &[&str]); N]) -> Arc<Self> {
        let one = |address: &&str| vec![address.parse().unwrap()];
        let answers = names
            .into_iter()
            .map(|(name, addresses)| (name, addresses.iter().map(one).collect()))
            .collect();
        Arc::new(Self {
            answers: Mutex::new(answers),
            asked: AtomicUsize::default(),
        })
    }
}

#[async_trait::async_trait]
impl Resolve for Names {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut answers = self.answers.lock().unwrap();
        let known = answers.get_mut(host).ok_or(io::ErrorKind::NotFound)?;
        if known.len() > 1 {
            Ok(known.pop_front().unwrap())
        } else {
            Ok(known[0].clone())
        }
    }
}

/// Settings in which nothing takes long.
pub(crate) fn quick() -> Settings {
    Settings {
        connect_timeout: Duration::from_secs(5),
        header_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(5),
        total_timeout: Duration::from_mins(1),
        max_bytes: 1024 * 1024,
        ..Settings::default()
    }
}

/// A client that may ask the servers of the test, by address and as `a.test` to `d.test`.
pub(crate) fn client(settings: Settings) -> Client {
    let rules = Rules {
        trusted: vec!["127.0.0.1", "a.test", "b.test", "c.test", "localhost"],
        denied: vec!["denied.test"],
    };
    let here: &[&str] = &["127.0.0.1"];
    let names = Names::of([
        ("a.test", here),
        ("b.test", here),
        ("c.test", here),
        ("d.test", here),
        ("denied.test", here),
        ("localhost", here),
    ]);
    Client::with_resolver(settings, Arc::new(rules), names)
}

pub(crate) async fn fetch(client: &Client, request: &Request) -> Result<(Body, Vec<u8>), Error> {
    let mut sink = Vec::new();
    match client.fetch(request, &Order::default(), &mut sink).await? {
        Fetched::Body(body) => Ok((body, sink)),
        Fetched::NotModified => panic!("not modified, though nothing was known"),
    }
}

pub(crate) async fn fails(client: &Client, request: &Request) -> Error {
    fetch(client, request).await.expect_err("it fails")
}
