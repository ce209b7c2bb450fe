//! Servers that are not who they say, and ways out of TLS.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use serde_json::json;
use tokio_rustls::rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

use super::{Case, HOST, SECRET, Then, prove, secret, site};
use crate::wire::{Act, answers, greets, shakes_hands};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A server with this certificate.
fn server(certificate: &str, key: &KeyPair, then: Act) -> Act {
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).map(Result::unwrap);
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.collect(), key)
        .unwrap();
    shakes_hands(config, then)
}

/// A server whose certificate this authority signed for this name.
fn signed(by: &Authority, name: &str, change: impl FnOnce(&mut CertificateParams), then: Act) -> Act {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    change(&mut params);
    server(&params.signed_by(&key, by).unwrap().pem(), &key, then)
}

/// Nothing is asked of a server that does not prove who it is, and nothing leads from TLS to plain text.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_who_it_says_is_asked_nothing() {
    let site = site("hostile-tls").await;
    let (ours, theirs) = (authority("ours"), authority("theirs"));
    secret(&site, "authority", json!({ "ca.crt": ours.pem() })).await;
    // Asked in the clear or by the wrong one, it would answer.
    let leaks = || answers("200 OK", "", SECRET.as_bytes());
    let own = KeyPair::generate().unwrap();
    let alone = CertificateParams::new([HOST.to_owned()]).unwrap();
    let alone = alone.self_signed(&own).unwrap().pem();
    let location = format!("location: http://{HOST}/app.yaml?token={SECRET}\r\n");
    let down = signed(&ours, HOST, |_| (), answers("302 Found", &location, b""));
    let expired = |params: &mut CertificateParams| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    };
    let early = |params: &mut CertificateParams| {
        params.not_before = date_time_ymd(2090, 1, 1);
        params.not_after = date_time_ymd(2091, 1, 1);
    };
    let at = |fault: &str| format!("no TLS session with ORIGIN/: {fault}…");
    let table = [
        (
            "self-signed",
            server(&alone, &own, leaks()),
            at("its certificate is from no trusted authority: "),
        ),
        (
            "stranger",
            signed(&theirs, HOST, |_| (), leaks()),
            at("its certificate is from no trusted authority: "),
        ),
        (
            "wrong-name",
            signed(&ours, "other.test", |_| (), leaks()),
            at("its certificate is for another name: "),
        ),
        (
            "expired",
            signed(&ours, HOST, expired, leaks()),
            at("its certificate has expired: "),
        ),
        (
            "early",
            signed(&ours, HOST, early, leaks()),
            at("its certificate is not valid yet: "),
        ),
        (
            "no-tls",
            greets("220 mail.example ESMTP\r\n"),
            at("the handshake failed: "),
        ),
        (
            "downgrade",
            down,
            format!("URL redirects to http://{HOST}/app.yaml: from https to http"),
        ),
    ];
    let cases = table.map(|(name, bad, says)| {
        let mut case = Case::new(name, bad, "PermanentError", says, Then::Interval);
        case.scheme = "https";
        case.http = json!({ "caBundleSecretRef": { "name": "authority" } });
        case.good = case.good.map(|good| signed(&ours, HOST, |_| (), good));
        case
    });
    prove(&site, cases.into()).await;
}
