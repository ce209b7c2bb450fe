//! The controllers on a local plane, as they would run on a cluster: the CRDs, the generated permissions, and the
//! operator as a process of its own under exactly these.

use std::{fs, net::Ipv4Addr, path::Path, process::Command, time::Duration};

use anyhow::Context as _;
use kube::{
    Api, Client, ResourceExt as _,
    api::{DynamicObject, Patch, PatchParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};
use trellis_devplane::{ControlPlane, Process};
use trellis_operator::{Controller, rbac};

use super::upstream;

/// Where the operator lives on a plane, and as whom.
const NAMESPACE: &str = "trellis-system";
const ACCOUNT: &str = "trellis";
const MANAGER: &str = "trellis-dev";
/// A token holds for a day; a plane may run for longer.
const TOKEN_REFRESH: Duration = Duration::from_hours(12);

/// Installs the CRDs and the permissions.
pub(crate) async fn install(client: &Client) -> anyhow::Result<()> {
    trellis_runtime::crds::install(client, &trellis_api::crds()).await?;
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } });
    let manifests = rbac::manifests(Controller::ALL, ACCOUNT, NAMESPACE, &[]);
    for manifest in std::iter::once(namespace).chain(manifests) {
        apply(client, &manifest).await?;
    }
    Ok(())
}

/// Starts the operator as a child of this process.
pub(crate) async fn start(plane: &ControlPlane, linkerd_version: &str) -> anyhow::Result<Process> {
    let folder = plane.directory();
    let token = folder.join("operator.token");
    write_token(plane, &token).await?;
    let kubeconfig = folder.join("operator.kubeconfig");
    write_kubeconfig(plane, &token, &kubeconfig).await?;
    let artifacts = folder.join("artifacts");
    fs::create_dir_all(&artifacts).with_context(|| format!("cannot create {}", artifacts.display()))?;
    let files = format!("{}:{}", Ipv4Addr::LOCALHOST, trellis_devplane::free_port()?);
    let mut command = Command::new(crate::this_program()?);
    command
        .args(["operator", "--linkerd-version", linkerd_version, "--identity", "dev"])
        .args([
            "--lease-namespace",
            NAMESPACE,
            "--listen",
            &format!("{}:0", Ipv4Addr::LOCALHOST),
        ])
        .args(["--storage-addr", &files, "--storage-adv-addr", &files])
        .args(["--egress-trust-host", upstream::HOST, "--storage-path"])
        .arg(&artifacts)
        .env("KUBECONFIG", &kubeconfig);
    Ok(Process::spawn(
        "operator",
        &command,
        &folder.join("logs").join("operator.log"),
    )?)
}

/// Renews the operator's token for as long as this is polled.
pub(crate) async fn keep_token(plane: &ControlPlane) -> anyhow::Result<()> {
    let token = plane.directory().join("operator.token");
    loop {
        tokio::time::sleep(TOKEN_REFRESH).await;
        write_token(plane, &token).await?;
    }
}

async fn write_token(plane: &ControlPlane, path: &Path) -> anyhow::Result<()> {
    use secrecy::ExposeSecret as _;
    let mut kubeconfig = plane.token_kubeconfig(NAMESPACE, ACCOUNT).await?;
    let token = kubeconfig
        .auth_infos
        .pop()
        .and_then(|named| named.auth_info)
        .and_then(|info| info.token);
    let token = token.context("the plane gave no token")?;
    private(path, token.expose_secret())
}

async fn write_kubeconfig(plane: &ControlPlane, token: &Path, path: &Path) -> anyhow::Result<()> {
    let mut kubeconfig = plane.token_kubeconfig(NAMESPACE, ACCOUNT).await?;
    for info in kubeconfig
        .auth_infos
        .iter_mut()
        .filter_map(|named| named.auth_info.as_mut())
    {
        info.token = None;
        info.token_file = Some(token.display().to_string());
    }
    private(path, &serde_saphyr::to_string(&kubeconfig)?)
}

/// Writes a file that only its owner reads, whole or not at all.
fn private(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    let temporary = path.with_extension("new");
    let written = (|| {
        let mut file = fs::OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&temporary, path)
    })();
    written.with_context(|| format!("cannot write {}", path.display()))
}

/// Applies one manifest as the administrator.
pub(crate) async fn apply(client: &Client, manifest: &Value) -> anyhow::Result<DynamicObject> {
    let object: DynamicObject = serde_json::from_value(manifest.clone()).context("not a Kubernetes object")?;
    let types = object.types.clone().context("an object without apiVersion and kind")?;
    let kind = GroupVersionKind::try_from(&types).context("an unreadable apiVersion")?;
    let (resource, capabilities) = kube::discovery::pinned_kind(client, &kind)
        .await
        .with_context(|| format!("the cluster does not serve {} {}", types.api_version, types.kind))?;
    let api = api(client, &resource, &capabilities.scope, object.namespace().as_deref());
    let params = PatchParams {
        field_validation: Some(kube::api::ValidationDirective::Strict),
        ..PatchParams::apply(MANAGER).force()
    };
    api.patch(&object.name_any(), &params, &Patch::Apply(manifest))
        .await
        .with_context(|| format!("cannot apply {} {}", types.kind, object.name_any()))
}

fn api(
    client: &Client,
    resource: &ApiResource,
    scope: &kube::discovery::Scope,
    namespace: Option<&str>,
) -> Api<DynamicObject> {
    match scope {
        kube::discovery::Scope::Cluster => Api::all_with(client.clone(), resource),
        kube::discovery::Scope::Namespaced => {
            Api::namespaced_with(client.clone(), namespace.unwrap_or("default"), resource)
        }
    }
}
