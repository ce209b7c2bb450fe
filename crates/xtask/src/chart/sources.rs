//! What must hold where sources are served: URLs lead to the artifacts, hooks find no token, monitoring names what is.
//!
//! ```text
//!  --storage-adv-addr ─▶ the Service ─▶ port `artifacts` of the Pod ─▶ --storage-addr
//!  every mount ─▶ a volume of the Pod       dashboard, kube-state-metrics ─▶ metrics and fields that there are
//! ```

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// How names of metrics of ours begin.
const OURS: [&str; 5] = [
    "external_source_",
    "externalsource_",
    "gotk_",
    "resilience_",
    "trellis_",
];
/// What the flag says that Flux is told.
const ADVERTISED: &str = "--storage-adv-addr=";
/// What the flag says where files are served.
const SERVED: &str = "--storage-addr=0.0.0.0:";
/// Where a Pod's token is.
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Metrics of a controller, as documented for one of them.
const DOCUMENTED: &str = "docs/spec/metrics.md";

/// Whatever the values.
pub(crate) fn judge(objects: &[Value]) -> Result<()> {
    let deployment = objects
        .iter()
        .find(|object| text(object, "/kind") == "Deployment")
        .context("no Deployment")?;
    let pod = deployment.pointer("/spec/template/spec").context("no Pod")?;
    volumes_fit(pod)?;
    let operator = pod.pointer("/containers/0").context("no container")?;
    let arguments = strings(operator, "/args");
    if arguments.iter().any(|argument| argument.contains("external-source")) {
        artifacts_are_reached(objects, deployment, operator, &arguments)?;
    }
    hooks_find_no_token(pod, operator)
}

/// Every mount is of a volume, every volume is mounted, and no two mounts of a container are in one place.
fn volumes_fit(pod: &Value) -> Result<()> {
    let volumes: BTreeSet<&str> = list(pod, "/volumes")
        .iter()
        .map(|volume| text(volume, "/name"))
        .collect();
    let mut mounted = BTreeSet::new();
    for container in list(pod, "/containers").iter().chain(list(pod, "/initContainers")) {
        let mut places = BTreeSet::new();
        for mount in list(container, "/volumeMounts") {
            let (name, place) = (text(mount, "/name"), text(mount, "/mountPath"));
            ensure!(places.insert(place), "two volumes are mounted at {place}");
            mounted.insert(name);
        }
    }
    ensure!(mounted == volumes, "volumes {volumes:?}, and mounts of {mounted:?}");
    Ok(())
}

fn artifacts_are_reached(objects: &[Value], deployment: &Value, operator: &Value, arguments: &[&str]) -> Result<()> {
    let flag = |flag: &str| arguments.iter().find_map(|argument| argument.strip_prefix(flag));
    let told = flag(ADVERTISED).context("Flux is told no address")?;
    let (host, port) = told
        .split_once(".:")
        .or_else(|| Some((told.strip_suffix('.')?, "80")))
        .with_context(|| {
            format!("the host of {told} has no dot at its end: every search domain of Flux's Pod would be asked first")
        })?;
    let service = objects
        .iter()
        .filter(|object| text(object, "/kind") == "Service")
        .find(|service| {
            let name = format!(
                "{}.{}.svc.",
                text(service, "/metadata/name"),
                text(service, "/metadata/namespace")
            );
            host.starts_with(&name)
        })
        .with_context(|| format!("no Service is {host}"))?;
    let domain = flag("--cluster-domain=").unwrap_or_default();
    ensure!(
        host.ends_with(&format!(".svc.{domain}")),
        "{host} is not of the domain {domain}"
    );
    let (theirs, ours) = (
        service.pointer("/spec/selector"),
        deployment.pointer("/spec/selector/matchLabels"),
    );
    ensure!(
        theirs == ours,
        "the Service of artifacts is for {theirs:?}, not {ours:?}"
    );
    let served = flag(SERVED).context("no address of the file server")?;
    let reached = list(service, "/spec/ports").iter().any(|one| {
        let target = text(one, "/targetPort");
        one.pointer("/port").map(Value::to_string).as_deref() == Some(port)
            && list(operator, "/ports").iter().any(|open| {
                text(open, "/name") == target
                    && open.pointer("/containerPort").map(Value::to_string).as_deref() == Some(served)
            })
    });
    ensure!(
        reached,
        "port {port} of {host} does not lead to the file server at {served}"
    );
    let one_at_a_time = text(deployment, "/spec/strategy/type") == "Recreate";
    let shared = arguments.contains(&"--storage-shared") || arguments.contains(&"--storage-backend=s3");
    ensure!(
        one_at_a_time != shared,
        "Pods with artifacts of their own are replaced one after the other, others are not"
    );
    Ok(())
}

