//! `Upstream`: an HTTP server whose answers a test chooses, and which remembers what it was asked.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, Request, StatusCode, header},
    response::{IntoResponse as _, Response},
    serve::ListenerExt as _,
};
use trellis_testkit::Gate;

/// What every request gets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) etag: Option<String>,
    pub(crate) content_type: &'static str,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
}

#[derive(Default)]
struct Inner {
    answer: Answer,
    asked: Vec<Asked>,
    /// Query and body of each.
    said: Vec<(String, String)>,
    /// Where answers wait.
    gate: Option<Gate>,
}

struct Asked {
    path: String,
    headers: HeaderMap,
    status: u16,
}

/// A server on a free port of loopback; it ends with the test's runtime.
#[derive(Clone)]
pub(crate) struct Upstream {
    address: SocketAddr,
    inner: Arc<Mutex<Inner>>,
    connections: Arc<AtomicUsize>,
}

impl Upstream {
    pub(crate) async fn start() -> Self {
        let inner: Arc<Mutex<Inner>> = Arc::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&inner));
        let connections: Arc<AtomicUsize> = Arc::default();
        let counted = Arc::clone(&connections);
        let listener = listener.tap_io(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self {
            address,
            inner,
            connections,
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// From now on 200 with this body, and 304 for whoever knows this `ETag`.
    pub(crate) fn serves(&self, etag: &str, body: impl Into<Vec<u8>>) {
        self.answers(Answer {
            status: 200,
            etag: Some(format!("\"{etag}\"")),
            content_type: "application/yaml",
            headers: Vec::new(),
            body: body.into(),
        });
    }

    pub(crate) fn fails(&self, status: u16) {
        self.answers(Answer {
            status,
            ..Answer::default()
        });
    }

    pub(crate) fn answers(&self, answer: Answer) {
        self.lock().answer = answer;
    }

    /// The status of every answer so far.
    pub(crate) fn told(&self) -> Vec<u16> {
        self.lock().asked.iter().map(|asked| asked.status).collect()
    }

    /// How often each path was asked for after the first so many answers.
    pub(crate) fn each_after(&self, first: usize) -> BTreeMap<String, usize> {
        let mut each = BTreeMap::new();
        for asked in self.lock().asked.iter().skip(first) {
            *each.entry(asked.path.clone()).or_default() += 1;
        }
        each
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Waits until it has answered so often.
    pub(crate) async fn asked(&self, times: usize) {
        trellis_testkit::eventually(&format!("asked {times} times"), async || match self.told() {
            told if told.len() >= times => Ok(()),
            told => Err(format!("{told:?}")),
        })
        .await;
    }

    /// The headers of the last request.
    pub(crate) fn last(&self) -> HeaderMap {
        self.lock().asked.last().unwrap().headers.clone()
    }

    /// From now on answers wait here.
    pub(crate) fn waits_at(&self, gate: &Gate) {
        self.lock().gate = Some(gate.clone());
    }

    /// The query of the last request.
    pub(crate) fn last_query(&self) -> String {
        self.lock().said.last().unwrap().0.clone()
    }

    /// The body of the last request.
    pub(crate) fn last_body(&self) -> String {
        self.lock().said.last().unwrap().1.clone()
    }

    /// The body of every request so far.
    pub(crate) fn bodies(&self) -> Vec<String> {
        self.lock().said.iter().map(|(_, body)| body.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }
}

async fn answer(State(inner): State<Arc<Mutex<Inner>>>, request: Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let request = Request::from_parts(head, ());
    let gate = inner.lock().unwrap().gate.clone();
    if let Some(gate) = gate {
        gate.pass().await;
    }
    let mut inner = inner.lock().unwrap();
    let answer = inner.answer.clone();
    let known = request
        .headers()
        .get(header::IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok());
    let unchanged = answer.status == 200 && answer.etag.is_some() && known == answer.etag.as_deref();
    let status = if unchanged { 304 } else { answer.status };
    inner.said.push((
        request.uri().query().unwrap_or_default().to_owned(),
        String::from_utf8_lossy(&body).into_owned(),
    ));
    inner.asked.push(Asked {
        path: request.uri().path().to_owned(),
        headers: request.headers().clone(),
        status,
    });
    let mut response = (
        StatusCode::from_u16(status).unwrap(),
        if unchanged { Vec::new() } else { answer.body },
    )
        .into_response();
    let headers = response.headers_mut();
    if let Some(etag) = answer.etag {
        headers.insert(header::ETAG, etag.parse().unwrap());
    }
    if !answer.content_type.is_empty() {
        headers.insert(header::CONTENT_TYPE, answer.content_type.parse().unwrap());
    }
    for (name, value) in answer.headers {
        headers.insert(name, value.parse().unwrap());
    }
    response
}
