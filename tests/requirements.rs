//! The documents of the capabilities against what they speak of: every requirement and what shows it, every reason, every
//! command, every link. No plane is needed.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Output,
};

use trellis_resilience::Reason;
use trellis_testkit::operator::binary;

/// How many numbers each chapter of the requirement document has: 1.1 to 1.4, 2.1 to 2.5, …, 14.1 to 14.4.
const CHAPTERS: [u32; 14] = [4, 5, 7, 7, 5, 5, 4, 4, 5, 4, 4, 4, 5, 4];
/// How many properties there are, P1 to P13.
const PROPERTIES: u32 = 13;
/// The page that maps them.
const MAP: &str = "docs/resilience/requirements.md";
/// The page that maps what is asked of sources.
const SOURCES: &str = "docs/sources/requirements.md";
const RUNBOOK: &str = "docs/resilience/runbook.md";
/// Pages whose commands and links are looked at.
const PAGES: [&str; 9] = [
    SOURCES,
    "docs/sources/runbook.md",
    "docs/sources/hooks.md",
    "docs/sources/security.md",
    RUNBOOK,
    MAP,
    "docs/resilience/architecture.md",
    "docs/resilience/mtls.md",
    "docs/resilience/migration.md",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The cells of every row of a page's tables.
fn rows(text: &str) -> Vec<Vec<String>> {
    let lines = text
        .lines()
        .filter(|line| line.starts_with('|') && !line.starts_with("|---"));
    lines
        .map(|line| {
            line.trim_matches('|')
                .split(" | ")
                .map(|cell| cell.trim().to_owned())
                .collect()
        })
        .collect()
}

/// What stands between backticks.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// What keeps a reference from showing anything.
fn fault(reference: &str) -> Option<String> {
    if let Some(group) = reference.strip_prefix("cargo xtask test ") {
        let known = text("crates/xtask/src/test/group.rs").contains(&format!("name: \"{group}\""));
        return (!known).then(|| format!("there is no group {group}"));
    }
    if reference.starts_with("trellis ") {
        // Commands are looked at in every page below.
        return None;
    }
    let (path, function) = reference.split_once("::").unwrap_or((reference, ""));
    if function.is_empty() {
        return (!root().join(path).exists()).then(|| format!("there is no file {path}"));
    }
    let Ok(source) = fs::read_to_string(root().join(path)) else {
        return Some(format!("there is no file {path}"));
    };
    let Some(at) = source.find(&format!("fn {function}(")) else {
        return Some(format!("{path} has no function {function}"));
    };
    // From the end of what comes before, the attributes of this one.
    let before = &source[..at];
    let start = before
        .rfind("\n}")
        .or_else(|| before.rfind("\n    }"))
        .unwrap_or_default();
    let is_test = ["#[test]", "#[rstest]", "#[tokio::test"]
        .iter()
        .any(|attribute| before[start..].contains(attribute));
    (!is_test).then(|| format!("{path}: {function} is no test"))
}

/// The properties that a cell names by number.
fn properties(cell: &str) -> impl Iterator<Item = String> {
    let words = cell.split([',', ' ']).filter(|word| word.starts_with('P'));
    words.filter(|word| word[1..].parse::<u32>().is_ok()).map(str::to_owned)
}

#[test]
fn every_requirement_is_shown_by_what_exists() {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let is_number = |cell: &str| {
        cell.trim_start_matches('P')
            .split('.')
            .all(|part| part.parse::<u32>().is_ok())
    };
    for row in rows(&text(MAP)).into_iter().filter(|row| is_number(&row[0])) {
        assert_eq!(row.len(), 3, "{row:?}");
        let shown = quoted(&row[2])
            .into_iter()
            .map(str::to_owned)
            .chain(properties(&row[2]));
        let known = found.insert(row[0].clone(), shown.collect());
        assert_eq!(known, None, "{} is there twice", row[0]);
    }
    let asked = (1..)
        .zip(CHAPTERS)
        .flat_map(|(chapter, numbers)| (1..=numbers).map(move |number| format!("{chapter}.{number}")));
    let wanted: BTreeSet<String> = asked
        .chain((1..=PROPERTIES).map(|number| format!("P{number}")))
        .collect();
    assert_eq!(found.keys().cloned().collect::<BTreeSet<_>>(), wanted);
    for (number, references) in &found {
        assert!(!references.is_empty(), "{number}: nothing shows it");
        for reference in references {
            let fault = if found.contains_key(reference) {
                None
            } else {
                fault(reference)
            };
            assert_eq!(fault, None, "{number}");
        }
    }
}

#[test]
fn what_is_asked_of_sources_is_shown_by_what_exists() {
    let rows = rows(&text(SOURCES));
    assert!(rows.len() > 40, "{}", rows.len());
    for row in rows.iter().filter(|row| row[1] != "Shown by") {
        assert_eq!(row.len(), 2, "{row:?}");
        let references = quoted(&row[1]);
        assert!(!references.is_empty(), "{}: nothing shows it", row[0]);
        for reference in references {
            assert_eq!(fault(reference), None, "{}", row[0]);
        }
    }
}

#[test]
fn a_reference_to_nothing_is_a_fault() {
    for wrong in [
        "cargo xtask test nothing",
        "tests/nothing.rs",
        "tests/requirements.rs::nothing",
        "tests/requirements.rs::quoted",
        "tests/requirements.rs::root",
    ] {
        assert!(fault(wrong).is_some(), "{wrong}");
    }
    for right in [
        "cargo xtask test unit",
        "README.md",
        "tests/requirements.rs::a_reference_to_nothing_is_a_fault",
        "crates/resilience/tests/explain.rs::explain_is_true",
    ] {
        assert_eq!(fault(right), None);
    }
}

#[test]
fn every_reason_is_in_the_runbook() {
    let kinds = Reason::all().map(Reason::as_str);
    let all: BTreeSet<&str> = kinds
        .chain(trellis_runtime::reason::ALL.iter().map(|(reason, _)| *reason))
        .collect();
    let runbook = text(RUNBOOK);
    let (_, table) = runbook.split_once("### By reason").unwrap();
    let table = table.split("\n### ").next().unwrap();
    let rows = rows(table);
    let named: Vec<&str> = rows.iter().flat_map(|row| quoted(&row[0])).collect();
    assert_eq!(named.iter().copied().collect::<BTreeSet<_>>(), all);
    assert_eq!(named.len(), all.len(), "a reason is there twice");
}

/// The commands of a page: lines of code blocks, after a `$` or not.
fn commands(text: &str) -> Vec<Vec<String>> {
    let blocks = text.split("```").skip(1).step_by(2);
    let fenced = blocks.filter(|block| block.starts_with("sh\n") || block.starts_with("console\n"));
    let lines = fenced
        .flat_map(|block| block.lines().skip(1))
        .map(|line| line.trim_start_matches("$ "));
    let inline = text.lines().flat_map(|line| quoted(line)).collect::<Vec<_>>();
    let all = lines.chain(inline).filter(|line| line.starts_with("trellis "));
    all.map(|line| line.split([' ', '=']).skip(1).map(str::to_owned).collect())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_exists_with_its_flags() {
    let program = binary().await.unwrap();
    let mut seen = BTreeSet::new();
    for page in PAGES
        .iter()
        .chain(&["README.md", "docs/spec/resiliencepolicy.md", "examples/README.md"])
    {
        for words in commands(&text(page)) {
            let deep = ["dev", "crds", "migrate", "source"].contains(&words[0].as_str());
            let command: Vec<&String> = words.iter().take(if deep { 2 } else { 1 }).collect();
            let Output { status, stdout, .. } = tokio::process::Command::new(&program)
                .args(&command)
                .arg("--help")
                .output()
                .await
                .unwrap();
            assert!(status.success(), "{page}: trellis {}", words.join(" "));
            let help = String::from_utf8(stdout).unwrap();
            for flag in words.iter().filter(|word| word.starts_with("--")) {
                assert!(
                    help.contains(flag.as_str()),
                    "{page}: trellis {}: {flag}",
                    words.join(" ")
                );
            }
            seen.insert(words[0].clone());
        }
    }
    for command in [
        "adopt",
        "crds",
        "dev",
        "diff",
        "doctor",
        "explain",
        "hooks",
        "lint",
        "migrate",
        "operator",
        "reconcile",
        "resume",
        "source",
        "suspend",
    ] {
        assert!(seen.contains(command), "no page speaks of trellis {command}");
    }
}

/// Other pages that a page links to, by their paths from the root.
fn links(page: &str) -> Vec<PathBuf> {
    let text = text(page);
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let here = targets.filter(|target| !target.contains("://") && !target.starts_with('#'));
    let folder = Path::new(page).parent().unwrap();
    here.map(|target| folder.join(target.split('#').next().unwrap()))
        .collect()
}

#[test]
fn every_link_leads_somewhere() {
    for page in PAGES {
        for link in links(page) {
            assert!(root().join(&link).exists(), "{page} links to {}", link.display());
        }
    }
    let start: Vec<PathBuf> = links("README.md");
    for page in PAGES {
        assert!(
            start.iter().any(|link| link == Path::new(page)),
            "README.md does not link to {page}"
        );
    }
}
