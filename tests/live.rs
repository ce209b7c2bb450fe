//! `live-linkerd` where there is no Linkerd: it refuses, and what it would make is admitted and taken away again.
//!
//! What it counts is not shown here: that needs Linkerd's proxies.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::process::Output;

use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, ResourceExt, api::ListParams};
use serde_json::json;
use trellis_testkit::plane::{Plane, Shared};

static BARE: Shared = trellis_tests::operator_plane();
static PRETENDING: Shared = Shared::new(|plane| {
    Box::pin(async move {
        trellis_tests::install(plane.clone()).await?;
        plane
            .apply(&[
                json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "linkerd" } }),
                json!({
                    "apiVersion": "v1", "kind": "ConfigMap",
                    "metadata": { "name": "linkerd-config", "namespace": "linkerd" },
                    "data": { "values": "linkerdVersion: stable-2.18.0\nclusterDomain: cluster.local\n" },
                }),
                json!({
                    "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
                    "metadata": { "name": "linkerd-proxy-injector-webhook-config" }, "webhooks": [],
                }),
            ])
            .await
    })
});

async fn live(plane: &Plane, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_live-linkerd"));
    command.args(arguments).env("KUBECONFIG", plane.control().kubeconfig());
    let Output { status, stdout, stderr } = command.output().await.unwrap();
    assert_eq!(String::from_utf8(stdout).unwrap(), "", "nothing was counted");
    (status.code(), String::from_utf8(stderr).unwrap())
}

/// The namespaces that it has left.
async fn left(plane: &Plane) -> Vec<String> {
    let namespaces: Api<Namespace> = Api::all(plane.client().unwrap());
    let all = namespaces.list(&ListParams::default()).await.unwrap();
    let names = all.items.iter().map(ResourceExt::name_any);
    names.filter(|name| name.starts_with("trellis-live-")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_linkerd_it_says_so_and_makes_nothing() {
    let plane = BARE.get().await.unwrap();
    for arguments in [&["--preflight"][..], &[]] {
        let (code, said) = live(plane, arguments).await;
        assert_eq!(code, Some(2), "{said}");
        assert!(
            said.starts_with(
                "error: this cluster has no Linkerd: there is no ConfigMap linkerd/linkerd-config\nhint: "
            ),
            "{said}"
        );
    }
    assert_eq!(left(plane).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_makes_is_admitted_and_goes_when_nothing_comes_of_it() {
    let plane = PRETENDING.get().await.unwrap();
    let (code, said) = live(plane, &["--preflight"]).await;
    assert!(code == Some(2) && said.contains("no Trellis operator leads"), "{said}");
    let account = trellis_tests::account(plane).await.unwrap();
    let operator = trellis_tests::launch(account.path(), "live", &[])
        .start()
        .await
        .unwrap();
    operator.ready().await;
    let (code, said) = live(plane, &["--preflight"]).await;
    assert!(
        code == Some(0) && said.starts_with("Linkerd stable-2.18.0; the operator live"),
        "{said}"
    );
    // Nothing runs Pods here.
    let (code, said) = live(plane, &["--timeout", "2"]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("error: the servers failing are not there after 2 s: 0 of 1 run"),
        "{said}"
    );
    assert_eq!(left(plane).await, Vec::<String>::new());
}
