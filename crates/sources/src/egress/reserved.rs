//! Addresses that are never an upstream unless the operator says so.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// What addresses of metadata services are called.
pub(super) const METADATA: &str = "metadata";
/// What addresses of the machine's links are called.
pub(super) const LINK_LOCAL: &str = "link-local";

/// Metadata services of clouds: they answer with credentials.
const METADATA_4: &[[u8; 4]] = &[
    [169, 254, 169, 254], // AWS, Azure, Google, OpenStack and others
    [169, 254, 170, 2],   // AWS, task credentials
    [169, 254, 170, 23],  // AWS, pod identity
    [169, 254, 0, 23],    // Tencent
    [169, 254, 42, 42],   // Scaleway
    [100, 100, 100, 200], // Alibaba
    [168, 63, 129, 16],   // Azure, wire server
    [192, 0, 0, 192],     // Oracle
];

/// As [`METADATA_4`].
const METADATA_6: &[[u16; 8]] = &[
    [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254],   // AWS
    [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23],    // AWS, pod identity
    [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254],    // Google
    [0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42],     // Scaleway
    [0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe], // OpenStack
];

/// Names by which clouds know their metadata services, some of them only within a search domain.
const METADATA_NAMES: &[&str] = &[
    "metadata",
    "metadata.google",
    "metadata.google.internal",
    "metadata.goog",
    "instance-data",
    "instance-data.ec2.internal",
    "metadata.azure.internal",
    "metadata.tencentyun.com",
    "metadata.platformequinix.com",
    "metadata.packet.net",
];

/// Whether a host, in lower case, is the name of a metadata service.
pub(super) fn is_metadata_name(host: &str) -> bool {
    METADATA_NAMES.contains(&host.strip_suffix('.').unwrap_or(host))
}

/// Ranges of the IANA special-purpose registry that lead to the machine itself, to its links or to many machines.
const RANGES_4: &[(&str, [u8; 4], u8)] = &[
    ("unspecified", [0, 0, 0, 0], 8),
    ("loopback", [127, 0, 0, 0], 8),
    (LINK_LOCAL, [169, 254, 0, 0], 16),
    ("multicast", [224, 0, 0, 0], 4),
    ("reserved", [240, 0, 0, 0], 4),
];

/// As [`RANGES_4`]. `64:ff9b:1::/48` translates to IPv4 in ways that only its network knows (RFC 8215).
const RANGES_6: &[(&str, [u16; 8], u8)] = &[
    ("unspecified", [0; 8], 128),
    ("loopback", [0, 0, 0, 0, 0, 0, 0, 1], 128),
    (LINK_LOCAL, [0xfe80, 0, 0, 0, 0, 0, 0, 0], 10),
    ("site-local", [0xfec0, 0, 0, 0, 0, 0, 0, 0], 10),
    ("multicast", [0xff00, 0, 0, 0, 0, 0, 0, 0], 8),
    ("translated", [0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48),
];

/// The longest reserved range that holds the address, and what it is.
pub(super) fn of(address: IpAddr) -> Option<(&'static str, IpNet)> {
    match address {
        IpAddr::V4(four) => {
            if METADATA_4.contains(&four.octets()) {
                return Some((METADATA, address.into()));
            }
            let ranges = RANGES_4
                .iter()
                .filter_map(|(name, start, length)| Some((*name, Ipv4Net::new(Ipv4Addr::from(*start), *length).ok()?)));
            let found = ranges.into_iter().find(|(_, range)| range.contains(&four))?;
            Some((found.0, IpNet::V4(found.1)))
        }
        IpAddr::V6(six) => {
            if METADATA_6.contains(&six.segments()) {
                return Some((METADATA, address.into()));
            }
            let ranges = RANGES_6
                .iter()
                .filter_map(|(name, start, length)| Some((*name, Ipv6Net::new(Ipv6Addr::from(*start), *length).ok()?)));
            let found = ranges.into_iter().find(|(_, range)| range.contains(&six))?;
            Some((found.0, IpNet::V6(found.1)))
        }
    }
}
