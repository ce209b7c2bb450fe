//! Who may write what is published for sources, as real Kubernetes judges it by the chart's policy.
//!
//! ```text
//!  helm install ─▶ policy in force ─▶ a tenant: refused, but for labels and other kinds     the operator: its own URLs only
//! ```

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, Config, Error,
    api::{DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::ApiResource,
    runtime::{conditions, wait},
};
use serde_json::{Value, json};
use trellis_devplane::ControlPlane;

/// Where the objects are.
const PLACE: &str = "default";
/// As whom the operator of the release `trellis` runs.
const OPERATOR: &str = "system:serviceaccount:trellis-system:trellis";
/// Somebody else, with every permission.
const TENANT: &str = "tenant";
/// How long the API server may take to know a policy.
const PATIENCE: Duration = Duration::from_mins(1);

/// `ExternalArtifact` in the shape of RFC-0012, before anything of the chart is there.
pub(super) async fn define(plane: &ControlPlane) -> Result<()> {
    let string = json!({"type": "string"});
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {"sourceRef": {
            "type": "object", "required": ["kind", "name"],
            "properties": {"apiVersion": string, "kind": string, "name": string, "namespace": string},
        }}},
        "status": {"type": "object", "properties": {
            "artifact": {
                "type": "object",
                "required": ["digest", "lastUpdateTime", "path", "revision", "url"],
                "properties": {
                    "digest": string, "path": string, "revision": string, "url": string,
                    "lastUpdateTime": {"type": "string", "format": "date-time"},
                    "size": {"type": "integer", "format": "int64"},
                    "metadata": {"type": "object", "additionalProperties": string},
                },
            },
            "conditions": {
                "type": "array",
                "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            },
        }},
    }});
    let crd: CustomResourceDefinition = serde_json::from_value(json!({
        "metadata": {"name": "externalartifacts.source.toolkit.fluxcd.io"},
        "spec": {
            "group": "source.toolkit.fluxcd.io", "scope": "Namespaced",
            "names": {"kind": "ExternalArtifact", "plural": "externalartifacts"},
            "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                          "schema": {"openAPIV3Schema": schema}}],
        },
    }))?;
    let crds: Api<CustomResourceDefinition> = Api::all(plane.client());
    crds.create(&PostParams::default(), &crd).await?;
    let established = wait::await_condition(
        crds,
        "externalartifacts.source.toolkit.fluxcd.io",
        conditions::is_crd_established(),
    );
    tokio::time::timeout(PATIENCE, established)
        .await
        .context("the definition is not served")??;
    Ok(())
}

/// Asks the API server, with the chart installed for external-source.
pub(super) async fn judged(plane: &ControlPlane) -> Result<()> {
    let (tenant, operator) = (artifacts(plane, TENANT).await?, artifacts(plane, OPERATOR).await?);
    in_force(&tenant).await?;

    let ours = object("ours", Some("ExternalSource"));
    says(
        make(&tenant, &ours).await,
        "only system:serviceaccount:trellis-system:trellis",
    )?;
    make(&operator, &ours).await.context("the operator cannot publish")?;
    let url = |host: &str| {
        json!({"status": {"artifact": {
            "url": format!("http://{host}/a.tar.gz"), "revision": "1", "digest": "sha256:1", "path": "a.tar.gz",
            "lastUpdateTime": "2026-01-01T00:00:00Z",
        }}})
    };
    let right = url("trellis-artifacts.trellis-system.svc.cluster.local.");
    says(
        status(&tenant, "ours", &right).await,
        "only system:serviceaccount:trellis-system:trellis",
    )?;
    says(status(&operator, "ours", &url("evil.example")).await, "are served at")?;
    says(
        status(
            &operator,
            "ours",
            &url("trellis-artifacts.trellis-system.svc.cluster.local.evil.example"),
        )
        .await,
        "are served at",
    )?;
    status(&operator, "ours", &right)
        .await
        .context("the operator cannot publish a URL of its own")?;
    says(status(&tenant, "ours", &url("evil.example")).await, "only system")?;
    let away = json!({"spec": {"sourceRef": {"kind": "Bucket", "name": "ours"}}});
    says(patch(&tenant, "ours", &away).await, "only system")?;
    let label = json!({"metadata": {"labels": {"team": "shop"}, "finalizers": ["example.org/hold"]}});
    patch(&tenant, "ours", &label).await.context("nobody can label it")?;
    patch(&tenant, "ours", &json!({"metadata": {"finalizers": null}}))
        .await
        .context("nobody can let it go")?;

    make(&tenant, &object("theirs", Some("ArtifactGenerator")))
        .await
        .context("other kinds are hindered")?;
    status(&tenant, "theirs", &url("elsewhere.example"))
        .await
        .context("other kinds are hindered")?;
    make(&tenant, &object("plain", None))
        .await
        .context("artifacts without a source are hindered")?;
    let ours = json!({"spec": {"sourceRef": {"apiVersion": "source.flux.oddkin.co/v1alpha1", "kind": "ExternalSource", "name": "theirs"}}});
    says(patch(&tenant, "theirs", &ours).await, "only system")?;
    eprintln!(
        "chart: only the operator writes the artifacts of sources, with URLs of its own Service; others are not hindered"
    );
    Ok(())
}

