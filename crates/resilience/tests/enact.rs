//! What policies do in random clusters: what they call won is what calls get, whoever else is there.
//! `PROPTEST_CASES` sets the number of cases.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, like tests")]

use proptest::{collection::vec, prelude::*, sample::select, test_runner::FileFailurePersistence};
use serde_json::{Value, json};
use trellis_api::{ResiliencePolicy, Section};
use trellis_model::{Profile, Route, State, outlook};
use trellis_resilience::{
    Cluster, Enacted, PolicyName, Standing, enact,
    explain::{Origin, explain},
    project::{Conflict, project},
    target,
};

#[path = "explain/clusters.rs"]
#[expect(dead_code, reason = "what is asked of a cluster is decided here")]
mod clusters;

fn target_of(which: &str) -> Value {
    let http = |name: &str, path: &str| json!({"name": name, "http": {"matches": [{"path": {"value": path}}]}});
    let grpc = json!({"name": "g", "grpc": {"matches": [{"service": "shop.Carts"}]}});
    match which {
        "name" => json!({"targetRef": {"name": "web"}}),
        "port" => json!({"targetRef": {"name": "web", "port": 80}}),
        "selector" => json!({"targetSelector": {"matchLabels": {"app": "web"}}}),
        "namespace" => json!({"targetRef": {"kind": "Namespace", "name": "shop"}}),
        "consumer" => json!({"targetRef": {"name": "web", "namespace": "shop"}}),
        "http" => {
            json!({"targetRef": {"name": "web", "namespace": "shop"}, "routes": [http("a", "/a"), http("b", "/b")]})
        }
        "http port" => {
            json!({"targetRef": {"name": "web", "namespace": "shop", "port": 80}, "routes": [http("a", "/a")]})
        }
        "grpc" => json!({"targetRef": {"name": "web", "namespace": "shop"}, "routes": [grpc]}),
        "grpc route" => json!({"targetRef": {"kind": "GRPCRoute", "name": "r9"}}),
        _ => json!({"targetRef": {"kind": "HTTPRoute", "name": "r9"}}),
    }
}

fn policy() -> impl Strategy<Value = ResiliencePolicy> {
    let ways = select(vec![
        "name",
        "port",
        "selector",
        "namespace",
        "consumer",
        "http",
        "http port",
        "grpc",
        "grpc route",
        "http route",
    ]);
    let codes = select(vec![Value::Null, json!("unavailable")]);
    let retry = prop_oneof![
        1 => Just(Value::Null),
        4 => (1..9, select(vec!["5xx", "429"]), codes, select(vec![Value::Null, json!("1s")])).prop_map(
            |(limit, statuses, codes, timeout)| {
                json!({"maxAttempts": limit, "retryableStatusCodes": statuses, "retryableGrpcCodes": codes, "retryTimeout": timeout})
            }
        ),
        1 => Just(json!({"enabled": false})),
    ];
    let timeout = prop_oneof![
        2 => Just(Value::Null),
        3 => (1..50).prop_map(|seconds| json!({"requestTimeout": format!("{seconds}s")})),
        1 => Just(json!({"idleTimeout": "1m"})),
        1 => Just(json!({"enabled": false})),
    ];
    let breaker = select(vec![
        Value::Null,
        Value::Null,
        json!({"failureThreshold": 4}),
        json!({"failureAccrualMethod": "unified"}),
        json!({"enabled": false}),
    ]);
    let bias = select(vec![Value::Null, Value::Null, json!({}), json!({"enabled": false})]);
    let meta = (
        select(vec!["shop", "shop", "other"]),
        0..3,
        select(vec!["Defaults", "Defaults", "Overrides"]),
    );
    (ways, retry, timeout, breaker, bias, meta).prop_map(
        |(way, retry, timeout, circuit_breaker, load_bias, (namespace, second, strategy))| {
            let mut spec = target_of(way);
            let fields = spec.as_object_mut().unwrap();
            fields.insert("strategy".into(), json!(strategy));
            for (name, section) in
                [("retry", retry), ("timeout", timeout), ("circuitBreaker", circuit_breaker), ("loadBias", load_bias)]
            {
                if !section.is_null() {
                    fields.insert(name.into(), section);
                }
            }
            serde_json::from_value(json!({
                "apiVersion": "resilience.trellis.dev/v1alpha1", "kind": "ResiliencePolicy",
                "metadata": {"namespace": namespace, "name": "", "creationTimestamp": format!("2026-02-02T00:00:0{second}Z")},
                "spec": spec,
            }))
            .unwrap()
        },
    )
}

