//! `Policy`: what the domain says about where sources may reach, asked for every hop and every address.

use std::net::IpAddr;

use trellis_fetch::{Denied, Egress};
use trellis_sources::{egress::EgressPolicy, link::Link};

/// The operator's egress policy.
#[derive(Debug, Clone, Default)]
pub struct Policy(pub EgressPolicy);

/// The rule in words, and how the operator of the cluster may allow it.
fn told(denied: &trellis_sources::egress::Denied) -> Denied {
    let refusal = denied.refuse();
    Denied {
        rule: refusal.to_string(),
    }
}

impl Egress for Policy {
    fn host(&self, scheme: &str, host: &str, port: u16) -> Result<(), Denied> {
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.to_owned()
        };
        let link = Link::parse("url", &format!("{scheme}://{host}:{port}/"));
        let link = link.map_err(|refusal| Denied {
            rule: refusal.to_string(),
        })?;
        self.0.link(&link).map_err(|denied| told(&denied))
    }

    fn address(&self, host: &str, address: IpAddr) -> Result<(), Denied> {
        self.0.address(host, address).map_err(|denied| told(&denied))
    }
}
