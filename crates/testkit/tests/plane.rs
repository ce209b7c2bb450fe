//! Each tool against a real control plane.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::time::Duration;

use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{
        coordination::v1::{Lease, LeaseSpec},
        core::v1::{ConfigMap, Service},
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
    config::{Config, KubeConfigOptions, Kubeconfig},
    runtime::watcher::{self, Event, watcher},
};
use serde_json::json;
use trellis_api::ResiliencePolicy;
use trellis_testkit::{
    Answer, Disturb, Fault, Proxy, Recording, Script, Verb, WatchEnd,
    audit::{LeaseHistory, no_write_by_non_holder},
    calls, eventually,
    fixtures::{policy, service},
    plane::{Isolated, Shared},
    rest,
};

static PLANE: Shared = Shared::new(|plane| Box::pin(async move { plane.apply(&trellis_api::crds()).await }));

async fn isolated(prefix: &str) -> Isolated {
    PLANE.get().await.unwrap().isolated(prefix).await.unwrap()
}

/// A client of a ServiceAccount `worker` that may do anything to config maps and leases here, through a proxy.
async fn worker(namespace: &Isolated, script: &Script, identity: &str) -> (Proxy, Client) {
    let name = namespace.name();
    let rules = json!([{
        "apiGroups": ["", "coordination.k8s.io"], "resources": ["configmaps", "leases"], "verbs": ["*"],
    }]);
    let subject = json!([{ "kind": "ServiceAccount", "name": "worker", "namespace": name }]);
    let role = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "worker" });
    for manifest in [
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "worker" } }),
        json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": { "name": "worker" }, "rules": rules }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": { "name": "worker" },
            "subjects": subject, "roleRef": role,
        }),
    ] {
        namespace.apply(manifest).await.unwrap();
    }
    let credentials = namespace.plane().service_account(name, "worker").await.unwrap();
    let proxy = namespace.plane().proxy(&credentials, script).await.unwrap();
    let kubeconfig = Kubeconfig::read_from(proxy.kubeconfig()).unwrap();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    config.headers.push((
        http::header::USER_AGENT,
        format!("trellis/0 ({identity})").parse().unwrap(),
    ));
    (proxy, Client::try_from(config).unwrap())
}

fn map(name: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        ..ConfigMap::default()
    }
}

async fn put(maps: &Api<ConfigMap>, name: &str) -> Result<ConfigMap, kube::Error> {
    maps.create(&PostParams::default(), &map(name)).await
}

#[tokio::test]
async fn fixtures_are_admitted_and_defaults_are_the_servers() {
    let here = isolated("fixtures").await;
    let made: Service = here
        .create_object(
            service("web")
                .port(80)
                .app_protocol("http")
                .annotation("a/b", "c")
                .build(),
        )
        .await
        .unwrap();
    assert_eq!(
        made.spec.unwrap().ports.unwrap()[0].app_protocol.as_deref(),
        Some("http")
    );
    here.create_object(service("quiet").port(80).headless().build())
        .await
        .unwrap();
    here.create_object(service("far").external_name("example.org").build())
        .await
        .unwrap();
    let policy = policy("web")
        .breaker(7)
        .retry(2, "5xx,429")
        .request_timeout("10s")
        .annotation("x.dev/y", "z");
    let made: ResiliencePolicy = here.create_object(policy.clone().build()).await.unwrap();
    assert!(made.spec.circuit_breaker.unwrap().enabled);
    let refused = here
        .apply(policy.set("/spec/circuitBreaker/failureThreshold", 0).json())
        .await;
    assert!(refused.unwrap_err().to_string().contains("failureThreshold"));
}

#[tokio::test]
async fn a_layer_records_a_conversation() {
    let here = isolated("layer").await;
    let (script, recording) = (
        Script::new().with(calls().verb(Verb::Patch).nth(1).then(Fault::conflict())),
        Recording::new(),
    );
    let client = Disturb::new(&script, &recording).client(here.plane().config()).unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(client, here.name());
    let wanted = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "web" }, "data": { "namespace": here.name() } });
    for _ in 0..2 {
        let _ = maps
            .patch("web", &PatchParams::apply("me"), &Patch::Apply(&wanted))
            .await;
    }
    maps.delete("web", &kube::api::DeleteParams::default()).await.unwrap();
    insta::assert_snapshot!(recording.conversation().naming(here.name(), "<ns>"), @r#"
    patch configmaps <ns>/web (fieldManager=me) → 409 (injected)
      {
        "apiVersion": "v1",
        "data": {
          "namespace": "<ns>"
        },
        "kind": "ConfigMap",
        "metadata": {
          "name": "web"
        }
      }
    patch configmaps <ns>/web (fieldManager=me) → 201
      {
        "apiVersion": "v1",
        "data": {
          "namespace": "<ns>"
        },
        "kind": "ConfigMap",
        "metadata": {
          "name": "web"
        }
      }
    delete configmaps <ns>/web → 200
      {}
    "#);
}

