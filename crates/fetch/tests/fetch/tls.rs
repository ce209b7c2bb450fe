//! TLS: who is believed, who is shown what, and how a failure is told.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::Router;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rstest::rstest;
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use trellis_fetch::{Error, Identity, Link, RedirectFault, Request, Settings, TlsFault, Trust};

use crate::support::{Server, client, fails, fetch, quick, raw, serve, serve_tls};

type Ca = CertifiedIssuer<'static, KeyPair>;

static NEXT: AtomicUsize = AtomicUsize::new(0);

pub(crate) fn ca() -> Ca {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // Each has a name of its own, so that one is not taken for another with a wrong signature.
    let name = format!("authority {}", NEXT.fetch_add(1, Ordering::SeqCst));
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A leaf for a name: certificate and key as PEM.
fn leaf(ca: &Ca, name: &str, change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    change(&mut params);
    (params.signed_by(&key, ca).unwrap().pem(), key.serialize_pem())
}

fn builder() -> rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier> {
    ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
}

fn identity(pem: &(String, String)) -> (Vec<rustls::pki_types::CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let certificates = rustls::pki_types::CertificateDer::pem_slice_iter(pem.0.as_bytes())
        .map(Result::unwrap)
        .collect();
    (certificates, PrivateKeyDer::from_pem_slice(pem.1.as_bytes()).unwrap())
}

pub(crate) async fn server(pem: &(String, String), h2: bool, router: Router) -> Server {
    let (certificates, key) = identity(pem);
    let mut config = builder()
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .unwrap();
    if h2 {
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    }
    serve_tls(router, config).await
}

pub(crate) fn good(ca: &Ca) -> (String, String) {
    leaf(ca, "a.test", |_| ())
}

fn hello() -> Router {
    Router::new().fallback(async |asked: axum::extract::Request| format!("{:?}", asked.version()))
}

pub(crate) fn get(server: &Server, host: &str) -> Request {
    Request::get(Link::parse(&format!("https://{host}:{}/x", server.at.port())).unwrap())
}

pub(crate) fn only(ca: &Ca) -> Trust {
    Trust::Only(ca.pem().into_bytes())
}

#[rstest]
#[case::http1(false, "HTTP/1.1")]
#[case::http2(true, "HTTP/2.0")]
#[tokio::test]
async fn a_bundle_is_believed(#[case] h2: bool, #[case] version: &str) {
    let ca = ca();
    let server = server(&good(&ca), h2, hello()).await;
    let client = client(quick());
    for trust in [only(&ca), Trust::RootsAnd(ca.pem().into_bytes())] {
        let (_, sink) = fetch(&client, &get(&server, "a.test").trust(trust)).await.unwrap();
        assert_eq!(String::from_utf8(sink).unwrap(), version);
    }
    assert_eq!(server.accepts(), 2, "one for each trust: they do not share connections");
}

#[tokio::test]
async fn roots_of_the_settings_are_believed() {
    let ca = ca();
    let server = server(&good(&ca), true, hello()).await;
    let client = client(Settings {
        roots: Some(ca.pem().into_bytes()),
        ..quick()
    });
    fetch(&client, &get(&server, "a.test")).await.unwrap();
}

#[rstest]
#[case::expired("a.test", TlsFault::Expired)]
#[case::not_yet_valid("a.test", TlsFault::NotYetValid)]
#[case::wrong_name("b.test", TlsFault::WrongName)]
#[case::unknown_issuer("a.test", TlsFault::UnknownIssuer)]
#[tokio::test]
async fn a_wrong_certificate(#[case] host: &str, #[case] fault: TlsFault) {
    let ca = ca();
    let pem = leaf(&ca, "a.test", |params| match fault {
        TlsFault::Expired => params.not_after = date_time_ymd(2020, 1, 1),
        TlsFault::NotYetValid => params.not_before = date_time_ymd(2100, 1, 1),
        _ => {}
    });
    let trust = if fault == TlsFault::UnknownIssuer {
        only(&self::ca())
    } else {
        only(&ca)
    };
    let server = server(&pem, true, hello()).await;
    let error = fails(&client(quick()), &get(&server, host).trust(trust)).await;
    assert!(
        matches!(&error, Error::Tls { fault: found, .. } if *found == fault),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_self_signed_certificate() {
    let own = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
    let server = server(&(own.cert.pem(), own.signing_key.serialize_pem()), true, hello()).await;
    let error = fails(&client(quick()), &get(&server, "a.test")).await;
    assert!(
        matches!(
            error,
            Error::Tls {
                fault: TlsFault::UnknownIssuer,
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn unchecked_only_where_it_is_allowed() {
    let server = server(&good(&ca()), true, hello()).await;
    let request = get(&server, "b.test").trust(Trust::Unchecked);
    assert!(matches!(
        fails(&client(quick()), &request).await,
        Error::InsecureNotAllowed
    ));
    assert_eq!(server.accepts(), 0);
    fetch(
        &client(Settings {
            allow_unchecked: true,
            ..quick()
        }),
        &request,
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn a_server_without_tls_1_2() {
    // What a server that knows TLS 1.1 at most answers to our hello: the alert protocol_version (RFC 5246, 7.2.2).
    let server = raw(async |mut tcp| {
        let mut hello = [0; 5];
        let _ = tcp.read_exact(&mut hello).await;
        let mut rest = vec![0; usize::from(u16::from_be_bytes([hello[3], hello[4]]))];
        let _ = tcp.read_exact(&mut rest).await;
        let _ = tcp.write_all(&[21, 3, 2, 0, 2, 2, 70]).await;
    })
    .await;
    let error = fails(&client(quick()), &get(&server, "a.test")).await;
    assert!(
        matches!(
            error,
            Error::Tls {
                fault: TlsFault::Version,
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_port_that_speaks_no_tls() {
    let server = serve(hello()).await;
    let error = fails(&client(quick()), &get(&server, "a.test")).await;
    assert!(matches!(error, Error::Tls { .. } | Error::Connect { .. }), "{error:?}");
}

async fn wants_certificate(ca: &Ca) -> Server {
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .unwrap();
    let (certificates, key) = identity(&good(ca));
    serve_tls(
        hello(),
        builder()
            .with_client_cert_verifier(verifier)
            .with_single_cert(certificates, key)
            .unwrap(),
    )
    .await
}

fn shows(pem: (String, String)) -> Identity {
    Identity::new(pem.0.into_bytes(), pem.1.into_bytes())
}

#[tokio::test]
async fn a_client_certificate_is_shown() {
    let ca = ca();
    let server = wants_certificate(&ca).await;
    let client = client(quick());
    let request = get(&server, "a.test").trust(only(&ca));
    fetch(&client, &request.clone().identity(shows(leaf(&ca, "me", |_| ()))))
        .await
        .unwrap();

    let none = fails(&client, &request).await;
    assert!(
        matches!(
            none,
            Error::Tls {
                fault: TlsFault::ClientCertificate,
                ..
            }
        ),
        "{none:?}"
    );
    let foreign = fails(&client, &request.identity(shows(leaf(&self::ca(), "me", |_| ())))).await;
    assert!(
        matches!(
            foreign,
            Error::Tls {
                fault: TlsFault::ClientCertificate,
                ..
            }
        ),
        "{foreign:?}"
    );
}

#[tokio::test]
async fn a_client_certificate_is_not_shown_to_another_origin() {
    let ca = ca();
    let inner = wants_certificate(&ca).await;
    let location = get(&inner, "a.test").link().to_string();
    let outer = server(
        &good(&ca),
        false,
        Router::new().fallback(async move || (axum::http::StatusCode::FOUND, [("location", location)])),
    )
    .await;
    let request = get(&outer, "a.test")
        .trust(only(&ca))
        .identity(shows(leaf(&ca, "me", |_| ())));
    let error = fails(&client(quick()), &request).await;
    assert!(
        matches!(
            error,
            Error::Tls {
                fault: TlsFault::ClientCertificate,
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn https_does_not_lead_to_http() {
    let ca = ca();
    let plain = serve(hello()).await;
    let location = plain.link("/").to_string();
    let server = server(
        &good(&ca),
        true,
        Router::new().fallback(async move || (axum::http::StatusCode::FOUND, [("location", location)])),
    )
    .await;
    let error = fails(&client(quick()), &get(&server, "a.test").trust(only(&ca))).await;
    assert!(
        matches!(
            error,
            Error::Redirect {
                fault: RedirectFault::Downgrade,
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(plain.accepts(), 0);
}
