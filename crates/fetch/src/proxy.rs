//! `Proxy`: a way around, with its credentials; and which requests take it.
//!
//! ```text
//!  Request.via ─▶ Settled: Proxies (HTTP_PROXY, HTTPS_PROXY, NO_PROXY as texts) │ Direct │ Proxy ─▶ none or one proxy
//! ```
//!
//! Invariants: a text that names no usable proxy is an error, never 'no proxy'; credentials are in no `Debug`.

use std::{fmt, sync::Arc};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::HeaderValue;
use hyper_util::client::proxy::matcher::Matcher;
use secrecy::{ExposeSecret as _, SecretString};

use crate::{
    error::{Error, Result},
    link::Link,
};

/// An HTTP proxy. `https` links go through a tunnel (`CONNECT`), `http` links are asked for by their whole URL. The
/// connection to the proxy itself is TLS if its link is `https`; its certificate is checked against the trusted roots of
/// the request.
///
/// The egress policy judges the proxy by name and by the address it resolves to, and the target by name and by every address
/// that it resolves to here. The proxy resolves it once more and may find others: it has to have rules of its own.
#[derive(Clone)]
pub struct Proxy {
    link: Link,
    authorization: Option<HeaderValue>,
}

impl Proxy {
    /// Read a proxy as environment variables hold it: `[http://][user:password@]host[:port]`. SOCKS is not known.
    pub fn parse(text: &SecretString) -> Result<Self> {
        let bad = || Error::Request {
            what: "the proxy is not a URL of an HTTP proxy".to_owned(),
        };
        // The library reads the text, percent-encoded credentials too, and says nothing about what it cannot read.
        let matcher = Matcher::builder().all(text.expose_secret()).build();
        let found = matcher
            .intercept(&http::Uri::from_static("http://any.invalid/"))
            .ok_or_else(bad)?;
        let link = Link::parse(&found.uri().to_string()).map_err(|_| bad())?;
        Ok(Self {
            link,
            authorization: found.basic_auth().cloned().map(secret),
        })
    }

    /// A proxy with a user name and a password (Basic).
    pub fn with_credentials(link: Link, user: &str, password: &SecretString) -> Result<Self> {
        let basic = BASE64_STANDARD.encode(format!("{user}:{}", password.expose_secret()));
        let value = HeaderValue::try_from(format!("Basic {basic}")).map_err(|_| Error::Request {
            what: "the proxy's credentials fit in no header".to_owned(),
        })?;
        Ok(Self {
            link,
            authorization: Some(secret(value)),
        })
    }

    /// Where it is.
    #[must_use]
    pub const fn link(&self) -> &Link {
        &self.link
    }

    pub(crate) const fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }
}

fn secret(mut value: HeaderValue) -> HeaderValue {
    value.set_sensitive(true);
    value
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({})", self.link)
    }
}

/// Which requests take which proxy.
#[derive(Clone, Default)]
pub struct Proxies {
    http: Option<Proxy>,
    https: Option<Proxy>,
    exempt: Option<Arc<Matcher>>,
}

impl Proxies {
    /// Proxies as the environment variables `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` name them; an empty text is none.
    /// `NO_PROXY` is a list of hosts (with all their subdomains), addresses and ranges; `*` exempts everything.
    pub fn parse(http: Option<&SecretString>, https: Option<&SecretString>, exempt: &str) -> Result<Self> {
        let proxy = |text: Option<&SecretString>| {
            text.filter(|text| !text.expose_secret().trim().is_empty())
                .map(Proxy::parse)
                .transpose()
        };
        // Only its list of exceptions is asked, so that the proxy in it never matters.
        let matcher = Matcher::builder().all("http://any.invalid").no(exempt).build();
        Ok(Self {
            http: proxy(http)?,
            https: proxy(https)?,
            exempt: Some(Arc::new(matcher)),
        })
    }

