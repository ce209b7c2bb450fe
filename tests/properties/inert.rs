//! P8: policies on which Linkerd would not act. Each is recognised, nothing is written for it, and as soon as the cause
//! is gone it applies.
//!
//! trap × random policy ─▶ exact reason ─▶ audit log: no write but to the policy ─▶ cure ─▶ Applied, by a watch

use std::time::Duration;

use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams},
};
use serde_json::{Value, json};
use trellis_bindings::linkerd::ServiceProfile;
use trellis_testkit::plane::{Isolated, Plane};

use crate::{
    audited::{lawful, work},
    chronicle::{Chronicle, Now},
    lifecycle, namespaces,
    property::draw,
    routed, served,
    stand_in::Linkerd,
    steps::{SECTIONS, Step, spec},
    story::{SOON, Story, at_rest},
    verdict::condition,
};

/// How soon a cured policy applies: by a watch, long before the 30 s of a poll.
const AT_ONCE: Duration = Duration::from_secs(20);

/// A way to be ignored, and the reason that has to be given.
const TRAPS: [(&str, &str); 15] = [
    ("missing", "TargetServiceNotFound"),
    ("no-port", "PortNotFound"),
    ("headless", "Headless"),
    ("external", "Headless"),
    ("opaque-list", "Opaque"),
    ("opaque-default", "Opaque"),
    ("opaque-protocol", "Opaque"),
    ("unknown-protocol", "UnknownAppProtocol"),
    ("udp", "NotTcp"),
    ("mirrored", "MirroredService"),
    ("profile", "ServiceProfileShadowed"),
    ("foreign-owner", "ForeignOwner"),
    ("foreign-annotation", "ForeignAnnotation"),
    ("elsewhere", "TargetServiceNotFound"),
    ("unlisted", "PortNotFound"),
];

const TAKEN: &str = "balancer.linkerd.io/failure-accrual-consecutive-max-failures";
const BAD: &str = "timeout.linkerd.io/idle";

/// Traps in which a policy that makes routes falls too, for the same reason.
const ALSO_ROUTES: [&str; 11] = [
    "missing",
    "no-port",
    "headless",
    "external",
    "opaque-list",
    "opaque-default",
    "opaque-protocol",
    "unknown-protocol",
    "udp",
    "profile",
    "unlisted",
];

fn ports(list: &[(u16, Option<&str>)]) -> Value {
    let port = |(port, protocol): &(u16, Option<&str>)| json!({ "name": format!("p{port}"), "port": port, "appProtocol": protocol });
    json!({ "ports": list.iter().map(port).collect::<Vec<_>>() })
}

/// A Service on which Linkerd acts.
async fn plain(story: &mut Story<'_>) {
    story
        .apply_manifest(
            "web",
            &["config.linkerd.io/opaque-ports"],
            json!({}),
            ports(&[(80, None)]),
        )
        .await;
}

/// The Service, and what else makes the trap.
async fn set(trap: &str, story: &mut Story<'_>, client: &Client) {
    let opaque = json!({ "annotations": { "config.linkerd.io/opaque-ports": "25,80-81" } });
    let (metadata, spec) = match trap {
        "missing" => return,
        "headless" => (
            json!({}),
            json!({ "clusterIP": "None", "ports": ports(&[(80, None)])["ports"] }),
        ),
        "external" => (
            json!({}),
            json!({ "type": "ExternalName", "externalName": "example.com" }),
        ),
        "opaque-list" => (opaque, ports(&[(80, None)])),
        "opaque-default" => (json!({}), ports(&[(3306, None), (11211, None)])),
        "opaque-protocol" => (json!({}), ports(&[(80, Some("linkerd.io/opaque"))])),
        "unknown-protocol" => (json!({}), ports(&[(80, Some("HTTP2"))])),
        "udp" => (
            json!({}),
            json!({ "ports": [{ "name": "dns", "port": 80, "protocol": "UDP" }] }),
        ),
        "mirrored" => (
            json!({ "labels": { "mirror.linkerd.io/mirrored-service": "true" } }),
            ports(&[(80, None)]),
        ),
        "unlisted" => (json!({}), ports(&[(8080, None)])),
        _ => (json!({}), ports(&[(80, None)])),
    };
    if trap == "profile" {
        let profile: ServiceProfile = serde_json::from_value(json!({
            "apiVersion": "linkerd.io/v1alpha2", "kind": "ServiceProfile",
            "metadata": { "name": format!("web.{}.svc.cluster.local", story.namespace) },
            "spec": { "routes": [{ "name": "GET /", "condition": { "method": "GET" } }] },
        }))
        .unwrap();
        profiles(story, client)
            .create(&PostParams::default(), &profile)
            .await
            .unwrap();
    }
    story.apply_manifest("web", &[], metadata, spec).await;
    match trap {
        "foreign-owner" => story.take(&Step::Annotate("web", TAKEN, Some("101"))).await,
        "foreign-annotation" => story.take(&Step::Annotate("web", BAD, Some("1.5s"))).await,
        _ => {}
    }
}

