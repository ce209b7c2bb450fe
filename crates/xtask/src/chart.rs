//! `chart`: what real Helm makes of the chart.
//!
//! ```text
//!  ci/*-values.yaml ─▶ helm lint --strict ─▶ helm template ─▶ judged: roles as declared, restricted Pods
//!                                                └▶ its arguments ─▶ the real binary takes every one
//!  odd values ───────▶ helm template ──────▶ the same
//!  wrong values ─────▶ helm template ──────▶ refused by the schema, naming the value
//!  real Kubernetes ──▶ helm install, upgrade, uninstall ─▶ Pods admitted where only restricted ones are
//! ```

mod arguments;
mod grants;
mod installed;
mod rendered;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use trellis_operator::{Controller, rbac};

use crate::built;
use crate::peers;
use crate::workspace::{Workspace, output};
use rendered::Rendered;

const CHART: &str = "charts/trellis";
/// Helm takes this for the cluster's version; the chart refuses older ones.
const KUBERNETES: &str = "1.34.0";
const NAMESPACE: &str = "trellis-system";
/// The values file that sets nothing.
const DEFAULTS: &str = "default-values.yaml";

/// Values that the schema must refuse, and what its message must name.
const REFUSED: &[(&str, &str)] = &[
    ("replicas=0", "replicas"),
    ("controllers={nope}", "controllers"),
    ("controllers={}", "controllers"),
    ("namespaces={Not_A_Name}", "namespaces"),
    ("linkerdVersion=latest", "linkerdVersion"),
    ("linkerdVersion=2.10", "linkerdVersion"),
    ("linkerdVersion=edge-24.8.2", "linkerdVersion"),
    ("lease.duration=10", "duration"),
    ("lease.duration=700s", "duration"),
    ("log.format=xml", "format"),
    ("log.level=verbose", "level"),
    ("surprise=1", "surprise"),
    ("pod.terminationGracePeriodSeconds=1", "terminationGracePeriodSeconds"),
    ("pod.topologySpreadConstraints[0].maxSkew=1", "topologyKey"),
    ("metrics.port=80", "port"),
];

/// Values at the edge of what the schema admits; the binary has to take them.
const TAKEN: &[&str] = &[
    "lease.duration=1s",
    "lease.duration=600s",
    "linkerdVersion=2.16",
    "linkerdVersion=2.18.1-rc2",
    "linkerdVersion=enterprise-2.17.0-1",
    "linkerdVersion=edge-24.9.1",
    "log.level=info\\,trellis_runtime=debug",
    "clusterDomain=corp.example",
];

/// Lints, renders and judges the chart.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let helm = peers::helm()?;
    let binary = built::binary(workspace)?;
    let chart = workspace.path(CHART);
    for values in cases(&chart)? {
        let name = values.file_name().unwrap_or_default().to_string_lossy().into_owned();
        output(
            helm_command(&helm, "lint")
                .arg("--strict")
                .arg(&chart)
                .arg("--values")
                .arg(&values),
        )
        .with_context(|| format!("helm lint with {name}"))?;
        let text = render(&helm, &chart, &["--values".as_ref(), values.as_os_str()])
            .with_context(|| format!("helm template with {name}"))?;
        let rendered = Rendered::read(&text)?;
        rendered.judge().with_context(|| format!("rendered with {name}"))?;
        arguments::taken(&binary, rendered.objects()).with_context(|| format!("rendered with {name}"))?;
        if name == DEFAULTS {
            rendered.judge_defaults()?;
        }
        let declared = rbac::manifests(Controller::ALL, "trellis", NAMESPACE, &served(&values)?);
        let (granted, declared) = (grants::of(rendered.objects()), grants::of(&declared));
        ensure!(
            granted == declared,
            "rendered with {name}, the chart grants {:?} too much and {:?} too little",
            granted.difference(&declared).collect::<Vec<_>>(),
            declared.difference(&granted).collect::<Vec<_>>()
        );
        eprintln!(
            "chart: {name}: {} objects, {} permissions, as declared",
            rendered.len(),
            granted.len()
        );
    }
    for value in TAKEN {
        let text = render(&helm, &chart, &["--set".as_ref(), value.as_ref()])?;
        arguments::taken(&binary, Rendered::read(&text)?.objects())
            .with_context(|| format!("rendered with {value}"))?;
    }
    eprintln!("chart: {} odd values are taken by the binary", TAKEN.len());
    for (value, named) in REFUSED {
        refused(&helm, &chart, value, named)?;
    }
    eprintln!("chart: {} wrong values are refused", REFUSED.len());
    installed::run(&chart)
}

/// The values files that the chart is tried with.
fn cases(chart: &Path) -> Result<Vec<PathBuf>> {
    let folder = chart.join("ci");
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
        cases.push(
            entry
                .with_context(|| format!("cannot read {}", folder.display()))?
                .path(),
        );
    }
    cases.sort();
    Ok(cases)
}

/// The namespaces that a values file serves; empty: all.
fn served(values: &Path) -> Result<Vec<String>> {
    #[derive(Default, serde::Deserialize)]
    struct Values {
        #[serde(default)]
        namespaces: Vec<String>,
    }
    let text = std::fs::read_to_string(values).with_context(|| format!("cannot read {}", values.display()))?;
    let values: Option<Values> =
        serde_saphyr::from_str(&text).with_context(|| format!("{} is not YAML", values.display()))?;
    Ok(values.unwrap_or_default().namespaces)
}

fn helm_command(helm: &Path, verb: &str) -> Command {
    let mut command = Command::new(helm);
    command.arg(verb).stdin(Stdio::null());
    command
}

fn template(helm: &Path, chart: &Path) -> Command {
    let mut command = helm_command(helm, "template");
    command
        .args(["trellis", "--namespace", NAMESPACE, "--kube-version", KUBERNETES])
        .arg(chart);
    command
}

fn render(helm: &Path, chart: &Path, more: &[&std::ffi::OsStr]) -> Result<String> {
    output(template(helm, chart).args(more))
}

fn refused(helm: &Path, chart: &Path, value: &str, named: &str) -> Result<()> {
    let output = template(helm, chart)
        .args(["--set", value])
        .output()
        .context("cannot start helm")?;
    let message = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        bail!("the schema admits {value}");
    }
    if !message.contains(named) {
        bail!("the refusal of {value} does not name {named}: {message}");
    }
    Ok(())
}
