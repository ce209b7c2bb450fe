//! `Link`: where bytes come from, and `Shown`, the part of it that may be seen.
//!
//! ```text
//!  https://api.example.com/v1/config?token=… ─▶ Link (private) ─▶ Shown: https://api.example.com/v1/config
//! ```
//!
//! Invariants: a link is `http` or `https`, has a host and no userinfo; `Display` and `Debug` show scheme, host, port and
//! path only; an IPv4 address in any spelling (`0x7f.1`, `2130706433`) is read as that address (WHATWG URL).

use std::{fmt, net::IpAddr, sync::Arc};

use url::{Host, Url};

/// How many characters of a path are shown. A hostile `Location` may hold kilobytes.
const SHOWN_PATH: usize = 200;

/// Where bytes come from.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Link(Arc<Url>);

/// Why a text is no link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadLink {
    /// It does not parse as a URL, or holds characters that no request line can carry.
    #[error("it is not a URL")]
    Unreadable,
    /// Another scheme than `http` and `https`.
    #[error("its scheme is neither http nor https")]
    Scheme,
    /// It names no host.
    #[error("it has no host")]
    Host,
    /// It holds a user name or a password.
    #[error("it holds a user name or password; credentials belong into a header")]
    Userinfo,
}

impl Link {
    /// Read a link. A fragment is dropped.
    pub fn parse(text: &str) -> Result<Self, BadLink> {
        Self::of(Url::parse(text).map_err(|_| BadLink::Unreadable)?)
    }

    /// The link that a `Location` names, seen from this one.
    pub(crate) fn join(&self, location: &str) -> Result<Self, BadLink> {
        Self::of(self.0.join(location).map_err(|_| BadLink::Unreadable)?)
    }

    pub(crate) fn of(mut url: Url) -> Result<Self, BadLink> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(BadLink::Scheme);
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(BadLink::Host);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(BadLink::Userinfo);
        }
        url.set_fragment(None);
        http::Uri::try_from(url.as_str()).map_err(|_| BadLink::Unreadable)?;
        Ok(Self(Arc::new(url)))
    }

    /// The same link with more pairs in its query, percent-encoded.
    #[must_use]
    pub fn with_query<'a>(&self, pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut url = Url::clone(&self.0);
        for (name, value) in pairs {
            url.query_pairs_mut().append_pair(name, value);
        }
        Self(Arc::new(url))
    }

    /// The pairs of its query, decoded. They may be secrets.
    #[must_use]
    pub fn query(&self) -> Vec<(String, String)> {
        self.0.query_pairs().into_owned().collect()
    }

    /// The same link without a query.
    #[must_use]
    pub fn without_query(&self) -> Self {
        let mut url = Url::clone(&self.0);
        url.set_query(None);
        Self(Arc::new(url))
    }

    /// All of it, the query as well: for whoever may see secrets.
    #[must_use]
    pub fn whole(&self) -> &str {
        self.0.as_str()
    }

    /// `http` or `https`.
    #[must_use]
    pub fn scheme(&self) -> &str {
        self.0.scheme()
    }

    /// Whether it is `https`.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.scheme() == "https"
    }

    /// The host: a name in lower case, or an address; IPv6 without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default().trim_matches(['[', ']'])
    }

    /// The host if it is an address.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        match self.0.host()? {
            Host::Ipv4(address) => Some(address.into()),
            Host::Ipv6(address) => Some(address.into()),
            Host::Domain(_) => None,
        }
    }

    /// The port, the scheme's own if none is written.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.0.port_or_known_default().unwrap_or_default()
    }

    /// `host:port`, what a limit per host counts by.
    #[must_use]
    pub fn authority(&self) -> String {
        format!("{}:{}", self.0.host_str().unwrap_or_default(), self.port())
    }

    /// Whether a request to the other link goes to the same scheme, host and port.
    #[must_use]
    pub fn same_origin(&self, other: &Self) -> bool {
        self.0.origin() == other.0.origin()
    }

    /// What may be seen of it.
    #[must_use]
    pub fn shown(&self) -> Shown {
        Shown(self.to_string().into())
    }

    /// What a connection to it knows of it: the path is left out.
    pub(crate) fn origin(&self) -> Shown {
        let mut url = Url::clone(&self.0);
        url.set_path("");
        url.set_query(None);
        Self(Arc::new(url)).shown()
    }

    pub(crate) fn uri(&self) -> Result<http::Uri, BadLink> {
        http::Uri::try_from(self.0.as_str()).map_err(|_| BadLink::Unreadable)
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.0.scheme(), self.0.host_str().unwrap_or_default())?;
        if let Some(port) = self.0.port() {
            write!(f, ":{port}")?;
        }
        match self.0.path().char_indices().nth(SHOWN_PATH) {
            None => f.write_str(self.0.path()),
            Some((end, _)) => write!(f, "{}…", self.0.path().get(..end).unwrap_or_default()),
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({self})")
    }
}

/// Scheme, host, port and path of a link: what status, events and logs may hold.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Shown(Arc<str>);

impl Shown {
    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::query("https://a.example/x?token=secret#part", "https://a.example/x")]
    #[case::port("http://a.example:8080", "http://a.example:8080/")]
    #[case::own_port("https://A.example:443/y", "https://a.example/y")]
    #[case::address_in_hex("http://0x7f.1/", "http://127.0.0.1/")]
    #[case::address_as_number("http://2130706433/", "http://127.0.0.1/")]
    #[case::ipv6("http://[::1]:80/", "http://[::1]/")]
    fn shows_no_query(#[case] text: &str, #[case] shown: &str) {
        let link = Link::parse(text).unwrap();
        assert_eq!(link.shown().as_str(), shown);
        assert_eq!(format!("{link:?}"), format!("Link({shown})"));
    }

    #[rstest]
    #[case::no_url("data", BadLink::Unreadable)]
    #[case::scheme("ftp://a.example/", BadLink::Scheme)]
    #[case::file("file:///etc/passwd", BadLink::Scheme)]
    #[case::userinfo("https://user:secret@a.example/", BadLink::Userinfo)]
    #[case::user("https://user@a.example/", BadLink::Userinfo)]
    #[case::host("http://", BadLink::Unreadable)]
    fn refuses(#[case] text: &str, #[case] why: BadLink) {
        assert_eq!(Link::parse(text).unwrap_err(), why);
    }

    #[rstest]
    #[case::same("https://a.example/x", "https://a.example:443/y?z", true)]
    #[case::scheme("https://a.example/", "http://a.example/", false)]
    #[case::port("https://a.example/", "https://a.example:8443/", false)]
    #[case::host("https://a.example/", "https://b.a.example/", false)]
    #[case::case("https://a.example/", "https://A.example/", true)]
    #[case::digits("http://127.0.0.1/", "http://0x7f000001/", true)]
    fn origins(#[case] one: &str, #[case] other: &str, #[case] same: bool) {
        assert_eq!(
            Link::parse(one).unwrap().same_origin(&Link::parse(other).unwrap()),
            same
        );
    }

    #[test]
    fn a_long_path_is_cut() {
        let link = Link::parse(&format!("http://a.example/{}", "x".repeat(5000))).unwrap();
        assert!(link.shown().as_str().len() < 250);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn no_query_is_ever_shown(path in "[a-z/]{0,20}", query in "[!-~]{0,40}") {
            if let Ok(link) = Link::parse(&format!("https://h.example/{path}?QUERY{query}")) {
                prop_assert!(!link.to_string().contains("QUERY"));
                let debug = format!("{link:?}");
                prop_assert!(!debug.contains("QUERY"));
            }
        }
    }
}
