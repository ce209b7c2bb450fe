//! What a redirect asks for (RFC 9110, 15.4), decided without asking anyone.
//!
//! ```text
//!  (from, method, body?, status, Location) ─▶ none │ Hop { link, method, foreign } │ RedirectFault
//! ```
//!
//! Invariants: `https` never leads to `http`; a body never goes to another origin; what is foreign once stays so.

use crate::{error::RedirectFault, link::Link, request::Method};

/// Where to ask next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Hop {
    pub(crate) link: Link,
    pub(crate) method: Method,
    /// Another origin: nothing that the caller gave as a secret goes there.
    pub(crate) foreign: bool,
}

/// Whether a status is one of a redirect that is followed.
pub(crate) const fn is_redirect(status: u16) -> bool {
    matches!(status, 301 | 302 | 303 | 307 | 308)
}

/// What a redirect asks for. 303 turns every method into `GET`; 301 and 302 do so with `POST`, as all clients do; 307 and
/// 308 keep method and body.
pub(crate) fn next(
    from: &Link,
    method: Method,
    status: u16,
    location: Option<&str>,
) -> Result<Hop, (Option<Link>, RedirectFault)> {
    let location = location.ok_or((None, RedirectFault::NoLocation))?;
    let link = from.join(location).map_err(|why| (None, RedirectFault::Link(why)))?;
    if from.is_https() && !link.is_https() {
        return Err((Some(link), RedirectFault::Downgrade));
    }
    let method = match (status, method) {
        (303, _) | (301 | 302, Method::Post) => Method::Get,
        (_, method) => method,
    };
    let foreign = !from.same_origin(&link);
    if foreign && method != Method::Get {
        return Err((Some(link), RedirectFault::BodyElsewhere));
    }
    Ok(Hop { link, method, foreign })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn link(text: &str) -> Link {
        Link::parse(text).unwrap()
    }

    #[rstest]
    #[case::path("https://a.example/x/y?k=1", "../z", "https://a.example/z")]
    #[case::absolute_path("https://a.example/x", "/z?k=2", "https://a.example/z?k=2")]
    #[case::scheme_relative("https://a.example/x", "//b.example/z", "https://b.example/z")]
    #[case::whole("http://a.example/x", "https://b.example/", "https://b.example/")]
    fn resolves(#[case] from: &str, #[case] location: &str, #[case] to: &str) {
        assert_eq!(
            next(&link(from), Method::Get, 302, Some(location)).unwrap().link,
            link(to)
        );
    }

    #[rstest]
    #[case(301, Method::Post, Method::Get)]
    #[case(302, Method::Post, Method::Get)]
    #[case(303, Method::Post, Method::Get)]
    #[case(303, Method::Put, Method::Get)]
    #[case(301, Method::Put, Method::Put)]
    #[case(307, Method::Post, Method::Post)]
    #[case(308, Method::Post, Method::Post)]
    #[case(308, Method::Put, Method::Put)]
    #[case(307, Method::Get, Method::Get)]
    fn methods(#[case] status: u16, #[case] method: Method, #[case] after: Method) {
        assert_eq!(
            next(&link("https://a.example/"), method, status, Some("/x"))
                .unwrap()
                .method,
            after
        );
    }

    #[rstest]
    #[case::downgrade(
        "https://a.example/",
        Method::Get,
        302,
        Some("http://a.example/"),
        RedirectFault::Downgrade
    )]
    #[case::nowhere("https://a.example/", Method::Get, 302, None, RedirectFault::NoLocation)]
    #[case::file(
        "http://a.example/",
        Method::Get,
        302,
        Some("file:///etc/passwd"),
        RedirectFault::Link(crate::BadLink::Scheme)
    )]
    #[case::userinfo(
        "http://a.example/",
        Method::Get,
        302,
        Some("http://u:p@b.example/"),
        RedirectFault::Link(crate::BadLink::Userinfo)
    )]
    #[case::body(
        "https://a.example/",
        Method::Post,
        307,
        Some("https://b.example/"),
        RedirectFault::BodyElsewhere
    )]
    fn refuses(
        #[case] from: &str,
        #[case] method: Method,
        #[case] status: u16,
        #[case] location: Option<&str>,
        #[case] fault: RedirectFault,
    ) {
        assert_eq!(next(&link(from), method, status, location).unwrap_err().1, fault);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]
        #[test]
        fn no_location_leads_below_https(location in "\\PC{0,60}", status in 301u16..=308) {
            if let Ok(hop) = next(&link("https://a.example/x"), Method::Get, status, Some(&location)) {
                prop_assert!(hop.link.is_https());
                prop_assert_eq!(hop.foreign, hop.link.host() != "a.example" || hop.link.port() != 443);
            }
        }
    }
}
