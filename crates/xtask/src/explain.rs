//! `explain`: what a user reads who asks kubectl. On a real API server, every field of every kind has a description.
//!
//! ```text
//!  plane ─▶ kubectl apply api::definitions ─▶ kubectl explain --recursive ─▶ paths ─▶ kubectl explain each ─▶ empty?
//! ```

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use trellis_devplane::{Binaries, Builder, ControlPlane, Kubernetes, cache_directory, peers, progress};

use crate::peers::block_on;
use crate::workspace::Workspace;

/// How long the API server may take to serve a kind that was just applied.
const SERVED: Duration = Duration::from_secs(30);

/// Boots a plane, applies our kinds and asks for every field.
pub(crate) fn run(_: &Workspace) -> Result<()> {
    block_on(ask())?
}

async fn ask() -> Result<()> {
    let builder = Builder::new(cache_directory()?, Arc::new(progress::Lines));
    let binaries = builder.build(&peers::kubectl::peer(Kubernetes::default())).await?;
    let plane = ControlPlane::options().start().await?;
    let kubectl = Kubectl {
        binaries: &binaries,
        kubeconfig: plane.kubeconfig(),
    };
    let asked = kinds(&kubectl).await;
    plane.stop().await?;
    asked
}

async fn kinds(kubectl: &Kubectl<'_>) -> Result<()> {
    let all = serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": trellis_api::crds() });
    let file = std::env::temp_dir().join(format!("trellis-definitions-{}.json", std::process::id()));
    std::fs::write(&file, all.to_string()).with_context(|| format!("cannot write {}", file.display()))?;
    let path = file.display().to_string();
    let applied = async {
        kubectl.run(&["apply", "--server-side", "--filename", &path]).await?;
        let wait = [
            "wait",
            "--for=condition=Established",
            "--timeout=30s",
            "--filename",
            &path,
        ];
        kubectl.run(&wait).await
    };
    let applied = applied.await;
    std::fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
    applied?;
    let mut empty = Vec::new();
    for crd in trellis_api::crds() {
        let resource = format!("{}.{}", crd.spec.names.plural, crd.spec.group);
        let plural = &crd.spec.names.plural;
        let fields = paths(&kubectl.served(&["explain", plural, "--recursive"]).await?);
        ensure!(
            fields.iter().any(|path| path.starts_with("spec.")),
            "kubectl explains no field of {resource}"
        );
        for path in &fields {
            if !described(&kubectl.run(&["explain", &format!("{plural}.{path}")]).await?) {
                empty.push(format!("{plural}.{path}"));
            }
        }
        eprintln!("explain: {resource}: {} fields", fields.len());
    }
    if !empty.is_empty() {
        bail!("kubectl explain has no description for {}", empty.join(", "));
    }
    Ok(())
}

struct Kubectl<'a> {
    binaries: &'a Binaries,
    kubeconfig: &'a Path,
}

impl Kubectl<'_> {
    async fn run(&self, arguments: &[&str]) -> Result<String> {
        let shown = arguments.join(" ");
        let output = peers::kubectl::command(self.binaries, self.kubeconfig)?
            .args(arguments)
            .output()
            .await
            .with_context(|| format!("cannot start kubectl {shown}"))?;
        if !output.status.success() {
            bail!("kubectl {shown}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        String::from_utf8(output.stdout).with_context(|| format!("kubectl {shown} did not write UTF-8"))
    }

    /// Like `run`, until the API server serves what is asked for: it publishes a new schema a moment late.
    async fn served(&self, arguments: &[&str]) -> Result<String> {
        let start = Instant::now();
        loop {
            match self.run(arguments).await {
                Err(error) if start.elapsed() > SERVED => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
                answer => return answer,
            }
        }
    }
}

/// The fields that `kubectl explain --recursive` lists, dotted; those inside `metadata` are Kubernetes' own.
fn paths(text: &str) -> Vec<String> {
    let mut stack: Vec<(usize, &str)> = Vec::new();
    let mut paths = Vec::new();
    for line in text.lines().skip_while(|line| !line.starts_with("FIELDS:")) {
        let Some((name, _type)) = line.split_once("\t<") else {
            continue;
        };
        let depth = name.len() - name.trim_start().len();
        stack.retain(|(above, _)| *above < depth);
        stack.push((depth, name.trim()));
        let names: Vec<&str> = stack.iter().map(|(_, name)| *name).collect();
        if names.len() == 1 || names.first() != Some(&"metadata") {
            paths.push(names.join("."));
        }
    }
    paths
}

/// Whether `kubectl explain` of a field says something.
fn described(text: &str) -> bool {
    let description = text
        .lines()
        .skip_while(|line| !line.starts_with("DESCRIPTION:"))
        .skip(1);
    let first = description.map(str::trim).find(|line| !line.is_empty());
    first.is_some_and(|line| line != "<empty>" && line != "FIELDS:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_fields_become_dotted_paths() {
        let text = "KIND:  Lamp\n\nDESCRIPTION:\n  <empty>\nFIELDS:\n  kind\t<string>\n  metadata\t<ObjectMeta>\n    \
            name\t<string>\n  spec\t<Object> -required-\n    bulbs\t<[]Object>\n      size\t<string>\n      enum: a, b\n    \
            room\t<string>\n  status\t<Object>\n";
        assert_eq!(
            paths(text),
            [
                "kind",
                "metadata",
                "spec",
                "spec.bulbs",
                "spec.bulbs.size",
                "spec.room",
                "status"
            ]
        );
    }

    #[test]
    fn an_empty_description_is_seen() {
        assert!(described(
            "FIELD: room <string>\n\nDESCRIPTION:\n    Where it hangs.\n\n"
        ));
        assert!(!described("FIELD: room <string>\n\nDESCRIPTION:\n    <empty>\n\n"));
        assert!(!described("FIELD: room <string>\n"));
    }
}
