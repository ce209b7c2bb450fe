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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Nothing after `?` or `#` is in anything that a message could show.
    #[test]
    fn a_query_is_never_shown(path in "[a-z/]{0,10}", query in "[A-Z0-9]{6,12}", fragment in "[A-Z0-9]{6,12}") {
        let link = link(&format!("https://h/{path}?{query}#{fragment}"));
        let all = format!("{link} {link:?} {}", link.shown());
        prop_assert!(!all.contains(&query) && !all.contains(&fragment), "{}", all);
    }
}
