//! Random clusters around Service `shop/web`, as the product and as the model read them.

#![expect(clippy::indexing_slicing, reason = "helpers of tests fail by panicking, like tests")]

use std::collections::BTreeMap;

use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::{Value, json};
use trellis_model::{Profile, Route, State};
use trellis_resilience::{Cluster, Gateway, Mesh};

/// A cluster, and what is asked of it.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) cluster: Cluster,
    pub(crate) port: u16,
    pub(crate) client: &'static str,
    routes: Vec<Value>,
    profiles: Vec<(&'static str, usize, usize)>,
}

/// The kind of Linkerd's own routes for HTTP.
const LINKERDS: &str = "HTTPRoute of Linkerd";
const NAMESPACES: [&str; 3] = ["shop", "other", "third"];

impl Case {
    /// The same cluster for the model.
    pub(crate) fn state(&self) -> State<'_> {
        let profile = |(namespace, routes, overrides): &(&'static str, usize, usize)| Profile {
            namespace,
            name: "web.shop.svc.cluster.local",
            routes: *routes,
            overrides: *overrides,
        };
        State {
            version: self.cluster.mesh.version.release(),
            services: self.cluster.services.to_vec(),
            routes: self.routes.iter().map(Route::read).collect(),
            profiles: self.profiles.iter().map(profile).collect(),
            http: self.cluster.gateway.http.iter().map(String::as_str).collect(),
            grpc: self.cluster.gateway.grpc.iter().map(String::as_str).collect(),
        }
    }
}

/// Annotations, mostly good.
fn annotations() -> impl Strategy<Value = BTreeMap<String, String>> {
    let alpha = "balancer.alpha.linkerd.io/";
    let good: Vec<(String, Vec<&str>)> = [
        (
            "balancer.linkerd.io/failure-accrual",
            vec!["consecutive", "unified", "unified"],
        ),
        (
            "balancer.linkerd.io/failure-accrual-consecutive-max-failures",
            vec!["3", "0"],
        ),
        (
            "balancer.linkerd.io/failure-accrual-consecutive-min-penalty",
            vec!["2s", "0"],
        ),
        (
            "balancer.linkerd.io/failure-accrual-consecutive-max-penalty",
            vec!["1m", "2s"],
        ),
        (
            "balancer.linkerd.io/failure-accrual-consecutive-jitter-ratio",
            vec!["0.25", " 1 "],
        ),
        ("retry.linkerd.io/limit", vec!["2", "0"]),
        ("retry.linkerd.io/http", vec!["5xx", "gateway-error,429", "400-404"]),
        ("retry.linkerd.io/grpc", vec!["unavailable", "Internal,cancelled"]),
        ("retry.linkerd.io/timeout", vec!["300ms", "0"]),
        ("timeout.linkerd.io/request", vec!["10s", "0s"]),
        ("timeout.linkerd.io/response", vec!["5s"]),
        ("timeout.linkerd.io/idle", vec![" 1m "]),
    ]
    .into_iter()
    .map(|(key, values)| (key.to_owned(), values))
    .chain(
        [
            ("failure-accrual-success-rate-threshold", vec!["0.5", "0"]),
            ("failure-accrual-success-rate-window", vec!["30s", "9ms"]),
            ("failure-accrual-success-rate-min-requests", vec!["10", "1000001"]),
            ("failure-accrual-honor-retry-after", vec!["T", "yes"]),
            ("penalize-failures", vec!["true", "1", "0"]),
            ("load-biaser-penalty", vec!["2s", "60d"]),
            ("load-biaser-max-retry-after", vec!["1m"]),
        ]
        .map(|(key, values)| (format!("{alpha}{key}"), values)),
    )
    .collect();
    let bad = select(vec!["", "3x", "1m30s", "5xx, 429", "4xx", "14", "-1", "NaN"]);
    let mut good = good;
    // These two decide whether eleven other keys count.
    for mode in [
        "balancer.linkerd.io/failure-accrual",
        "balancer.alpha.linkerd.io/penalize-failures",
    ] {
        let found = good.iter().find(|(key, _)| key == mode).unwrap().clone();
        good.extend(std::iter::repeat_n(found, 4));
    }
    let one = select(good).prop_flat_map(move |(key, values)| {
        let value = prop_oneof![40 => select(values), 1 => bad.clone()];
        (Just(key), value.prop_map(str::to_owned))
    });
    vec(one, 0..7).prop_map(|pairs| pairs.into_iter().collect())
}

