//! `Files`: a server of bytes that remembers what it was asked for.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{Router, extract::State, http::StatusCode, http::Uri};

/// What is served, and every path asked for with the status that it got.
#[derive(Default)]
struct Shelf {
    files: BTreeMap<String, Vec<u8>>,
    asked: Vec<(String, StatusCode)>,
}

/// A server on a free port of loopback; it ends with the test's runtime.
#[derive(Clone)]
pub(crate) struct Files {
    address: SocketAddr,
    shelf: Arc<Mutex<Shelf>>,
}

impl Files {
    pub(crate) async fn start() -> Self {
        let shelf = Arc::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(serve).with_state(Arc::clone(&shelf));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, shelf }
    }

    /// The URL of a path, whether something is there or not.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    pub(crate) fn put(&self, path: &str, bytes: Vec<u8>) {
        self.shelf.lock().unwrap().files.insert(format!("/{path}"), bytes);
    }

    /// The status of each answer for a path, in order.
    pub(crate) fn asked(&self, path: &str) -> Vec<StatusCode> {
        let path = format!("/{path}");
        let shelf = self.shelf.lock().unwrap();
        let asked = shelf.asked.iter().filter(|(asked, _)| *asked == path);
        asked.map(|(_, status)| *status).collect()
    }
}

async fn serve(State(shelf): State<Arc<Mutex<Shelf>>>, path: Uri) -> (StatusCode, Vec<u8>) {
    let mut shelf = shelf.lock().unwrap();
    let answer = match shelf.files.get(path.path()) {
        Some(bytes) => (StatusCode::OK, bytes.clone()),
        None => (StatusCode::NOT_FOUND, Vec::new()),
    };
    shelf.asked.push((path.path().to_owned(), answer.0));
    answer
}
