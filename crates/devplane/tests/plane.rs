//! Real planes: ready, side by side, surviving, gone.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, also in its helpers")]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, ServiceAccount};
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams};
use kube::config::KubeConfigOptions;
use kube::{Api, Client, Config};
use trellis_devplane::progress::Lines;
use trellis_devplane::{Builder, ControlPlane, Kubernetes, Options, Signal, cache_directory, peers};

#[path = "common/processes.rs"]
mod processes;
use processes::{eventually, naming};

/// The minor under test: `TRELLIS_KUBERNETES`, else the default.
fn kubernetes() -> Kubernetes {
    std::env::var("TRELLIS_KUBERNETES").map_or_else(|_| Kubernetes::default(), |minor| minor.parse().unwrap())
}

/// Once built: the first test to get here builds, the others wait for it.
async fn options() -> Options {
    let builder = Builder::new(cache_directory().unwrap(), Arc::new(Lines));
    let (etcd, peer) = (peers::etcd::peer(), peers::kubernetes::peer(kubernetes()));
    tokio::try_join!(builder.build(&etcd), builder.build(&peer)).unwrap();
    ControlPlane::options().kubernetes(kubernetes())
}

fn config_map(name: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([("key".to_owned(), "value".to_owned())])),
        ..ConfigMap::default()
    }
}

async fn create(client: &Client, name: &str) {
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    maps.create(&PostParams::default(), &config_map(name)).await.unwrap();
}

async fn exists(client: &Client, name: &str) -> bool {
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    maps.get_opt(name).await.unwrap().is_some()
}