fn service() -> impl Strategy<Value = Value> {
    let protocols = select(vec![
        None,
        None,
        None,
        Some("http"),
        Some("kubernetes.io/h2c"),
        Some("HTTP"),
        Some("grpc"),
        Some("linkerd.io/tcp"),
    ]);
    let port = (
        select(vec![80, 80, 80, 81, 3306]),
        protocols,
        select(vec!["TCP", "TCP", "TCP", "UDP"]),
    );
    let port = port.prop_map(
        |(port, app_protocol, protocol)| json!({"port": port, "appProtocol": app_protocol, "protocol": protocol}),
    );
    let address = prop_oneof![12 => Just("10.0.0.1"), 1 => Just("None")];
    let opaque = option::weighted(0.15, select(vec!["80", "79-81,x", "3306", ""]));
    (annotations(), vec(port, 1..4), address, opaque).prop_map(|(mut annotations, ports, address, opaque)| {
        if let Some(opaque) = opaque {
            annotations.insert("config.linkerd.io/opaque-ports".into(), opaque.into());
        }
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "web", "namespace": "shop", "annotations": annotations},
            "spec": {"clusterIP": address, "ports": ports},
        })
    })
}

fn parent() -> impl Strategy<Value = Value> {
    let group = prop_oneof![8 => Just(Some("")), 2 => Just(Some("core")), 1 => Just(None), 1 => Just(Some("gateway.networking.k8s.io"))];
    let kind = prop_oneof![12 => Just("Service"), 1 => Just("Gateway")];
    let namespace = prop_oneof![6 => Just("shop"), 1 => Just("other")];
    let port = option::weighted(0.4, select(vec![80, 80, 81]));
    let name = prop_oneof![12 => Just("web"), 1 => Just("api")];
    (group, kind, namespace, port, name).prop_map(|(group, kind, namespace, port, name)| {
        let mut parent = json!({"kind": kind, "namespace": namespace, "name": name});
        let fields = parent.as_object_mut().unwrap();
        if let Some(group) = group {
            fields.insert("group".into(), json!(group));
        }
        if let Some(port) = port {
            fields.insert("port".into(), json!(port));
        }
        parent
    })
}

/// What is said of a parent: mostly that it is accepted, and mostly by Linkerd.
fn verdict() -> impl Strategy<Value = (&'static str, &'static str)> {
    let by = prop_oneof![12 => Just("linkerd.io/policy-controller"), 1 => Just("istio.io/gateway-controller")];
    let says = prop_oneof![12 => Just("True"), 1 => Just("False"), 1 => Just("Unknown")];
    (by, says)
}

fn route() -> impl Strategy<Value = Value> {
    let grpc_or_http = vec![
        json!({}),
        json!({"path": {"value": "/a"}, "method": {"service": "shop.Carts"}}),
        json!({"path": {"type": "PathPrefix", "value": "/a"}, "method": {"type": "Exact", "service": "shop.Carts"}}),
        json!({"path": {"value": "/b"}, "headers": [{"name": "X", "value": "1"}, {"name": "y", "value": "2"}]}),
        json!({"path": {"value": "/b"}, "headers": [{"name": "y", "value": "2", "type": "Exact"}, {"name": "x", "value": "1"}]}),
    ];
    let rule = (
        option::weighted(0.4, select(vec!["8s", "0s", "1h30m", "500ms", ""])),
        option::weighted(0.05, select(vec!["RequestMirror", "URLRewrite", "ExtensionRef"])),
        option::weighted(0.2, Just("RequestHeaderModifier")),
        vec(select(grpc_or_http), 0..3),
    );
    let rule = rule.prop_map(|(request, bad, good, matches)| {
        let filters: Vec<Value> = bad
            .into_iter()
            .chain(good)
            .map(|filter| json!({"type": filter}))
            .collect();
        json!({"matches": matches, "timeouts": {"request": request, "backendRequest": "1s"}, "filters": filters})
    });
    let kind = prop_oneof![2 => Just("HTTPRoute"), 2 => Just("GRPCRoute"), 1 => Just(LINKERDS)];
    let namespace = prop_oneof![4 => Just("shop"), 2 => Just("other"), 1 => Just("third")];
    (kind, namespace, 0..3, vec((parent(), verdict()), 1..3), annotations(), vec(rule, 0..3)).prop_map(
        |(kind, namespace, second, parents, annotations, rules)| {
            let said: Vec<Value> = parents
                .iter()
                .map(|(parent, (by, says))| {
                    let mut parent = parent.clone();
                    if parent["group"] == "" {
                        parent["group"] = json!("core");
                    }
                    json!({"controllerName": by, "parentRef": parent, "conditions": [{"type": "Accepted", "status": says}]})
                })
                .collect();
            let parents: Vec<&Value> = parents.iter().map(|(parent, _)| parent).collect();
            let mut rules = rules;
            for one in rules.iter_mut().flat_map(|rule| rule["matches"].as_array_mut().unwrap()) {
                // A path is of HTTP, and a method that is an object of gRPC.
                let fields = one.as_object_mut().unwrap();
                fields.remove(if kind == "GRPCRoute" { "path" } else { "method" });
            }
            let (version, kind) = match kind {
                LINKERDS => ("policy.linkerd.io/v1beta3", "HTTPRoute"),
                _ => ("gateway.networking.k8s.io/v1", kind),
            };
            json!({
                "apiVersion": version, "kind": kind,
                "metadata": {
                    "namespace": namespace, "annotations": annotations,
                    "creationTimestamp": format!("2026-01-01T00:00:0{second}Z"),
                },
                "spec": {"parentRefs": parents, "rules": rules},
                "status": {"parents": said},
            })
        },
    )
}

