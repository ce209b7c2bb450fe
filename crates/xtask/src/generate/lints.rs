//! Clippy settings of the pure crates: the root's, and no clock, no environment, no chance.
//!
//! Clippy reads the settings nearest to a crate, so each pure crate has its own file. Tests are held to it too.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::{Files, HEADER};
use crate::workspace::Workspace;

/// The folders of the pure crates that exist.
const PURE: &[&str] = &[
    "crates/core",
    "crates/api",
    "crates/bindings",
    "crates/resilience",
    "tests/model",
];

/// What a pure crate may not call, and what it does instead.
const DISALLOWED: &[(&str, &str)] = &[
    ("std::time::SystemTime::now", "the clock is a parameter"),
    ("std::time::Instant::now", "the clock is a parameter"),
    ("jiff::Timestamp::now", "the clock is a parameter"),
    ("jiff::Zoned::now", "the clock is a parameter"),
    ("std::thread::sleep", "waiting is the runtime's work"),
    ("std::env::var", "settings are parameters"),
    ("std::env::var_os", "settings are parameters"),
    ("std::env::vars", "settings are parameters"),
    ("std::env::current_dir", "paths are parameters"),
    ("std::env::temp_dir", "paths are parameters"),
    ("std::process::Command::new", "a pure crate starts nothing"),
    ("std::hash::RandomState::new", "the same input gives the same bytes"),
    ("uuid::Uuid::new_v4", "randomness is a parameter"),
];

/// `clippy.toml` of every pure crate.
pub(crate) fn files(workspace: &Workspace) -> Result<Files> {
    let common = std::fs::read_to_string(workspace.path("clippy.toml")).context("cannot read clippy.toml")?;
    // A crate that does not have the dependency must not be warned about the setting.
    let line = |(path, reason): &(&str, &str)| {
        format!("    {{ path = \"{path}\", reason = \"{reason}\", allow-invalid = true }},\n")
    };
    let methods: String = DISALLOWED.iter().map(line).collect();
    let text = format!("{HEADER}{}\ndisallowed-methods = [\n{methods}]\n", common.trim_end());
    Ok(PURE
        .iter()
        .map(|folder| (PathBuf::from(folder).join("clippy.toml"), text.clone()))
        .collect())
}
