//! `EgressPolicy`: which upstreams a source may reach, decided on names and on the addresses that they resolve to.
//!
//! ```text
//!  Link ─▶ link():    scheme, names of metadata services, host globs ─▶ Ok │ Denied { rule }
//!  host, IpAddr ─▶ address(): every address inside it (NAT64, 6to4, mapped, …) ─▶ longest range wins ─▶ Ok │ Denied
//! ```
//!
//! Invariants: `address` is asked for every connection with the address that is connected to, so a name that resolves to
//! something else a moment later gains nothing; link-local, loopback, metadata, unspecified and multicast addresses are
//! denied unless the operator names them; a refusal names its rule and the flag that would change it, except where that would
//! be advice to hand out the credentials of a machine.

mod embedded;
mod glob;
mod reserved;

use std::{fmt, net::IpAddr};

use ipnet::IpNet;
use thiserror::Error;
use trellis_core::Refusal;

pub use embedded::within;
pub use glob::HostGlob;

use crate::{
    link::{Link, Scheme},
    reason::Reason,
};

/// The flags that the operator's hints name.
pub mod flag {
    /// Schemes that may be used; repeated or comma-separated.
    pub const SCHEMES: &str = "--egress-schemes";
    /// If given, only hosts that match one of these globs are asked.
    pub const ALLOW_HOST: &str = "--egress-allow-host";
    /// Hosts that are never asked.
    pub const DENY_HOST: &str = "--egress-deny-host";
    /// Hosts that may resolve to addresses that are otherwise denied.
    pub const TRUST_HOST: &str = "--egress-trust-host";
    /// Ranges that may be connected to although a wider one is denied.
    pub const ALLOW_CIDR: &str = "--egress-allow-cidr";
    /// Ranges that are not connected to, such as those of pods, Services and the API server.
    pub const DENY_CIDR: &str = "--egress-deny-cidr";

    /// The value of the chart that sets a flag.
    #[must_use]
    pub(super) fn value(flag: &str) -> &'static str {
        match flag {
            SCHEMES => "egress.schemes",
            ALLOW_HOST => "egress.allowHosts",
            DENY_HOST => "egress.denyHosts",
            TRUST_HOST => "egress.trustHosts",
            ALLOW_CIDR => "egress.allowCIDRs",
            _ => "egress.denyCIDRs",
        }
    }
}

/// What the operator lets sources reach. The default reaches every host over `http` and `https` except the addresses that
/// are never an upstream ([`reserved ranges`](EgressPolicy::address)).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EgressPolicy {
    /// Whether `http` is refused.
    pub https_only: bool,
    /// If not empty, only these hosts and the trusted ones.
    pub allow_hosts: Vec<HostGlob>,
    /// Never these, whatever else says so.
    pub deny_hosts: Vec<HostGlob>,
    /// These may resolve to any address.
    pub trust_hosts: Vec<HostGlob>,
    /// Exceptions from denied ranges.
    pub allow_ranges: Vec<IpNet>,
    /// Denied ranges beside the reserved ones.
    pub deny_ranges: Vec<IpNet>,
    /// Addresses that this process knows to be none of an upstream, with what they are. As reserved ones: an allowed range of
    /// the same length opens them.
    pub guarded: Vec<(&'static str, IpNet)>,
}

/// What the address of the cluster's API server is called.
pub const API_SERVER: &str = "API server";
/// What the operator's own addresses are called.
pub const OWN_POD: &str = "own Pod";

/// The rule that denies.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rule {
    /// `http` is not allowed.
    Scheme,
    /// The host is the name of a metadata service, which nothing opens: behind a proxy no address may show it.
    MetadataHost,
    /// The host matches a denied glob.
    DeniedHost(HostGlob),
    /// The host matches none of the allowed globs.
    NotAllowedHost,
    /// The address is in a range that the operator denies.
    DeniedRange(IpNet),
    /// The address is in a range that is denied by default.
    Reserved {
        /// What the range is, such as `loopback`.
        name: &'static str,
        /// The range.
        range: IpNet,
    },
}

/// The egress policy says no.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct Denied {
    /// The host that was asked for.
    pub host: String,
    /// The address that it resolved to; none while only the name was judged.
    pub address: Option<IpAddr>,
    /// The address inside it that the rule is about, such as the IPv4 address of a NAT64 one.
    pub means: Option<IpAddr>,
    /// The rule that decides.
    pub rule: Rule,
}

impl EgressPolicy {
    /// Whether a link may be asked at all, before its host is resolved; for the first link and for every redirect.
    ///
    /// # Errors
    /// [`Denied`] by scheme or name.
    pub fn link(&self, link: &Link) -> Result<(), Denied> {
        let host = link.host();
        let denied = |rule| Denied {
            host: host.clone(),
            address: None,
            means: None,
            rule,
        };
        if self.https_only && link.scheme() == Scheme::Http {
            return Err(denied(Rule::Scheme));
        }
        if reserved::is_metadata_name(&host) {
            return Err(denied(Rule::MetadataHost));
        }
        if let Some(glob) = self.deny_hosts.iter().find(|glob| glob.matches(&host)) {
            return Err(denied(Rule::DeniedHost(glob.clone())));
        }
        let named = || {
            self.allow_hosts
                .iter()
                .chain(&self.trust_hosts)
                .any(|glob| glob.matches(&host))
        };
        if !self.allow_hosts.is_empty() && !named() {
            return Err(denied(Rule::NotAllowedHost));
        }
        Ok(())
    }

