//! How the operator talks to the API server: one stack, with or without the fence.

use std::time::Duration;

use http::header::{HeaderValue, USER_AGENT};
use hyper_util::{
    client::legacy::{Client as HyperClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder, ConfigExt as _},
};
use tower::{ServiceBuilder, timeout::TimeoutLayer};

use crate::{
    fence::{Fence, FenceLayer, FencedConnector},
    retry_after::RetryAfterLayer,
};

/// How long a connection may stay without a byte: longer than the 290 s after which the API server ends a watch on
/// kube's request, so that only a dead peer is cut.
const READ_TIMEOUT: Duration = Duration::from_secs(295);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a silent connection is probed, so that a dead peer is noticed within a minute.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// How many probes in a row may stay without an answer.
const PROBES: u32 = 2;
/// How long sent bytes may stay unacknowledged before a connection without a fence is given up.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);
/// How long an answer may take to begin. A watch answers at once and then goes on.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A client could not be made from its configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration asks for a proxy.
    #[error("the kubeconfig's proxy-url names {proxy}, but proxies are not supported; remove it and connect directly")]
    Proxy {
        /// Its host; what else the address holds may be a password.
        proxy: String,
    },
    /// TLS or credentials of the configuration are unusable.
    #[error("the client's configuration is unusable")]
    Config(#[from] kube::Error),
    /// The user agent has characters that a header cannot carry.
    #[error("the identity {identity:?} cannot be part of a user agent")]
    Identity {
        /// What was given.
        identity: String,
        /// Why not.
        #[source]
        source: http::header::InvalidHeaderValue,
    },
}

/// Makes a client whose requests carry `trellis/<version> (<identity>)`, so that an audit log tells replicas apart.
///
/// With a fence, writes need a valid claim; without, they do not (the Lease itself, and commands of the CLI).
///
/// # Errors
/// [`Error`] when the configuration or the identity is unusable.
pub fn connect(config: &Config, identity: &str, fence: Option<Fence>) -> Result<Client, Error> {
    refuse_proxy(config)?;
    let agent = format!("trellis/{} ({identity})", env!("CARGO_PKG_VERSION"));
    let agent = HeaderValue::from_str(&agent).map_err(|source| Error::Identity {
        identity: identity.to_owned(),
        source,
    })?;
    let namespace = config.default_namespace.clone();

    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp.set_keepalive_interval(Some(KEEPALIVE));
    tcp.set_keepalive_retries(Some(PROBES));
    // What the kernel could not deliver in time it must not deliver later, when somebody else leads.
    #[cfg(target_os = "linux")]
    tcp.set_tcp_user_timeout(Some(fence.as_ref().map_or(UNACKNOWLEDGED, Fence::margin)));
    let tls = config.rustls_https_connector_with_connector(FencedConnector {
        inner: tcp,
        fence: fence.clone(),
    })?;
    let mut connector = hyper_timeout::TimeoutConnector::new(tls);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector.set_read_timeout(Some(READ_TIMEOUT));
    connector.set_reset_reader_on_write(true);
    let http: HyperClient<_, Body> = HyperClient::builder(TokioExecutor::new()).build(connector);

    let service = ServiceBuilder::new()
        .option_layer(fence.map(FenceLayer))
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_request(move |mut request: http::Request<Body>| {
            request.headers_mut().insert(USER_AGENT, agent.clone());
            request
        })
        .layer(TimeoutLayer::new(ANSWER_TIMEOUT))
        .layer(RetryAfterLayer)
        .service(http);
    Ok(ClientBuilder::new(service, namespace).build())
}

/// A proxy of the kubeconfig is needed to get there; one of the environment, which kube takes for the same, is not.
fn refuse_proxy(config: &Config) -> Result<(), Error> {
    let Some(proxy) = &config.proxy_url else { return Ok(()) };
    let environment = ["HTTPS_PROXY", "https_proxy"].map(|name| std::env::var(name).unwrap_or_default());
    let is_it = |text: &String| text.parse::<http::Uri>().is_ok_and(|uri| uri == *proxy);
    if environment.iter().any(is_it) {
        tracing::debug!("the proxy of the environment is not used for the API server");
        return Ok(());
    }
    Err(Error::Proxy {
        proxy: proxy.host().unwrap_or_default().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_refused_with_a_sentence_that_names_it_and_no_password() {
        let mut config = Config::new(http::Uri::from_static("http://127.0.0.1:1"));
        config.proxy_url = Some(http::Uri::from_static("http://me:secret@proxy.example:3128"));
        let Err(error) = connect(&config, "a", None) else {
            panic!("it was taken");
        };
        let sentence = error.to_string();
        assert!(
            sentence.contains("proxy.example") && !sentence.contains("secret"),
            "{sentence}"
        );
    }
}
