//! `rest`: where requests that fit no entry of a policy would get 404, and nowhere else.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail by panicking, like tests"
)]

use rstest::rstest;
use serde_json::{Value, json};

use crate::stage::{SEARCH, cluster, done, entries, route, with_route};

/// The parents of `p-rest`, if it is made, and where it stands among the routes.
fn rest(cluster: &trellis_resilience::Cluster, target: &Value) -> Option<(usize, Value)> {
    let spec = json!({"targetRef": target, "routes": entries(SEARCH), "timeout": {"requestTimeout": "1s"}});
    let routes = serde_json::to_value(&done(cluster, &spec).targets[0].routes).unwrap();
    assert!(!routes.as_array().unwrap().is_empty(), "the entry is there");
    let position = routes
        .as_array()
        .unwrap()
        .iter()
        .position(|route| route["metadata"]["name"].as_str().unwrap().starts_with("p-rest"))?;
    Some((position, routes[position]["spec"]["parentRefs"].clone()))
}

fn parent(port: Option<u16>) -> Value {
    let mut parent = json!({"group": "", "kind": "Service", "name": "web"});
    if let Some(port) = port {
        parent["port"] = json!(port);
    }
    parent
}

/// Attached at this port, and accepted there.
fn at(port: u16) -> Value {
    json!({
        "spec": {"parentRefs": [parent(Some(port))]},
        "status": {"parents": [{
            "controllerName": "linkerd.io/policy-controller",
            "parentRef": {"group": "core", "kind": "Service", "namespace": "shop", "name": "web", "port": port},
            "conditions": [{"type": "Accepted", "status": "True"}],
        }]},
    })
}

/// Only a route that Linkerd serves at the port makes it answer 404 to others (facts, sections 5 and 6).
#[rstest]
#[case::nobody(None, json!({"name": "web"}), &[None])]
#[case::everywhere(Some(json!({})), json!({"name": "web"}), &[])]
#[case::at_another_port(Some(at(81)), json!({"name": "web"}), &[Some(80)])]
#[case::at_ours(Some(at(80)), json!({"name": "web", "port": 80}), &[])]
#[case::not_at_ours(Some(at(81)), json!({"name": "web", "port": 80}), &[Some(80)])]
#[case::not_accepted(Some(json!({"status": null})), json!({"name": "web"}), &[None])]
#[case::dropped(Some(json!({"spec": {"rules": [{"filters": [{"type": "URLRewrite"}]}]}})), json!({"name": "web"}), &[None])]
#[case::bad_annotation(Some(json!({"metadata": {"annotations": {"timeout.linkerd.io/idle": "1.5s"}}})), json!({"name": "web"}), &[None])]
#[case::of_other_clients(Some(json!({"metadata": {"namespace": "other"}, "spec": {"parentRefs": [{"group": "", "kind": "Service", "namespace": "shop", "name": "web"}]}})), json!({"name": "web"}), &[None])]
fn the_rest_is_taken_where_nobody_takes_it(
    #[case] theirs: Option<Value>,
    #[case] target: Value,
    #[case] expected: &[Option<u16>],
) {
    let mut cluster = cluster("2.20");
    if let Some(changes) = theirs {
        cluster = with_route(cluster, route("HTTPRoute", &changes));
    }
    let expected = (!expected.is_empty()).then(|| {
        let parents: Vec<Value> = expected.iter().map(|port| parent(*port)).collect();
        // The first: it is there before any entry is, and goes after the last.
        (0, json!(parents))
    });
    assert_eq!(rest(&cluster, &target), expected);
}

/// Under `Deny` the network blocks "all traffic that has not been described via attaching an xRoute resource": a route
/// for every request would open it.
#[rstest]
#[case::allow("Allow", true)]
#[case::deny("Deny", false)]
fn a_network_that_denies_stays_shut(#[case] policy: &str, #[case] expected: bool) {
    let mut cluster = cluster("2.20");
    let network = json!({
        "apiVersion": "policy.linkerd.io/v1alpha1", "kind": "EgressNetwork",
        "metadata": {"name": "internet", "namespace": "shop"}, "spec": {"trafficPolicy": policy},
        "status": {"conditions": [{"type": "Accepted", "status": "True"}]},
    });
    cluster.egress_networks = vec![serde_json::from_value(network).unwrap()].into();
    let target = json!({"kind": "EgressNetwork", "name": "internet", "port": 443});
    assert_eq!(rest(&cluster, &target).is_some(), expected);
    let spec = json!({"targetRef": target, "routes": entries(SEARCH), "timeout": {"requestTimeout": "1s"}});
    let notes = done(&cluster, &spec).targets[0].notes.join("; ");
    assert_eq!(notes.contains("admits"), !expected, "{notes}");
}
