//! The addresses that a connection to one address may end at: IPv6 has many ways to write an IPv4 address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Every address to judge: the address itself, and each IPv4 address that it stands for. An IPv4-mapped address (RFC 4291,
/// 2.5.5.2) is only the IPv4 one, because the kernel connects over IPv4.
///
/// Read are: IPv4-compatible (RFC 4291, 2.5.5.1), NAT64 `64:ff9b::/96` (RFC 6052), 6to4 `2002::/16` (RFC 3056), Teredo's
/// server and client `2001::/32` (RFC 4380), ISATAP (RFC 5214), and the translated form `::ffff:0:0:0/96` (RFC 2765).
#[must_use]
pub fn within(address: IpAddr) -> Vec<IpAddr> {
    let IpAddr::V6(six) = address else {
        return vec![address];
    };
    if let Some(four) = six.to_ipv4_mapped() {
        return vec![four.into()];
    }
    let [s0, s1, s2, s3, s4, s5, s6, s7] = six.segments();
    let tail = four(s6, s7);
    let mut found = vec![address];
    match (s0, s1, s2, s3, s4, s5) {
        // `::` and `::1` are addresses of their own.
        (0, 0, 0, 0, 0, 0) if six != Ipv6Addr::UNSPECIFIED && six != Ipv6Addr::LOCALHOST => found.push(tail),
        (0, 0, 0, 0, 0xffff, 0) | (0x64, 0xff9b, 0, 0, 0, 0) => found.push(tail),
        (0x2002, ..) => found.push(four(s1, s2)),
        (0x2001, 0, ..) => found.extend([four(s2, s3), four(!s6, !s7)]),
        _ => {}
    }
    if matches!((s4, s5), (0 | 0x200, 0x5efe)) {
        found.push(tail);
    }
    found
}

fn four(high: u16, low: u16) -> IpAddr {
    Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)).into()
}