#[tokio::test]
async fn a_cut_after_leaves_the_write_and_a_cut_before_does_not() {
    let here = isolated("cut").await;
    let script = Script::new()
        .with(calls().name("before").then(Fault::cut_before()))
        .with(calls().name("after").then(Fault::cut_after()));
    let (proxy, client) = worker(&here, &script, "cut").await;
    let maps: Api<ConfigMap> = Api::namespaced(client, here.name());
    assert!(put(&maps, "before").await.is_err());
    assert!(put(&maps, "after").await.is_err());
    assert!(here.api::<ConfigMap>().get_opt("before").await.unwrap().is_none());
    here.get::<ConfigMap>("after").await.unwrap();
    let answers: Vec<_> = proxy.recording().calls().into_iter().map(|call| call.answer).collect();
    assert_eq!(answers, [Answer::CutBefore, Answer::CutAfter(201)]);
}

#[tokio::test]
async fn an_expired_watch_lists_again_and_a_cut_one_goes_on() {
    let here = isolated("watch").await;
    let script = Script::new().with(
        calls()
            .verb(Verb::Watch)
            .resource("configmaps")
            .nth(1)
            .then(Fault::expire_watch()),
    );
    let (proxy, client) = worker(&here, &script, "watch").await;
    let maps: Api<ConfigMap> = Api::namespaced(client, here.name());
    let seen = watcher(maps.clone(), watcher::Config::default()).filter_map(async |event| match event {
        Ok(Event::Apply(map)) => Some(map.metadata.name.unwrap()),
        _ => None,
    });
    let mut seen = std::pin::pin!(seen);
    let watches = calls().verb(Verb::Watch).resource("configmaps");
    let lists = calls().verb(Verb::List).resource("configmaps");
    let mut step = async |name: &str, end: Option<WatchEnd>| {
        let next = async {
            eventually("a watch is open", async || {
                if script.open_watches(&watches) > 0 {
                    Ok(())
                } else {
                    Err("none")
                }
            })
            .await;
            put(&maps, name).await.unwrap();
        };
        // `kube-root-ca.crt` comes from the controller-manager, at its own time.
        let found = async {
            while let Some(found) = seen.next().await {
                if found == name {
                    break;
                }
            }
        };
        futures::join!(next, found);
        if let Some(end) = end {
            assert_eq!(script.end_watches(&watches, end), 1);
        }
    };
    step("one", Some(WatchEnd::Cut)).await;
    step("two", Some(WatchEnd::Close)).await;
    assert_eq!(
        proxy.recording().of(&lists).len(),
        2,
        "listed at the start and after the expiry"
    );
    step("three", Some(WatchEnd::Expire)).await;
    step("four", None).await;
    assert_eq!(proxy.recording().of(&lists).len(), 3);
}

#[tokio::test]
async fn a_crash_leaves_exactly_k_writes() {
    let here = isolated("crash").await;
    let script = Script::new().crash_after_write(2);
    let (_proxy, client) = worker(&here, &script, "crash").await;
    let maps: Api<ConfigMap> = Api::namespaced(client, here.name());
    let work = tokio::spawn(async move {
        for name in ["a", "b", "c"] {
            put(&maps, name).await.unwrap();
        }
    });
    script.crashed().await;
    assert!(!work.is_finished());
    work.abort();
    let stored = here
        .api::<ConfigMap>()
        .list(&kube::api::ListParams::default())
        .await
        .unwrap();
    let names: Vec<_> = stored
        .items
        .into_iter()
        .filter_map(|map| map.metadata.name)
        .filter(|name| name.len() == 1)
        .collect();
    assert_eq!(names, ["a", "b"]);
}

