//! Who is at the other end of a connection on the socket file.
//!
//! ```text
//!  SO_PEERCRED ─▶ 0: another PID namespace, the operator's container ─▶ served
//!                 a process ─▶ its parents ─▶ this one is among them ─▶ a run, refused
//! ```
//!
//! The whitelist believes the namespace that the operator names; a run that could ask would name any.
//!
//! Invariant: a process of a run is never served. In a container the sidecar is process 1, so that even a process
//! whose warden is gone is below it.

use rustix::{
    io::Errno,
    process::{Pid, test_kill_process},
};
use tokio::net::UnixStream;

use crate::step::parent_of;

/// Most generations that are looked at.
const GENERATIONS: usize = 4096;
/// How often the way up is tried anew when one on it has ended meanwhile.
const TRIES: usize = 3;

/// Whether it is a process that a run started. In doubt it is.
pub(super) fn is_of_a_run(stream: &UnixStream) -> bool {
    match stream.peer_cred().map(|peer| peer.pid()) {
        Ok(None | Some(0)) => false,
        Ok(Some(pid)) => below(pid, std::process::id()),
        Err(_) => true,
    }
}

fn below(pid: i32, root: u32) -> bool {
    let Some(peer) = Pid::from_raw(pid) else { return true };
    let known = pid.unsigned_abs();
    (0..TRIES)
        .find_map(|_| climb(known, root))
        // Where `/proc` hides the processes of other users: a run has the user of the sidecar.
        .unwrap_or_else(|| test_kill_process(peer) != Err(Errno::PERM))
}

/// Whether the way up from a process leads to `root`; `None` when it breaks off.
fn climb(mut pid: u32, root: u32) -> Option<bool> {
    if pid == root {
        return Some(false);
    }
    for _ in 0..GENERATIONS {
        match parent_of(pid)? {
            0 => return Some(false),
            parent if parent == root => return Some(true),
            parent => pid = parent,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn who_is_below_is_told_from_who_is_above() {
        let own = std::process::id();
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert!(below(pid, own));
        assert!(!below(i32::try_from(own).unwrap(), own), "a client in the same process");
        assert!(!below(i32::try_from(own).unwrap(), child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(
            below(pid, own),
            "one that is gone may have left its connection to its children"
        );
    }
}