/// Commands of hooks must not act as the operator.
fn hooks_find_no_token(pod: &Value, operator: &Value) -> Result<()> {
    let hooks = list(pod, "/initContainers");
    if hooks.is_empty() {
        return Ok(());
    }
    let automatic = pod.pointer("/automountServiceAccountToken").and_then(Value::as_bool);
    ensure!(automatic == Some(false), "every container gets the operator's token");
    let has = |container: &Value| {
        let mut mounts = list(container, "/volumeMounts").iter();
        mounts.any(|mount| text(mount, "/mountPath") == TOKEN)
    };
    ensure!(has(operator), "the operator has no token");
    for container in hooks {
        let name = text(container, "/name");
        ensure!(!has(container), "{name} has the operator's token");
        ensure!(
            !list(container, "/env")
                .iter()
                .any(|variable| variable.get("valueFrom").is_some()),
            "{name} has a secret in its environment"
        );
        ensure!(
            text(container, "/restartPolicy") == "Always",
            "{name} would have to end before the operator starts"
        );
    }
    Ok(())
}

/// What the chart hands to monitoring names metrics that are documented, and fields that are in the definitions.
pub(crate) fn monitoring(chart: &Path, workspace: &Path) -> Result<()> {
    let read = |path: &Path| std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
    let documented = documented(&read(&workspace.join(DOCUMENTED))?);
    let dashboard: Value =
        serde_json::from_str(&read(&chart.join("monitoring/sources.json"))?).context("the dashboard is not JSON")?;
    let alerts: Value =
        serde_saphyr::from_str(&read(&chart.join("monitoring/alerts.yaml"))?).context("the alerts are not YAML")?;
    let panels = list(&dashboard, "/panels").iter();
    let rules = list(&alerts, "/groups").iter();
    let mut asked = 0;
    for (what, asking) in [
        (
            "the dashboard",
            panels.flat_map(|panel| list(panel, "/targets")).collect::<Vec<_>>(),
        ),
        ("an alert", rules.flat_map(|group| list(group, "/rules")).collect()),
    ] {
        ensure!(!asking.is_empty(), "{what} asks for nothing");
        for metric in asking.into_iter().flat_map(|one| metrics(text(one, "/expr"))) {
            ensure!(
                documented.contains(&metric),
                "{what} asks for {metric}: there are {documented:?}"
            );
            asked += 1;
        }
    }
    let config: Value = serde_saphyr::from_str(&read(&chart.join("monitoring/kube-state-metrics.yaml"))?)
        .context("the configuration of kube-state-metrics is not YAML")?;
    let mut kinds = BTreeSet::new();
    for resource in list(&config, "/spec/resources") {
        let kind = text(resource, "/groupVersionKind/kind");
        kinds.insert(kind.to_owned());
        for metric in list(resource, "/metrics") {
            let labels = metric.pointer("/labelsFromPath").and_then(Value::as_object);
            for (label, path) in labels.into_iter().flatten() {
                ensure!(is_a_field(resource, path), "{kind} has no {path} for the label {label}");
            }
        }
    }
    for crd in trellis_api::crds() {
        ensure!(
            kinds.contains(&crd.spec.names.kind),
            "{} has no series",
            crd.spec.names.kind
        );
    }
    eprintln!("chart: dashboard and alerts ask for {asked} metrics that there are; series of {kinds:?}");
    Ok(())
}

/// The metrics of this controller and the process, from what is documented for another one.
fn documented(page: &str) -> BTreeSet<String> {
    let names = page
        .split('`')
        .map(|quoted| quoted.split('{').next().unwrap_or_default());
    let mut known: BTreeSet<String> = names
        .filter_map(|name| match name.strip_prefix("resilience_operator_") {
            Some("policies_total") => Some("external_source_operator_sources_total".to_owned()),
            Some(rest) => Some(format!("external_source_operator_{rest}")),
            None => OURS.iter().any(|ours| name.starts_with(ours)).then(|| name.to_owned()),
        })
        .collect();
    known.insert("gotk_resource_info".to_owned());
    known
}

/// The metrics of an expression; parts of a histogram are that histogram.
fn metrics(expression: &str) -> Vec<String> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = words.filter(|word| OURS.iter().any(|prefix| word.starts_with(prefix)));
    ours.map(|word| word.strip_suffix("_bucket").unwrap_or(word).to_owned())
        .collect()
}

/// Whether the path is one of the kind's definition. Definitions of others are not here: theirs are believed.
fn is_a_field(resource: &Value, path: &Value) -> bool {
    let kind = text(resource, "/groupVersionKind/kind");
    let Some(crd) = trellis_api::crds().into_iter().find(|crd| crd.spec.names.kind == kind) else {
        return true;
    };
    let version = text(resource, "/groupVersionKind/version");
    let Some(version) = crd.spec.versions.iter().find(|served| served.name == version) else {
        return false;
    };
    let schema = version
        .schema
        .as_ref()
        .and_then(|schema| schema.open_api_v3_schema.clone());
    let Ok(mut at) = serde_json::to_value(schema) else {
        return false;
    };
    for step in path.as_array().into_iter().flatten().filter_map(Value::as_str) {
        let next = if step.starts_with('[') {
            at.get("items").cloned()
        } else if at.get("properties").is_none() && text(&at, "/type") == "object" {
            // Metadata, whose fields a definition does not list.
            return true;
        } else {
            at.pointer(&format!("/properties/{step}")).cloned()
        };
        match next {
            Some(next) => at = next,
            None => return step == "metadata",
        }
    }
    true
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object
        .pointer(pointer)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

fn strings<'a>(object: &'a Value, pointer: &str) -> Vec<&'a str> {
    list(object, pointer).iter().filter_map(Value::as_str).collect()
}

#[cfg(test)]
mod tests;
