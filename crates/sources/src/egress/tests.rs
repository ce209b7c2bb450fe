use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use rstest::rstest;

use super::*;

fn policy(trust: &[&str], allow: &[&str], deny: &[&str]) -> EgressPolicy {
    EgressPolicy {
        trust_hosts: trust.iter().map(|glob| glob.parse().unwrap()).collect(),
        allow_ranges: allow.iter().map(|range| range.parse().unwrap()).collect(),
        deny_ranges: deny.iter().map(|range| range.parse().unwrap()).collect(),
        ..EgressPolicy::default()
    }
}

#[rstest]
#[case("93.184.216.34", None)]
#[case("10.96.0.1", None)]
#[case("192.168.1.1", None)]
#[case("2606:2800:220:1::1", None)]
#[case("fd12::1", None)]
#[case("0.0.0.0", Some("unspecified"))]
#[case("0.1.2.3", Some("unspecified"))]
#[case("127.0.0.1", Some("loopback"))]
#[case("127.255.255.254", Some("loopback"))]
#[case("169.254.1.1", Some("link-local"))]
#[case("169.254.169.254", Some("metadata"))]
#[case("169.254.170.2", Some("metadata"))]
#[case("100.100.100.200", Some("metadata"))]
#[case("168.63.129.16", Some("metadata"))]
#[case("224.0.0.1", Some("multicast"))]
#[case("255.255.255.255", Some("reserved"))]
#[case("::", Some("unspecified"))]
#[case("::1", Some("loopback"))]
#[case("fe80::1", Some("link-local"))]
#[case("febf::1", Some("link-local"))]
#[case("fec0::1", Some("site-local"))]
#[case("ff02::1", Some("multicast"))]
#[case("fd00:ec2::254", Some("metadata"))]
#[case("fd20:ce::254", Some("metadata"))]
#[case::mapped("::ffff:127.0.0.1", Some("loopback"))]
#[case::mapped_public("::ffff:93.184.216.34", None)]
#[case::compatible("::169.254.169.254", Some("metadata"))]
#[case::nat64("64:ff9b::a9fe:a9fe", Some("metadata"))]
#[case::nat64_public("64:ff9b::5db8:d822", None)]
#[case::nat64_local("64:ff9b:1::1", Some("translated"))]
#[case::six_to_four("2002:7f00:1::", Some("loopback"))]
#[case::teredo_client("2001:0:5db8:d822:0:0:5601:5601", Some("metadata"))]
#[case::isatap("2606::5efe:7f00:1", Some("loopback"))]
#[case::translated("::ffff:0:7f00:1", Some("loopback"))]
fn by_default(#[case] address: &str, #[case] expected: Option<&str>) {
    let found = EgressPolicy::default().address("h.example", address.parse().unwrap());
    let name = found.as_ref().err().map(denied_name);
    assert_eq!(name, expected);
    if let Err(denied) = found {
        let refusal = denied.refuse();
        assert_eq!(refusal.reason, "AccessDenied");
        let hint = refusal.hint.clone().unwrap();
        // Nobody is told to open what hands out the credentials of a machine.
        let opens = hint.contains("--egress-trust-host h.example (chart: egress.trustHosts)");
        assert_eq!(opens, !matches!(name, Some("metadata" | "link-local")), "{refusal}");
        assert!(opens || !hint.contains("--egress"), "{refusal}");
        assert!(refusal.message.contains(denied_name(&denied)), "{refusal}");
    }
}

