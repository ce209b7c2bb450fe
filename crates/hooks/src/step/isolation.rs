//! `Isolation`: what the kernel lets a run be kept apart from.
//!
//! Invariant: what was refused is said, with the kernel's reason, and never taken for done.

use std::{ffi::OsStr, fs, io, process::ExitCode};

use rustix::{
    process::{getegid, geteuid},
    thread::UnshareFlags,
};
use serde::{Deserialize, Serialize};

use super::{Fence, THIS_PROGRAM, broken, fence};
use crate::Network;

/// What the kernel lets a run be kept apart from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a question of its own to the kernel, and any of them may be answered by no"
)]
pub struct Isolation {
    /// The run has a PID namespace: its end is the end of all its processes, by the kernel.
    pub processes: bool,
    /// The run has a user namespace of its own, so that the kernel counts its processes apart.
    pub users: bool,
    /// The run can open no file of another run, of the socket's directory or of the token's, and writes only in its own
    /// directory (Landlock).
    pub files: bool,
    /// The run has a network namespace without any interface that is up.
    pub network: bool,
    /// Why not, when something wanted was refused.
    pub refused: Option<String>,
}

/// Puts this process (and for PID namespaces: its next children) apart as far as the kernel allows.
pub(super) fn enter(network: Network) -> Isolation {
    let wants_network = network != Network::On;
    let apart = UnshareFlags::NEWPID | UnshareFlags::NEWIPC;
    let apart = if wants_network {
        apart | UnshareFlags::NEWNET
    } else {
        apart
    };
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    let refused = match unshare(apart | UnshareFlags::NEWUSER) {
        Ok(()) => {
            let refused = map(user, group)
                .err()
                .map(|error| format!("own user namespace without its names: {error}"));
            return Isolation {
                processes: true,
                users: true,
                network: wants_network,
                refused,
                ..Isolation::default()
            };
        }
        Err(error) => error,
    };
    // A container with CAP_SYS_ADMIN may do without a user namespace.
    match unshare(apart) {
        Ok(()) => Isolation {
            processes: true,
            network: wants_network,
            ..Isolation::default()
        },
        Err(_) => Isolation {
            refused: Some(format!("the kernel refuses new namespaces: {refused}")),
            ..Isolation::default()
        },
    }
}

#[expect(
    deprecated,
    reason = "unsound only with `FILES`, which is never asked for; the replacement is unsafe, which this tree forbids"
)]
fn unshare(flags: UnshareFlags) -> io::Result<()> {
    rustix::thread::unshare(flags).map_err(io::Error::from)
}

/// The user keeps its number in its own namespace, so that files look as they are.
fn map(user: u32, group: u32) -> io::Result<()> {
    fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/gid_map", format!("{group} {group} 1"))
}

/// Says as JSON on standard output what the kernel allows here.
pub(super) fn probe(network: Network) -> ExitCode {
    let mut found = enter(network);
    let closed = rustix::thread::set_no_new_privs(true)
        .map_err(|error| error.to_string())
        .and_then(|()| fence::close(&Fence::default(), OsStr::new(THIS_PROGRAM)));
    found.files = closed.is_ok();
    if let Err(error) = closed {
        let refused = found.refused.take().map(|before| format!("{before}; "));
        found.refused = Some(format!("{}{error}", refused.unwrap_or_default()));
    }
    match serde_json::to_string(&found) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => broken(&error.to_string()),
    }
}
