//! `Trust` and `Identity`: whom a request believes, and who it says that we are.
//!
//! ```text
//!  Trust ─┬─▶ rustls::ClientConfig (TLS 1.2 and 1.3, ALPN h2 and http/1.1)
//!  Identity ┘
//! ```
//!
//! Invariants: the process's crypto provider is used if one is installed; no version below TLS 1.2 is offered; a CA bundle
//! and 'unchecked' cannot be said together; keys are in no `Debug`.

use std::{fmt, sync::Arc};

use ::aws_lc_rs::digest::{Context, SHA256};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
};
use secrecy::{ExposeSecret as _, SecretSlice};

use crate::error::{Error, Result};

/// Whose certificates are believed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Trust {
    /// The client's roots ([`Settings::roots`](crate::Settings)).
    #[default]
    Roots,
    /// The client's roots and this PEM bundle.
    RootsAnd(Vec<u8>),
    /// This PEM bundle instead of the roots, as `curl --cacert` does: a server whose authority is a private one cannot be
    /// stood in for by any public authority.
    Only(Vec<u8>),
    /// Anyone: nothing is checked. Refused unless [`Settings::allow_unchecked`](crate::Settings) is set.
    Unchecked,
}

/// A client certificate (mTLS). It is shown to the origin of the first link only, not to where that redirects.
#[derive(Clone)]
pub struct Identity {
    pub(crate) certificates: Vec<u8>,
    key: SecretSlice<u8>,
}

impl Identity {
    /// A chain, the client's certificate first, and its private key, both PEM. They are read when a request is made.
    #[must_use]
    pub fn new(certificates: Vec<u8>, key: Vec<u8>) -> Self {
        Self {
            certificates,
            key: key.into(),
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity")
    }
}

/// A name for a TLS configuration: equal for equal configurations, and says nothing about the key in it.
pub(crate) fn fingerprint(trust: &Trust, identity: Option<&Identity>) -> Vec<u8> {
    let mut context = Context::new(&SHA256);
    let mut part = |bytes: &[u8]| {
        context.update(&bytes.len().to_le_bytes());
        context.update(bytes);
    };
    match trust {
        Trust::Roots => part(b"roots"),
        Trust::RootsAnd(pem) => [b"and", pem.as_slice()].into_iter().for_each(&mut part),
        Trust::Only(pem) => [b"only", pem.as_slice()].into_iter().for_each(&mut part),
        Trust::Unchecked => part(b"unchecked"),
    }
    if let Some(identity) = identity {
        part(&identity.certificates);
        part(identity.key.expose_secret());
    }
    context.finish().as_ref().to_vec()
}

fn provider() -> Arc<CryptoProvider> {
    CryptoProvider::get_default()
        .cloned()
        .unwrap_or_else(|| Arc::new(aws_lc_rs::default_provider()))
}

/// Build the configuration; `roots` are the client's own, as PEM.
pub(crate) fn config(roots: Option<&[u8]>, trust: &Trust, identity: Option<&Identity>) -> Result<ClientConfig> {
    let provider = provider();
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Material {
            what: "crypto provider",
            why: error.to_string(),
        })?;
    let builder = match trust {
        Trust::Unchecked => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone(provider))),
        Trust::Roots => builder.with_root_certificates(public(roots)?),
        Trust::RootsAnd(pem) => {
            let mut store = public(roots)?;
            add(&mut store, "CA bundle", pem)?;
            builder.with_root_certificates(store)
        }
        Trust::Only(pem) => {
            let mut store = RootCertStore::empty();
            add(&mut store, "CA bundle", pem)?;
            builder.with_root_certificates(store)
        }
    };
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let bad = |why: String| Error::Material {
                what: "client certificate",
                why,
            };
            let chain = certificates("client certificate", &identity.certificates)?;
            // The parser's message speaks of the form only; it is not passed on all the same, being about a key.
            let key = PrivateKeyDer::from_pem_slice(identity.key.expose_secret())
                .map_err(|_| bad("its key is no PEM private key".to_owned()))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| bad(error.to_string()))?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn public(roots: Option<&[u8]>) -> Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    match roots {
        None => store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(pem) => {
            // A system's bundle may hold a few that cannot be read; curl passes over those too.
            let (added, _) = store.add_parsable_certificates(certificates("trusted roots", pem)?);
            if added == 0 {
                return Err(Error::Material {
                    what: "trusted roots",
                    why: "no certificate in it can be used".to_owned(),
                });
            }
        }
    }
    Ok(store)
}

fn add(store: &mut RootCertStore, what: &'static str, pem: &[u8]) -> Result<()> {
    for certificate in certificates(what, pem)? {
        store.add(certificate).map_err(|error| Error::Material {
            what,
            why: error.to_string(),
        })?;
    }
    Ok(())
}

fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let found = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| Error::Material {
            what,
            why: "it is not PEM".to_owned(),
        })?;
    if found.is_empty() {
        return Err(Error::Material {
            what,
            why: "it holds no certificate".to_owned(),
        });
    }
    Ok(found)
}

/// Believes any certificate; the handshake itself is still checked, so that the session is with whoever showed it.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::not_pem(b"hello".as_slice(), "it holds no certificate")]
    #[case::empty(b"".as_slice(), "it holds no certificate")]
    #[case::broken(b"-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n".as_slice(), "it is not PEM")]
    fn a_bundle_that_cannot_be_used(#[case] pem: &[u8], #[case] expected: &str) {
        for trust in [Trust::Only(pem.to_vec()), Trust::RootsAnd(pem.to_vec())] {
            let error = config(None, &trust, None).unwrap_err();
            assert!(matches!(error, Error::Material { what: "CA bundle", why } if why == expected));
        }
    }

    #[test]
    fn a_key_is_in_no_message() {
        let own = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        let identity = Identity::new(own.cert.pem().into_bytes(), b"geheim".to_vec());
        let error = config(None, &Trust::Roots, Some(&identity)).unwrap_err();
        assert!(!format!("{error} {error:?} {identity:?}").contains("geheim"));
    }

    #[test]
    fn configurations_are_told_apart() {
        let one = Identity::new(b"a".to_vec(), b"bc".to_vec());
        let two = Identity::new(b"ab".to_vec(), b"c".to_vec());
        let all = [
            fingerprint(&Trust::Roots, None),
            fingerprint(&Trust::Unchecked, None),
            fingerprint(&Trust::Only(b"x".to_vec()), None),
            fingerprint(&Trust::RootsAnd(b"x".to_vec()), None),
            fingerprint(&Trust::Roots, Some(&one)),
            fingerprint(&Trust::Roots, Some(&two)),
        ];
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
    }
}