/// Waits until the API server has the policy.
async fn in_force(tenant: &Api<DynamicObject>) -> Result<()> {
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let known = async {
        while tenant
            .create(&dry, &object("dry", Some("ExternalSource")))
            .await
            .is_ok()
        {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, known)
        .await
        .context("the policy is not in force")
}

/// The artifacts, as somebody with every permission who is called `user`.
async fn artifacts(plane: &ControlPlane, user: &str) -> Result<Api<DynamicObject>> {
    let kubeconfig = Kubeconfig::read_from(plane.kubeconfig())?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.auth_info.impersonate = Some(user.to_owned());
    config.auth_info.impersonate_groups = Some(vec!["system:masters".to_owned()]);
    Ok(artifacts_of(Client::try_from(config)?, PLACE))
}

/// The artifacts of a namespace.
pub(super) fn artifacts_of(client: Client, namespace: &str) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("source.toolkit.fluxcd.io", "v1", "ExternalArtifact");
    Api::namespaced_with(client, namespace, &ApiResource::from_gvk(&kind))
}

fn object(name: &str, kind: Option<&str>) -> DynamicObject {
    let kind_of = GroupVersionKind::gvk("source.toolkit.fluxcd.io", "v1", "ExternalArtifact");
    let source = kind.map(|kind| json!({"kind": kind, "name": name, "namespace": PLACE}));
    DynamicObject::new(name, &ApiResource::from_gvk(&kind_of)).data(json!({"spec": {"sourceRef": source}}))
}

async fn make(artifacts: &Api<DynamicObject>, object: &DynamicObject) -> Result<(), Error> {
    artifacts.create(&PostParams::default(), object).await.map(drop)
}

async fn patch(artifacts: &Api<DynamicObject>, name: &str, change: &Value) -> Result<(), Error> {
    let (how, change) = (PatchParams::default(), Patch::Merge(change));
    artifacts.patch(name, &how, &change).await.map(drop)
}

async fn status(artifacts: &Api<DynamicObject>, name: &str, change: &Value) -> Result<(), Error> {
    let (how, change) = (PatchParams::default(), Patch::Merge(change));
    artifacts.patch_status(name, &how, &change).await.map(drop)
}

/// That it was refused with these words.
fn says(done: Result<(), Error>, words: &str) -> Result<()> {
    match done {
        Err(Error::Api(status)) => {
            ensure!(
                status.message.contains(words),
                "refused for another reason: {}",
                status.message
            );
            Ok(())
        }
        Err(error) => Err(error.into()),
        Ok(()) => bail!("admitted, and should say: {words}"),
    }
}