    /// Whether a connection for `host` may go to this address, which it resolved to.
    ///
    /// A trusted host may go anywhere. Else the longest range that holds the address decides, the operator's before a
    /// reserved one of the same length, and a denied one before an allowed one: `--egress-allow-cidr 0.0.0.0/0` therefore
    /// opens no metadata address. An IPv6 address that stands for an IPv4 one is judged as both.
    ///
    /// # Errors
    /// [`Denied`] by address.
    pub fn address(&self, host: &str, address: IpAddr) -> Result<(), Denied> {
        if self.trusts(host) {
            return Ok(());
        }
        within(address)
            .into_iter()
            .try_for_each(|inner| match self.rule(inner) {
                None => Ok(()),
                Some(rule) => Err(Denied {
                    host: host.to_owned(),
                    address: Some(address),
                    means: Some(inner),
                    rule,
                }),
            })
    }

    /// Whether a host may resolve to addresses that are otherwise denied.
    #[must_use]
    pub fn trusts(&self, host: &str) -> bool {
        self.trust_hosts.iter().any(|glob| glob.matches(host)) && !self.deny_hosts.iter().any(|glob| glob.matches(host))
    }

    fn rule(&self, address: IpAddr) -> Option<Rule> {
        let longest = |ranges: &[IpNet]| -> Option<IpNet> {
            let holding = ranges.iter().map(unmapped).filter(|range| range.contains(&address));
            holding.max_by_key(IpNet::prefix_len)
        };
        let length = |range: &Option<IpNet>| range.as_ref().map(IpNet::prefix_len);
        let denied = longest(&self.deny_ranges);
        let allowed = longest(&self.allow_ranges);
        let reserved = self.reserved(address);
        let reserved_length = reserved.as_ref().map(|(_, range)| range.prefix_len());
        if let Some(range) = denied
            && length(&denied) >= length(&allowed)
            && length(&denied) >= reserved_length
        {
            return Some(Rule::DeniedRange(range));
        }
        match reserved {
            Some((name, range)) if length(&allowed) < reserved_length => Some(Rule::Reserved { name, range }),
            _ => None,
        }
    }
}

impl EgressPolicy {
    /// The longest range that is denied by default, and what it is.
    fn reserved(&self, address: IpAddr) -> Option<(&'static str, IpNet)> {
        let guarded = self.guarded.iter().map(|(name, range)| (*name, unmapped(range)));
        let holding = guarded.filter(|(_, range)| range.contains(&address));
        reserved::of(address)
            .into_iter()
            .chain(holding)
            .max_by_key(|(_, range)| range.prefix_len())
    }
}

/// A range of mapped addresses is the range of IPv4 addresses that it means.
fn unmapped(range: &IpNet) -> IpNet {
    let IpNet::V6(six) = range else { return *range };
    let prefix = six.prefix_len().checked_sub(96);
    match (six.addr().to_ipv4_mapped(), prefix) {
        (Some(four), Some(prefix)) => IpNet::new(four.into(), prefix).unwrap_or(*range),
        _ => *range,
    }
}

/// What is said of what no flag should open.
const MACHINES: &str = "name another upstream; such addresses are no place for sources";

impl Denied {
    /// The flag that would let it pass.
    #[must_use]
    pub fn hint(&self) -> String {
        let host = &self.host;
        let set = |flag: &str, to: &str| format!("{flag} {to} (chart: {})", flag::value(flag));
        match &self.rule {
            Rule::Scheme => format!("use https, or the operator adds http to {}", flag::SCHEMES),
            Rule::DeniedHost(glob) => format!(
                "the operator denies it with {}",
                set(flag::DENY_HOST, &glob.to_string())
            ),
            Rule::NotAllowedHost => format!("the operator allows it with {}", set(flag::ALLOW_HOST, host)),
            // Whoever controls an upstream would else have the operator told to open these to it.
            Rule::MetadataHost => MACHINES.to_owned(),
            _ if self.is_of_the_machine() => MACHINES.to_owned(),
            // The address is left out: a tenant could read what a name of the cluster resolves to.
            Rule::DeniedRange(_) | Rule::Reserved { .. } => format!(
                "the operator allows it with {}, or a narrower range with {} (chart: {})",
                set(flag::TRUST_HOST, host),
                flag::ALLOW_CIDR,
                flag::value(flag::ALLOW_CIDR),
            ),
        }
    }

    /// Whether it leads to a metadata service or a link of the machine, whichever rule says no.
    fn is_of_the_machine(&self) -> bool {
        let found = self.means.or(self.address).and_then(reserved::of);
        found.is_some_and(|(name, _)| matches!(name, reserved::METADATA | reserved::LINK_LOCAL))
    }

    /// The refusal that the user of the source sees.
    #[must_use]
    pub fn refuse(&self) -> Refusal {
        Reason::AccessDenied.refuse(self.to_string()).hint(self.hint())
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = &self.host;
        match &self.rule {
            Rule::Scheme => write!(
                out,
                "the egress policy does not admit http, which {host} would be asked by"
            ),
            Rule::MetadataHost => write!(out, "the egress policy denies {host}, the name of a metadata service"),
            Rule::DeniedHost(glob) => write!(out, "the egress policy denies the host {host} as {glob}"),
            Rule::NotAllowedHost => write!(out, "the egress policy does not list the host {host}"),
            Rule::DeniedRange(range) => {
                write!(out, "the egress policy denies {range}, where {host} ")?;
                self.leads(out)
            }
            Rule::Reserved { name, range } => {
                write!(
                    out,
                    "the egress policy denies {name} addresses ({range}), where {host} "
                )?;
                self.leads(out)
            }
        }
    }
}

impl Denied {
    fn leads(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let literal = self.address.is_some_and(|address| address.to_string() == self.host);
        out.write_str(if literal { "is" } else { "leads" })
    }
}

#[cfg(test)]
mod tests;
