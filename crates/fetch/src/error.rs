//! What can go wrong while bytes are got, in the terms that a caller needs to classify it.
//!
//! ```text
//!  link ─ policy ─ gate ─ name ─ connection ─ TLS ─ answer ─ redirect ─ body ─ sink      one variant (or more) for each
//! ```
//!
//! Invariants: no variant holds a query, userinfo or the value of a header that was sent; header values that came back
//! are in [`Hints`], whose `Debug` shows only which there are.

use std::{fmt, io, net::IpAddr, sync::Arc, time::Duration};

use crate::link::{BadLink, Shown};

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Bytes could not be got.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The link that was given is none. The user's to change.
    #[error("the link cannot be asked: {0}")]
    Link(BadLink),
    /// The request cannot be sent as it was asked for. The user's to change.
    #[error("the request cannot be sent: {what}")]
    Request {
        /// What is wrong with it; names of headers, never values.
        what: String,
    },
    /// TLS material does not parse or does not fit together. The user's to change.
    #[error("the {what} cannot be used: {why}")]
    Material {
        /// Which, such as `CA bundle`.
        what: &'static str,
        /// Why.
        why: String,
    },
    /// Certificates were not to be checked, which the settings do not allow.
    #[error("certificates may not go unchecked here")]
    InsecureNotAllowed,
    /// The egress policy says no.
    #[error("{}{at}{} may not be reached: {rule}", from.as_ref().map(|from| format!("{from} redirects to ")).unwrap_or_default(),
        if from.is_some() { ", which" } else { "" })]
    Denied {
        /// What was asked first, if redirects led from there to what may not be reached.
        from: Option<Shown>,
        /// What was to be asked.
        at: Shown,
        /// The address, if the name was allowed and what it resolves to was not.
        address: Option<IpAddr>,
        /// The policy's rule.
        rule: String,
    },
    /// The host asked those who ask it with these credentials to wait, through this source or another. Nothing was sent.
    #[error("{host} asked to wait; {} s are left", wait.as_secs().max(1))]
    Held {
        /// `host:port`.
        host: String,
        /// How long it still wants to wait.
        wait: Duration,
    },
    /// The name could not be resolved.
    #[error("{host} cannot be resolved")]
    Dns {
        /// The name.
        host: String,
        /// The resolver's error.
        #[source]
        source: Arc<io::Error>,
    },
    /// No connection.
    #[error("no connection to {at}: {fault}")]
    Connect {
        /// What was connected to.
        at: Shown,
        /// Which way it failed.
        fault: ConnectFault,
        /// The system's error.
        #[source]
        source: Arc<io::Error>,
    },
    /// No TLS session: a certificate that is not trusted, or no common protocol.
    #[error("no TLS session with {at}: {fault}: {message}")]
    Tls {
        /// The server, or the proxy.
        at: Shown,
        /// Which way it failed.
        fault: TlsFault,
        /// The TLS library's words.
        message: String,
    },
    /// The proxy did not open a tunnel.
    #[error("the proxy {proxy} opened no tunnel: {message}")]
    Proxy {
        /// The proxy.
        proxy: Shown,
        /// Its status, such as 407, if it answered.
        status: Option<u16>,
        /// In words.
        message: String,
    },
    /// Something took too long.
    #[error("{at}: {which} took longer than {} s", after.as_secs_f64())]
    Timeout {
        /// What was asked.
        at: Shown,
        /// What took too long.
        which: Timeout,
        /// The limit.
        after: Duration,
    },
    /// The connection broke before the answer began.
    #[error("{at}: the connection broke before an answer")]
    Broken {
        /// What was asked.
        at: Shown,
        /// The HTTP library's error.
        #[source]
        source: Arc<hyper_util::client::legacy::Error>,
    },
    /// What came is not HTTP, or breaks its rules.
    #[error("{at}: the answer is not HTTP")]
    Protocol {
        /// What was asked.
        at: Shown,
        /// The HTTP library's error.
        #[source]
        source: Arc<hyper_util::client::legacy::Error>,
    },
    /// An answer with another status than success.
    #[error("{at} answered {status}")]
    Status {
        /// What answered, after redirects.
        at: Shown,
        /// The status code.
        status: u16,
        /// What it said about when to come back.
        hints: Hints,
    },
    /// A redirect that is not followed.
    #[error("{from} redirects{}: {fault}", to.as_ref().map(|to| format!(" to {to}")).unwrap_or_default())]
    Redirect {
        /// What redirected.
        from: Shown,
        /// To where, if that can be read.
        to: Option<Shown>,
        /// Why it is not followed.
        fault: RedirectFault,
    },
    /// The body is larger than allowed.
    #[error("{at}: {excess}, more than the limit of {limit} bytes")]
    TooLarge {
        /// What was asked.
        at: Shown,
        /// The limit in bytes.
        limit: u64,
        /// How that showed.
        excess: Excess,
    },
    /// The body ended early.
    #[error("{at}: the body was cut off after {received} bytes")]
    Cut {
        /// What was asked.
        at: Shown,
        /// Bytes that came, as sent.
        received: u64,
        /// The HTTP library's error.
        #[source]
        source: Arc<hyper::Error>,
    },
    /// The body's content coding is none that is known here, or is damaged.
    #[error("{at}: the content coding cannot be undone: {why}")]
    Encoding {
        /// What was asked.
        at: Shown,
        /// Why.
        why: &'static str,
    },
    /// The sink did not take the bytes.
    #[error("the body cannot be written")]
    Sink(#[source] Arc<io::Error>),
}

