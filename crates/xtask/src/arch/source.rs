//! What every source file must look like, whoever wrote it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::workspace::Workspace;

/// A file holds one noun; above this many lines it holds more.
const LINES: usize = 400;

/// Crates whose code is pure: they may use kube's types, but none of its clients.
const PURE: &[&str] = &[
    "crates/core",
    "crates/api",
    "crates/bindings",
    "crates/graph",
    "crates/cilium",
    "crates/resilience",
    "crates/sources",
    "crates/clusters",
    "crates/mesh",
    "crates/environments",
    "tests/model",
];

/// What reaches a cluster, an executor, a clock, the environment or chance.
const REACHES_OUT: &[&str] = &[
    "kube::Client",
    "kube::client",
    "kube::Api<",
    "kube::Api;",
    "kube::Api,",
    "kube::api::Api",
    "kube::runtime",
    "kube::Config",
    "async fn ",
];

/// Every file that breaks a rule, one line each.
pub(crate) fn faults(workspace: &Workspace) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for top in ["crates", "tests", "benches"] {
        collect(&workspace.path(top), &mut files)?;
    }
    files.sort();
    let mut faults = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        faults.extend(judge(workspace.relative(&file), &text));
    }
    Ok(faults)
}

/// Every Rust file below the folder; build output is not source.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry
            .with_context(|| format!("cannot read {}", folder.display()))?
            .path();
        if path.is_dir() {
            if path.file_name().is_none_or(|name| name != "target") {
                collect(&path, files)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

fn judge(path: &Path, text: &str) -> Vec<String> {
    let shown = path.display();
    let generated = path.starts_with("crates/bindings/src/generated");
    let mut faults = Vec::new();
    let lines = text.lines().count();
    if lines > LINES && !generated {
        faults.push(format!(
            "{shown}: {lines} lines; a file holds one noun in at most {LINES}"
        ));
    }
    if path.file_name().is_some_and(|name| name == "mod.rs") {
        faults.push(format!("{shown}: a module's file is named after it, beside its folder"));
    }
    let in_src = PURE.iter().any(|pure| path.starts_with(format!("{pure}/src")));
    for (number, line) in text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim_start()))
    {
        let attribute = line.strip_prefix("#![").or_else(|| line.strip_prefix("#["));
        if attribute.is_some_and(|rest| rest.starts_with("allow(")) && !generated {
            faults.push(format!("{shown}:{number}: write `expect` with a reason, not `allow`"));
        }
        if attribute.is_some_and(|rest| rest.starts_with("expect(")) && !has_reason(text, number) {
            faults.push(format!("{shown}:{number}: an expected lint needs its reason"));
        }
        if in_src
            && !line.starts_with("//")
            && let Some(word) = REACHES_OUT.iter().find(|word| line.contains(**word))
        {
            faults.push(format!(
                "{shown}:{number}: `{}` reaches out of a pure crate",
                word.trim()
            ));
        }
    }
    faults
}

/// Whether the attribute that starts on this line gives a reason before it closes.
fn has_reason(text: &str, number: usize) -> bool {
    let mut attribute = String::new();
    for line in text.lines().skip(number - 1) {
        attribute.push_str(line);
        if line.trim_end().ends_with(']') {
            break;
        }
    }
    attribute.contains("reason")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_file_passes() {
        assert!(judge(Path::new("crates/core/src/lib.rs"), "//! Header.\nfn main() {}\n").is_empty());
    }

    #[test]
    fn length_counts_except_in_generated_bindings() {
        let long = "//\n".repeat(LINES + 1);
        assert_eq!(judge(Path::new("crates/core/src/lib.rs"), &long).len(), 1);
        assert!(judge(Path::new("crates/bindings/src/generated/cilium.rs"), &long).is_empty());
    }

    #[test]
    fn a_module_is_named_after_itself() {
        assert_eq!(judge(Path::new("crates/core/src/name/mod.rs"), "").len(), 1);
    }

    #[test]
    fn lint_exceptions_carry_reasons() {
        let path = Path::new("crates/cli/src/main.rs");
        assert_eq!(judge(path, "#[allow(dead_code)]\nfn main() {}").len(), 1);
        assert_eq!(judge(path, "#[expect(dead_code)]\nfn main() {}").len(), 1);
        assert!(judge(path, "#[expect(dead_code, reason = \"later\")]").is_empty());
        assert!(judge(path, "#[expect(\n    dead_code,\n    reason = \"later\"\n)]").is_empty());
    }

    #[test]
    fn pure_crates_hold_no_client() {
        assert_eq!(
            judge(Path::new("crates/resilience/src/lib.rs"), "use kube::Client;").len(),
            1
        );
        assert!(judge(Path::new("crates/resilience/src/lib.rs"), "use kube::ResourceExt;").is_empty());
        assert!(judge(Path::new("crates/runtime/src/lib.rs"), "use kube::Client;").is_empty());
    }
}