fn named(routes: Vec<Value>, kind: &str) -> Vec<Value> {
    let linkerds = |route: &Value| route["apiVersion"] == "policy.linkerd.io/v1beta3";
    routes
        .into_iter()
        .filter(|route| {
            if kind == LINKERDS {
                linkerds(route)
            } else {
                route["kind"] == kind && !linkerds(route)
            }
        })
        .collect()
}

pub(crate) fn case() -> impl Strategy<Value = Case> {
    let versions = select(vec![
        "2.16",
        "2.17.1",
        "2.18",
        "2.19.4",
        "2.20",
        "2.20",
        "2.20.1",
        "edge-26.7.1",
        "edge-26.8.3",
    ]);
    let profile = (
        select(NAMESPACES.to_vec()),
        select(vec![0, 0, 1]),
        select(vec![0, 0, 0, 1]),
    );
    let http = prop_oneof![8 => Just(vec!["v1", "v1beta1"]), 1 => Just(vec!["v1"]), 1 => Just(vec![])];
    let grpc = prop_oneof![6 => Just(vec!["v1"]), 2 => Just(vec!["v1", "v1alpha2"]), 1 => Just(vec![])];
    let asked = (
        prop_oneof![4 => Just(80_u16), 1 => Just(81), 1 => Just(3306)],
        select(NAMESPACES.to_vec()),
    );
    let profiles = prop_oneof![3 => Just(Vec::new()), 1 => vec(profile, 1..3)];
    (versions, service(), vec(route(), 0..5), profiles, http, grpc, asked).prop_map(
        |(version, service, mut routes, mut profiles, http, grpc, (port, client))| {
            for (index, route) in routes.iter_mut().enumerate() {
                // Linkerd does not compare namespaces, so names are unique among all.
                route["metadata"]["name"] = json!(format!("r{}", 9 - index));
            }
            profiles.sort_unstable();
            profiles.dedup_by_key(|profile| profile.0);
            let profile = |(namespace, routes, overrides): &(&str, usize, usize)| {
                serde_json::from_value(json!({
                    "apiVersion": "linkerd.io/v1alpha2", "kind": "ServiceProfile",
                    "metadata": {"name": "web.shop.svc.cluster.local", "namespace": namespace},
                    "spec": {"routes": vec![json!({}); *routes], "dstOverrides": vec![json!({}); *overrides]},
                }))
                .unwrap()
            };
            let strings = |list: Vec<&str>| list.into_iter().map(str::to_owned).collect();
            let typed = |value| serde_json::from_value(value).unwrap();
            let cluster = Cluster {
                gateway: Gateway {
                    http: strings(http),
                    grpc: strings(grpc),
                },
                services: vec![serde_json::from_value(service).unwrap()].into(),
                http_routes: named(routes.clone(), "HTTPRoute").into_iter().map(typed).collect(),
                grpc_routes: named(routes.clone(), "GRPCRoute")
                    .into_iter()
                    .map(|value| serde_json::from_value(value).unwrap())
                    .collect(),
                linkerd_routes: named(routes.clone(), LINKERDS)
                    .into_iter()
                    .map(|value| serde_json::from_value(value).unwrap())
                    .collect(),
                profiles: profiles.iter().map(profile).collect(),
                ..Cluster::of(Mesh::from_flag(version).unwrap())
            };
            Case {
                cluster,
                port,
                client,
                routes,
                profiles,
            }
        },
    )
}
