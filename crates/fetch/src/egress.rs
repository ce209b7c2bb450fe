//! `Egress`: the policy that the caller plugs in, and `Resolve`: how a name becomes addresses.
//!
//! ```text
//!  hop ─▶ Egress::host(scheme, host, port) ─▶ Resolve ─▶ Egress::address(host, each address) ─▶ connect to what is left
//! ```
//!
//! Invariants: an address that was not judged is not connected to; a host that is an address is judged as one.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use async_trait::async_trait;

/// A policy says no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// The rule, in words for the user.
    pub rule: String,
}

/// Which upstreams may be asked.
///
/// A [`Client`](crate::Client) has one policy for its life: its connections are shared by all who use it, and a kept one
/// is not judged again by address. Two policies need two clients.
pub trait Egress: Send + Sync {
    /// Whether a host may be asked at all: for the first link, for every redirect, and for a proxy. IPv6 addresses come
    /// without brackets.
    fn host(&self, scheme: &str, host: &str, port: u16) -> Result<(), Denied>;

    /// Whether a connection for `host` may go to this address. IPv4 addresses that are mapped into IPv6 come as IPv4.
    /// Behind a proxy it is asked for the proxy's address, and for every address that the target has or resolves to here; one
    /// that is denied is enough for a refusal, since the proxy chooses. A target that only the proxy can resolve is judged
    /// by [`Egress::host`] alone.
    fn address(&self, host: &str, address: IpAddr) -> Result<(), Denied>;
}

/// How a name becomes addresses.
#[async_trait]
pub trait Resolve: Send + Sync {
    /// The addresses of a name, in the order in which they are tried. It is asked anew for every connection.
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// The system's resolver (`getaddrinfo`).
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

#[async_trait]
impl Resolve for SystemResolver {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((host, 0))
            .await?
            .map(|at: SocketAddr| at.ip())
            .collect())
    }
}
