//! `Request`: what to ask for, how, and whom to believe.
//!
//! ```text
//!  Link + Method + headers (secret) + body + Trust + Identity + Via ─▶ Client::fetch
//! ```
//!
//! Invariants: a header that would change where a request goes, how it is framed or what part of a body comes is refused;
//! `Debug` shows names of headers only.

use std::{fmt, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret as _, SecretString};

use crate::{
    error::{Error, Result},
    hosts::Party,
    link::Link,
    proxy::Via,
    tls::{Identity, Trust},
};

/// How to ask. `HEAD` is not among them: presigned links and `GET`-only APIs refuse it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Method {
    /// The only one that is asked conditionally.
    #[default]
    Get,
    /// With a body.
    Post,
    /// With a body.
    Put,
}

impl Method {
    pub(crate) const fn http(self) -> http::Method {
        match self {
            Self::Get => http::Method::GET,
            Self::Post => http::Method::POST,
            Self::Put => http::Method::PUT,
        }
    }
}

/// Headers that a caller may not give, since they are ours: framing and routing; the condition; the part and the coding of
/// the body.
const OURS: &[&str] = &[
    "accept-encoding",
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What to ask for, how, and whom to believe.
#[derive(Clone)]
pub struct Request {
    pub(crate) link: Link,
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trust: Trust,
    pub(crate) identity: Option<Identity>,
    pub(crate) via: Via,
    pub(crate) header_timeout: Option<Duration>,
    pub(crate) redirects: Option<u32>,
    pub(crate) account: Option<String>,
}

impl Request {
    /// A `GET` of a link.
    #[must_use]
    pub fn get(link: Link) -> Self {
        Self {
            link,
            method: Method::Get,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            trust: Trust::default(),
            identity: None,
            via: Via::default(),
            header_timeout: None,
            redirects: None,
            account: None,
        }
    }

    /// With another method, and a body, which may be empty. A `GET` has none.
    pub fn method(mut self, method: Method, body: impl Into<Bytes>) -> Result<Self> {
        let body = body.into();
        if method == Method::Get && !body.is_empty() {
            return Err(Error::Request {
                what: "a GET has no body".to_owned(),
            });
        }
        self.method = method;
        self.body = body;
        Ok(self)
    }

    /// With one header more. Its value is taken for a secret; a line end at its end, as Secrets made from files have it,
    /// is dropped.
    ///
    /// # Errors
    /// [`Error::Request`] if the name or the value cannot be sent, or the header is ours.
    pub fn header(mut self, name: &str, value: &SecretString) -> Result<Self> {
        let bad = |why: &str| Error::Request {
            what: format!("header {name:?} {why}"),
        };
        let known = HeaderName::try_from(name).map_err(|_| bad("is not a header's name"))?;
        if OURS.contains(&known.as_str()) {
            return Err(bad("cannot be set"));
        }
        let value = value.expose_secret().trim_end_matches(['\r', '\n']);
        let mut value = HeaderValue::try_from(value).map_err(|_| bad("has a value that no header can hold"))?;
        value.set_sensitive(true);
        self.headers.append(known, value);
        Ok(self)
    }

    /// Whose certificates are believed.
    #[must_use]
    pub fn trust(mut self, trust: Trust) -> Self {
        self.trust = trust;
        self
    }

    /// With a client certificate.
    #[must_use]
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Which way it takes.
    #[must_use]
    pub fn via(mut self, via: Via) -> Self {
        self.via = via;
        self
    }

    /// With another limit from the request to the headers of its answer.
    #[must_use]
    pub fn header_timeout(mut self, limit: Duration) -> Self {
        self.header_timeout = Some(limit);
        self
    }

    /// With another number of redirects that are followed.
    #[must_use]
    pub fn redirects(mut self, most: u32) -> Self {
        self.redirects = Some(most);
        self
    }

    /// As whom it asks, where its headers do not say it: a signature is another one each time.
    #[must_use]
    pub(crate) fn account(mut self, id: Option<&str>) -> Self {
        self.account = id.map(ToOwned::to_owned);
        self
    }

    /// Whom a wait is for that its host asks for; beyond the origin that it names, nothing of it is known there.
    pub(crate) fn party(&self, tenant: Option<&str>, foreign: bool) -> Party {
        let tenant = [tenant.unwrap_or_default().as_bytes()];
        if foreign {
            return Party::of(tenant);
        }
        let headers = self.headers.iter();
        let headers = headers.flat_map(|(name, value)| [name.as_str().as_bytes(), value.as_bytes()]);
        let identity = self.identity.iter().map(|identity| identity.certificates.as_slice());
        let account = self.account.iter().map(String::as_bytes);
        Party::of(tenant.into_iter().chain(account).chain(identity).chain(headers))
    }

    /// Where it goes.
    #[must_use]
    pub const fn link(&self) -> &Link {
        &self.link
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("link", &self.link)
            .field("method", &self.method)
            .field("headers", &self.headers.keys().collect::<Vec<_>>())
            .field("body", &format_args!("{} bytes", self.body.len()))
            .field("via", &self.via)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn request() -> Request {
        Request::get(Link::parse("https://a.example/?q=geheim").unwrap())
    }

    #[rstest]
    #[case::host("Host", "x")]
    #[case::framing("Content-Length", "3")]
    #[case::condition("If-None-Match", "\"x\"")]
    #[case::part("Range", "bytes=0-1")]
    #[case::proxy("Proxy-Authorization", "Basic eA==")]
    #[case::name("X Y", "x")]
    #[case::no_name("", "x")]
    #[case::value("X-Key", "a\r\nHost: b")]
    #[case::nul("X-Key", "a\0b")]
    fn refuses(#[case] name: &str, #[case] value: &str) {
        let error = request().header(name, &value.into()).unwrap_err();
        assert!(matches!(error, Error::Request { .. }));
    }

    #[test]
    fn a_line_end_is_dropped_and_nothing_is_shown() {
        let request = request().header("X-Key", &"geheim\n".into()).unwrap();
        assert_eq!(request.headers.get("x-key").unwrap().as_bytes(), b"geheim");
        let request = request.method(Method::Post, "geheim").unwrap();
        assert!(!format!("{request:?}").contains("geheim"));
        assert!(format!("{request:?}").contains("x-key"));
    }

    #[test]
    fn a_get_has_no_body() {
        assert!(request().method(Method::Get, "x").is_err());
    }
}
