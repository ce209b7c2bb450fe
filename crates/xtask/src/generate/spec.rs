//! Tables in the spec pages, between `<!-- gen:NAME -->` and `<!-- /gen -->`; the words around them are written by hand.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use trellis_resilience::reason::Reason;
use trellis_sources::reason::Reason as SourceReason;

use super::Files;
use super::schema::{Crd, Field};
use crate::workspace::Workspace;

/// The spec page of every kind, with its tables renewed.
pub(crate) fn pages(workspace: &Workspace, crds: &[Crd]) -> Result<Files> {
    let mut pages = Files::new();
    for crd in crds {
        let path = PathBuf::from(format!("docs/spec/{}.md", name(crd.kind())));
        let page = std::fs::read_to_string(workspace.path(&path))
            .with_context(|| format!("{} needs a spec page {}", crd.kind(), path.display()))?;
        let mut text = page;
        for (name, table) in tables(crd) {
            text = renew(&text, name, &table).with_context(|| path.display().to_string())?;
        }
        pages.insert(path, text);
    }
    Ok(pages)
}

/// The name of a kind's page: its words in lower case with hyphens between them.
fn name(kind: &str) -> String {
    // Other pages link to the first one by its older name.
    if kind == "ResiliencePolicy" {
        return kind.to_lowercase();
    }
    let mut name = String::new();
    for letter in kind.chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('-');
        }
        name.extend(letter.to_lowercase());
    }
    name
}

fn tables(crd: &Crd) -> Vec<(&'static str, String)> {
    vec![
        ("spec", fields(&crd.fields("spec"))),
        ("status", fields(&crd.fields("status"))),
        (
            "rules",
            rows(["Where", "What the API server says"], rules(crd).into_iter()),
        ),
        ("reasons", rows(["Reason", "Means"], reasons(crd.kind()).into_iter())),
    ]
}

/// A row per message, with every place that gives it.
fn rules(crd: &Crd) -> Vec<[String; 2]> {
    let mut rules: Vec<[String; 2]> = Vec::new();
    for (place, message) in crd.rules("spec") {
        match rules.iter_mut().find(|[_, known]| *known == message) {
            Some([places, _]) => *places = format!("{places} `{place}`"),
            None => rules.push([format!("`{place}`"), message]),
        }
    }
    rules
}

/// The closed set of reasons of a kind, in the order in which its domain crate lists them.
fn reasons(kind: &str) -> Vec<[String; 2]> {
    match kind {
        "ExternalSource" => with_runtime(SourceReason::all().map(|reason| (reason.as_str(), reason.meaning()))),
        "ResiliencePolicy" => with_runtime(Reason::all().map(|reason| (reason.as_str(), reason.meaning()))),
        _ => Vec::new(),
    }
}

/// A kind's own reasons, then those that the runtime gives for every kind, unless the kind says more about one.
fn with_runtime(own: impl Iterator<Item = (&'static str, &'static str)>) -> Vec<[String; 2]> {
    let mut reasons: Vec<_> = own.collect();
    let known: Vec<_> = reasons.iter().map(|(name, _)| *name).collect();
    reasons.extend(
        trellis_runtime::reason::ALL
            .iter()
            .filter(|(name, _)| !known.contains(name)),
    );
    reasons
        .into_iter()
        .map(|(name, meaning)| [format!("`{name}`"), meaning.to_owned()])
        .collect()
}

/// Rows of the fields; those of a condition are Kubernetes' own, the same in every kind.
fn fields(fields: &[Field]) -> String {
    let own = fields
        .iter()
        .filter(|field| !field.path.starts_with("status.conditions[]."));
    let row = |field: &Field| {
        [
            format!("`{}`", field.path),
            field.kind.clone(),
            field.default.clone(),
            field.description.clone(),
        ]
    };
    rows(["Field", "Type", "Default", "Description"], own.map(row))
}

fn rows<const N: usize>(head: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let line = |cells: &[String]| {
        format!(
            "| {} |\n",
            cells.iter().map(|cell| cell_text(cell)).collect::<Vec<_>>().join(" | ")
        )
    };
    let mut table = line(&head.map(str::to_owned));
    table.push_str(&line(&[const { "---" }; N].map(str::to_owned)));
    for row in rows {
        table.push_str(&line(&row));
    }
    table
}

/// One line, and no bar that would end the cell.
fn cell_text(text: &str) -> String {
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .replace('|', "\\|")
}

/// The page with the text between the markers of this name replaced.
fn renew(page: &str, name: &str, table: &str) -> Result<String> {
    const END: &str = "<!-- /gen -->";
    let begin = format!("<!-- gen:{name} -->\n");
    let Some((before, rest)) = page.split_once(&begin) else {
        bail!("no line {}", begin.trim_end())
    };
    let Some((_, after)) = rest.split_once(END) else {
        bail!("no line {END} after {}", begin.trim_end())
    };
    Ok(format!("{before}{begin}{table}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_text_between_the_markers_changes() {
        let page = "# A\n<!-- gen:spec -->\nold\n<!-- /gen -->\nwords\n<!-- gen:rules -->\n<!-- /gen -->\n";
        let renewed = renew(page, "spec", "new\n").unwrap();
        assert_eq!(
            renewed,
            "# A\n<!-- gen:spec -->\nnew\n<!-- /gen -->\nwords\n<!-- gen:rules -->\n<!-- /gen -->\n"
        );
        assert_eq!(renew(&renewed, "spec", "new\n").unwrap(), renewed);
    }

    #[test]
    fn pages_are_named_after_their_kinds() {
        assert_eq!(name("ExternalSource"), "external-source");
        assert_eq!(name("Lamp"), "lamp");
        assert_eq!(name("ResiliencePolicy"), "resiliencepolicy");
    }

    #[test]
    fn a_missing_marker_is_named() {
        let error = renew("# A\n", "spec", "").unwrap_err().to_string();
        assert!(error.contains("<!-- gen:spec -->"), "{error}");
    }

    #[test]
    fn bars_and_line_ends_stay_inside_their_cell() {
        let table = rows(["A"], [["x | y\nz".to_owned()]].into_iter());
        assert_eq!(table, "| A |\n| --- |\n| x \\| y z |\n");
    }
}
