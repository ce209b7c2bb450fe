//! What sources may ask.

use trellis_sources::egress::{EgressPolicy, HostGlob};

/// Flags of the egress policy.
#[derive(clap::Args)]
#[command(next_help_heading = "External sources: what may be asked")]
pub(crate) struct Egress {
    /// Schemes that may be used
    #[arg(long = "egress-schemes", id = "egress-schemes", env = "EGRESS_SCHEMES", value_delimiter = ',', default_values = ["http", "https"], value_name = "NAMES")]
    schemes: Vec<Scheme>,
    /// Only hosts like these; `*` stands for anything within a name
    #[arg(
        long = "egress-allow-host",
        id = "egress-allow-host",
        env = "EGRESS_ALLOW_HOST",
        value_delimiter = ',',
        value_name = "HOSTS"
    )]
    allow_host: Vec<HostGlob>,
    /// Never hosts like these
    #[arg(
        long = "egress-deny-host",
        id = "egress-deny-host",
        env = "EGRESS_DENY_HOST",
        value_delimiter = ',',
        value_name = "HOSTS"
    )]
    deny_host: Vec<HostGlob>,
    /// Hosts that may have any address, also one that is denied otherwise
    #[arg(
        long = "egress-trust-host",
        id = "egress-trust-host",
        env = "EGRESS_TRUST_HOST",
        value_delimiter = ',',
        value_name = "HOSTS"
    )]
    trust_host: Vec<HostGlob>,
    /// Ranges of addresses that may be asked although they are denied otherwise
    #[arg(
        long = "egress-allow-cidr",
        id = "egress-allow-cidr",
        env = "EGRESS_ALLOW_CIDR",
        value_delimiter = ',',
        value_name = "RANGES"
    )]
    allow_cidr: Vec<ipnet::IpNet>,
    /// Ranges that are never asked, such as those of Pods and Services
    #[arg(
        long = "egress-deny-cidr",
        id = "egress-deny-cidr",
        env = "EGRESS_DENY_CIDR",
        value_delimiter = ',',
        value_name = "RANGES"
    )]
    deny_cidr: Vec<ipnet::IpNet>,
}

impl Egress {
    /// The policy that they say.
    pub(crate) fn policy(&self) -> EgressPolicy {
        EgressPolicy {
            https_only: !self.schemes.contains(&Scheme::Http),
            allow_hosts: self.allow_host.clone(),
            deny_hosts: self.deny_host.clone(),
            trust_hosts: self.trust_host.clone(),
            allow_ranges: self.allow_cidr.clone(),
            deny_ranges: self.deny_cidr.clone(),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Scheme {
    Http,
    Https,
}
