//! When a policy on a Service would do nothing, and how that is said.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, like tests")]

use k8s_openapi::api::core::v1::Service;
use rstest::rstest;
use serde_json::{Value, json};
use trellis_bindings::linkerd::ServiceProfile;
use trellis_core::Refusal;
use trellis_resilience::{
    Mesh, Reason,
    target::{Effective, check, reachable},
};

fn service(meta: &Value, spec: &Value) -> Service {
    let mut whole = json!({
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 80}]},
    });
    for (part, changes) in [("metadata", meta), ("spec", spec)] {
        let part = whole.get_mut(part).unwrap().as_object_mut().unwrap();
        part.extend(changes.as_object().unwrap().clone());
    }
    serde_json::from_value(whole).unwrap()
}

fn on(version: &str, target: &Value, meta: &Value, spec: &Value) -> Result<Effective, Refusal> {
    let port = target["port"].as_u64().map(|port| u16::try_from(port).unwrap());
    check(&service(meta, spec), port, &[], &Mesh::from_flag(version).unwrap())
}

fn ports(list: &Value) -> Result<Effective, Refusal> {
    on("2.20", &json!({"name": "web"}), &json!({}), &json!({"ports": list}))
}

#[test]
fn a_plain_service_is_acted_on() {
    let found = on("2.16", &json!({"name": "web", "port": 80}), &json!({}), &json!({})).unwrap();
    assert_eq!(
        found,
        Effective {
            ports: vec![80],
            ..Effective::default()
        }
    );
}

#[rstest]
#[case::headless(json!({}), json!({"clusterIP": "None"}), "Headless", "headless")]
#[case::unassigned(json!({}), json!({"clusterIP": ""}), "Headless", "headless")]
#[case::external(json!({}), json!({"type": "ExternalName", "externalName": "example.org"}), "Headless", "ExternalName")]
#[case::mirrored(json!({"labels": {"mirror.linkerd.io/mirrored-service": "true"}}), json!({}), "MirroredService", "copy")]
#[case::remote(json!({"labels": {"multicluster.linkerd.io/remote-discovery": "east"}}), json!({}), "MirroredService", "remote-discovery")]
#[case::federated(json!({"annotations": {"multicluster.linkerd.io/local-discovery": "web"}}), json!({}), "MirroredService", "local-discovery")]
#[case::no_ports(json!({}), json!({"ports": []}), "PortNotFound", "no port")]
fn a_service_that_cannot_work_is_refused(
    #[case] meta: Value,
    #[case] spec: Value,
    #[case] reason: &str,
    #[case] words: &str,
) {
    let refusal = on("2.20", &json!({"name": "web"}), &meta, &spec).unwrap_err();
    assert_eq!(refusal.reason, reason);
    assert!(refusal.message.contains(words), "{refusal}");
    assert!(refusal.field.unwrap().starts_with("spec.targetRef"));
}

/// Routes are not overwritten, so that a copy can have them.
#[test]
fn a_copy_can_have_routes() {
    let mirrored = service(
        &json!({"labels": {"mirror.linkerd.io/mirrored-service": "true"}}),
        &json!({}),
    );
    let mesh = Mesh::from_flag("2.20").unwrap();
    assert_eq!(reachable(&mirrored, Some(80), &[], &mesh).unwrap().ports, [80]);
}

#[rstest]
#[case::member(json!({"labels": {"mirror.linkerd.io/federated": "member"}}))]
#[case::unmarked(json!({"labels": {"mirror.linkerd.io/mirrored-service": "false"}}))]
fn an_original_that_takes_part_in_multicluster_is_fine(#[case] meta: Value) {
    assert!(on("2.20", &json!({"name": "web"}), &meta, &json!({})).is_ok());
}

#[rstest]
#[case::listed(json!({"port": 80}), Ok(()))]
#[case::mysql(json!({"port": 3306}), Err(Reason::Opaque))]
#[case::mysql_http(json!({"port": 3306, "appProtocol": "http"}), Ok(()))]
#[case::http(json!({"port": 80, "appProtocol": "HTTP"}), Ok(()))]
#[case::h2c(json!({"port": 80, "appProtocol": "Kubernetes.io/h2c"}), Ok(()))]
#[case::tcp(json!({"port": 80, "appProtocol": "linkerd.io/tcp"}), Err(Reason::Opaque))]
#[case::opaque(json!({"port": 80, "appProtocol": "linkerd.io/opaque"}), Err(Reason::Opaque))]
#[case::grpc(json!({"port": 80, "appProtocol": "grpc"}), Err(Reason::UnknownAppProtocol))]
#[case::https(json!({"port": 80, "appProtocol": "https"}), Err(Reason::UnknownAppProtocol))]
#[case::http2(json!({"port": 80, "appProtocol": "http2"}), Err(Reason::UnknownAppProtocol))]
#[case::udp(json!({"port": 80, "protocol": "UDP"}), Err(Reason::NotTcp))]
fn a_port_decides(#[case] port: Value, #[case] expected: Result<(), Reason>) {
    match (ports(&json!([port])), expected) {
        (Ok(effective), Ok(())) => assert_eq!(effective.ports.len(), 1),
        (Err(refusal), Err(reason)) => {
            assert_eq!(refusal.reason, reason.as_str());
            assert!(
                refusal.message.starts_with("port ") && refusal.hint.is_some(),
                "{refusal}"
            );
        }
        (found, expected) => panic!("{found:?} instead of {expected:?}"),
    }
}