fn cluster() -> impl Strategy<Value = Cluster> {
    (clusters::case(), vec(policy(), 1..5)).prop_map(|(case, mut policies)| {
        let mut cluster = case.cluster;
        for (index, policy) in policies.iter_mut().enumerate() {
            policy.metadata.name = Some(format!("p{index}"));
            policy.metadata.uid = Some(format!("u{index}"));
        }
        for service in &mut cluster.services {
            service.metadata.labels = Some([("app".to_owned(), "web".to_owned())].into());
        }
        cluster.policies = policies.into();
        cluster
    })
}

/// Applied until nothing changes: a route that is made may let another policy act.
fn settled(cluster: &Cluster) -> (Cluster, Vec<Conflict>) {
    let mut now = project(cluster);
    for _ in 0..4 {
        now = project(&now.0);
    }
    now
}

fn stored(cluster: &Cluster) -> Value {
    json!([
        *cluster.services,
        *cluster.http_routes,
        *cluster.linkerd_routes,
        *cluster.grpc_routes
    ])
}

fn from(origin: Option<&Origin>, policy: &PolicyName) -> bool {
    matches!(origin, Some(Origin::Policy { policies, .. }) if policies.contains(policy))
}

/// Whether some call to the Service gets this section from the policy.
fn shows(cluster: &Cluster, policy: &ResiliencePolicy, enacted: &Enacted, section: Section) -> bool {
    let own = PolicyName::of(policy);
    let client = own.namespace().to_owned();
    let ports = [80, 81, 3306].into_iter();
    let told = ports.filter_map(|port| explain(cluster, "shop", "web", port, &client).ok());
    let ours = |route: Option<&trellis_resilience::route::RouteName>| {
        enacted.routes.is_empty()
            || enacted
                .routes
                .iter()
                .any(|built| Some(&built.as_route().full_name()) == route)
    };
    told.into_iter().any(|told| match section {
        Section::CircuitBreaker => told.breaker.is_some_and(|it| from(it.origins.get("mode"), &own)),
        Section::LoadBias => told.load_bias.is_some_and(|it| from(it.origins.get("enabled"), &own)),
        Section::Retry => told.rules.iter().any(|rule| {
            let retry = rule.retry.as_ref();
            rule.taken_by.is_none()
                && ours(rule.route.as_ref())
                && retry.is_some_and(|it| from(it.origins.get("limit"), &own))
        }),
        Section::Timeout => told.rules.iter().any(|rule| {
            let timeouts = rule.timeouts.as_ref();
            rule.taken_by.is_none()
                && ours(rule.route.as_ref())
                && timeouts.is_some_and(|it| it.origins.values().any(|origin| from(Some(origin), &own)))
        }),
        Section::RateLimit => true,
    })
}

/// Whether each entry of the policy gets requests at some port.
fn reached(cluster: &Cluster, policy: &ResiliencePolicy, enacted: &Enacted) -> bool {
    let client = policy.metadata.namespace.clone().unwrap_or_default();
    let told: Vec<_> = [80, 81, 3306]
        .into_iter()
        .filter_map(|port| explain(cluster, "shop", "web", port, &client).ok())
        .flat_map(|told| told.rules)
        .collect();
    enacted.routes.iter().all(|built| {
        let name = built.as_route().full_name();
        let is =
            |rule: &trellis_resilience::explain::Rule| rule.route.as_ref() == Some(&name) && rule.taken_by.is_none();
        name.name.contains("-rest") || told.iter().any(is)
    })
}

fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    /// P1 and P7: it comes to rest; then what a policy calls won is what calls get, and what it lost is not its.
    #[test]
    fn what_is_won_is_what_calls_get(cluster in cluster()) {
        let (after, conflicts) = settled(&cluster);
        prop_assert_eq!(stored(&after), stored(&project(&after).0), "it does not come to rest");
        for policy in &after.policies {
            let own = PolicyName::of(policy);
            for enacted in enact(policy, &after).targets {
                for (section, standing) in &enacted.sections {
                    let taken = conflicts.iter().any(|conflict| conflict.policy == own);
                    let shown = shows(&after, policy, &enacted, *section);
                    match standing {
                        Standing::Won if policy.spec.enables(*section) && !taken => {
                            prop_assert!(reached(&after, policy, &enacted), "{own} has an entry that gets no request");
                            prop_assert!(shown, "{own} {section} is called won and not seen: {:?}\n{:#?}", enacted.sections, [80, 81, 3306].map(|port| explain(&after, "shop", "web", port, own.namespace())));
                        }
                        Standing::Overridden(by) => {
                            prop_assert!(*by != own && !shown, "{own} {section} is called overridden and seen");
                        }
                        _ => {}
                    }
                }
            }
        }
    }

    /// P11 and P12 after the fact: with everything written, explain is still what the model says.
    #[test]
    fn explain_is_true_of_what_policies_wrote(cluster in cluster(), client in select(vec!["shop", "other", "third"])) {
        let (after, _) = settled(&cluster);
        // A route that the projection made has no time yet; it is the youngest.
        let values = |mut list: Value| {
            let routes = list.as_array_mut().unwrap();
            for route in routes.iter_mut().filter(|route| route["metadata"]["creationTimestamp"].is_null()) {
                route["metadata"]["creationTimestamp"] = json!("2027-01-01T00:00:00Z");
            }
            routes.iter().map(Route::read).collect::<Vec<_>>()
        };
        let mut routes = values(json!(*after.http_routes));
        routes.extend(values(json!(*after.grpc_routes)));
        routes.extend(values(json!(*after.linkerd_routes)));
        let names: Vec<(String, usize, usize)> = after.profiles.iter().map(|profile| {
            let count = |list: &Option<Vec<Value>>| list.as_ref().map_or(0, Vec::len);
            let namespace = profile.metadata.namespace.clone().unwrap();
            (namespace, count(&profile.spec.routes), count(&profile.spec.dst_overrides))
        }).collect();
        let state = State {
            version: after.mesh.version.release(),
            services: after.services.to_vec(),
            routes,
            profiles: names.iter().map(|(namespace, routes, overrides)| Profile {
                namespace, name: "web.shop.svc.cluster.local", routes: *routes, overrides: *overrides,
            }).collect(),
            http: after.gateway.http.iter().map(String::as_str).collect(),
            grpc: after.gateway.grpc.iter().map(String::as_str).collect(),
        };
        let told = explain(&after, "shop", "web", 80, client).unwrap();
        let expected = outlook(&state, "shop", "web", 80, client);
        prop_assert_eq!(told.inert.map(|inert| inert.reason), expected.inert.map(|inert| format!("{inert:?}")));
        let rules: Vec<_> = told.rules.iter().map(|rule| {
            let retry = rule.retry.as_ref().map(|it| (it.values.limit, it.values.timeout));
            let timeouts = rule.timeouts.as_ref().map(|it| it.values).unwrap_or_default();
            let taken_by = rule.taken_by.as_ref().map(ToString::to_string);
            (rule.route.as_ref().map(ToString::to_string), rule.index, taken_by, retry, timeouts.request, timeouts.idle)
        }).collect();
        let modelled: Vec<_> = expected.rules.iter().map(|rule| {
            let retry = rule.retry.as_ref().map(|it| (it.retry.limit, it.retry.timeout));
            (rule.route.clone(), rule.index, rule.taken_by.clone(), retry, rule.timeouts.request, rule.timeouts.idle)
        }).collect();
        prop_assert_eq!(rules, modelled);
    }

    /// Whoever had every request answered has it still: no policy makes 404s.
    #[test]
    fn no_request_is_refused_for_a_policy(cluster in cluster(), client in select(vec!["shop", "other", "third"])) {
        let (after, _) = settled(&cluster);
        for port in [80, 81, 3306] {
            let told = |cluster| explain(cluster, "shop", "web", port, client).unwrap();
            let (was, is) = (told(&cluster), told(&after));
            let every = |text: &String| text == "every request";
            let answered = !is.others_refused || is.rules.iter().any(|rule| rule.matches.iter().any(every));
            prop_assert!(was.inert.is_some() || was.others_refused || answered, "{is:#?}");
        }
    }

    /// P13: nobody else's annotations and routes change.
    #[test]
    fn what_others_wrote_stays(cluster in cluster()) {
        let (after, _) = settled(&cluster);
        for (before, after) in cluster.services.iter().zip(&after.services) {
            for (key, value) in before.metadata.annotations.iter().flatten() {
                prop_assert_eq!(after.metadata.annotations.as_ref().unwrap().get(key), Some(value));
            }
        }
        for before in cluster.routes() {
            let found = after.routes().find(|route| route.full_name() == before.full_name()).unwrap();
            for (key, value) in before.annotations() {
                prop_assert_eq!(found.annotations().get(key), Some(value));
            }
            prop_assert_eq!(found.parents(), before.parents());
        }
    }

    /// P2: when all policies go, everything is as it was.
    #[test]
    fn deletion_leaves_nothing(cluster in cluster()) {
        let (mut after, _) = settled(&cluster);
        after.policies.clear();
        let (gone, _) = project(&after);
        let plain = |cluster: &Cluster| {
            let annotations = |meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta| {
                meta.annotations.clone().unwrap_or_default()
            };
            let services: Vec<_> = cluster.services.iter().map(|it| annotations(&it.metadata)).collect();
            let routes: Vec<_> = cluster.routes().map(|it| (it.full_name(), annotations(it.meta()))).collect();
            (services, routes)
        };
        prop_assert_eq!(plain(&gone), plain(&cluster));
    }

    /// P6: every route of a policy's own is in its namespace, names it as its owner, and writes group and kind of its
    /// parent.
    #[test]
    fn routes_are_owned_and_attached(cluster in cluster()) {
        for policy in &cluster.policies {
            for built in enact(policy, &cluster).targets.iter().flat_map(|enacted| &enacted.routes) {
                let route = built.as_route();
                prop_assert_eq!(Some(route.namespace()), policy.metadata.namespace.clone());
                prop_assert!(route.name().len() <= 63);
                let parent = route.parents().first().unwrap();
                prop_assert_eq!((parent.group.as_deref(), parent.kind.as_deref()), (Some(""), Some("Service")));
                prop_assert!(route.is_parent(parent, "Service", "shop", "web"));
                prop_assert!(!json!(built).to_string().contains("backendRefs"));
            }
        }
    }

    /// P8: where Linkerd does not act, nothing is written to the Service.
    #[test]
    fn nothing_is_written_where_nothing_acts(cluster in cluster()) {
        let service = &cluster.services[0];
        let check = target::check(service, None, &cluster.profiles_of(service), &cluster.mesh);
        if check.is_ok() {
            return Ok(());
        }
        for policy in &cluster.policies {
            for enacted in enact(policy, &cluster).targets {
                let writes = enacted.target.name == "web" && !enacted.annotations.is_empty();
                prop_assert!(!writes, "{:?}", enacted);
            }
        }
    }
}
