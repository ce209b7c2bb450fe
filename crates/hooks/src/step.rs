//! The steps between the sidecar and a command: the same program, started again with another first argument.
//!
//! ```text
//!  sidecar ─▶ warden ──────────────▶ first ─────────────────▶ command
//!             own process group,     limits, no new           own process group,
//!             namespaces, subreaper, privileges, a fence,     whatever it starts
//!             ends the tree, reports first of its PID namespace
//! ```
//!
//! Limits and namespaces are set by a process for itself and inherited by what it starts, which needs no code between
//! fork and exec. With a PID namespace the death of `first` is the death of all, by the kernel. Without one, orphans
//! come to the warden (`PR_SET_CHILD_SUBREAPER`), a new session does not change that, and the warden freezes and ends
//! the tree by walking it. Control groups would do the same, but a container's are read-only.
//!
//! Invariants: the warden ends only when the tree has ended; it ends the tree when it is told to (SIGTERM), when the
//! sidecar is gone, when the tree has too many processes or has written too much, and when the command is done.

mod fence;
mod first;
mod isolation;
mod space;
mod tree;
mod warden;

use std::{ffi::OsString, process::ExitCode};

use serde::{Deserialize, Serialize};

use crate::{Limits, Network};

pub(crate) use fence::Fence;
pub use isolation::Isolation;
pub(crate) use tree::parent_of;

/// Exit code of a step that could not do its work.
pub(crate) const BROKEN: u8 = 125;
/// Exit code for a program that is there and cannot be started, as shells have it.
const CANNOT_START: u8 = 126;
/// Exit code for a program that is not there, as shells have it.
const NOT_FOUND: u8 = 127;

/// The running program, also when its file was replaced.
pub(crate) const THIS_PROGRAM: &str = "/proc/self/exe";

/// The file of the warden's report, beside the run's own directory, in which the warden is. Every process of the
/// container can read the arguments of every other, so those name no directory of a run.
pub(crate) const REPORT: &str = "report";

/// What the warden is asked to do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    /// The sidecar's process id: when the warden's parent is another, the sidecar is gone.
    pub(crate) parent: u32,
    pub(crate) network: Network,
    pub(crate) limits: Limits,
    /// What the run may open, where the kernel can keep it from the rest.
    pub(crate) fence: Option<Fence>,
}

/// What the warden found, written when the tree has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) ended: Ended,
    pub(crate) isolation: Isolation,
}

/// How the tree ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ended {
    /// The command ended by itself; 128 + signal when a signal ended it.
    Exited(u8),
    /// The warden was told to end it, or the sidecar was gone.
    Stopped,
    /// It had more processes than it may.
    TooManyProcesses,
    /// It has written more than it may; in words.
    Wrote(String),
    /// It never started.
    Broken(String),
}

/// The inner steps. `arguments` are those after the subcommand that leads here (see [`crate::Settings::step`]).
///
/// Call it first of all in `main`, before any thread: a user namespace can be entered only by a process with one
/// thread. Exit code 125 says that the step itself failed; its reason is on standard error.
#[must_use]
pub fn step(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.into_iter();
    let (name, order) = (
        arguments.next().unwrap_or_default(),
        arguments.next().unwrap_or_default(),
    );
    let Some(order) = order.to_str() else {
        return broken("the order is not text");
    };
    match (name.to_str(), arguments.next()) {
        (Some("warden"), Some(program)) => match serde_json::from_str(order) {
            Ok(order) => warden::run(&order, &program, arguments.collect()),
            Err(error) => broken(&format!("the order is not understood: {error}")),
        },
        (Some("first"), Some(program)) => match serde_json::from_str(order) {
            Ok(order) => first::run(&order, &program, arguments),
            Err(error) => broken(&format!("the order is not understood: {error}")),
        },
        (Some("probe"), _) => match serde_json::from_str(order) {
            Ok(network) => isolation::probe(network),
            Err(error) => broken(&format!("the order is not understood: {error}")),
        },
        _ => broken("started by hand; the sidecar starts this step itself"),
    }
}

fn broken(why: &str) -> ExitCode {
    eprintln!("hook step: {why}");
    ExitCode::from(BROKEN)
}
