//! The chart on real Kubernetes: installed, upgraded and uninstalled by real Helm, where only restricted Pods may be.
//!
//! ```text
//!  namespace: enforce restricted ─▶ helm install ─▶ Pods created, or ReplicaFailure ─▶ helm upgrade ─▶ helm uninstall
//! ```
//!
//! No Pod runs there: that the image starts is not shown. What the Pod would run is run beside it (`lived`).

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Namespace};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, ResourceExt as _, api::PostParams, runtime::wait};
use trellis_devplane::{Binaries, Builder, ControlPlane, cache_directory, free_port, peers, progress};

use super::{
    NAMESPACE, admission,
    lived::{self, Hooks},
};
use crate::peers::{HELM, block_on};

pub(super) const RELEASE: &str = "trellis";
/// Sources on a disk of a claim.
const SOURCES: &str = "controllers={external-source},replicas=1,storage.persistence.enabled=true,\
                       egress.trustHosts={127.0.0.1},networkPolicy.enabled=true,\
                       monitoring.dashboard.enabled=true,monitoring.kubeStateMetrics.enabled=true";
/// With hooks.
const HOOKS: &str = "hooks.enabled=true,hooks.whitelist.commands.tr.allowed=true";
/// How long Kubernetes may take to make two Pods that nobody runs.
const PATIENCE: Duration = Duration::from_mins(1);
/// The label by which the API server refuses Pods that are not restricted.
const RESTRICTED: (&str, &str) = ("pod-security.kubernetes.io/enforce", "restricted");

/// Boots a plane and takes the chart through its life there.
pub(super) fn run(chart: &Path, binary: &Path) -> Result<()> {
    block_on(async {
        let builder = Builder::new(cache_directory()?, Arc::new(progress::Lines));
        let helm = builder.build(&(HELM.module)()).await?;
        let plane = ControlPlane::options().start().await?;
        let lived = live(chart, binary, &helm, &plane).await;
        plane.stop().await?;
        lived
    })?
}

async fn live(chart: &Path, binary: &Path, helm: &Binaries, plane: &ControlPlane) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(plane.client());
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(NAMESPACE.to_owned());
    namespace
        .labels_mut()
        .insert(RESTRICTED.0.to_owned(), RESTRICTED.1.to_owned());
    namespaces.create(&PostParams::default(), &namespace).await?;
    let chart = chart.display().to_string();
    let deployments: Api<Deployment> = Api::namespaced(plane.client(), NAMESPACE);

    admission::define(plane).await?;
    ask(helm, plane, &["install", RELEASE, &chart]).await?;
    let installed = replicas(&deployments, 2).await?;
    ask(helm, plane, &["upgrade", RELEASE, &chart, "--set", "replicas=3"]).await?;
    let upgraded = replicas(&deployments, 3).await?;
    let (metrics, artifacts) = (free_port()?, free_port()?);
    let ports = format!("metrics.port={metrics},artifacts.port={artifacts}");
    let sources = ["upgrade", RELEASE, &chart, "--set", SOURCES, "--set", &ports];
    for (hooks, values) in [(Hooks::Off, "hooks.enabled=false"), (Hooks::On, HOOKS)] {
        ask(helm, plane, &[&sources[..], &["--set", values]].concat()).await?;
        let made = replicas(&deployments, 1).await?;
        Box::pin(lived::run(plane, binary, artifacts, hooks)).await?;
        eprintln!("chart: changed to sources with hooks {hooks:?} ({made} Pod admitted), whose containers lived");
    }
    admission::judged(plane).await?;
    ask(helm, plane, &["uninstall", RELEASE, "--wait"]).await?;
    let left = deployments.get_opt(RELEASE).await?;
    ensure!(left.is_none(), "the Deployment outlives helm uninstall");
    let crds: Api<CustomResourceDefinition> = Api::all(plane.client());
    for crd in trellis_api::crds() {
        // With the definition every policy would go, and what it wrote would stay.
        crds.get(&crd.name_any())
            .await
            .context("helm uninstall took a definition along")?;
    }
    eprintln!(
        "chart: installed ({installed} Pods admitted as restricted), upgraded ({upgraded}), uninstalled; the kinds stay"
    );
    Ok(())
}

async fn ask(helm: &Binaries, plane: &ControlPlane, arguments: &[&str]) -> Result<()> {
    let mut command = peers::helm::command(helm, plane.kubeconfig())?;
    command
        .args(arguments)
        .args(["--namespace", NAMESPACE])
        .stdin(Stdio::null());
    let output = command.output().await.context("cannot start helm")?;
    ensure!(
        output.status.success(),
        "helm {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// Waits until the Pods are there. Returns how many; an error when the API server refuses them.
async fn replicas(deployments: &Api<Deployment>, wanted: i32) -> Result<i32> {
    let settled = wait::await_condition(deployments.clone(), RELEASE, |deployment: Option<&Deployment>| {
        deployment.is_some_and(|deployment| refusal(deployment).is_some() || created(deployment) == wanted)
    });
    let deployment = tokio::time::timeout(PATIENCE, settled)
        .await
        .with_context(|| format!("there are not {wanted} Pods after {} s", PATIENCE.as_secs()))??
        .context("the Deployment is gone")?;
    if let Some(message) = refusal(&deployment) {
        bail!("a Pod of the chart is refused: {message}");
    }
    Ok(created(&deployment))
}

/// Pods of the current template.
fn created(deployment: &Deployment) -> i32 {
    let status = deployment.status.as_ref();
    let current = status.filter(|status| status.observed_generation == deployment.metadata.generation);
    current.and_then(|status| status.updated_replicas).unwrap_or_default()
}

fn refusal(deployment: &Deployment) -> Option<String> {
    let conditions = deployment.status.as_ref()?.conditions.as_ref()?;
    let failure = conditions
        .iter()
        .find(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True")?;
    Some(failure.message.clone().unwrap_or_default())
}
