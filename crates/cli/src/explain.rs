//! `trellis explain`: what calls to a Service get, rule by rule, and who said so.

use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use serde_json::{Map, Value};
use trellis_resilience::{
    Cluster, Explanation, explain,
    shown::{FIELD, VALUE, cut},
};

use crate::{live, out};

/// Arguments of `trellis explain`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The Service, as service/NAME
    #[arg(value_name = "service/NAME")]
    service: String,
    /// Namespace of the Service
    #[arg(long, short, default_value = "default", value_name = "NAMESPACE")]
    namespace: String,
    /// Namespace of the callers; default: that of the Service
    #[arg(long, value_name = "NAMESPACE")]
    from: Option<String>,
    /// A port of the Service; default: every port
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cluster: live::From,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let name = service(&args.service)?;
    let client = args.from.as_deref().unwrap_or(&args.namespace);
    // What acts on these calls stands in the two namespaces.
    let namespaces = [args.namespace.clone(), client.to_owned()];
    let live::Read { cluster, notes } = crate::wait_for(args.cluster.cluster(live::Scope::Only(namespaces.into())))?;
    let ports = match args.port {
        Some(port) => vec![port],
        None => ports(&cluster, &args.namespace, name)?,
    };
    let explained = ports
        .into_iter()
        .map(|port| explain(&cluster, &args.namespace, name, port, client));
    let mut explained = explained.collect::<Result<Vec<_>, _>>()?;
    for explanation in &mut explained {
        explanation.notes.extend(notes.iter().cloned());
        for note in &mut explanation.notes {
            *note = cut(note, FIELD);
        }
    }
    if args.json {
        out::data(serde_json::to_string_pretty(&explained)?);
    } else {
        for explanation in &explained {
            text(explanation)?.iter().for_each(out::line);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `service/NAME`, as kubectl writes it.
pub(crate) fn service(text: &str) -> anyhow::Result<&str> {
    match text.split_once('/') {
        Some(("service" | "services" | "svc", name)) if !name.is_empty() => Ok(name),
        None if !text.is_empty() => Ok(text),
        _ => bail!("{text:?} is no Service; write it as service/NAME"),
    }
}

fn ports(cluster: &Cluster, namespace: &str, name: &str) -> anyhow::Result<Vec<u16>> {
    let service = cluster.service(namespace, name);
    let service = service.with_context(|| format!("there is no Service {name} in namespace {namespace}"))?;
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let ports: Vec<u16> = ports.filter_map(|port| u16::try_from(port.port).ok()).collect();
    ensure!(
        !ports.is_empty(),
        "Service {name} in namespace {namespace} lists no port: nothing acts on calls to it"
    );
    Ok(ports)
}

fn text(explanation: &Explanation) -> anyhow::Result<Vec<String>> {
    let mut lines = vec![format!(
        "Service {} port {}, called from namespace {} (Linkerd {})",
        explanation.service, explanation.port, explanation.from, explanation.linkerd
    )];
    if let Some(inert) = &explanation.inert {
        lines.push(format!(
            "  nothing acts: {} ({})",
            cut(&inert.message, 4 * VALUE),
            inert.reason
        ));
        lines.extend(
            inert
                .hint
                .iter()
                .map(|hint| format!("  hint: {}", cut(hint, 4 * VALUE))),
        );
    }
    let whole = serde_json::to_value(explanation)?;
    for (block, title) in [("breaker", "breaker"), ("loadBias", "load bias")] {
        push(&mut lines, "  ", title, whole.get(block));
    }
    for rule in whole.get("rules").and_then(Value::as_array).into_iter().flatten() {
        let matches: Vec<String> = rule["matches"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(|text| cut(text, VALUE))
            .collect();
        let route = rule["route"]
            .as_str()
            .map(|route| format!(" ({route})"))
            .unwrap_or_default();
        lines.push(format!("  {}{route}", matches.join(" or ")));
        if let Some(other) = rule["takenBy"].as_str() {
            lines.push(format!("    no request: {other} is older, and for the same"));
            continue;
        }
        push(&mut lines, "    ", "retry", rule.get("retry"));
        push(&mut lines, "    ", "timeouts", rule.get("timeouts"));
        if rule.get("retry").is_none() && rule.get("timeouts").is_none() {
            lines.push("    neither retries nor timeouts".to_owned());
        }
    }
    if explanation.others_refused {
        lines.push("  every other request: 404".to_owned());
    }
    lines.extend(
        explanation
            .notes
            .iter()
            .map(|note| format!("  note: {}", cut(note, 4 * VALUE))),
    );
    Ok(lines)
}

/// Values that are times.
const MILLISECONDS: [&str; 9] = [
    "minPenalty",
    "maxPenalty",
    "window",
    "penalty",
    "maxRetryAfter",
    "timeout",
    "request",
    "response",
    "idle",
];

/// A block: a line per value, with its origin.
fn push(lines: &mut Vec<String>, indent: &str, title: &str, block: Option<&Value>) {
    let Some(block) = block.and_then(Value::as_object) else {
        return;
    };
    lines.push(format!("{indent}{title}"));
    let nothing = Map::new();
    let origins = block.get("origins").and_then(Value::as_object).unwrap_or(&nothing);
    for (field, value) in block
        .iter()
        .filter(|(field, value)| *field != "origins" && !value.is_null())
    {
        let origin = origins
            .get(field)
            .map(|origin| format!("  <- {}", said_by(origin)))
            .unwrap_or_default();
        let unit = if MILLISECONDS.contains(&field.as_str()) {
            " ms"
        } else {
            ""
        };
        let value = cut(&value.to_string(), VALUE);
        lines.push(format!("{indent}  {field}: {value}{unit}{origin}"));
    }
}

fn said_by(origin: &Value) -> String {
    let text = |field: &str| origin[field].as_str().unwrap_or_default().to_owned();
    match origin["from"].as_str() {
        Some("policy") => {
            let policies = origin["policies"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str);
            format!("policy {}", policies.collect::<Vec<_>>().join(", "))
        }
        Some("service") => format!("annotation {} of the Service", text("key")),
        Some("route") => format!("annotation {} of {}", text("key"), text("route")),
        Some("field") => format!("{} of {}", text("field"), text("route")),
        _ => "Linkerd's default".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_named_as_kubectl_does() {
        assert_eq!(service("service/web").unwrap(), "web");
        assert_eq!(service("svc/web").unwrap(), "web");
        assert_eq!(service("web").unwrap(), "web");
        for wrong in ["", "service/", "pod/web"] {
            assert!(service(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_rule_without_requests_says_who_gets_them() {
        let parent = serde_json::json!({"group": "", "kind": "Service", "name": "web"});
        let route = |name: &str, day: u8| {
            serde_json::from_value(serde_json::json!({
                "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
                "metadata": {"name": name, "namespace": "shop", "creationTimestamp": format!("2026-01-0{day}T00:00:00Z")},
                "spec": {"parentRefs": [parent], "rules": [{}]},
                "status": {"parents": [{
                    "controllerName": "linkerd.io/policy-controller", "parentRef": parent,
                    "conditions": [{"type": "Accepted", "status": "True"}],
                }]},
            }))
            .unwrap()
        };
        let service = serde_json::json!({
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 80}]},
        });
        let cluster = trellis_resilience::Cluster {
            services: vec![serde_json::from_value(service).unwrap()].into(),
            http_routes: vec![route("new", 2), route("old", 1)].into(),
            ..trellis_resilience::Cluster::of(trellis_resilience::Mesh::from_flag("2.20").unwrap())
        };
        let explained = trellis_resilience::explain(&cluster, "shop", "web", 80, "shop").unwrap();
        let shown = text(&explained).unwrap();
        let marked: Vec<_> = shown.iter().filter(|line| line.contains("no request")).collect();
        assert_eq!(
            marked,
            ["    no request: HTTPRoute shop/old is older, and for the same"]
        );
    }
}
