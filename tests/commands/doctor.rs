//! `trellis doctor`, on a cluster that comes to have everything, and as somebody who may look at nothing.

use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use trellis_testkit::plane::Plane;

use super::trellis;

/// What a doctor sees, by its beginning.
fn state(checks: &Value, what: &str) -> (String, String) {
    let checks = checks.as_array().unwrap();
    let check = checks
        .iter()
        .find(|check| check["what"].as_str().unwrap().starts_with(what));
    let text = |field: &str| check.map_or_else(String::new, |check| check[field].as_str().unwrap().to_owned());
    (text("state"), text("found"))
}

/// Sources need Flux, which has to be told to take artifacts of others.
#[tokio::test(flavor = "multi_thread")]
async fn a_doctor_of_sources_finds_out_whether_flux_takes_artifacts() {
    let plane = Plane::start().await.unwrap();
    trellis_tests::install(plane.clone()).await.unwrap();
    let admin = plane.control().kubeconfig().to_owned();
    let doctor = ["doctor", "--for", "external-source", "--json"];
    let checks = trellis(&admin, &doctor).await.json();
    assert_eq!(
        state(&checks, "ExternalArtifact"),
        ("missing".into(), "not installed".into())
    );
    // Controllers that run elsewhere, as those of `dev up --with flux`, are not said to be missing.
    let elsewhere = |checks: &Value, namespace: &str| {
        let (state, found) = state(checks, "kustomize-controller");
        let begin = format!("no Deployment kustomize-controller in {namespace}; if Flux runs elsewhere");
        assert!(state == "partial" && found.starts_with(&begin), "{checks}");
    };
    elsewhere(&checks, "flux-system");
    let other = [&doctor[..], &["--flux-namespace", "gitops"]].concat();
    elsewhere(&trellis(&admin, &other).await.json(), "gitops");
    assert_eq!(state(&checks, "ExternalSource"), ("fine".into(), "v1alpha1".into()));

    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "flux-system" } });
    let deployment = |gates: &str| {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": { "name": "kustomize-controller", "namespace": "flux-system" },
            "spec": {
                "selector": { "matchLabels": { "app": "kustomize" } },
                "template": { "metadata": { "labels": { "app": "kustomize" } }, "spec": { "containers": [{
                    "name": "manager", "image": "none.invalid/none", "args": [format!("--feature-gates={gates}")] }] } },
            },
        })
    };
    for (gates, found) in [
        ("Other=true", "without the feature gate ExternalArtifact"),
        (
            "Other=true,ExternalArtifact=true",
            "with ExternalArtifact, none available",
        ),
    ] {
        plane.apply(&[namespace.clone(), deployment(gates)]).await.unwrap();
        let checks = trellis(&admin, &doctor).await.json();
        assert_eq!(state(&checks, "kustomize-controller"), ("partial".into(), found.into()));
    }
}