/// Removes the cause.
async fn cure(trap: &str, story: &mut Story<'_>, client: &Client) {
    match trap {
        "no-port" => {
            story
                .apply_manifest("web", &[], json!({}), ports(&[(80, None), (9, None)]))
                .await;
        }
        "unlisted" => story.apply_manifest("web", &[], json!({}), ports(&[(80, None)])).await,
        "headless" | "external" => {
            story.delete_service("web").await;
            plain(story).await;
        }
        "opaque-default" => {
            story
                .apply_manifest("web", &[], json!({}), ports(&[(3306, Some("http"))]))
                .await;
        }
        "udp" => story.apply_manifest("web", &[], json!({}), ports(&[(443, None)])).await,
        "profile" => {
            let name = format!("web.{}.svc.cluster.local", story.namespace);
            profiles(story, client)
                .delete(&name, &DeleteParams::default())
                .await
                .unwrap();
        }
        "foreign-owner" => story.take(&Step::Annotate("web", TAKEN, None)).await,
        "foreign-annotation" => story.take(&Step::Annotate("web", BAD, None)).await,
        "elsewhere" => {
            story
                .edit("one", json!({ "spec": { "targetRef": { "namespace": null } } }))
                .await;
        }
        _ => plain(story).await,
    }
}

fn profiles(story: &Story<'_>, client: &Client) -> Api<ServiceProfile> {
    Api::namespaced(client.clone(), &story.namespace)
}

/// A policy that falls into the trap; `routed`: it makes routes.
fn policy(trap: &str, seed: u64, number: u32, routed: bool) -> Value {
    match trap {
        "foreign-owner" => {
            return json!({ "targetRef": { "name": "web" }, "circuitBreaker": { "failureThreshold": 1 + number % 100 } });
        }
        "foreign-annotation" => {
            return json!({ "targetRef": { "name": "web" }, "timeout": { "requestTimeout": format!("{}s", number + 1) } });
        }
        _ => {}
    }
    let mut policy = draw(&spec(SECTIONS), seed, number, 200);
    // A policy that enables nothing falls into no trap.
    for section in ["circuitBreaker", "retry", "timeout"] {
        if let Some(section) = policy.get_mut(section).filter(|section| section.is_object()) {
            section["enabled"] = json!(true);
        }
    }
    if routed {
        policy["routes"] = json!([{ "name": "carts", "http": { "matches": [{ "path": { "value": "/carts" } }] } }]);
        policy["timeout"] = json!({ "requestTimeout": format!("{}s", number + 1) });
        policy.as_object_mut().unwrap().remove("circuitBreaker");
    }
    policy["targetRef"] = match trap {
        "no-port" => json!({ "name": "web", "port": 9 }),
        "unlisted" => json!({ "name": "web", "port": 80 }),
        "elsewhere" => json!({ "name": "web", "namespace": "default" }),
        _ => json!({ "name": "web" }),
    };
    policy
}

