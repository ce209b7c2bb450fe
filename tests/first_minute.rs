//! `trellis dev` as people meet it: the binary, its exit codes, its tables, and what is left when it ends.
//!
//! The planes here are its own; nothing of the testkit's plane is used.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests"
)]

#[path = "leader/chance.rs"]
#[expect(dead_code, reason = "some of it only the tests of the leader need")]
mod chance;
#[path = "first_minute/killed.rs"]
mod killed;
#[path = "first_minute/processes.rs"]
mod processes;
#[path = "first_minute/session.rs"]
mod session;

use std::{fs, path::Path, time::Duration};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, Config,
    api::PostParams,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;
use trellis_devplane::Signal;

use processes::{Family, naming};
use session::{Attached, Detached, Said, trellis};

/// How long the processes of a plane may outlive a killed owner: the guardians notice at once.
const REAPED: Duration = Duration::from_secs(5);

fn example(folder: &Path, manifests: &str) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("example.yaml"), "description: not as it should be\n").unwrap();
    fs::write(folder.join("01-broken.yaml"), manifests).unwrap();
}

fn policy(threshold: u32) -> String {
    format!(
        "apiVersion: resilience.trellis.dev/v1alpha1\nkind: ResiliencePolicy\nmetadata: {{ name: web }}\n\
         spec: {{ targetRef: {{ name: web }}, circuitBreaker: {{ failureThreshold: {threshold} }} }}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn once_shows_every_example_ready_and_leaves_only_logs() {
    let up = Attached::spawn(&["--once"]).await;
    let folder = up.directory().await;
    let mut family = Family::of(up.pid());
    let status = up.exited_while(async || family.grow(up.pid())).await;
    let said = up.said();
    assert_eq!(status.code(), Some(0), "{said}");
    for peer in ["etcd", "kube-apiserver", "kube-controller", "trellis"] {
        let names = family.names();
        assert!(
            names.iter().any(|name| name.starts_with(peer)),
            "no {peer} among {names:?}"
        );
    }
    family.gone(REAPED).await;
    assert_eq!(naming(&folder), Vec::<String>::new());
    let left: Vec<String> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !["logs", "audit.log", ".keep", ".lock"].contains(&name.as_str()))
        .collect();
    assert_eq!(left, Vec::<String>::new());
    let ready: Vec<&str> = said
        .lines()
        .filter(|line| line.starts_with("resilience-first-light "))
        .collect();
    assert_eq!(ready.len(), 1, "{said}");
    let columns: Vec<&str> = ready[0].split_whitespace().collect();
    assert_eq!(
        columns[1..4],
        ["ResiliencePolicy/checkout", "True", "Applied"],
        "{said}"
    );
    assert!(said.lines().any(|line| line.starts_with("EXAMPLE")), "{said}");
    // Every example is either shown or named as left out.
    for capability in ["resilience", "sources"] {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
        for folder in fs::read_dir(examples.join(capability)).unwrap() {
            let name = format!("{capability}-{}", folder.unwrap().file_name().to_string_lossy());
            let shown = said.lines().any(|line| line.starts_with(&format!("{name} ")));
            let left_out = said
                .lines()
                .any(|line| line.starts_with(&format!("not applied: {name} ")));
            assert!(shown != left_out, "{name}: {said}");
        }
    }
    let flux = said
        .lines()
        .filter(|line| line.ends_with("; needs --with flux"))
        .count();
    assert_eq!(flux, 2, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn once_fails_with_the_reason_when_an_example_is_not_ready() {
    let folder = tempfile::tempdir().unwrap();
    let (inert, refused) = (folder.path().join("inert"), folder.path().join("refused"));
    let service = "apiVersion: v1\nkind: Service\nmetadata: { name: web }\n\
                   spec: { clusterIP: None, selector: { app: web }, ports: [{ port: 80 }] }\n---\n";
    example(&inert, &format!("{service}{}", policy(5)));
    example(&refused, &policy(0));
    let once = async |folder: &Path| -> Said {
        let folder = folder.to_str().unwrap();
        trellis(&["dev", "up", "--once", "--timeout", "10", "--examples", folder]).await
    };
    let (inert, refused) = tokio::join!(once(&inert), once(&refused));
    assert_eq!(inert.code, Some(1), "{inert}");
    assert!(
        inert.stdout.contains("False") && inert.stdout.contains("Headless"),
        "{inert}"
    );
    assert_eq!(refused.code, Some(1), "{refused}");
    assert!(refused.stderr.contains("failureThreshold"), "{refused}");
    assert!(refused.stderr.contains("error: "), "{refused}");
    let nowhere = trellis(&["dev", "up", "--once", "--examples", "/nowhere"]).await;
    assert_eq!(nowhere.code, Some(1), "{nowhere}");
    assert!(nowhere.stderr.contains("--examples"), "{nowhere}");
}

#[tokio::test(flavor = "multi_thread")]
async fn kill9_leaves_no_process() {
    let up = Attached::start(&["--examples", "none"]).await;
    let family = Family::of(up.pid());
    let names = family.names();
    for peer in ["etcd", "kube-apiserver", "kube-controller", "trellis"] {
        assert!(
            names.iter().any(|name| name.starts_with(peer)),
            "no {peer} among {names:?}"
        );
    }
    let folder = up.record().await["directory"].as_str().unwrap().to_owned();
    up.signal(Signal::Kill);
    family.gone(REAPED).await;
    assert_eq!(naming(&folder), Vec::<String>::new());
    let listed = trellis(&["dev", "status", "--json"]).await;
    assert!(!listed.stdout.contains(&format!("\"pid\": {},", up.pid())), "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_everything() {
    let up = Attached::start(&["--examples", "none"]).await;
    let family = Family::of(up.pid());
    let folder = up.record().await["directory"].as_str().unwrap().to_owned();
    up.signal(Signal::Term);
    assert_eq!(up.exited().await.code(), Some(0), "{}", up.said());
    family.gone(REAPED).await;
    assert_eq!(naming(&folder), Vec::<String>::new());
    assert!(!Path::new(&folder).exists(), "{folder} stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_start_leaves_no_process() {
    let up = Attached::spawn(&["--examples", "none"]).await;
    let family = Family::with_peer(up.pid(), "etcd").await;
    up.signal(Signal::Int);
    assert_eq!(up.exited().await.code(), Some(130), "{}", up.said());
    family.gone(REAPED).await;
}

async fn client(kubeconfig: &Path) -> Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    Client::try_from(config).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_run_side_by_side_and_data_survives() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let durable = ["--examples", "none", "--data", data];
    let (kept, other) = tokio::join!(Detached::up(&durable), Detached::up(&durable[..2]));
    assert_ne!(kept.server(), other.server());
    let listed = trellis(&["dev", "status", "--json"]).await;
    let table = trellis(&["dev", "status"]).await;
    for up in [&kept, &other] {
        let listed: Vec<serde_json::Value> = serde_json::from_str(&listed.stdout).unwrap();
        let own = listed.iter().find(|record| record["pid"] == up.pid());
        assert_eq!(own.unwrap()["ready"], true, "{listed:?}");
        assert!(table.stdout.contains(up.server()), "{table}");
    }
    let which = trellis(&["dev", "env"]).await;
    assert!(which.code == Some(1) && which.stderr.contains("--pid"), "{which}");
    let twice = trellis(&["dev", "up", "--once", "--examples", "none", "--data", data]).await;
    assert!(
        twice.code == Some(1) && twice.stderr.contains("used by another plane"),
        "{twice}"
    );

    let map: ConfigMap = serde_json::from_value(json!({ "metadata": { "name": "kept" } })).unwrap();
    let maps = |client: Client| Api::<ConfigMap>::namespaced(client, "default");
    let kubeconfig = kept.kubeconfig().await;
    maps(client(&kubeconfig).await)
        .create(&PostParams::default(), &map)
        .await
        .unwrap();
    let other_maps = maps(client(&other.kubeconfig().await).await);
    assert!(
        other_maps.get_opt("kept").await.unwrap().is_none(),
        "the planes share something"
    );

    let families = [Family::of(kept.pid()), Family::of(other.pid())];
    for up in [kept, other] {
        up.down().await;
    }
    for family in families {
        family.gone(REAPED).await;
    }

    let again = Detached::up(&durable).await;
    let kubeconfig = again.kubeconfig().await;
    assert!(maps(client(&kubeconfig).await).get_opt("kept").await.unwrap().is_some());
    again.down().await;
}
