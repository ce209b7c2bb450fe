//! What replicas serve while their leader comes and goes.

use std::{
    fs::{self, File},
    path::PathBuf,
    time::{Duration, SystemTime},
};

use axum::http::StatusCode;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::json;
use trellis_bindings::flux::Artifact;
use trellis_core::Digest;
use trellis_testkit::{
    Script, eventually,
    operator::{Operator, Signal},
};

use crate::{flux, site::Site};

fn map(word: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: app\ndata:\n  word: {word}\n")
}

/// A replica of the site that serves its files at an address of its own.
struct Replica {
    operator: Operator,
    address: String,
}

async fn replica(site: &Site, identity: &str, shared: bool) -> Replica {
    let address = format!("127.0.0.1:{}", trellis_devplane::free_port().unwrap());
    let launch = site
        .launch(site.kubeconfig(), identity)
        .flag("storage-addr", &address)
        .environment("STORAGE_SHARED", shared.to_string());
    let operator = launch.start().await.unwrap();
    Replica { operator, address }
}

/// The status of a file there; none when nobody listens. A file has to be the right one.
async fn status(replica: &Replica, artifact: &Artifact) -> Option<StatusCode> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<axum::body::Bytes>>();
    let url = format!("http://{}/{}", replica.address, artifact.path);
    let answer = client.get(url.parse().unwrap()).await.ok()?;
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    if status == StatusCode::OK {
        assert_eq!(Digest::of(&body).to_string(), artifact.digest);
    }
    Some(status)
}

async fn published(site: &Site, other_than: &str) -> Artifact {
    eventually("another artifact is published", async || {
        let found = site.artifact("app").await.filter(|found| found.revision != other_than);
        found.ok_or_else(|| "none".to_owned())
    })
    .await
}

/// With one disk for all, every replica serves what is stored there, and the next leader goes on where a killed one was.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_with_one_disk_serve_it_all_and_a_killed_leader_is_not_missed() {
    flux().await;
    let site = Site::new("shared").await;
    let mut replicas = vec![replica(&site, "shared-a", true).await];
    replicas[0].operator.ready().await;
    replicas.push(replica(&site, "shared-b", true).await);
    replicas[1].operator.ready().await;
    site.upstream.serves("1", map("one"));
    site.source("app", json!({ "as": "Manifest" })).await;
    let first = published(&site, "").await;
    for replica in &replicas {
        assert_eq!(
            status(replica, &first).await,
            Some(StatusCode::OK),
            "{}",
            replica.address
        );
    }

    replicas[0].operator.kill9().await;
    assert_eq!(status(&replicas[0], &first).await, None);
    assert_eq!(status(&replicas[1], &first).await, Some(StatusCode::OK));
    site.upstream.serves("2", map("two"));
    site.request("app", "now").await;
    let second = published(&site, &first.revision).await;
    assert_eq!(status(&replicas[1], &second).await, Some(StatusCode::OK));
    let third = replica(&site, "shared-c", true).await;
    third.operator.ready().await;
    assert_eq!(status(&third, &second).await, Some(StatusCode::OK));
    assert_eq!(third.operator.stop(Signal::Term).await.code(), Some(0));
}

/// Without that, only the leader's port is open, and only while it leads.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_with_a_disk_of_its_own_serves_nothing_until_it_leads() {
    flux().await;
    let site = Site::new("single").await;
    let leader = replica(&site, "single-a", false).await;
    leader.operator.ready().await;
    site.upstream.serves("1", map("one"));
    site.source("app", json!({ "as": "Manifest" })).await;
    let artifact = published(&site, "").await;
    let standby = replica(&site, "single-b", false).await;
    standby.operator.ready().await;
    assert_eq!(status(&leader, &artifact).await, Some(StatusCode::OK));
    assert_eq!(status(&standby, &artifact).await, None);
    assert_eq!(leader.operator.stop(Signal::Term).await.code(), Some(0));
    eventually("the standby leads and serves", async || {
        match status(&standby, &artifact).await {
            Some(StatusCode::OK) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(status(&leader, &artifact).await, None);
}

/// What a source left behind that went without its finalizer is removed when a term begins; what is needed, young or of a
/// namespace that is not served stays.
#[tokio::test(flavor = "multi_thread")]
async fn files_of_sources_that_are_no_more_are_removed_when_a_term_begins() {
    flux().await;
    let mut site = Site::new("swept").await;
    site.start(&Script::new()).await;
    site.upstream.serves("1", map("one"));
    site.source("app", json!({ "as": "Manifest" })).await;
    let artifact = published(&site, "").await;
    site.kill9().await;

    let hour = Duration::from_hours(1);
    let put = |namespace: &str, name: &str, age: Duration| -> PathBuf {
        let folder = site.storage.path().join(format!("externalsource/{namespace}/{name}"));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join(format!("{}.tar.gz", Digest::of(name.as_bytes()).hex()));
        fs::write(&path, name).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
        path
    };
    let orphan = put(site.namespace.name(), "former", 2 * hour);
    let young = put(site.namespace.name(), "young", hour / 2);
    let foreign = put("elsewhere", "former", 2 * hour);
    let current = site.storage.path().join(&artifact.path);
    let file = File::options().write(true).open(&current).unwrap();
    file.set_modified(SystemTime::now() - 2 * hour).unwrap();

    site.start(&Script::new()).await;
    eventually("the orphan is gone", async || {
        if orphan.exists() { Err("it is there") } else { Ok(()) }
    })
    .await;
    for kept in [young, foreign, current] {
        assert!(kept.exists(), "{}", kept.display());
    }
}
