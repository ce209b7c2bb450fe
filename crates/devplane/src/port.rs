//! Free loopback ports.
//!
//! A port is only known to be free at the moment of asking. Ports come from below the usual ephemeral range, so no
//! outgoing connection takes one in between; a start that still loses the race is retried by its caller.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Mutex, PoisonError};

const FIRST: u16 = 12_000;
const COUNT: u16 = 8_000;

/// Ports given out by this process; a second plane must not get one that the first has not bound yet.
static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A free port that this process did not give out before; `preferred` when that one is free.
pub(crate) fn free(preferred: Option<u16>) -> io::Result<u16> {
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(port) = preferred.filter(|port| bindable(*port)) {
        given.insert(port);
        return Ok(port);
    }
    if given.len() >= usize::from(COUNT / 2) {
        given.clear();
    }
    // Two processes that start together begin their search at different places.
    let offset = RandomState::new().build_hasher().finish() % u64::from(COUNT);
    let offset = u16::try_from(offset).unwrap_or_default();
    (0..COUNT)
        .map(|step| FIRST + (offset + step) % COUNT)
        .find(|port| !given.contains(port) && bindable(*port))
        .inspect(|port| {
            given.insert(*port);
        })
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::AddrInUse,
                "no free port between 12000 and 19999 on 127.0.0.1",
            )
        })
}

/// A free loopback port for a process beside a plane; the caller starts again when something else took it first.
///
/// # Errors
/// When none is free.
pub fn free_port() -> io::Result<u16> {
    free(None)
}

fn bindable(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_distinct_and_free() {
        let ports: Vec<u16> = (0..50).map(|_| free(None).unwrap()).collect();
        assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), ports.len());
        for port in ports {
            assert!((FIRST..FIRST + COUNT).contains(&port));
            assert!(bindable(port));
        }
    }

    #[test]
    fn a_preferred_port_is_kept_only_when_free() {
        let port = free(None).unwrap();
        assert_eq!(free(Some(port)).unwrap(), port);
        let _listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        assert_ne!(free(Some(port)).unwrap(), port);
    }
}
