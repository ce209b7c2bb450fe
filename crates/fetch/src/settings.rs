//! `Settings`: the numbers of a client, as plain fields.
//!
//! ```text
//!  flags, environment, file (the caller reads them) ─▶ Settings ─▶ Client
//! ```
//!
//! Invariants: every field is applied; every wait is bounded.

use std::{num::NonZeroU32, time::Duration};

use crate::{error::Hints, hosts, proxy::Proxies};

/// The numbers of a client. In brackets the environment name that existing deployments use for it; the caller reads it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name, connection, tunnel and TLS together. 10 s.
    pub connect_timeout: Duration,
    /// From the request to the headers of its answer, per hop [`HTTP_TIMEOUT`]. 30 s. The body is not under it: a fixed
    /// limit of 30 s on everything makes 100 MB over a slow link impossible.
    pub header_timeout: Duration,
    /// Between two pieces of the body. 30 s.
    pub idle_timeout: Duration,
    /// Everything together, redirects and waits for a free place at the host too. 30 min.
    pub total_timeout: Duration,
    /// Bytes of a body that an order without a limit of its own may have, as sent and decompressed. 100 MiB.
    pub max_bytes: u64,
    /// Redirects that are followed. 10.
    pub max_redirects: u32,
    /// Requests to one host at the same time [`HTTP_MAX_CONNS_PER_HOST`]. 100. More wait in line.
    pub max_connections_per_host: u32,
    /// Connections that are kept to one host [`HTTP_MAX_IDLE_CONNS_PER_HOST`]. 10.
    pub max_idle_per_host: usize,
    /// Open connections above which the pools that were not used for longest are let go [`HTTP_MAX_IDLE_CONNS`]. 100.
    /// Connections in use are never closed by it, so that it bounds what is kept, not what is used.
    pub max_idle: usize,
    /// How long an unused connection is kept [`HTTP_IDLE_CONN_TIMEOUT`]. 90 s.
    pub idle_connection_timeout: Duration,
    /// Pools that are kept, one for each TLS and proxy configuration. 64; the one that was not used for longest goes.
    pub max_pools: usize,
    /// The longest wait that an answer can impose on those who ask its host with the same credentials. 15 min.
    pub longest_hold: Duration,
    /// How long an answer with a status asks to be left alone. By itself the client reads `Retry-After` of 429 and 503.
    pub patience: fn(u16, &Hints) -> Option<Duration>,
    /// How fast requests to one host may follow each other. None: as fast as they come.
    pub pace: Option<Pace>,
    /// `User-Agent` [`HTTP_USER_AGENT`]. `trellis/VERSION`.
    pub user_agent: String,
    /// Proxies for requests that do not say otherwise [`HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY`]. None.
    pub proxies: Proxies,
    /// Certificates of the authorities that are trusted, as PEM. None: Mozilla's list, as compiled in.
    pub roots: Option<Vec<u8>>,
    /// Whether [`Trust::Unchecked`](crate::Trust) is allowed. No.
    pub allow_unchecked: bool,
}

/// A token bucket for each host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Requests per minute in the long run.
    pub per_minute: NonZeroU32,
    /// Requests that may come at once.
    pub burst: NonZeroU32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(30),
            total_timeout: Duration::from_mins(30),
            max_bytes: 100 * 1024 * 1024,
            max_redirects: 10,
            max_connections_per_host: 100,
            max_idle_per_host: 10,
            max_idle: 100,
            idle_connection_timeout: Duration::from_secs(90),
            max_pools: 64,
            longest_hold: Duration::from_mins(15),
            patience: hosts::patience,
            pace: None,
            user_agent: concat!("trellis/", env!("CARGO_PKG_VERSION")).to_owned(),
            proxies: Proxies::default(),
            roots: None,
            allow_unchecked: false,
        }
    }
}
