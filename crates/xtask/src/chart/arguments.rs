//! The arguments that the chart renders, as the real binary takes them.
//!
//! Without a cluster the operator ends right after it has read its arguments. That end is what is expected: a refusal of
//! an argument has another message and comes first.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// What the operator says when it has read its arguments and finds no cluster.
const NO_CLUSTER: &str = "no cluster";

/// Starts the binary with the arguments and the environment of every container, and with a kubeconfig that is not there.
pub(crate) fn taken(binary: &Path, objects: &[Value]) -> Result<()> {
    let containers: Vec<&Value> = objects
        .iter()
        .filter_map(|object| object.pointer("/spec/template/spec/containers")?.as_array())
        .flatten()
        .collect();
    ensure!(!containers.is_empty(), "no container was rendered");
    for container in containers {
        let environment = environment(container);
        let arguments = arguments(container, &environment)?;
        let output = Command::new(binary)
            .args(&arguments)
            .env_clear()
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .env("KUBECONFIG", "/nonexistent/kubeconfig")
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            !output.status.success() && said.contains(NO_CLUSTER),
            "the binary does not take {}: {}",
            arguments.join(" "),
            said.trim()
        );
    }
    Ok(())
}

/// The container's variables; what a Pod would fill in gets the name of its field.
fn environment(container: &Value) -> Vec<(String, String)> {
    let listed = container.get("env").and_then(Value::as_array).into_iter().flatten();
    listed
        .filter_map(|variable| {
            let name = variable.get("name")?.as_str()?.to_owned();
            let value = variable.get("value").and_then(Value::as_str);
            let value = value.or_else(|| variable.pointer("/valueFrom/fieldRef/fieldPath")?.as_str());
            Some((name, value?.to_owned()))
        })
        .collect()
}

/// The arguments, with variables filled in as the kubelet does.
fn arguments(container: &Value, environment: &[(String, String)]) -> Result<Vec<String>> {
    let arguments = container.get("args").and_then(Value::as_array);
    let arguments = arguments.context("a container without arguments")?;
    arguments
        .iter()
        .map(|argument| {
            let argument = argument.as_str().context("an argument that is no string")?;
            Ok(environment.iter().fold(argument.to_owned(), |argument, (name, value)| {
                argument.replace(&format!("$({name})"), value)
            }))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn variables_are_filled_in_as_the_kubelet_does() {
        let container = json!({
            "args": ["operator", "--identity=$(POD_NAME)", "--log=json"],
            "env": [
                {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "RUST_LOG", "value": "info"},
            ],
        });
        let environment = environment(&container);
        assert_eq!(environment[1], ("RUST_LOG".to_owned(), "info".to_owned()));
        assert_eq!(
            arguments(&container, &environment).unwrap(),
            ["operator", "--identity=metadata.name", "--log=json"]
        );
        assert!(arguments(&json!({}), &[]).is_err());
    }

    #[test]
    fn another_end_than_the_missing_cluster_is_a_fault() {
        let pod = |arguments: &[&str]| json!({"spec": {"template": {"spec": {"containers": [{"args": arguments}]}}}});
        let shell = Path::new("/bin/sh");
        assert!(taken(shell, &[pod(&["-c", "echo 'error: no cluster' >&2; exit 1"])]).is_ok());
        assert!(taken(shell, &[pod(&["-c", "echo 'error: unexpected argument' >&2; exit 2"])]).is_err());
        assert!(taken(shell, &[]).is_err());
    }
}