/// A plane of its own: what it makes belongs to the whole cluster.
#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "one cluster, as it comes to have everything")]
async fn a_doctor_finds_what_is_there_and_goes_on_where_it_may_not_look() {
    let plane = Plane::start().await.unwrap();
    trellis_tests::install(plane.clone()).await.unwrap();
    let namespaces: Api<Namespace> = Api::all(plane.client().unwrap());
    for name in ["linkerd", "linkerd-viz", "cert-manager"] {
        let made = serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap();
        namespaces.create(&PostParams::default(), &made).await.unwrap();
    }
    let doctor = ["doctor", "--for", "resilience", "--json", "--lease-name", "mine"];
    let admin = plane.control().kubeconfig().to_owned();
    let checks = trellis(&admin, &doctor).await.json();
    assert_eq!(state(&checks, "Linkerd 2.16").0, "missing", "{checks}");
    assert_eq!(
        state(&checks, "Linkerd's default opaque ports").0,
        "unknown",
        "{checks}"
    );
    assert_eq!(
        state(&checks, "4 CPUs"),
        ("partial".into(), "0.0 CPUs and 0.0 GiB on 0 nodes".into())
    );

    let deployment = |namespace: &str, name: &str| {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name, "namespace": namespace },
            "spec": {
                "replicas": 1, "selector": { "matchLabels": { "app": name } },
                "template": { "metadata": { "labels": { "app": name } },
                              "spec": { "containers": [{ "name": "main", "image": "none.invalid/none" }] } },
            },
        })
    };
    let crd = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "certificates.cert-manager.io" },
        "spec": {
            "group": "cert-manager.io", "scope": "Namespaced",
            "names": { "plural": "certificates", "singular": "certificate", "kind": "Certificate", "listKind": "CertificateList" },
            "versions": [{ "name": "v1", "served": true, "storage": true,
                           "schema": { "openAPIV3Schema": { "type": "object" } } }],
        },
    });
    // Once one can be made, the kind is served.
    let certificate = json!({
        "apiVersion": "cert-manager.io/v1", "kind": "Certificate",
        "metadata": { "name": "issuer", "namespace": "linkerd" },
    });
    let config = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "linkerd-config", "namespace": "linkerd" },
        "data": { "values": "linkerdVersion: stable-2.18.1\nproxy:\n  opaquePorts: '25,3306'\n" },
    });
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "one" } });
    let now = jiff::Timestamp::now();
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": { "name": "mine", "namespace": trellis_tests::NAMESPACE },
        "spec": { "holderIdentity": "me", "leaseDurationSeconds": 600, "renewTime": format!("{now:.6}") },
    });
    let metrics = deployment("linkerd-viz", "metrics-api");
    let manager = deployment("cert-manager", "cert-manager");
    plane
        .apply(&[config, node, lease, crd, certificate, metrics, manager])
        .await
        .unwrap();
    let client = plane.client().unwrap();
    let status = json!({ "status": { "allocatable": { "cpu": "4500m", "memory": "9Gi" } } });
    let nodes: Api<Node> = Api::all(client.clone());
    nodes
        .patch_status("one", &PatchParams::default(), &Patch::Merge(status))
        .await
        .unwrap();
    let checks = trellis(&admin, &doctor).await.json();
    assert_eq!(state(&checks, "Linkerd 2.16"), ("fine".into(), "stable-2.18.1".into()));
    assert_eq!(
        state(&checks, "Linkerd's default opaque ports"),
        ("fine".into(), "\"25,3306\"".into())
    );
    assert_eq!(
        state(&checks, "4 CPUs"),
        ("fine".into(), "4.5 CPUs and 9.0 GiB on 1 nodes".into())
    );
    assert_eq!(state(&checks, "an operator"), ("fine".into(), "me".into()));
    // No kubelet runs here: they are there, and none of their Pods is.
    assert_eq!(
        state(&checks, "Linkerd's viz"),
        ("partial".into(), "0 available".into())
    );
    assert_eq!(
        state(&checks, "cert-manager"),
        ("partial".into(), "v1, 0 available".into())
    );

    // Nobody has allowed this account anything.
    plane
        .apply(&[json!({ "apiVersion": "v1", "kind": "ServiceAccount",
                         "metadata": { "name": "nobody", "namespace": "default" } })])
        .await
        .unwrap();
    let nobody = plane.service_account("default", "nobody").await.unwrap();
    let said = trellis(nobody.path(), &doctor).await;
    let checks = said.json();
    assert_eq!(said.code, Some(0), "what is not known is not missing: {checks}");
    for what in ["4 CPUs", "Linkerd 2.16", "Linkerd's viz", "an operator"] {
        let (state, found) = state(&checks, what);
        assert_eq!(state, "unknown", "{checks}");
        assert!(found.starts_with("may not "), "{checks}");
    }
    assert_eq!(
        state(&checks, "ResiliencePolicy").0,
        "fine",
        "everybody may ask what is served: {checks}"
    );
}