#[tokio::test]
async fn rbac_and_the_audit_log_see_the_caller() {
    let here = isolated("audit").await;
    let mark = here.plane().audit().mark().unwrap();
    let (_proxy, client) = worker(&here, &Script::new(), "a").await;
    put(&Api::namespaced(client.clone(), here.name()), "web").await.unwrap();
    let services: Api<Service> = Api::namespaced(client, here.name());
    let refused = services
        .create(&PostParams::default(), &service("web").port(80).build())
        .await
        .unwrap_err();
    assert!(matches!(refused, kube::Error::Api(status) if status.code == 403));
    let user = format!("system:serviceaccount:{}:worker", here.name());
    let mut events = here
        .plane()
        .audit()
        .calls_since(mark, &calls().work().namespace(here.name()))
        .unwrap();
    events.retain(|event| event.user.username == user);
    let seen: Vec<_> = events
        .iter()
        .map(|event| (event.identity(), event.info().resource, event.code()))
        .collect();
    assert_eq!(
        seen,
        [
            (Some("a"), "configmaps".to_owned(), 201),
            (Some("a"), "services".to_owned(), 403)
        ]
    );
    rest(here.plane().audit(), Duration::from_millis(300), |event| {
        event.user.username == user
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn the_audit_log_tells_who_held_a_lease() {
    let here = isolated("lease").await;
    let mark = here.plane().audit().mark().unwrap();
    let (_first, first) = worker(&here, &Script::new(), "a").await;
    let (_second, second) = worker(&here, &Script::new(), "b").await;
    let claim = async |client: &Client, holder: &str| {
        let leases: Api<Lease> = Api::namespaced(client.clone(), here.name());
        let spec = LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            renew_time: Some(MicroTime(Timestamp::now())),
            lease_duration_seconds: Some(30),
            ..LeaseSpec::default()
        };
        let lease = json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": "trellis" }, "spec": spec });
        leases
            .patch("trellis", &PatchParams::apply("test").force(), &Patch::Apply(lease))
            .await
            .unwrap();
    };
    let work = async |client: &Client, name: &str| {
        put(&Api::namespaced(client.clone(), here.name()), name).await.unwrap();
    };
    claim(&first, "a").await;
    work(&first, "right").await;
    claim(&second, "b").await;
    work(&second, "right-too").await;
    work(&first, "wrong").await;
    let events = here.plane().audit().since(mark).unwrap();
    let history = LeaseHistory::of(&events, here.name(), "trellis");
    let tenures: Vec<_> = history.tenures().into_iter().map(|tenure| tenure.holder).collect();
    assert_eq!(tenures, ["a", "b"]);
    assert!(history.takeovers()[0].gap() >= SignedDuration::ZERO);
    let work = calls().work().namespace(here.name()).resource("configmaps");
    let ours: Vec<_> = events
        .into_iter()
        .filter(|event| event.identity().is_some() && work.matches(&event.info()))
        .collect();
    let violations = no_write_by_non_holder(&ours, &history);
    assert_eq!(violations.len(), 1);
    assert_eq!(violations[0].event.info().name.as_deref(), Some("wrong"));
}

#[tokio::test]
async fn versions_and_waits_follow_an_object() {
    let here = isolated("versions").await;
    let mut versions = here.versions::<ConfigMap>("web").await;
    put(&here.api(), "web").await.unwrap();
    here.merge::<ConfigMap>("web", json!({ "data": { "a": "1" } }))
        .await
        .unwrap();
    here.until("web", "has data", |map: &ConfigMap| map.data.is_some())
        .await;
    here.delete::<ConfigMap>("web").await.unwrap();
    here.gone::<ConfigMap>("web").await;
    versions.at_least(4).await;
    let data: Vec<_> = versions
        .seen()
        .into_iter()
        .map(|map| map.map(|map| map.data.is_some()))
        .collect();
    assert_eq!(data, [None, Some(false), Some(true), None]);
}

#[tokio::test]
async fn a_namespace_goes_with_its_test() {
    let here = isolated("gone").await;
    let name = here.name().to_owned();
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(PLANE.get().await.unwrap().client().unwrap());
    drop(here);
    eventually("the namespace is gone", async || {
        match namespaces.get_opt(&name).await {
            Ok(None) => Ok(()),
            Ok(Some(namespace)) => Err(format!("{:?}", namespace.status)),
            Err(error) => Err(error.to_string()),
        }
    })
    .await;
}
