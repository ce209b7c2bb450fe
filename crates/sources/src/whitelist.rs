//! `Whitelist`: which commands hooks may run, with which arguments, for which namespaces.
//!
//! ```text
//!  YAML ─▶ parse (bounded, strict) ─▶ Whitelist ─▶ allows(namespace, command, args) ─▶ Allowed │ Refusal
//!                                         └─▶ version (for the pipeline hash), lint (warnings)
//! ```
//!
//! ```yaml
//! commands:
//!   jq: { allowed: true, argumentPatterns: ['-c', '\.[a-z.]+'] }          # a bare name: in the executor's path
//!   /opt/render: { allowed: true, sha256: 2c26…, argumentPatterns: [] }   # an absolute path; no patterns: any arguments
//!   yq: { allowed: true, path: /usr/bin/yq, env: [MODE] }                 # a bare name that is this file; one variable
//! namespaces:                                                            # optional; without it: every namespace
//!   team-a: { commands: [jq] }
//!   '*': { commands: [yq] }                                               # namespaces that are not listed
//! ```
//!
//! Invariants: what is not listed is denied; a pattern must match an argument as a whole; a command is never matched by
//! its last name alone: for a path whose last part is a listed bare name, the executor checks that it is that very file.

mod lint;
mod text;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
};

use regex::Regex;
use trellis_core::Refusal;

pub use lint::Warning;

/// Reason of every refusal here.
pub const REASON: &str = "AccessDenied";
/// Largest file, in bytes: 256 KiB.
pub const LIMIT: u64 = 256 * 1024;
/// The entry for namespaces that are not listed.
const REST: &str = "*";

/// Which commands hooks may run.
#[derive(Debug, Clone)]
pub struct Whitelist {
    commands: BTreeMap<String, Rule>,
    /// Commands by namespace; `None`: every namespace may use every command.
    namespaces: Option<BTreeMap<String, Vec<String>>>,
    version: String,
}

/// The rule for one command.
#[derive(Debug, Clone)]
struct Rule {
    allowed: bool,
    /// As written, and anchored.
    patterns: Vec<(String, Regex)>,
    path: Option<PathBuf>,
    sha256: Option<String>,
    /// Names of variables that a hook may set; `None`: any that the executor does not refuse.
    env: Option<BTreeSet<String>>,
}

/// The program that is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// A bare name, found in the executor's fixed path; a command asked for by path must be that very file.
    Named(String),
    /// Exactly this absolute path.
    File(PathBuf),
}

/// Leave to run a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed {
    /// The program.
    pub program: Program,
    /// SHA-256 that its file must have, in lower-case hexadecimal.
    pub sha256: Option<String>,
}

/// Why a text is no whitelist. Displayed as one sentence that names the command and says what to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadWhitelist(pub(crate) String);

impl fmt::Display for BadWhitelist {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for BadWhitelist {}

impl Whitelist {
    /// Reads a whitelist. An empty text allows nothing.
    pub fn parse(text: &str) -> Result<Self, BadWhitelist> {
        text::parse(text)
    }

    /// Whether a hook of an object in `namespace` may run `command` with `args`, and which program that is.
    ///
    /// # Errors
    /// The refusal names the command and says what is missing.
    pub fn allows(&self, namespace: Option<&str>, command: &str, args: &[String]) -> Result<Allowed, Refusal> {
        let refused = |why: String| Refusal::new(REASON, format!("command {command:?} is not allowed: {why}"));
        let hint = "whoever runs the operator can add it to the whitelist of hooks";
        let Some((name, rule)) = self.find(command).filter(|(_, rule)| rule.allowed) else {
            return Err(refused("it is not in the whitelist".to_owned()).hint(hint));
        };
        if !self.open_to(namespace, name) {
            let namespace = namespace.unwrap_or("(unknown)");
            return Err(refused(format!("not in namespace {namespace}")).hint(hint));
        }
        let matched = |arg: &String| rule.patterns.iter().any(|(_, pattern)| pattern.is_match(arg));
        if !rule.patterns.is_empty()
            && let Some(place) = args.iter().position(|arg| !matched(arg))
        {
            // The argument itself may be a secret.
            return Err(refused(format!("argument {} matches none of its patterns", place + 1))
                .hint("a pattern must match the whole argument"));
        }
        let program = match &rule.path {
            Some(path) => Program::File(path.clone()),
            None if name.starts_with('/') => Program::File(name.into()),
            None => Program::Named(name.to_owned()),
        };
        Ok(Allowed {
            program,
            sha256: rule.sha256.clone(),
        })
    }

    /// Whether a hook may set variables of these names for `command`, which [`allows`](Self::allows) admits.
    ///
    /// # Errors
    /// The refusal names the command and the variable, never a value.
    pub fn takes<'a>(&self, command: &str, names: impl IntoIterator<Item = &'a str>) -> Result<(), Refusal> {
        let Some(listed) = self.find(command).and_then(|(_, rule)| rule.env.as_ref()) else {
            return Ok(());
        };
        match names.into_iter().find(|name| !listed.contains(*name)) {
            None => Ok(()),
            Some(name) => {
                let name: String = name.chars().take(64).collect();
                let why = format!("command {command:?} is not allowed: variable {name:?} is not in its env");
                Err(Refusal::new(REASON, why).hint("whoever runs the operator can add it to the whitelist of hooks"))
            }
        }
    }

    /// SHA-256 of what the rules say, in hexadecimal; comments, order and layout do not change it.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// What is allowed and should not be, or looks like a mistake.
    #[must_use]
    pub fn lint(&self) -> Vec<Warning> {
        self.commands
            .iter()
            .filter(|(_, rule)| rule.allowed)
            .flat_map(|(name, rule)| lint::lint(name, rule))
            .collect()
    }

    /// The rule for a command: its own name or path; for another path, the rule with that path, then that of its last
    /// part, which then holds only for the very file that the bare name means.
    fn find(&self, command: &str) -> Option<(&str, &Rule)> {
        if let Some((name, rule)) = self.commands.get_key_value(command) {
            return Some((name, rule));
        }
        if !command.starts_with('/') {
            return None;
        }
        let by_path = |(_, rule): &(&String, &Rule)| rule.path.as_ref().is_some_and(|path| path.as_os_str() == command);
        if let Some((name, rule)) = self.commands.iter().find(by_path) {
            return Some((name, rule));
        }
        let last = command.rsplit('/').next().filter(|last| !last.is_empty())?;
        self.commands
            .get_key_value(last)
            .map(|(name, rule)| (name.as_str(), rule))
    }

    fn open_to(&self, namespace: Option<&str>, name: &str) -> bool {
        let Some(namespaces) = &self.namespaces else {
            return true;
        };
        let own = namespace.and_then(|namespace| namespaces.get(namespace));
        own.or_else(|| namespaces.get(REST))
            .is_some_and(|commands| commands.iter().any(|command| command == name))
    }
}

#[cfg(test)]
mod tests;
