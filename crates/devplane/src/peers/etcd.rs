//! etcd, the store behind the API server.

use crate::Peer;

/// The pinned etcd server: one program, `etcd`.
#[must_use]
pub fn peer() -> Peer {
    Peer::new(
        "etcd",
        include_str!("../../../../devplane/etcd/go.mod"),
        include_str!("../../../../devplane/etcd/go.sum"),
    )
    .binary("etcd", "go.etcd.io/etcd/server/v3")
}