/// Which way a connection failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectFault {
    /// Nothing listens there.
    Refused,
    /// It was closed by the other side.
    Reset,
    /// There is no way to the address.
    Unreachable,
    /// Anything else.
    Other,
}

impl fmt::Display for ConnectFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "connection refused",
            Self::Reset => "closed by the other side",
            Self::Unreachable => "no route",
            Self::Other => "it failed",
        })
    }
}

/// Which way TLS failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsFault {
    /// The certificate is no longer valid.
    Expired,
    /// The certificate is not yet valid.
    NotYetValid,
    /// No trusted authority issued it; a self-signed one too.
    UnknownIssuer,
    /// It is for another name.
    WrongName,
    /// It is revoked.
    Revoked,
    /// The certificate is wrong in another way.
    BadCertificate,
    /// The server did not accept our certificate, or wants one.
    ClientCertificate,
    /// No common protocol version or cipher; TLS 1.2 is the least.
    Version,
    /// Anything else.
    Other,
}

impl fmt::Display for TlsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "its certificate has expired",
            Self::NotYetValid => "its certificate is not valid yet",
            Self::UnknownIssuer => "its certificate is from no trusted authority",
            Self::WrongName => "its certificate is for another name",
            Self::Revoked => "its certificate is revoked",
            Self::BadCertificate => "its certificate cannot be used",
            Self::ClientCertificate => "it did not accept the client certificate",
            Self::Version => "no common protocol version (TLS 1.2 or later is needed)",
            Self::Other => "the handshake failed",
        })
    }
}

/// What took too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Timeout {
    /// Name, connection, tunnel and TLS together.
    Connect,
    /// From the request to the headers of its answer.
    Header,
    /// Between two pieces of the body.
    Idle,
    /// Everything together, redirects too.
    Total,
}

impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connecting",
            Self::Header => "the answer",
            Self::Idle => "the next piece of the body",
            Self::Total => "the whole request",
        })
    }
}

/// Why a redirect is not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RedirectFault {
    /// More hops than allowed; a loop ends so too.
    TooMany {
        /// The limit.
        limit: u32,
    },
    /// From `https` to `http`.
    Downgrade,
    /// It names no place.
    NoLocation,
    /// The place is no link that can be asked.
    Link(BadLink),
    /// It would carry the body of the request to another origin.
    BodyElsewhere,
}

impl fmt::Display for RedirectFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany { limit } => write!(f, "more than {limit} redirects"),
            Self::Downgrade => f.write_str("from https to http"),
            Self::NoLocation => f.write_str("it does not say where to"),
            Self::Link(why) => write!(f, "{why}"),
            Self::BodyElsewhere => f.write_str("the request's body would go to another origin"),
        }
    }
}

/// How a body showed that it is too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Excess {
    /// It was announced.
    Declared(u64),
    /// More came.
    Received,
    /// More came out of its content coding.
    Decoded,
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Declared(size) => write!(f, "the body is announced with {size} bytes"),
            Self::Received => f.write_str("the body has more bytes"),
            Self::Decoded => f.write_str("the decompressed body has more bytes"),
        }
    }
}

/// What an answer said about when to come back, as it came.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Hints {
    /// `Retry-After`.
    pub retry_after: Option<String>,
    /// Headers whose names begin with `ratelimit` or `x-ratelimit` (RFC draft `ratelimit-headers`, GitHub, GitLab), name in
    /// lower case, at most 16 of them.
    pub rate_limit: Vec<(String, String)>,
    /// `Date`, which the times above may have to be seen against.
    pub date: Option<String>,
}

impl fmt::Debug for Hints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hints")
            .field("retry_after", &self.retry_after.is_some())
            .field(
                "rate_limit",
                &self.rate_limit.iter().map(|(name, _)| name).collect::<Vec<_>>(),
            )
            .finish_non_exhaustive()
    }
}