#[test]
fn before_2_18_the_app_protocol_is_not_read() {
    let target = json!({"name": "web"});
    let list = json!({"ports": [{"port": 80, "appProtocol": "grpc"}, {"port": 3306, "appProtocol": "http"}]});
    let found = on("2.17", &target, &json!({}), &list).unwrap();
    assert_eq!(found.ports, [80]);
    assert_eq!(found.inert[0].reason, Reason::Opaque);
    assert_eq!(on("2.18", &target, &json!({}), &list).unwrap().ports, [3306]);
}

/// An edge version between two releases may read it or not: a port acts only if it does so either way.
#[rstest]
#[case("edge-24.11.8", &[80, 82])]
#[case("edge-25.3.1", &[82])]
#[case("edge-25.5.1", &[3306, 82])]
fn in_doubt_a_port_must_act_either_way(#[case] version: &str, #[case] expected: &[i32]) {
    let list = json!({"ports": [
        {"port": 80, "appProtocol": "grpc"}, {"port": 3306, "appProtocol": "http"}, {"port": 82, "appProtocol": "http"},
    ]});
    let mut found = on(version, &json!({"name": "web"}), &json!({}), &list).unwrap().ports;
    found.sort_by_key(ToString::to_string);
    assert_eq!(found, expected);
}

#[test]
fn without_a_port_one_that_works_is_enough_and_the_others_are_named() {
    let list = json!([{"port": 9000}, {"port": 3306}, {"port": 80}, {"port": 81, "appProtocol": "https"}]);
    let found = ports(&list).unwrap();
    assert_eq!(found.ports, [80, 9000]);
    let inert: Vec<String> = found.inert.iter().map(ToString::to_string).collect();
    assert_eq!(inert[0], "port 3306 is in Linkerd's list of opaque ports");
    assert_eq!(
        inert[1],
        "port 81 has appProtocol https, which Linkerd treats as opaque"
    );
    assert_eq!(inert.len(), 2);
}

#[test]
fn without_a_port_that_works_the_first_reason_is_given() {
    let refusal = ports(&json!([{"port": 3306}, {"port": 81, "appProtocol": "https"}])).unwrap_err();
    assert_eq!(refusal.reason, "Opaque");
    assert!(refusal.message.contains("3306"));
    assert_eq!(refusal.field.as_deref(), Some("spec.targetRef"));
}

#[rstest]
#[case::inert(3306, "Opaque", "port 3306", "appProtocol")]
#[case::missing(8080, "PortNotFound", "does not list port 8080", "it lists 80, 3306")]
fn a_named_port_must_work(#[case] port: u16, #[case] reason: &str, #[case] words: &str, #[case] hint: &str) {
    let list = json!({"ports": [{"port": 80}, {"port": 3306}]});
    let refusal = on("2.20", &json!({"name": "web", "port": port}), &json!({}), &list).unwrap_err();
    assert_eq!(refusal.reason, reason);
    assert!(refusal.message.contains(words), "{refusal}");
    assert!(refusal.hint.unwrap().contains(hint));
    assert_eq!(refusal.field.as_deref(), Some("spec.targetRef.port"));
}

#[test]
fn one_number_on_two_protocols_works_when_one_does() {
    let list = json!({"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]});
    assert!(on("2.20", &json!({"name": "web", "port": 53}), &json!({}), &list).is_ok());
}

#[rstest]
#[case::replaced("80", &[3306])]
#[case::range(" 79-81 ", &[3306])]
#[case::emptied("", &[80, 3306])]
#[case::invalid_is_empty("80,mysql", &[80, 3306])]
fn the_services_list_replaces_linkerds(#[case] list: &str, #[case] expected: &[i32]) {
    let meta = json!({"annotations": {"config.linkerd.io/opaque-ports": list}});
    let spec = json!({"ports": [{"port": 80}, {"port": 3306}]});
    assert_eq!(
        on("2.20", &json!({"name": "web"}), &meta, &spec).unwrap().ports,
        expected
    );
}

fn profile(namespace: &str, name: &str, spec: &Value) -> ServiceProfile {
    serde_json::from_value(json!({
        "apiVersion": "linkerd.io/v1alpha2",
        "kind": "ServiceProfile",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }))
    .unwrap()
}

fn beside(profile: &ServiceProfile, domain: &str) -> Result<Effective, Refusal> {
    let mesh = Mesh {
        cluster_domain: domain.into(),
        ..Mesh::from_flag("2.20").unwrap()
    };
    check(&service(&json!({}), &json!({})), None, &[profile], &mesh)
}

#[rstest]
#[case::routes(json!({"routes": [{"name": "GET /"}]}))]
#[case::overrides(json!({"dstOverrides": [{"authority": "web-v2"}]}))]
fn a_profile_shadows_the_policy(#[case] spec: Value) {
    let refusal = beside(&profile("shop", "web.shop.svc.corp.example", &spec), "corp.example").unwrap_err();
    assert_eq!(refusal.reason, "ServiceProfileShadowed");
    assert!(refusal.message.contains("web.shop.svc.corp.example"));
}

#[rstest]
#[case::empty("shop", "web.shop.svc.cluster.local", json!({}), Some("once it has routes"))]
#[case::clients("other", "web.shop.svc.cluster.local", json!({"routes": [{}]}), Some("clients in namespace other"))]
#[case::another_service("shop", "api.shop.svc.cluster.local", json!({"routes": [{}]}), None)]
#[case::another_domain("shop", "web.shop.svc.corp.example", json!({"routes": [{}]}), None)]
fn other_profiles_are_noted_at_most(
    #[case] namespace: &str,
    #[case] name: &str,
    #[case] spec: Value,
    #[case] words: Option<&str>,
) {
    let notes = beside(&profile(namespace, name, &spec), "cluster.local").unwrap().notes;
    assert_eq!(notes.len(), usize::from(words.is_some()));
    assert!(
        notes.iter().all(|note| note.contains(words.unwrap_or_default())),
        "{notes:?}"
    );
}
