//! `Upstream`: the outside that examples of sources fetch from: the folder `upstream` of each example, served on loopback.
//!
//! ```text
//!  examples/a/b/upstream/flags.json ─▶ http://localhost:PORT/a-b/flags.json   (${UPSTREAM}/flags.json in its manifests)
//! ```
//!
//! Files are read anew for each request, so that a change of theirs is one of upstream.
//!
//! Invariant: nothing outside of these folders is served.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use axum::{
    Router,
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use tokio::{net::TcpListener, task::JoinSet};
use trellis_core::Digest;

use super::examples::{Example, FILE_LIMIT};

/// What stands in manifests for the address of their example's files.
pub(crate) const PLACEHOLDER: &str = "${UPSTREAM}";
/// The host by which they are reached; the operator of `dev up` is told to trust it.
pub(crate) const HOST: &str = "localhost";

/// Serves the files until it is dropped.
pub(crate) struct Upstream {
    address: SocketAddr,
    _serving: JoinSet<io::Result<()>>,
}

impl Upstream {
    /// Serves what these examples have.
    pub(crate) async fn start(examples: &[Example]) -> io::Result<Self> {
        let folders: BTreeMap<String, PathBuf> = examples
            .iter()
            .filter_map(|example| Some((example.name.clone(), example.upstream.clone()?)))
            .collect();
        let folders = Arc::new(folders);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let files = get(async move |uri: Uri, headers: HeaderMap| answer(&folders, uri.path(), &headers).await);
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, Router::new().fallback(files)).await });
        Ok(Self {
            address,
            _serving: serving,
        })
    }

    /// Where the files of this example are.
    pub(crate) fn url(&self, example: &Example) -> String {
        format!("http://{HOST}:{}/{}", self.address.port(), example.name)
    }
}

async fn answer(folders: &BTreeMap<String, PathBuf>, path: &str, headers: &HeaderMap) -> Response {
    let Some(file) = file(folders, path) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let fits = |about: &std::fs::Metadata| about.is_file() && about.len() <= FILE_LIMIT;
    match tokio::fs::metadata(&file).await {
        Ok(about) if fits(&about) => {}
        _ => return StatusCode::NOT_FOUND.into_response(),
    }
    let Ok(bytes) = tokio::fs::read(&file).await else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let etag = format!("\"{}\"", Digest::of(&bytes).hex());
    let known = headers.get(header::IF_NONE_MATCH);
    if known.is_some_and(|known| known.as_bytes() == etag.as_bytes()) {
        return (StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response();
    }
    let kind = match file.extension().and_then(|extension| extension.to_str()) {
        Some("json") => "application/json",
        Some("yaml" | "yml") => "application/yaml",
        _ => "application/octet-stream",
    };
    let headers = [(header::ETAG, etag), (header::CONTENT_TYPE, kind.to_owned())];
    (headers, bytes).into_response()
}

/// The file that a path names, if it stays in the folder of an example.
fn file(folders: &BTreeMap<String, PathBuf>, path: &str) -> Option<PathBuf> {
    let (example, rest) = path.strip_prefix('/')?.split_once('/')?;
    let rest = Path::new(rest);
    let inside = rest.components().all(|part| matches!(part, Component::Normal(_)));
    inside.then(|| Some(folders.get(example)?.join(rest)))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_served_until_it_is_known_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("secret"), "s").unwrap();
        let served = folder.path().join("upstream");
        std::fs::create_dir(&served).unwrap();
        std::fs::write(served.join("flags.json"), "{}").unwrap();
        let folders = BTreeMap::from([("a-b".to_owned(), served)]);

        let first = answer(&folders, "/a-b/flags.json", &HeaderMap::new()).await;
        assert_eq!(first.status(), StatusCode::OK);
        assert_eq!(first.headers()[header::CONTENT_TYPE], "application/json");
        let mut known = HeaderMap::new();
        known.insert(header::IF_NONE_MATCH, first.headers()[header::ETAG].clone());
        let again = answer(&folders, "/a-b/flags.json", &known).await;
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);

        for path in [
            "/a-b/../secret",
            "/a-b/none",
            "/a-b/",
            "/a-b",
            "/c/flags.json",
            "/a-b//etc/passwd",
            "/",
        ] {
            let refused = answer(&folders, path, &HeaderMap::new()).await;
            assert_eq!(refused.status(), StatusCode::NOT_FOUND, "{path}");
        }
    }
}
