//! An S3 service: in this process, or wherever an `Endpoint` says.

use std::{path::PathBuf, sync::Arc, time::Duration};

use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use s3s::{auth::SimpleAuth, service::S3ServiceBuilder};
use tempfile::TempDir;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;
use trellis_store::{S3Credentials, S3Settings};

use crate::proxy::Proxy;

/// Where a service is and who may use it. The suite needs nothing else of it.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    pub(crate) url: String,
    pub(crate) bucket: String,
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: String,
}

impl Endpoint {
    /// Settings that do not wait long for a test's faults.
    pub(crate) fn settings(&self) -> S3Settings {
        let mut settings = S3Settings::new(&self.bucket);
        settings.endpoint = Some(self.url.clone());
        settings.credentials = S3Credentials::Static {
            access_key_id: self.access_key_id.clone(),
            secret_access_key: self.secret_access_key.clone().into(),
            session_token: None,
        };
        settings.path_style = true;
        settings.retries = 2;
        settings.request_timeout = Duration::from_secs(20);
        settings
    }

    /// The same by way of a proxy. The signature covers the name of the host that the client sees.
    pub(crate) async fn through_proxy(&self) -> (Proxy, Endpoint) {
        let proxy = Proxy::before(self.url.trim_start_matches("http://").to_owned()).await;
        let endpoint = Endpoint {
            url: format!("http://{}", proxy.address),
            ..self.clone()
        };
        (proxy, endpoint)
    }
}

/// The service in this process. Ends with the value.
pub(crate) struct Service {
    pub(crate) endpoint: Endpoint,
    root: TempDir,
    accepting: JoinHandle<()>,
}

impl Service {
    pub(crate) async fn start() -> Self {
        Self::with_tls(None).await
    }

    pub(crate) async fn with_tls(tls: Option<TlsAcceptor>) -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("artifacts")).unwrap();
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(root.path()).unwrap());
        builder.set_auth(SimpleAuth::from_single("an-id", "a-secret"));
        let service = builder.build();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let endpoint = Endpoint {
            url: format!("{scheme}://{}", listener.local_addr().unwrap()),
            bucket: "artifacts".to_owned(),
            access_key_id: "an-id".to_owned(),
            secret_access_key: "a-secret".to_owned(),
        };
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (service, tls) = (service.clone(), tls.clone());
                tokio::spawn(async move {
                    let server = auto::Builder::new(TokioExecutor::new());
                    match tls {
                        None => drop(server.serve_connection(plain(stream), service).await),
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                drop(server.serve_connection(TokioIo::new(stream), service).await);
                            }
                        }
                    }
                });
            }
        });
        Self {
            endpoint,
            root,
            accepting,
        }
    }

    /// Where the objects of the bucket lie.
    pub(crate) fn bucket_root(&self) -> PathBuf {
        self.root.path().join(&self.endpoint.bucket)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn plain(stream: TcpStream) -> TokioIo<TcpStream> {
    TokioIo::new(stream)
}

/// A certificate for this machine and its authority's, in PEM.
pub(crate) fn certificate() -> (TlsAcceptor, Vec<u8>) {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_certificate = authority.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.serialize_der().try_into().unwrap())
        .unwrap();
    (
        TlsAcceptor::from(Arc::new(config)),
        authority_certificate.pem().into_bytes(),
    )
}
