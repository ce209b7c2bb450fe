//! What sources may ask.

use std::net::{IpAddr, ToSocketAddrs as _};

use trellis_sources::egress::{API_SERVER, EgressPolicy, HostGlob, OWN_POD};

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
            guarded: Vec::new(),
        }
    }
}

/// What a Pod's environment tells of addresses that no source is to ask: the API server's, which Kubernetes names to every
/// container, and the Pod's own (`POD_IP` or `POD_IPS`, from `status.podIP` or `status.podIPs`).
pub(super) fn guarded(variable: impl Fn(&str) -> Option<String>) -> Vec<(&'static str, ipnet::IpNet)> {
    let named = |name: &'static str, variables: [&str; 2]| {
        let texts = variables.into_iter().filter_map(&variable);
        let texts: Vec<String> = texts
            .flat_map(|text| text.split(',').map(|one| one.trim().to_owned()).collect::<Vec<_>>())
            .collect();
        texts
            .into_iter()
            .flat_map(|text| addresses(&text))
            .map(move |address| (name, address))
    };
    let server = named(API_SERVER, ["KUBERNETES_SERVICE_HOST", "KUBERNETES_PORT_443_TCP_ADDR"]);
    let mut found: Vec<_> = server.chain(named(OWN_POD, ["POD_IP", "POD_IPS"])).collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// The addresses that a text is, or leads to: some clusters give the API server's name.
fn addresses(text: &str) -> Vec<ipnet::IpNet> {
    let bare = text.trim_matches(['[', ']']);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return vec![address.to_canonical().into()];
    }
    match (bare, 443).to_socket_addrs() {
        Ok(found) => found.map(|at| at.ip().to_canonical().into()).collect(),
        Err(error) => {
            tracing::warn!(host = bare, %error, "cannot be resolved, so that sources may ask it");
            Vec::new()
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Scheme {
    Http,
    Https,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_guards_the_api_server_and_itself() {
        let pod = |name: &str| {
            let value = match name {
                "KUBERNETES_SERVICE_HOST" | "KUBERNETES_PORT_443_TCP_ADDR" => "10.96.0.1",
                "POD_IPS" => "10.244.1.7, fd00:10::7",
                _ => return None,
            };
            Some(value.to_owned())
        };
        let expected = [
            (API_SERVER, "10.96.0.1/32"),
            (OWN_POD, "10.244.1.7/32"),
            (OWN_POD, "fd00:10::7/128"),
        ];
        let expected: Vec<(&str, ipnet::IpNet)> = expected.map(|(name, range)| (name, range.parse().unwrap())).into();
        assert_eq!(guarded(pod), expected);
        assert_eq!(guarded(|_| None), []);
    }

    #[test]
    fn the_name_of_an_api_server_is_what_it_leads_to() {
        let named = |name: &str| (name == "KUBERNETES_SERVICE_HOST").then(|| "localhost".to_owned());
        let found = guarded(named);
        assert!(
            found.contains(&(API_SERVER, "127.0.0.1/32".parse().unwrap())),
            "{found:?}"
        );
    }
}