fn denied_name(denied: &Denied) -> &'static str {
    match &denied.rule {
        Rule::Reserved { name, .. } => name,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_range_of_the_operator_gives_no_advice_to_open_metadata_either() {
    let denied = policy(&[], &[], &["169.254.169.254/32"])
        .address("h.example", "169.254.169.254".parse().unwrap())
        .unwrap_err();
    assert!(matches!(denied.rule, Rule::DeniedRange(_)));
    assert!(!denied.hint().contains("--egress"), "{}", denied.hint());
}

#[test]
fn what_a_name_resolves_to_is_not_told() {
    let denied = policy(&[], &[], &["10.0.0.0/8"])
        .address("db.prod.svc", "10.96.3.7".parse().unwrap())
        .unwrap_err();
    let refusal = denied.refuse();
    assert!(!refusal.to_string().contains("10.96.3.7"), "{refusal}");
    assert_eq!(denied.address, Some("10.96.3.7".parse().unwrap()));
}

#[rstest]
#[case::trusted(policy(&["*.corp"], &[], &["10.0.0.0/8"]), "up.corp", "10.0.0.1", true)]
#[case::trusted_loopback(policy(&["up.test"], &[], &[]), "up.test", "127.0.0.1", true)]
#[case::another_name(policy(&["up.test"], &[], &[]), "evil.test", "127.0.0.1", false)]
#[case::cluster_ip(policy(&[], &[], &["10.96.0.0/12"]), "h", "10.96.0.1", false)]
#[case::outside_it(policy(&[], &[], &["10.96.0.0/12"]), "h", "10.0.0.1", true)]
#[case::mapped_cluster_ip(policy(&[], &[], &["10.96.0.0/12"]), "h", "::ffff:10.96.0.1", false)]
#[case::range_written_mapped(policy(&[], &[], &["::ffff:10.96.0.0/108"]), "h", "10.96.0.1", false)]
#[case::nat64_cluster_ip(policy(&[], &[], &["10.96.0.0/12"]), "h", "64:ff9b::a60:1", false)]
#[case::narrower_allows(policy(&[], &["10.96.7.0/24"], &["10.96.0.0/12"]), "h", "10.96.7.9", true)]
#[case::narrower_denies(policy(&[], &["10.0.0.0/8"], &["10.96.0.0/12"]), "h", "10.96.7.9", false)]
#[case::equal_denies(policy(&[], &["10.0.0.0/8"], &["10.0.0.0/8"]), "h", "10.1.1.1", false)]
#[case::everything_but_metadata(policy(&[], &["0.0.0.0/0"], &[]), "h", "169.254.169.254", false)]
#[case::link_local_but_metadata(policy(&[], &["169.254.0.0/16"], &[]), "h", "169.254.169.254", false)]
#[case::link_local(policy(&[], &["169.254.0.0/16"], &[]), "h", "169.254.7.7", true)]
#[case::metadata_by_name(policy(&[], &["169.254.169.254/32"], &[]), "h", "169.254.169.254", true)]
#[case::loopback(policy(&[], &["127.0.0.1/32"], &[]), "h", "127.0.0.1", true)]
#[case::deny_all(policy(&[], &["93.184.216.0/24"], &["0.0.0.0/0", "::/0"]), "h", "1.1.1.1", false)]
#[case::all_but_one(policy(&[], &["93.184.216.0/24"], &["0.0.0.0/0", "::/0"]), "h", "93.184.216.34", true)]
fn as_configured(#[case] policy: EgressPolicy, #[case] host: &str, #[case] address: &str, #[case] passes: bool) {
    let found = policy.address(host, address.parse().unwrap());
    assert_eq!(found.is_ok(), passes, "{found:?}");
}

#[rstest]
#[case("http://metadata.google.internal/", false)]
#[case("http://METADATA.google.internal./", false)]
#[case("https://metadata/", false)]
#[case("http://instance-data.ec2.internal/latest/", false)]
#[case("https://metadata.example.com/", true)]
#[case("https://my-metadata/", true)]
fn the_name_of_a_metadata_service_is_refused_whatever_is_trusted(#[case] url: &str, #[case] passes: bool) {
    let found = policy(&["*"], &["0.0.0.0/0"], &[]).link(&Link::parse("url", url).unwrap());
    assert_eq!(found.is_ok(), passes, "{found:?}");
    if let Err(denied) = found {
        assert_eq!(denied.rule, Rule::MetadataHost);
        assert!(!denied.hint().contains("--egress"), "{}", denied.hint());
    }
}

#[rstest]
#[case::by_default(&[], &[], "10.96.0.1", false)]
#[case::mapped(&[], &[], "::ffff:10.96.0.1", false)]
#[case::its_neighbour(&[], &[], "10.96.0.2", true)]
#[case::within_an_allowed_range(&[], &["10.96.0.0/12"], "10.96.0.1", false)]
#[case::allowed_itself(&[], &["10.96.0.1/32"], "10.96.0.1", true)]
#[case::trusted_by_name(&["h"], &[], "10.96.0.1", true)]
#[case::own_pod(&[], &[], "fd00:10::7", false)]
fn what_the_process_knows_is_guarded(
    #[case] trust: &[&str],
    #[case] allow: &[&str],
    #[case] address: &str,
    #[case] passes: bool,
) {
    let policy = EgressPolicy {
        guarded: vec![
            (API_SERVER, "10.96.0.1/32".parse().unwrap()),
            (OWN_POD, "fd00:10::7/128".parse().unwrap()),
        ],
        ..policy(trust, allow, &[])
    };
    let found = policy.address("h", address.parse().unwrap());
    assert_eq!(found.is_ok(), passes, "{found:?}");
    if let Err(denied) = found {
        let told = denied.refuse().to_string();
        let name = if address.contains("10::") { OWN_POD } else { API_SERVER };
        assert!(told.contains(name) && told.contains("--egress-trust-host h"), "{told}");
    }
}

#[rstest]
#[case("http://example.com/", true, &[], &[], Some("--egress-schemes"))]
#[case("https://example.com/", true, &[], &[], None)]
#[case("https://example.com/", false, &["*.corp"], &[], Some("--egress-allow-host example.com"))]
#[case("https://a.corp/", false, &["*.corp"], &[], None)]
#[case("https://trusted.test/", false, &["*.corp"], &[], None)]
#[case("https://a.corp/", false, &["*.corp"], &["a.*"], Some("--egress-deny-host a.*"))]
#[case("https://A.corp./", false, &[], &["a.corp"], Some("--egress-deny-host a.corp"))]
#[case("http://0x7f.1/", false, &[], &["127.*"], Some("--egress-deny-host"))]
fn names(
    #[case] url: &str,
    #[case] https_only: bool,
    #[case] allow: &[&str],
    #[case] deny: &[&str],
    #[case] hint: Option<&str>,
) {
    let policy = EgressPolicy {
        https_only,
        allow_hosts: allow.iter().map(|glob| glob.parse().unwrap()).collect(),
        deny_hosts: deny.iter().map(|glob| glob.parse().unwrap()).collect(),
        ..policy(&["trusted.test"], &[], &[])
    };
    let found = policy.link(&Link::parse("url", url).unwrap());
    match (found, hint) {
        (Ok(()), None) => {}
        (Err(denied), Some(hint)) => assert!(denied.hint().contains(hint), "{}", denied.hint()),
        (found, hint) => panic!("{found:?} instead of {hint:?}"),
    }
}

#[test]
fn a_denied_name_is_not_trusted() {
    let policy = EgressPolicy {
        deny_hosts: vec!["evil.corp".parse().unwrap()],
        ..policy(&["*.corp"], &[], &[])
    };
    assert!(policy.address("evil.corp", "127.0.0.1".parse().unwrap()).is_err());
}

/// A second reading of the registry, in octets and by the standard library.
fn denied_4(four: Ipv4Addr) -> bool {
    let metadata = ["100.100.100.200", "168.63.129.16", "192.0.0.192"];
    let [first, ..] = four.octets();
    first == 0
        || first >= 224
        || four.is_loopback()
        || four.is_link_local()
        || metadata.contains(&four.to_string().as_str())
}

fn denied_6(six: Ipv6Addr) -> bool {
    let octets = six.octets();
    let tail = Ipv4Addr::new(octets[12], octets[13], octets[14], octets[15]);
    let text = six.to_string();
    if octets[..10] == [0; 10] && octets[10..12] == [255, 255] {
        return denied_4(tail);
    }
    let own = six.is_unspecified()
        || six.is_loopback()
        || six.is_multicast()
        || (octets[0] == 0xfe && octets[1] >= 0x80)
        || octets[..6] == [0, 0x64, 0xff, 0x9b, 0, 1]
        || ["fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "fd00:42::42"].contains(&text.as_str());
    let zero = |range: std::ops::Range<usize>| octets[range].iter().all(|octet| *octet == 0);
    let tail_counts = zero(0..12)
        || (zero(0..8) && octets[8..12] == [255, 255, 0, 0])
        || (octets[..4] == [0, 0x64, 0xff, 0x9b] && zero(4..12))
        || ([[0, 0, 0x5e, 0xfe], [2, 0, 0x5e, 0xfe]]
            .iter()
            .any(|id| octets[8..12] == *id));
    let six_to_four =
        octets[..2] == [0x20, 0x02] && denied_4(Ipv4Addr::new(octets[2], octets[3], octets[4], octets[5]));
    let teredo = octets[..4] == [0x20, 1, 0, 0]
        && (denied_4(Ipv4Addr::new(octets[4], octets[5], octets[6], octets[7]))
            || denied_4(Ipv4Addr::new(!octets[12], !octets[13], !octets[14], !octets[15])));
    own || (tail_counts && denied_4(tail)) || six_to_four || teredo
}

fn some_four() -> impl Strategy<Value = Ipv4Addr> {
    let kinds = prop_oneof![
        Just([127, 0]),
        Just([169, 254]),
        Just([0, 0]),
        Just([224, 1]),
        Just([100, 100]),
        Just([10, 0]),
        Just([168, 63]),
        any::<[u8; 2]>()
    ];
    let ends = prop_oneof![Just([169, 254]), Just([100, 200]), Just([129, 16]), any::<[u8; 2]>()];
    (kinds, ends).prop_map(|([a, b], [c, d])| Ipv4Addr::new(a, b, c, d))
}

fn some_six() -> impl Strategy<Value = Ipv6Addr> {
    let heads = prop_oneof![
        Just([0_u16, 0, 0, 0, 0, 0]),
        Just([0, 0, 0, 0, 0, 0xffff]),
        Just([0, 0, 0, 0, 0xffff, 0]),
        Just([0x64, 0xff9b, 0, 0, 0, 0]),
        Just([0x64, 0xff9b, 1, 0, 0, 0]),
        Just([0x2606, 0, 0, 0, 0, 0x5efe]),
        Just([0x2606, 0, 0, 0, 0x200, 0x5efe]),
        Just([0xfe80, 0, 0, 0, 0, 0]),
        Just([0xfd00, 0xec2, 0, 0, 0, 0]),
        any::<[u16; 6]>()
    ];
    let tailed = (heads, some_four()).prop_map(|([a, b, c, d, e, f], four)| {
        let [g, h, i, j] = four.octets();
        Ipv6Addr::new(a, b, c, d, e, f, u16::from_be_bytes([g, h]), u16::from_be_bytes([i, j]))
    });
    let six_to_four = (some_four(), any::<[u16; 5]>()).prop_map(|(four, [d, e, f, g, h])| {
        let [i, j, k, l] = four.octets();
        Ipv6Addr::new(
            0x2002,
            u16::from_be_bytes([i, j]),
            u16::from_be_bytes([k, l]),
            d,
            e,
            f,
            g,
            h,
        )
    });
    let teredo = (some_four(), some_four()).prop_map(|(server, client)| {
        let prefix = 0x2001_0000_u128 << 96;
        let (server, client) = (u128::from(server.to_bits()), u128::from(!client.to_bits()));
        Ipv6Addr::from_bits(prefix | server << 64 | client)
    });
    prop_oneof![tailed, six_to_four, teredo, any::<Ipv6Addr>()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn four_as_the_independent_table_says(four in some_four()) {
        prop_assert_eq!(EgressPolicy::default().address("h", four.into()).is_err(), denied_4(four), "{}", four);
    }

    #[test]
    fn six_as_the_independent_table_says(six in some_six()) {
        prop_assert_eq!(EgressPolicy::default().address("h", six.into()).is_err(), denied_6(six), "{}", six);
    }

    /// What the hint says does let it pass.
    #[test]
    fn the_hint_helps(six in some_six(), range in (some_four(), 0_u8..=32)) {
        let mut policy = policy(&[], &[], &[]);
        policy.deny_ranges.push(IpNet::new(range.0.into(), range.1).unwrap().trunc());
        for _ in 0..4 {
            let Err(denied) = policy.address("h", six.into()) else { return Ok(()) };
            let trusting = EgressPolicy { trust_hosts: vec!["h".parse().unwrap()], ..policy.clone() };
            prop_assert!(trusting.address("h", six.into()).is_ok());
            let narrowest = IpNet::from(denied.means.unwrap());
            if denied.rule == Rule::DeniedRange(narrowest) {
                return Ok(()); // The operator denies exactly this address; there is nothing narrower.
            }
            policy.allow_ranges.push(narrowest);
        }
        prop_assert!(policy.address("h", six.into()).is_ok());
    }
}