async fn gone(directory: &Path) {
    let text = directory.display().to_string();
    eventually("no process of the plane is left", || naming(&text).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plane_is_real_kubernetes() {
    let plane = options().await.audit(true).start().await.unwrap();
    let client = plane.client();
    assert_eq!(
        client.apiserver_version().await.unwrap().git_version,
        kubernetes().release()
    );
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
    assert!(accounts.get_opt("default").await.unwrap().is_some());

    // The controller manager works: a namespace with something in it really terminates.
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let metadata = ObjectMeta {
        name: Some("brief".to_owned()),
        ..ObjectMeta::default()
    };
    namespaces
        .create(
            &PostParams::default(),
            &Namespace {
                metadata,
                ..Namespace::default()
            },
        )
        .await
        .unwrap();
    let inside: Api<ConfigMap> = Api::namespaced(client.clone(), "brief");
    inside
        .create(&PostParams::default(), &config_map("inside"))
        .await
        .unwrap();
    namespaces.delete("brief", &DeleteParams::default()).await.unwrap();
    let since = Instant::now();
    while namespaces.get_opt("brief").await.unwrap().is_some() {
        assert!(
            since.elapsed() < Duration::from_secs(30),
            "the namespace does not terminate"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    // A ServiceAccount is itself, and may what RBAC says: nothing.
    let kubeconfig = plane.token_kubeconfig("default", "default").await.unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    let account = Client::try_from(config).unwrap();
    let reviews: Api<SelfSubjectReview> = Api::all(account.clone());
    let review = reviews
        .create(&PostParams::default(), &SelfSubjectReview::default())
        .await
        .unwrap();
    let user = review.status.unwrap().user_info.unwrap().username;
    assert_eq!(user.as_deref(), Some("system:serviceaccount:default:default"));
    let secrets: Api<Secret> = Api::namespaced(account, "default");
    let refused = secrets.list(&ListParams::default()).await.unwrap_err();
    assert!(matches!(refused, kube::Error::Api(status) if status.code == 403));

    let audit = std::fs::read_to_string(plane.audit_log().unwrap()).unwrap();
    assert!(audit.contains("\"verb\":\"delete\"") && audit.contains("namespaces/brief"));

    let directory = plane.directory().to_owned();
    assert_eq!(plane.pids().len(), 4);
    assert!(!naming(&directory.display().to_string()).is_empty());
    let since = Instant::now();
    plane.stop().await.unwrap();
    println!("stopped in {:?}", since.elapsed());
    gone(&directory).await;
    assert!(!directory.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn up_to_a_service_account_takes_less_than_six_seconds() {
    let options = options().await;
    let mut times = Vec::new();
    // A machine that is busy with other tests may miss once or twice.
    for _ in 0..3 {
        let since = Instant::now();
        let plane = options.clone().start().await.unwrap();
        times.push(since.elapsed());
        drop(plane);
        if times.iter().any(|time| *time < Duration::from_secs(6)) {
            println!("ready after {times:?}");
            return;
        }
    }
    panic!("not ready within six seconds: {times:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn planes_stand_side_by_side() {
    let options = options().await;
    let (one, two) = tokio::try_join!(options.clone().start(), options.start()).unwrap();
    assert_ne!(one.server(), two.server());
    assert_ne!(one.ca_pem(), two.ca_pem());
    create(&one.client(), "only-here").await;
    assert!(exists(&one.client(), "only-here").await);
    assert!(!exists(&two.client(), "only-here").await);
    let directory = one.directory().to_owned();
    drop(one);
    gone(&directory).await;
    create(&two.client(), "still-here").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn state_survives_a_restart() {
    let data = tempfile::tempdir().unwrap();
    let options = options().await.data(data.path());
    let plane = options.clone().start().await.unwrap();
    let (server, ca) = (plane.server().to_owned(), plane.ca_pem().to_owned());
    create(&plane.client(), "kept").await;
    let refused = options.clone().start().await.unwrap_err().to_string();
    assert!(refused.contains("used by another plane"), "{refused}");
    plane.stop().await.unwrap();

    let plane = options.clone().start().await.unwrap();
    assert!(exists(&plane.client(), "kept").await);
    assert_eq!((plane.server(), plane.ca_pem()), (server.as_str(), ca.as_str()));
    create(&plane.client(), "crashed").await;
    drop(plane); // Killed, not asked: what was answered is on the disk.
    gone(data.path()).await;

    let plane = options.start().await.unwrap();
    assert!(exists(&plane.client(), "crashed").await);
    plane.stop().await.unwrap();
}

#[tokio::test]
async fn state_of_a_newer_kubernetes_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let ports = r#"{"etcd":1,"etcd_peer":2,"apiserver":3,"controller_manager":4,"scheduler":5}"#;
    std::fs::write(
        data.path().join("state.json"),
        format!(r#"{{"kubernetes":"1.37","ports":{ports}}}"#),
    )
    .unwrap();
    let options = options().await.kubernetes(Kubernetes::V1_34).data(data.path());
    let refused = options.start().await.unwrap_err().to_string();
    assert!(
        refused.contains("holds state of Kubernetes 1.37, which 1.34 may not read\nhint: use 1.37"),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_owner_leaves_no_process() {
    drop(options().await);
    let mut owner = Command::new(env!("CARGO_BIN_EXE_devplane-owner"))
        .arg("plane")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(owner.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let directory = Path::new(line.trim()).to_owned();
    assert!(directory.is_absolute() && naming(line.trim()).len() >= 4, "{line}");
    owner.kill().unwrap(); // SIGKILL
    owner.wait().unwrap();
    gone(&directory).await;

    // Its folder goes with the next start.
    drop(options().await.start().await.unwrap());
    assert!(!directory.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dying_process_is_reported_with_its_log() {
    let error = options()
        .await
        .apiserver_flag("--no-such-flag")
        .start()
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("kube-apiserver ended (exit status: 1)"), "{error}");
    assert!(
        error.contains("unknown flag: --no-such-flag") && error.contains("hint: "),
        "{error}"
    );
    let log = error.lines().next().unwrap().rsplit("log: ").next().unwrap();
    assert!(
        std::fs::read_to_string(log).unwrap().contains("no-such-flag"),
        "the log stays"
    );
    let directory = Path::new(log).parent().unwrap().parent().unwrap();
    assert!(!directory.join("etcd").exists(), "the state does not");
    gone(directory).await;
    std::fs::remove_dir_all(directory).unwrap();

    let plane = options().await.scheduler(false).start().await.unwrap();
    assert!(plane.process("kube-scheduler").is_none());
    plane.process("kube-controller-manager").unwrap().signal(Signal::Kill);
    let error = plane.died().await.to_string();
    assert!(error.contains("kube-controller-manager ended (signal: 9"), "{error}");
    let directory = plane.directory().to_owned();
    drop(plane);
    std::fs::remove_dir_all(directory).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_and_helm_talk_to_it() {
    let plane = options().await.start().await.unwrap();
    let builder = Builder::new(cache_directory().unwrap(), Arc::new(Lines));
    let kubectl = builder.build(&peers::kubectl::peer(plane.kubernetes())).await.unwrap();
    let mut command = peers::kubectl::command(&kubectl, plane.kubeconfig()).unwrap();
    let output = command.args(["version", "-o", "json"]).output().await.unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said.matches(kubernetes().release()).count(), 2, "{said}");

    let helm = builder.build(&peers::helm::peer()).await.unwrap();
    let run = async |arguments: &[&str]| {
        let output = peers::helm::command(&helm, plane.kubeconfig())
            .unwrap()
            .args(arguments)
            .output()
            .await
            .unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "helm {arguments:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(run(&["version", "--short"]).await.starts_with("v3.22.0"));
    let chart = tempfile::tempdir().unwrap();
    std::fs::create_dir(chart.path().join("templates")).unwrap();
    std::fs::write(
        chart.path().join("Chart.yaml"),
        "apiVersion: v2\nname: small\nversion: 0.1.0\n",
    )
    .unwrap();
    let template = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: from-helm\ndata:\n  kube: {{ .Capabilities.KubeVersion }}\n";
    std::fs::write(chart.path().join("templates/map.yaml"), template).unwrap();
    run(&["install", "small", &chart.path().display().to_string()]).await;
    let maps: Api<ConfigMap> = Api::default_namespaced(plane.client());
    assert_eq!(
        maps.get("from-helm").await.unwrap().data.unwrap()["kube"],
        kubernetes().release()
    );
    plane.stop().await.unwrap();
}
