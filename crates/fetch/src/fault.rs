//! Which way it failed: the typed errors under those of the HTTP and TLS libraries.
//!
//! ```text
//!  hyper_util Error ─▶ chain of sources ─▶ ours (from the connector) │ rustls::Error │ hyper::Error ─▶ Error
//! ```
//!
//! Invariants: classes come from types and codes, never from words in a message.

use std::{error::Error as StdError, io, sync::Arc};

use hyper_util::client::legacy;
use rustls::{AlertDescription, CertificateError, Error as Tls};

use crate::{
    error::{ConnectFault, Error, TlsFault},
    link::Shown,
};

/// An exchange that failed before its answer began.
pub(crate) fn exchange(at: Shown, error: legacy::Error) -> Error {
    let mut protocol = false;
    let mut next: Option<&(dyn StdError + 'static)> = Some(&error);
    while let Some(cause) = next {
        if let Some(ours) = cause.downcast_ref::<Error>() {
            return ours.clone();
        }
        if let Some(fault) = tls_within(cause) {
            return tls(at, fault);
        }
        protocol |= cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse);
        next = cause.source();
    }
    let source = Arc::new(error);
    if protocol {
        Error::Protocol { at, source }
    } else {
        Error::Broken { at, source }
    }
}

/// A handshake that failed.
pub(crate) fn handshake(at: Shown, error: io::Error) -> Error {
    match tls_within(&error) {
        Some(fault) => tls(at, fault),
        None => connect(at, error),
    }
}

/// A connection that failed.
pub(crate) fn connect(at: Shown, error: io::Error) -> Error {
    use io::ErrorKind as Kind;
    let fault = match error.kind() {
        Kind::ConnectionRefused => ConnectFault::Refused,
        Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe | Kind::UnexpectedEof => ConnectFault::Reset,
        Kind::HostUnreachable | Kind::NetworkUnreachable | Kind::NetworkDown | Kind::AddrNotAvailable => {
            ConnectFault::Unreachable
        }
        _ => ConnectFault::Other,
    };
    Error::Connect {
        at,
        fault,
        source: Arc::new(error),
    }
}

/// The TLS error in an I/O error. `io::Error::source` passes over the very error that it wraps.
fn tls_within<'a>(cause: &'a (dyn StdError + 'static)) -> Option<&'a Tls> {
    cause.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref::<Tls>()
}

fn tls(at: Shown, error: &Tls) -> Error {
    Error::Tls {
        at,
        fault: kind(error),
        message: error.to_string(),
    }
}

fn kind(error: &Tls) -> TlsFault {
    match error {
        Tls::InvalidCertificate(error) => certificate(error),
        Tls::NoCertificatesPresented => TlsFault::BadCertificate,
        Tls::PeerIncompatible(_) | Tls::AlertReceived(AlertDescription::ProtocolVersion) => TlsFault::Version,
        // What a server says when it wants a certificate that we did not show, or does not believe the one that we did.
        Tls::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::AccessDenied,
        ) => TlsFault::ClientCertificate,
        _ => TlsFault::Other,
    }
}

fn certificate(error: &CertificateError) -> TlsFault {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => TlsFault::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => TlsFault::NotYetValid,
        // A wrong signature: the issuer has the name of a trusted one and another key, as after a rotation.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => TlsFault::UnknownIssuer,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => TlsFault::WrongName,
        CertificateError::Revoked => TlsFault::Revoked,
        _ => TlsFault::BadCertificate,
    }
}