async fn recognised(
    (trap, reason): (&str, &str),
    number: u32,
    seed: u64,
    plane: &Plane,
    isolated: Isolated,
    chronicle: &Chronicle,
    linkerd: &Linkerd,
) {
    let mark = plane.audit().mark().unwrap();
    let client = isolated.client().clone();
    let mut story = Story::new(&isolated, &client, chronicle);
    let makes_routes = number % 2 == 1 && ALSO_ROUTES.contains(&trap);
    let spec = policy(trap, seed, number, makes_routes);
    let namespaces = [story.namespace.clone()];
    let _linkerd = makes_routes.then(|| linkerd.speak_in(&[&namespaces[0]]));
    let settled = |now: &Now| {
        if makes_routes {
            routed::at_rest(&namespaces, std::slice::from_ref(now))
        } else {
            at_rest(&namespaces[0], now)
        }
    };
    // The policy may come first: it must not be fooled by what is not there yet. Where it would rightly be applied
    // before the trap is complete, it comes last.
    let early = number.is_multiple_of(2) && !matches!(trap, "foreign-owner" | "foreign-annotation");
    if early {
        story.policy("one", &spec).await;
    }
    set(trap, &mut story, &client).await;
    story.policy("one", &spec).await;
    let settle = |now: &Now| settled(now).map(|()| now.clone());
    let now = chronicle.until(&story.namespace, SOON, settle).await;
    let ready = condition(&now.policies["one"], "Ready").unwrap();
    assert_eq!(
        (ready.status.as_str(), ready.reason.as_str()),
        ("False", reason),
        "{trap}: {}",
        ready.message
    );
    let written = work(plane.audit().since(mark).unwrap())
        .remove(&story.namespace)
        .unwrap_or_default();
    lawful(&story.namespace, &written).unwrap();
    let elsewhere: Vec<String> = written
        .iter()
        .filter(|event| {
            let resource = event.info().resource;
            event.succeeded() && !resource.starts_with("resiliencepolicies") && resource != "events"
        })
        .map(ToString::to_string)
        .collect();
    assert!(elsewhere.is_empty(), "{trap}: {elsewhere:?}");
    assert!(
        trap != "missing" || now.services.is_empty(),
        "{trap}: a Service was created"
    );

    cure(trap, &mut story, &client).await;
    let applied = |now: &Now| {
        settled(now)?;
        let ready = condition(&now.policies["one"], "Ready").unwrap();
        if ready.reason == "Applied" {
            Ok(())
        } else {
            Err(format!("{trap}: {} {}", ready.reason, ready.message))
        }
    };
    chronicle.until(&story.namespace, AT_ONCE, applied).await;
    story.delete_policy("one").await;
    let gone = |now: &Now| {
        if now.policies.is_empty() && now.routes.is_empty() {
            Ok(())
        } else {
            Err("still there".to_owned())
        }
    };
    chronicle.until(&story.namespace, SOON, gone).await;
    let now = story.settle().await;
    story.check_ledger(&now);
    std::mem::forget(isolated); // Its clean-up would disturb others' rest.
}

/// P8: what Linkerd would ignore is recognised, nothing is written for it, and it applies once the cause is gone.
#[tokio::test(flavor = "multi_thread")]
async fn p8_a_target_on_which_linkerd_does_not_act_is_recognised_and_left_alone() {
    let (plane, _) = served().await;
    let (seed, each) = (lifecycle::seed(), lifecycle::count().div_ceil(7));
    eprintln!("P8: TRELLIS_SEED={seed}");
    let traps: Vec<_> = (0..each)
        .flat_map(|number| TRAPS.iter().map(move |trap| (*trap, number)))
        .collect();
    let client = plane.client().unwrap();
    let chronicle = Chronicle::start(&client).await;
    let linkerd = Linkerd::watch(&client, &[]);
    let places = namespaces(plane, traps.iter().map(|((trap, _), _)| format!("p8-{trap}")).collect()).await;
    let count = traps.len();
    stream::iter(traps.into_iter().zip(places))
        .map(|((trap, number), place)| recognised(trap, number, seed, plane, place, &chronicle, &linkerd))
        .buffer_unordered(16)
        .collect::<Vec<()>>()
        .await;
    let services: Api<Service> = Api::default_namespaced(client);
    assert!(
        services.get_opt("web").await.unwrap().is_none(),
        "a Service was created elsewhere"
    );
    eprintln!("P8: {count} stories");
}
