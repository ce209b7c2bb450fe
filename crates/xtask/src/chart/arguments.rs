//! What the chart starts, as the real binary takes it.
//!
//! ```text
//!  operator ─▶ read its arguments, then "no cluster"       hooks ─▶ serves with its whitelist, then SIGTERM ─▶ 0
//! ```
//!
//! Without a cluster the operator ends right after it has read its arguments. That end is what is expected: a refusal of
//! an argument has another message and comes first. A variable that the binary does not know would be passed over in
//! silence, so each has to be named by its help.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use trellis_devplane::{Process, Signal};

use super::pod::{Pod, Start};
use crate::peers::block_on;
use crate::workspace::output;

/// What the operator says when it has read its arguments and finds no cluster.
const NO_CLUSTER: &str = "no cluster";
/// What the sidecar says when it listens.
pub(super) const SERVES: &str = "serving hooks";
/// How long it may take until it does, or until it has ended.
const PATIENCE: Duration = Duration::from_secs(30);
/// Variables that are read and have no flag: the log's, secrets, and what every client of HTTP knows.
const WITHOUT_FLAG: &[&str] = &[
    "RUST_LOG",
    "S3_ACCESS_KEY_ID",
    "S3_SECRET_ACCESS_KEY",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "POD_IPS",
];

/// Starts the binary as every container does.
pub(crate) fn taken(binary: &Path, objects: &[Value]) -> Result<()> {
    let pods = objects
        .iter()
        .filter_map(|object| object.pointer("/spec/template/spec"));
    let mut started = 0;
    for spec in pods {
        let pod = Pod::lay_out(spec, objects)?;
        for container in pod.containers("containers") {
            operator(binary, &pod.start(container)?)?;
            started += 1;
        }
        for container in pod.containers("initContainers") {
            let log = pod.root().join("log");
            block_on(sidecar(binary, &pod.start(container)?, &log))??;
        }
    }
    ensure!(started > 0, "no container was rendered");
    Ok(())
}

fn operator(binary: &Path, start: &Start) -> Result<()> {
    let output = command(binary, start)
        .env("KUBECONFIG", "/nonexistent/kubeconfig")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", binary.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        !output.status.success() && said.contains(NO_CLUSTER),
        "the binary does not take {}: {}",
        start.arguments.join(" "),
        said.trim()
    );
    Ok(())
}

async fn sidecar(binary: &Path, start: &Start, log: &Path) -> Result<()> {
    let process = Process::spawn("hooks", &command(binary, start), log)?;
    let said = || std::fs::read_to_string(log).unwrap_or_default();
    let serves = async {
        while process.running() && !said().contains(SERVES) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, serves).await;
    process.signal(Signal::Term);
    let ended = tokio::time::timeout(PATIENCE, process.exited()).await;
    let said = said();
    ensure!(
        waited.is_ok() && said.contains(SERVES),
        "the sidecar does not serve with {}: {}",
        start.arguments.join(" "),
        said.trim()
    );
    for bad in ["the last good one counts", "panicked"] {
        ensure!(!said.contains(bad), "the sidecar is not content: {}", said.trim());
    }
    match ended {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => bail!("told to end, the sidecar ended with {status}: {}", said.trim()),
        Err(_) => bail!("told to end, the sidecar does not: {}", said.trim()),
    }
}

/// The binary as a container starts it.
pub(super) fn command(binary: &Path, start: &Start) -> Command {
    let mut command = Command::new(binary);
    command
        .args(&start.arguments)
        .env_clear()
        .envs(start.environment.iter().map(|(name, value)| (name, value)));
    command
}

/// That the binary reads every variable that a container is given.
pub(crate) fn variables_are_known(binary: &Path, objects: &[Value]) -> Result<()> {
    let containers = objects
        .iter()
        .filter_map(|object| object.pointer("/spec/template/spec"));
    let kinds = ["/containers", "/initContainers"];
    let containers = containers.flat_map(|spec| kinds.iter().filter_map(|kind| spec.pointer(kind)?.as_array()));
    for container in containers.flatten() {
        let strings = |key: &str, field: &str| -> Vec<String> {
            let listed = container.get(key).and_then(Value::as_array).into_iter().flatten();
            let texts = listed.filter_map(|one| one.pointer(field)?.as_str().map(str::to_owned));
            texts.collect()
        };
        let arguments = strings("args", "");
        let verb = arguments.first().context("a container without arguments")?;
        let help = output(Command::new(binary).args([verb, "--help"]).env_clear())?;
        let passed = arguments.iter().find_map(|argument| argument.strip_prefix("--pass="));
        let passed: BTreeSet<&str> = passed.into_iter().flat_map(|names| names.split(',')).collect();
        for name in strings("env", "/name") {
            ensure!(
                help.contains(&format!("[env: {name}="))
                    || WITHOUT_FLAG.contains(&name.as_str())
                    || passed.contains(name.as_str()),
                "trellis {verb} reads no {name}"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(kind: &str, arguments: &[&str], variable: &str) -> Value {
        let containers = json!([{"args": arguments, "env": [{"name": variable, "value": "1"}]}]);
        json!({"spec": {"template": {"spec": {kind: containers}}}})
    }

    #[test]
    fn another_end_than_the_missing_cluster_is_a_fault() {
        let shell = Path::new("/bin/sh");
        let taken = |script: &str| taken(shell, &[pod("containers", &["-c", script], "A")]);
        assert!(taken("echo 'error: no cluster' >&2; exit 1").is_ok());
        assert!(taken("echo 'error: unexpected argument' >&2; exit 2").is_err());
        assert!(super::taken(shell, &[]).is_err());
    }

    #[test]
    fn a_sidecar_serves_is_content_and_ends_when_it_is_told_to() {
        let shell = Path::new("/bin/sh");
        let first = pod("containers", &["-c", "echo no cluster >&2; exit 1"], "A");
        let served = |script: &str| {
            let mut both = first.clone();
            let sidecar = pod("initContainers", &["-c", script], "A");
            both["spec"]["template"]["spec"]["initContainers"] =
                sidecar["spec"]["template"]["spec"]["initContainers"].clone();
            taken(shell, &[both])
        };
        let serve = "trap 'exit 0' TERM; echo serving hooks; while :; do /bin/sleep 0.05; done";
        served(serve).unwrap();
        for (script, named) in [
            ("exit 2".to_owned(), "does not serve"),
            (serve.replace("exit 0", "exit 3"), "ended with"),
            (format!("echo broken: the last good one counts; {serve}"), "not content"),
        ] {
            let error = served(&script).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn a_variable_that_nobody_reads_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        std::fs::write(&program, "#!/bin/sh\necho '--a <A> [env: KNOWN=]'\n").unwrap();
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let known =
            |name: &str, arguments: &[&str]| variables_are_known(&program, &[pod("containers", arguments, name)]);
        assert!(known("KNOWN", &["verb"]).is_ok());
        assert!(known("RUST_LOG", &["verb"]).is_ok());
        assert!(known("LANG", &["verb", "--pass=A,LANG"]).is_ok());
        assert_eq!(
            known("KNOW", &["verb"]).unwrap_err().to_string(),
            "trellis verb reads no KNOW"
        );
    }
}
