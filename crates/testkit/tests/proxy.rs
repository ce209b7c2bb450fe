//! The proxy and the layer against a small HTTP server: what passes, and what each fault does to a connection.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, Config,
    api::{Patch, PatchParams, WatchEvent, WatchParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;
use tokio::net::TcpListener;
use trellis_testkit::{Answer, Disturb, Fault, Gate, Proxy, Recording, Script, Verb, WatchEnd, calls};

/// A server that counts what reaches it, echoes who asks, and streams events for ever.
struct Server {
    address: SocketAddr,
    reached: Arc<AtomicU64>,
}

async fn server() -> Server {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let reached = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&reached);
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let count = Arc::clone(&count);
            tokio::spawn(async move {
                let service = service_fn(move |request: Request<Incoming>| {
                    count.fetch_add(1, Ordering::SeqCst);
                    async move { Ok::<_, Infallible>(answer(&request)) }
                });
                let _ = http1::Builder::new()
                    .serve_connection(TokioIo::new(socket), service)
                    .await;
            });
        }
    });
    Server { address, reached }
}

fn answer(request: &Request<Incoming>) -> Response<BoxBody<Bytes, Infallible>> {
    let header = |name: &str| request.headers().get(name).map_or("", |value| value.to_str().unwrap());
    let map = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": "web", "resourceVersion": "1" },
        "data": { "authorization": header("authorization"), "agent": header("user-agent") },
    });
    let body = map.to_string();
    let event = move |_| {
        let line = format!("{}\n", json!({ "type": "MODIFIED", "object": map }));
        // Half a line at a time: an end must not fall into the middle of an event.
        let (head, tail) = line.split_at(line.len() / 2);
        [head.to_owned(), tail.to_owned()].map(|part| Ok(Frame::data(Bytes::from(part))))
    };
    if request.uri().query().is_some_and(|query| query.contains("watch=true")) {
        let events = stream::iter(0..3)
            .flat_map(move |number| stream::iter(event(number)))
            .chain(stream::pending());
        return Response::new(BodyExt::boxed(StreamBody::new(events)));
    }
    Response::new(http_body_util::Full::new(Bytes::from(body)).boxed())
}

struct Set {
    server: Server,
    proxy: Proxy,
    client: Client,
}

impl Set {
    async fn up(script: &Script) -> Self {
        let server = server().await;
        let upstream = Config::new(format!("http://{}", server.address).parse().unwrap());
        let proxy = Proxy::start(upstream, identity(), script).await.unwrap();
        let kubeconfig = Kubeconfig::read_from(proxy.kubeconfig()).unwrap();
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .unwrap();
        config.default_retry = false;
        config
            .headers
            .push((http::header::USER_AGENT, "trellis/1 (a)".parse().unwrap()));
        let client = Client::try_from(config).unwrap();
        Self { server, proxy, client }
    }

    fn maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), "a")
    }

    async fn write(&self) -> Result<ConfigMap, kube::Error> {
        write(&self.maps()).await
    }

    fn reached(&self) -> u64 {
        self.server.reached.load(Ordering::SeqCst)
    }
}

async fn write(maps: &Api<ConfigMap>) -> Result<ConfigMap, kube::Error> {
    maps.patch(
        "web",
        &PatchParams::apply("me"),
        &Patch::Apply(json!({"apiVersion": "v1", "kind": "ConfigMap"})),
    )
    .await
}

fn identity() -> Kubeconfig {
    serde_json::from_value(json!({
        "clusters": [{ "name": "c", "cluster": {
            "server": "https://192.0.2.1:6443", "certificate-authority-data": "bm9uZQ==", "tls-server-name": "x",
        }}],
        "users": [{ "name": "u", "user": { "token": "secret" } }],
        "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u" } }],
        "current-context": "c",
    }))
    .unwrap()
}

