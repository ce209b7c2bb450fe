//! `Link`: an address to fetch from, shown without what could be a secret.
//!
//! ```text
//!  text ─▶ Link ─▶ shown: scheme://host:port/path
//! ```
//!
//! Invariants: `http` or `https`, a host, no userinfo; query and fragment are never in `Debug`, `Display` or an error. Where
//! redirects lead is for whoever follows them: `trellis-fetch`.

use std::fmt;

use trellis_core::Refusal;
use url::{Host, Url};

use crate::reason::Reason;

/// Longest address, in bytes.
pub const LENGTH_LIMIT: usize = 8192;

/// An address of an upstream.
#[derive(Clone, PartialEq, Eq)]
pub struct Link(Url);

/// How a link reaches its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// The spelling in URLs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

impl Link {
    /// Reads an address.
    ///
    /// # Errors
    /// `ConfigurationError`; the message repeats nothing of the text, which may hold a password.
    pub fn parse(field: &str, text: &str) -> Result<Self, Refusal> {
        let refuse = |message: &str| Reason::ConfigurationError.refuse(message).field(field);
        let lower = text.get(..8).unwrap_or(text).to_ascii_lowercase();
        let rest = if lower.starts_with("https://") {
            text.get(8..)
        } else if lower.starts_with("http://") {
            text.get(7..)
        } else {
            return Err(refuse("the URL starts neither with http:// nor with https://"));
        };
        if text.len() > LENGTH_LIMIT {
            return Err(refuse("the URL is longer than 8192 bytes"));
        }
        // The URL standard drops or reinterprets these; a reader would see another address than the one that is asked.
        if text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\') {
            return Err(refuse("the URL has a blank, a backslash or a control character").hint("percent-encode it"));
        }
        if rest.unwrap_or_default().starts_with(['/', '?', '#']) || rest.unwrap_or_default().is_empty() {
            return Err(refuse("the URL has no host"));
        }
        let url = Url::parse(text).map_err(|error| refuse(&format!("the URL cannot be read: {error}")))?;
        Self::checked(url).map_err(refuse)
    }

    /// The rules beyond those of URLs.
    fn checked(mut url: Url) -> Result<Self, &'static str> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err("the URL is neither http nor https");
        }
        if url.host_str().is_none_or(|host| host.trim_matches('.').is_empty()) {
            return Err("the URL has no host");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("the URL carries a user name or password, which belong into headersSecretRef");
        }
        url.set_fragment(None);
        Ok(Self(url))
    }

    /// Scheme, host, port and path: what may be shown.
    #[must_use]
    pub fn shown(&self) -> String {
        let mut url = self.0.clone();
        url.set_query(None);
        url.set_fragment(None);
        url.into()
    }

    /// How the host is reached.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        if self.0.scheme() == "https" {
            Scheme::Https
        } else {
            Scheme::Http
        }
    }

    /// The host in lower case, without a trailing dot; an IPv6 address without brackets.
    #[must_use]
    pub fn host(&self) -> String {
        match self.0.host() {
            Some(Host::Domain(name)) => name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            None => String::new(),
        }
    }

    /// The last segment of the path that is not empty, percent-decoded where that gives text.
    #[must_use]
    pub fn last_segment(&self) -> Option<String> {
        let segment = self.0.path_segments()?.rfind(|segment| !segment.is_empty())?;
        Some(decoded(segment))
    }
}

fn decoded(segment: &str) -> String {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.bytes();
    while let Some(byte) = rest.next() {
        let ahead = rest.clone().next().zip(rest.clone().nth(1));
        match ahead.and_then(|(high, low)| Some((digit(high)?, digit(low)?))) {
            Some((high, low)) if byte == b'%' => {
                bytes.push(high << 4 | low);
                rest.nth(1);
            }
            _ => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

impl fmt::Debug for Link {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Link({self})")
    }
}

impl fmt::Display for Link {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.shown())
    }
}

#[cfg(test)]
mod tests;
