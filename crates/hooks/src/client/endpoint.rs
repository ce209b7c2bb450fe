//! `Endpoint`: where a sidecar is, as `HOOK_EXECUTOR_ENDPOINT` says it.

use std::{fmt, path::PathBuf};

use http::Uri;

use crate::Token;

/// Where a sidecar is.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Endpoint {
    /// Its socket file.
    Socket(PathBuf),
    /// Its port on 127.0.0.1, with the token that it asks for, if it does.
    Loopback {
        /// The port.
        port: u16,
        /// What it asks for.
        token: Option<Token>,
    },
}

/// Text that names no sidecar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no endpoint of a hook executor; write unix:///run/trellis/hooks.sock or http://localhost:8082 (it is always in the same Pod)"
)]
pub struct EndpointError(pub String);

impl Endpoint {
    /// Reads `unix:///path/of/the.sock` or `http://localhost:8082` (also 127.0.0.1), which the token is for.
    pub fn parse(text: &str, token: Option<Token>) -> Result<Self, EndpointError> {
        let bad = || EndpointError(text.to_owned());
        if let Some(path) = text.strip_prefix("unix://") {
            return if path.starts_with('/') {
                Ok(Self::Socket(path.into()))
            } else {
                Err(bad())
            };
        }
        let uri: Uri = text.parse().map_err(|_| bad())?;
        let local = matches!(uri.host(), Some("localhost" | "127.0.0.1"));
        let plain = uri.scheme_str() == Some("http") && matches!(uri.path(), "" | "/") && uri.query().is_none();
        let unnamed = uri
            .authority()
            .is_some_and(|authority| !authority.as_str().contains('@'));
        if !(local && plain && unnamed) {
            return Err(bad());
        }
        Ok(Self::Loopback {
            port: uri.port_u16().unwrap_or(80),
            token,
        })
    }

    pub(super) fn token(&self) -> Option<&Token> {
        match self {
            Self::Socket(_) => None,
            Self::Loopback { token, .. } => token.as_ref(),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(out, "unix://{}", path.display()),
            Self::Loopback { port, .. } => write!(out, "http://localhost:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("http://localhost:8082", Some("http://localhost:8082"))]
    #[case("http://127.0.0.1:8082/", Some("http://localhost:8082"))]
    #[case("unix:///run/hooks.sock", Some("unix:///run/hooks.sock"))]
    #[case("unix://run/hooks.sock", None)]
    #[case("http://hooks.example:8082", None)]
    #[case("https://localhost:8082", None)]
    #[case("http://localhost:8082/execute", None)]
    #[case("http://a@localhost:8082", None)]
    #[case("localhost:8082", None)]
    #[case("", None)]
    fn only_a_neighbour_is_an_endpoint(#[case] text: &str, #[case] shown: Option<&str>) {
        assert_eq!(
            Endpoint::parse(text, None).ok().map(|at| at.to_string()).as_deref(),
            shown
        );
    }
}
