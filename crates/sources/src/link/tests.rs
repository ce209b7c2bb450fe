use proptest::prelude::*;
use rstest::rstest;

use super::*;

fn link(text: &str) -> Link {
    Link::parse("spec.generator.http.url", text).unwrap()
}

#[rstest]
#[case("https://example.com", Ok("https://example.com/"))]
#[case("HTTPS://Example.COM:443/A?token=s3cret#frag", Ok("https://example.com/A"))]
#[case("http://example.com.:8080/x", Ok("http://example.com.:8080/x"))]
#[case("http://[::1]/", Ok("http://[::1]/"))]
#[case("http://0x7f.1/", Ok("http://127.0.0.1/"))]
#[case("ftp://example.com/", Err("neither"))]
#[case("file:///etc/passwd", Err("neither"))]
#[case("example.com", Err("neither"))]
#[case("http:example.com", Err("neither"))]
#[case("", Err("neither"))]
#[case("http://", Err("no host"))]
#[case("http:///etc/passwd", Err("no host"))]
#[case("http://?q", Err("no host"))]
#[case("https://./", Err("no host"))]
#[case("https://u:s3cret@example.com/", Err("user name"))]
#[case("https://s3cret@example.com/", Err("user name"))]
#[case("https://example.com\\@evil/s3cret", Err("backslash"))]
#[case(" https://example.com/s3cret", Err("neither"))]
#[case("https://example.com/a b", Err("blank"))]
#[case("https://exa\nmple.com/", Err("control"))]
#[case("https://example.com:99999/s3cret", Err("cannot be read"))]
fn an_address(#[case] text: &str, #[case] expected: Result<&str, &str>) {
    match (Link::parse("spec.url", text), expected) {
        (Ok(link), Ok(shown)) => assert_eq!(link.shown(), shown),
        (Err(refusal), Err(word)) => {
            assert!(refusal.message.contains(word), "{refusal}");
            assert!(!refusal.to_string().contains("s3cret"), "{refusal}");
            assert_eq!(
                (refusal.reason, refusal.field.as_deref()),
                ("ConfigurationError", Some("spec.url"))
            );
        }
        (found, expected) => panic!("{found:?} instead of {expected:?}"),
    }
}

#[rstest]
#[case("https://example.com", "https://example.com:443/x", true)]
#[case("https://example.com", "https://EXAMPLE.com./", true)]
#[case("https://example.com", "https://example.com:8443/", false)]
#[case("https://example.com", "http://example.com/", false)]
#[case("https://example.com", "https://www.example.com/", false)]
#[case("http://127.0.0.1", "http://0x7f000001/", true)]
fn the_same_origin(#[case] one: &str, #[case] other: &str, #[case] same: bool) {
    assert_eq!(link(one).origin() == link(other).origin(), same);
}

#[rstest]
#[case::same_host(302, "/new?y=1", Ok(("https://h.example/new", true, false)))]
#[case::relative(302, "new", Ok(("https://h.example/dir/new", true, false)))]
#[case::keeps_the_method(307, "/new", Ok(("https://h.example/new", true, true)))]
#[case::other_host(302, "https://other.example/x", Ok(("https://other.example/x", false, false)))]
#[case::scheme_relative(302, "//other.example/x", Ok(("https://other.example/x", false, false)))]
#[case::other_port(308, "https://h.example:8443/x", Ok(("https://h.example:8443/x", false, false)))]
#[case::downgrade(302, "http://h.example/x", Err("from https to http"))]
#[case::other_scheme(302, "file:///etc/passwd", Err("neither http nor https"))]
#[case::userinfo(302, "https://u:p@h.example/", Err("user name"))]
#[case::backslash(302, "/\\evil.example/", Err("backslash"))]
#[case::unreadable(302, "https://h.example:99999/", Err("invalid port"))]
fn a_redirect(#[case] status: u16, #[case] location: &str, #[case] expected: Result<(&str, bool, bool), &str>) {
    let trail = Trail::new(link("https://h.example/dir/old?token=s3cret"), 10);
    match (trail.follow(status, Some(location)), expected) {
        (Ok(next), Ok((shown, secrets, keeps))) => {
            assert_eq!(next.at().shown(), shown);
            assert_eq!((next.carries_secrets(), next.keeps_method()), (secrets, keeps));
        }
        (Err(error), Err(word)) => {
            assert!(error.to_string().contains(word), "{error}");
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
        }
        (found, expected) => panic!("{found:?} instead of {expected:?}"),
    }
}

#[test]
fn without_a_location_there_is_no_redirect() {
    assert!(Trail::new(link("https://h/"), 10).follow(302, None).is_err());
}

#[test]
fn a_loop_ends_at_the_limit() {
    let mut trail = Trail::new(link("https://h/"), 3);
    for _ in 0..3 {
        trail = trail.follow(302, Some("/")).unwrap();
    }
    assert_eq!(trail.hops(), 3);
    assert!(matches!(
        trail.follow(302, Some("/")),
        Err(TrailError::TooMany { limit: 3, .. })
    ));
}

#[test]
fn secrets_do_not_come_back_with_the_first_host() {
    let away = Trail::new(link("https://h/"), 10)
        .follow(302, Some("https://evil/"))
        .unwrap();
    let back = away.follow(302, Some("https://h/")).unwrap();
    assert!(!back.carries_secrets());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Nothing after `?` or `#` is in anything that a message could show.
    #[test]
    fn a_query_is_never_shown(path in "[a-z/]{0,10}", query in "[A-Z0-9]{6,12}", fragment in "[A-Z0-9]{6,12}") {
        let link = link(&format!("https://h/{path}?{query}#{fragment}"));
        let trail = Trail::new(link.clone(), 0);
        let failed = trail.clone().follow(302, Some(&format!("/{path}?{query}"))).unwrap_err();
        let all = format!("{link} {link:?} {trail:?} {failed} {failed:?} {}", link.shown());
        prop_assert!(!all.contains(&query) && !all.contains(&fragment), "{}", all);
    }

    /// Secrets travel only while every address had the first origin.
    #[test]
    fn secrets_travel_within_one_origin(hops in proptest::collection::vec(0_usize..4, 0..8)) {
        let places = ["https://a/", "https://b/", "https://a:8443/", "/x"];
        let mut trail = Trail::new(link("https://a/"), 20);
        let mut clean = true;
        let mut at = 0;
        for hop in hops {
            at = if hop == 3 { at } else { hop };
            clean &= at == 0;
            trail = trail.follow(307, Some(places[hop])).unwrap();
            prop_assert_eq!(trail.carries_secrets(), clean);
            prop_assert_eq!(trail.keeps_method(), clean);
        }
    }
}