#[tokio::test]
async fn passes_on_who_asks_and_records_it() {
    let set = Set::up(&Script::new()).await;
    let data = set.write().await.unwrap().data.unwrap();
    assert_eq!(data["authorization"], "Bearer secret");
    assert_eq!(data["agent"], "trellis/1 (a)");
    let call = set.proxy.recording().calls().remove(0);
    assert_eq!(call.user_agent.as_deref(), Some("trellis/1 (a)"));
    assert_eq!(call.content_type, "application/apply-patch+yaml");
    assert_eq!(call.answer, Answer::Status(200));
    insta::assert_snapshot!(set.proxy.recording().conversation().naming("a", "<namespace>").to_string(), @r#"
    patch configmaps <namespace>/web (fieldManager=me) → 200
      {
        "apiVersion": "v1",
        "kind": "ConfigMap"
      }
    "#);
}

#[tokio::test]
async fn fails_with_a_status() {
    let script = Script::new()
        .with(
            calls()
                .resource("configmaps")
                .nth(1)
                .then(Fault::fail_retry_after(429, 3)),
        )
        .with(calls().resource("configmaps").nth(2).then(Fault::conflict()));
    let set = Set::up(&script).await;
    let kube::Error::Api(status) = set.write().await.unwrap_err() else {
        panic!("not a status")
    };
    assert_eq!((status.code, status.reason.as_str()), (429, "TooManyRequests"));
    assert_eq!(
        status.details.as_ref().map(|details| details.retry_after_seconds),
        Some(3)
    );
    let kube::Error::Api(status) = set.write().await.unwrap_err() else {
        panic!("not a status")
    };
    assert!(status.is_conflict());
    assert_eq!(set.reached(), 0);
    set.write().await.unwrap();
    assert_eq!(set.reached(), 1);
}

#[tokio::test]
async fn cuts_before_and_after() {
    let script = Script::new()
        .with(calls().first(1).then(Fault::cut_before()))
        .with(calls().nth(2).then(Fault::cut_after()));
    let set = Set::up(&script).await;
    assert!(!matches!(set.write().await.unwrap_err(), kube::Error::Api(_)));
    assert_eq!(set.reached(), 0);
    assert!(!matches!(set.write().await.unwrap_err(), kube::Error::Api(_)));
    assert_eq!(set.reached(), 1);
    set.write().await.unwrap();
    let answers: Vec<_> = set
        .proxy
        .recording()
        .calls()
        .into_iter()
        .map(|call| call.answer)
        .collect();
    assert_eq!(answers, [Answer::CutBefore, Answer::CutAfter(200), Answer::Status(200)]);
}

#[tokio::test]
async fn holds_a_call_until_the_gate_opens() {
    let gate = Gate::new();
    let set = Set::up(&Script::new().with(calls().then(Fault::hold(&gate)))).await;
    let write = tokio::spawn({
        let maps = set.maps();
        async move { write(&maps).await }
    });
    gate.reached(1).await;
    assert_eq!(set.reached(), 0);
    assert!(!write.is_finished());
    gate.open();
    write.await.unwrap().unwrap();
    set.write().await.unwrap();
}

#[tokio::test]
async fn hangs_until_the_caller_goes_away() {
    let script = Script::new();
    let rule = script.add(calls().then(Fault::hang()));
    let set = Set::up(&script).await;
    let outcome = tokio::time::timeout(Duration::from_millis(200), set.write()).await;
    assert!(outcome.is_err(), "a hung call is not answered");
    assert_eq!((set.reached(), rule.hits()), (0, 1));
    rule.lift();
    set.write().await.unwrap();
}

#[tokio::test]
async fn crashes_after_the_kth_write() {
    let script = Script::new().crash_after_write(2);
    let set = Set::up(&script).await;
    set.write().await.unwrap();
    let second = tokio::spawn({
        let maps = set.maps();
        async move { write(&maps).await }
    });
    script.crashed().await;
    assert_eq!(set.reached(), 2, "the server has answered the second write");
    assert!(
        tokio::time::timeout(Duration::from_millis(100), set.write())
            .await
            .is_err(),
        "nothing passes"
    );
    assert!(!second.is_finished(), "the answer is withheld");
    assert_eq!(set.reached(), 2);
    script.revive();
    set.write().await.unwrap();
    second.abort();
    let answers: Vec<_> = set
        .proxy
        .recording()
        .calls()
        .into_iter()
        .map(|call| call.answer)
        .collect();
    assert_eq!(
        answers,
        [
            Answer::Status(200),
            Answer::Withheld(200),
            Answer::Dead,
            Answer::Status(200)
        ]
    );
}

#[tokio::test]
async fn in_process_everything_fails_after_the_crash() {
    let server = server().await;
    let (script, recording) = (Script::new().crash_after_write(1), Recording::new());
    let config = Config::new(format!("http://{}", server.address).parse().unwrap());
    let client = Disturb::new(&script, &recording).client(config).unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(client, "a");
    maps.get("web").await.unwrap();
    assert!(write(&maps).await.is_err());
    assert!(script.is_crashed());
    assert!(maps.get("web").await.is_err());
    let answers: Vec<_> = recording.calls().into_iter().map(|call| call.answer).collect();
    assert_eq!(answers, [Answer::Status(200), Answer::Withheld(200), Answer::Dead]);
}

/// What a caller sees of a watch, up to its end.
async fn watched(set: &Set, enough: usize) -> Vec<String> {
    let events = set.maps().watch(&WatchParams::default(), "0").await.unwrap();
    let seen = events.take(enough).map(|event| match event {
        Ok(WatchEvent::Modified(_)) => "modified".to_owned(),
        Ok(WatchEvent::Error(status)) => format!("error {}", status.code),
        Ok(_) => "other".to_owned(),
        // kube takes a broken stream for the end of it, so this is something worse.
        Err(error) => error.to_string(),
    });
    seen.collect().await
}

#[tokio::test]
async fn streams_a_watch_and_ends_it_as_planned() {
    let watches = || calls().verb(Verb::Watch);
    let script = Script::new()
        .with(watches().nth(2).then(Fault::expire_watch()))
        .with(watches().nth(3).then(Fault::end_watch(2, WatchEnd::Cut)))
        .with(watches().nth(4).then(Fault::end_watch(1, WatchEnd::Close)));
    let set = Set::up(&script).await;
    assert_eq!(
        watched(&set, 3).await,
        ["modified"; 3],
        "unbuffered: the stream has no end"
    );
    assert_eq!(watched(&set, 9).await, ["error 410"]);
    assert_eq!(watched(&set, 3).await, ["modified", "modified"]);
    assert_eq!(watched(&set, 9).await, ["modified"]);
}

#[tokio::test]
async fn ends_open_watches_on_demand() {
    let script = Script::new();
    let set = Set::up(&script).await;
    for (end, last) in [
        (WatchEnd::Expire, Some("error 410")),
        (WatchEnd::Cut, None),
        (WatchEnd::Close, None),
    ] {
        let mut events = set.maps().watch(&WatchParams::default(), "0").await.unwrap().boxed();
        for _ in 0..3 {
            assert!(matches!(events.next().await, Some(Ok(WatchEvent::Modified(_)))));
        }
        assert!(script.end_watches(&calls().resource("configmaps"), end) >= 1);
        let event = events.next().await.map(|event| match event {
            Ok(WatchEvent::Error(status)) => format!("error {}", status.code),
            Ok(_) => "other".to_owned(),
            Err(error) => error.to_string(),
        });
        assert_eq!(event.as_deref(), last);
    }
    assert_eq!(script.open_watches(&calls()), 0);
}