    fn of(&self, link: &Link, uri: &http::Uri) -> Option<&Proxy> {
        let exempt = self
            .exempt
            .as_ref()
            .is_some_and(|matcher| matcher.intercept(uri).is_none());
        let proxy = if link.is_https() { &self.https } else { &self.http };
        proxy.as_ref().filter(|_| !exempt)
    }
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxies")
            .field("http", &self.http)
            .field("https", &self.https)
            .finish_non_exhaustive()
    }
}

/// Which way a request takes.
#[derive(Debug, Clone, Default)]
pub enum Via {
    /// As the client's settings say.
    #[default]
    Settled,
    /// No proxy.
    Direct,
    /// This proxy, for every hop and whatever `NO_PROXY` says.
    Proxy(Proxy),
}

impl Via {
    pub(crate) fn proxy<'a>(&'a self, settled: &'a Proxies, link: &Link, uri: &http::Uri) -> Option<&'a Proxy> {
        match self {
            Self::Settled => settled.of(link, uri),
            Self::Direct => None,
            Self::Proxy(proxy) => Some(proxy),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::plain("http://proxy.example:3128", Some("http://proxy.example:3128/"), None)]
    #[case::bare("proxy.example:3128", Some("http://proxy.example:3128/"), None)]
    #[case::tls("https://proxy.example", Some("https://proxy.example/"), None)]
    #[case::credentials(
        "http://u:p%40ss@proxy.example",
        Some("http://proxy.example/"),
        Some("Basic dTpwQHNz")
    )]
    #[case::socks("socks5://proxy.example:1080", None, None)]
    #[case::nonsense("::::", None, None)]
    #[case::empty("", None, None)]
    fn reads(#[case] text: &str, #[case] link: Option<&str>, #[case] authorization: Option<&str>) {
        let proxy = Proxy::parse(&text.into());
        assert_eq!(
            proxy.as_ref().ok().map(|proxy| proxy.link().to_string()).as_deref(),
            link
        );
        let sent = proxy
            .ok()
            .and_then(|proxy| proxy.authorization.map(|value| value.to_str().unwrap().to_owned()));
        assert_eq!(sent.as_deref(), authorization);
    }

    #[rstest]
    #[case::https("https://a.example/", Some("http://two/"))]
    #[case::http("http://a.example/", Some("http://one/"))]
    #[case::exempt("https://in.corp/", None)]
    #[case::subdomain("https://x.in.corp/", None)]
    #[case::address("http://10.1.2.3/", None)]
    #[case::similar("https://notin.corp/", Some("http://two/"))]
    fn chooses(#[case] link: &str, #[case] proxy: Option<&str>) {
        let proxies = Proxies::parse(
            Some(&"http://one".into()),
            Some(&"http://two".into()),
            "in.corp,10.0.0.0/8",
        )
        .unwrap();
        let link = Link::parse(link).unwrap();
        let found = Via::Settled
            .proxy(&proxies, &link, &link.uri().unwrap())
            .map(|proxy| proxy.link().to_string());
        assert_eq!(found.as_deref(), proxy);
        assert!(Via::Direct.proxy(&proxies, &link, &link.uri().unwrap()).is_none());
    }

    #[test]
    fn a_proxy_that_cannot_be_read_is_an_error() {
        assert!(Proxies::parse(None, Some(&"socks5://x".into()), "").is_err());
        assert!(Proxies::parse(Some(&"  ".into()), None, "").is_ok());
    }

    #[test]
    fn debug_holds_no_credentials() {
        let proxy = Proxy::parse(&"http://user:geheim@proxy.example".into()).unwrap();
        let proxies = Proxies {
            http: Some(proxy.clone()),
            ..Proxies::default()
        };
        for shown in [
            format!("{proxy:?}"),
            format!("{proxies:?}"),
            format!("{:?}", Via::Proxy(proxy)),
        ] {
            assert!(
                !shown.contains("user") && !shown.contains("geheim") && !shown.contains("Basic"),
                "{shown}"
            );
        }
    }
}
