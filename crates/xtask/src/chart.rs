//! `chart`: what real Helm makes of the chart.
//!
//! ```text
//!  ci/*-values.yaml ─▶ helm lint --strict ─▶ helm template ─▶ judged: roles as declared, restricted Pods, URLs that lead
//!                                                └▶ its containers ─▶ the real binary takes every argument and variable
//!  odd values ───────▶ helm template ──────▶ the same
//!  wrong values ─────▶ helm template ──────▶ refused by the schema, naming the value
//!  real Kubernetes ──▶ helm install, upgrade, uninstall ─▶ Pods admitted where only restricted ones are, artifacts guarded,
//!                                                          a source with a hook served by what the Pod runs
//! ```

mod admission;
mod arguments;
mod covered;
mod grants;
mod installed;
mod lived;
mod pod;
mod rendered;
mod sources;

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
    ("storage.backend=tape", "backend"),
    ("storage.path=data", "path"),
    ("storage.persistence.size=10", "size"),
    ("storage.persistence.accessMode=Shared", "accessMode"),
    ("storage.memory.bytes=1", "bytes"),
    ("storage.s3.endpoint=ftp://a", "endpoint"),
    ("storage.s3.secretKey=abc", "secretKey"),
    ("artifacts.port=80", "port"),
    ("artifacts.maxBytes=0", "maxBytes"),
    ("artifacts.retention.records=0", "records"),
    ("artifacts.retention.ttl=60", "ttl"),
    ("egress.schemes={ftp}", "schemes"),
    ("egress.allowCIDRs={10.0.0.0}", "allowCIDRs"),
    ("egress.denyCIDRs={10.0.0.0/99}", "denyCIDRs"),
    ("egress.denyCIDRs={10.0.0.256/8}", "denyCIDRs"),
    ("egress.denyCIDRs={fd00::/129}", "denyCIDRs"),
    ("egress.denyHosts={http://a}", "denyHosts"),
    ("http.timeout=30", "timeout"),
    ("retry.jitterFactor=2", "jitterFactor"),
    ("hooks.whitelist.commands.jq.allow=true", "allow"),
    ("hooks.whitelist.commands.jq.allowed=yes please", "allowed"),
    ("hooks.network=none", "network"),
    ("hooks.env.LD_PRELOAD=x", "LD_PRELOAD"),
    ("hooks.atOnce=0", "atOnce"),
    ("hooks.limits.memory=1", "memory"),
    ("admission.externalArtifacts=off", "externalArtifacts"),
    ("networkPolicy.metricsFrom=all", "metricsFrom"),
    ("monitoring.dashboard.enabled=maybe", "enabled"),
    // What no schema can judge: one value by another.
    ("controllers={external-source}", "replicas is 2"),
    (
        "controllers={external-source},storage.backend=memory",
        "storage.backend=memory only one replica",
    ),
    (
        "controllers={external-source},storage.persistence.enabled=true",
        "ReadWriteMany",
    ),
    ("controllers={external-source},storage.backend=s3", "storage.s3.bucket"),
    ("hooks.enabled=true", "external-source in controllers"),
    (
        "controllers={external-source},replicas=1,hooks.enabled=true",
        "hooks.whitelist.commands",
    ),
    (
        "controllers={external-source},replicas=1,artifacts.port=9191,metrics.port=9191",
        "both 9191",
    ),
    (
        "controllers={external-source},replicas=1,hooks.enabled=true,hooks.existingConfigMap=rules,hooks.token.existingSecret=t,\
         hooks.port=9090",
        "hooks.port is 9090",
    ),
    (
        "controllers={external-source},replicas=1,artifacts.maxBytes=3000000000",
        "spool.sizeLimit=2Gi",
    ),
    (
        "controllers={external-source},replicas=1,spool.maxBytes=3000000000",
        "spool.maxBytes is 3000000000",
    ),
    (
        "controllers={external-source},replicas=1,storage.backend=memory,storage.memory.bytes=268435456",
        "resources.limits.memory=256Mi",
    ),
    (
        "controllers={external-source},replicas=1,hooks.enabled=true,hooks.existingConfigMap=rules,\
         hooks.whitelist.commands.jq.allowed=true",
        "remove one",
    ),
    (
        "controllers={external-source},replicas=1,fullnameOverride=x",
        "fullnameOverride",
    ),
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
    "controllers={external-source},replicas=1,artifacts.maxBytes=10737418240,artifacts.retention.records=1000,\
     spool.sizeLimit=64Gi",
    "controllers={external-source},replicas=1,artifacts.retention.ttl=1h30m,retry.maxAttempts=1,retry.jitterFactor=0",
    "controllers={external-source},replicas=1,storage.backend=memory,storage.memory.bytes=1048576",
    "controllers={external-source},storage.backend=s3,storage.s3.bucket=abc,storage.s3.endpoint=10.0.0.1:9000",
    "controllers={external-source},replicas=1,egress.allowCIDRs={::1/128,127.0.0.0/8,0.0.0.0/0,::ffff:10.0.0.0/104},egress.schemes={http}",
    "controllers={external-source},replicas=1,hooks.enabled=true,hooks.existingConfigMap=rules,hooks.queue=0",
];

/// Lints, renders and judges the chart.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let helm = peers::helm()?;
    let binary = built::binary(workspace)?;
    let chart = workspace.path(CHART);
    let cases = cases(&chart)?;
    covered::judge(&chart, &cases)?;
    for values in cases {
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
        sources::judge(rendered.objects()).with_context(|| format!("rendered with {name}"))?;
        arguments::taken(&binary, rendered.objects()).with_context(|| format!("rendered with {name}"))?;
        arguments::variables_are_known(&binary, rendered.objects())?;
        if name == DEFAULTS {
            rendered.judge_defaults()?;
        }
        let asked = asked(&chart, &values)?;
        let declared = rbac::manifests(&asked.0, "trellis", NAMESPACE, &asked.1);
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
    sources::monitoring(&chart, &workspace.path(""))?;
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
    installed::run(&chart, &binary)
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

/// The controllers and the namespaces (empty: all) that a values file asks for, over the chart's own values.
fn asked(chart: &Path, values: &Path) -> Result<(Vec<Controller>, Vec<String>)> {
    #[derive(Default, serde::Deserialize)]
    struct Values {
        controllers: Option<Vec<String>>,
        namespaces: Option<Vec<String>>,
    }
    let read = |path: &Path| -> Result<Values> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let read: Option<Values> =
            serde_saphyr::from_str(&text).with_context(|| format!("{} is not YAML", path.display()))?;
        Ok(read.unwrap_or_default())
    };
    let (given, own) = (read(values)?, read(&chart.join("values.yaml"))?);
    let names = given.controllers.or(own.controllers).unwrap_or_default();
    let controllers = names
        .iter()
        .map(|name| Ok(name.parse::<Controller>()?))
        .collect::<Result<_>>()?;
    Ok((controllers, given.namespaces.or(own.namespaces).unwrap_or_default()))
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
