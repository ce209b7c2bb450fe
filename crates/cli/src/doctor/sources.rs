//! What external sources need: the kind that Flux consumes, consumers that are told to take it, an operator.

use k8s_openapi::api::apps::v1::Deployment;
use kube::{Client, CustomResourceExt as _};
use trellis_api::ExternalSource;

use super::{Args, CRDS, Check, Found, State, check, kind, kubernetes, leader, listed, versions};
use crate::live;

/// Groups whose kinds are asked for.
const GROUPS: [&str; 2] = ["source.toolkit.fluxcd.io", "source.flux.oddkin.co"];
/// The feature gate of the consumers: without it a Kustomization of an artifact is Stalled.
const GATE: &str = "ExternalArtifact";

/// What sources need.
pub(super) async fn checks(client: &Client, args: &Args) -> anyhow::Result<Vec<Check>> {
    let mut checks = vec![check(
        "Kubernetes 1.30 or newer",
        kubernetes(client).await?,
        "upgrade the cluster",
    )];
    let served = live::served(client, &GROUPS).await;
    let artifacts = versions(served.as_ref(), "source.toolkit.fluxcd.io", "externalartifacts").map(|versions| {
        let state = if versions.contains("v1") {
            State::Fine
        } else {
            State::Missing
        };
        (state, listed(&versions))
    });
    checks.push(check("ExternalArtifact v1", artifacts, "install Flux 2.7 or newer"));
    let flux = args.flux_namespace.as_str();
    for (what, name) in [
        (
            "kustomize-controller, for Kustomizations of an artifact",
            "kustomize-controller",
        ),
        ("helm-controller, for HelmReleases of an artifact", "helm-controller"),
    ] {
        let mend = format!(
            "install Flux 2.7 or newer, and give {name} in {flux} the argument --feature-gates={GATE}=true: without it its \
             objects say AccessDenied"
        );
        checks.push(check(what, consumer(client, flux, name).await, &mend));
    }
    checks.push(check(
        "ExternalSource",
        kind(&ExternalSource::crd(), served.as_ref()),
        CRDS,
    ));
    checks.push(leader(client, args).await);
    Ok(checks)
}

/// Whether a consumer is there and takes artifacts of others than Flux.
async fn consumer(client: &Client, flux: &str, name: &str) -> Found {
    let Some(found) = live::one::<Deployment>(client, flux, name).await? else {
        let elsewhere = format!(
            "no Deployment {name} in {flux}; if Flux runs elsewhere, name its namespace with --flux-namespace, or check its \
             feature gate {GATE} there"
        );
        return Ok((State::Partial, elsewhere));
    };
    let available = found.status.as_ref().and_then(|status| status.available_replicas);
    let available = available.unwrap_or_default();
    Ok(match (gated(&found), available > 0) {
        (true, true) => (State::Fine, format!("{available} available, with {GATE}")),
        (true, false) => (State::Partial, format!("with {GATE}, none available")),
        (false, _) => (State::Partial, format!("without the feature gate {GATE}")),
    })
}

/// Whether the gate is open: the last word on it counts.
fn gated(deployment: &Deployment) -> bool {
    let pod = deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    let containers = pod.iter().flat_map(|pod| &pod.containers);
    let words = containers.flat_map(|container| container.args.iter().chain(&container.command).flatten());
    let gates = words.filter_map(|word| word.strip_prefix("--feature-gates="));
    let mut said = gates
        .flat_map(|gates| gates.split(','))
        .filter_map(|gate| gate.split_once('='));
    said.rfind(|(gate, _)| gate.trim() == GATE)
        .is_some_and(|(_, open)| open.trim().eq_ignore_ascii_case("true"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_last_word_on_the_gate_counts() {
        let gated = |args: &[&str]| {
            let deployment = json!({
                "spec": { "selector": {}, "template": { "spec": { "containers": [{ "name": "manager", "args": args }] } } },
            });
            gated(&serde_json::from_value(deployment).unwrap())
        };
        assert!(gated(&["--feature-gates=ExternalArtifact=true"]));
        assert!(gated(&[
            "--log-level=info",
            "--feature-gates=A=false,ExternalArtifact=true"
        ]));
        assert!(!gated(&[
            "--feature-gates=ExternalArtifact=true,ExternalArtifact=false"
        ]));
        assert!(!gated(&["--feature-gates=NotExternalArtifact=true"]));
        assert!(!gated(&[]));
    }
}
