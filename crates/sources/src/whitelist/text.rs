//! From YAML to a [`Whitelist`]: strict, bounded, and with a message for whoever wrote it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Component, Path, PathBuf},
};

use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};
use trellis_core::Digest;

use super::{BadWhitelist, LIMIT, Rule, Whitelist};

/// Most commands.
const COMMANDS: usize = 256;
/// Most patterns of one command.
const PATTERNS: usize = 64;
/// Most variables of one command.
const VARIABLES: usize = 64;
/// Largest compiled pattern, in bytes.
const PATTERN_SIZE: usize = 1 << 20;

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    commands: Option<BTreeMap<String, Entry>>,
    #[serde(default)]
    namespaces: Option<BTreeMap<String, Policy>>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Entry {
    #[serde(default)]
    allowed: bool,
    #[serde(default)]
    argument_patterns: Option<Vec<String>>,
    #[serde(default)]
    path: Option<String>,
    #[serde(default)]
    sha256: Option<String>,
    // Left out where it is not written: rules of before have the version that they had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    env: Option<Vec<String>>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Policy {
    #[serde(default)]
    commands: Vec<String>,
}

pub(super) fn parse(text: &str) -> Result<Whitelist, BadWhitelist> {
    if text.len() as u64 > LIMIT {
        return Err(BadWhitelist(format!("the whitelist has more than {LIMIT} bytes")));
    }
    let file: Option<File> = serde_saphyr::from_str(text).map_err(|error| {
        BadWhitelist(format!(
            // The parser quotes the place on lines of its own, so what is to be written comes first.
            "the whitelist is not understood (a command has allowed, argumentPatterns, env, path and sha256, a namespace has commands): {error}"
        ))
    })?;
    let file = file.unwrap_or_default();
    // Maps are sorted, so the same rules give the same bytes.
    let bytes = serde_json::to_vec(&file).map_err(|error| BadWhitelist(error.to_string()))?;
    let entries = file.commands.unwrap_or_default();
    if entries.len() > COMMANDS {
        return Err(BadWhitelist(format!("the whitelist has more than {COMMANDS} commands")));
    }
    let commands: BTreeMap<String, Rule> = entries
        .into_iter()
        .map(|(name, entry)| Ok((name.clone(), rule(&name, entry)?)))
        .collect::<Result<_, _>>()?;
    let namespaces = file.namespaces.map(|all| {
        all.into_iter()
            .map(|(namespace, policy)| (namespace, policy.commands))
            .collect::<BTreeMap<_, _>>()
    });
    for (namespace, names) in namespaces.iter().flatten() {
        if let Some(name) = names.iter().find(|name| !commands.contains_key(*name)) {
            return Err(BadWhitelist(format!(
                "namespace {namespace} names command {name:?}, which is not in commands"
            )));
        }
    }
    Ok(Whitelist {
        commands,
        namespaces,
        version: Digest::of(&bytes).hex(),
    })
}

fn rule(name: &str, entry: Entry) -> Result<Rule, BadWhitelist> {
    let bad = |why: String| BadWhitelist(format!("command {name:?}: {why}"));
    if name.is_empty() || name.contains('/') && !absolute(name) {
        return Err(bad("write a bare name or an absolute path without . and ..".to_owned()));
    }
    let path = match entry.path {
        Some(path) if !absolute(&path) => {
            return Err(bad(format!("path {path:?} is not absolute, or holds . or ..")));
        }
        Some(path) if name.starts_with('/') && path != name => {
            return Err(bad(format!("path {path:?} differs from the command; leave it out")));
        }
        path => path.map(PathBuf::from),
    };
    if let Some(sum) = &entry.sha256
        && (sum.len() != 64 || !sum.bytes().all(|byte| byte.is_ascii_hexdigit()))
    {
        return Err(bad("sha256 is not 64 hexadecimal digits".to_owned()));
    }
    let patterns = entry.argument_patterns.unwrap_or_default();
    if patterns.len() > PATTERNS {
        return Err(bad(format!("it has more than {PATTERNS} patterns")));
    }
    let patterns = patterns
        .into_iter()
        .map(|pattern| match anchored(&pattern) {
            Ok(regex) => Ok((pattern, regex)),
            Err(error) => Err(bad(format!("pattern {pattern:?} is no regular expression: {error}"))),
        })
        .collect::<Result<_, _>>()?;
    let env = entry.env.map(BTreeSet::from_iter);
    for name in env.iter().flatten() {
        if !variable(name) {
            return Err(bad(format!(
                "env has {name:?}, which is no name of a variable; use letters, digits and _"
            )));
        }
    }
    if env.as_ref().is_some_and(|names| names.len() > VARIABLES) {
        return Err(bad(format!("it has more than {VARIABLES} variables")));
    }
    let sha256 = entry.sha256.map(|sum| sum.to_ascii_lowercase());
    Ok(Rule {
        allowed: entry.allowed,
        patterns,
        path,
        sha256,
        env,
    })
}

fn variable(name: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.chars().all(good) && name.chars().next().is_some_and(|c| !c.is_ascii_digit())
}

/// A pattern that matches only a whole argument. It is compiled alone first, so that it cannot close our bracket.
fn anchored(pattern: &str) -> Result<Regex, regex::Error> {
    let compile = |pattern: &str| RegexBuilder::new(pattern).size_limit(PATTERN_SIZE).build();
    compile(pattern)?;
    compile(&format!(r"\A(?:{pattern})\z"))
}

fn absolute(path: &str) -> bool {
    let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    let parts = Path::new(path);
    path.starts_with('/') && parts.file_name().is_some() && parts.components().all(plain) && !path.ends_with("/.")
}
