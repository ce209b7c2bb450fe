//! `Connector`: a connection to where a policy lets it go: by way of a proxy or not, with TLS or not.
//!
//! ```text
//!  link ─▶ proxy? ─▶ dial: name ─▶ addresses ─▶ Egress::address ─▶ TCP ─▶ (TLS to the proxy, CONNECT) ─▶ TLS ─▶ Stream
//! ```
//!
//! Invariants: every address is judged here and the judged one is connected to: no second look-up lies between; a link
//! whose host is an address is judged like one whose name resolved to it.

mod stream;
mod tunnel;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, atomic::AtomicUsize},
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_rustls::TlsConnector;
use tower::Service;

use stream::Io;
pub(crate) use stream::{Stream, Used};

use crate::{
    egress::{Egress, Resolve},
    error::{Error, Result, Timeout},
    fault,
    link::{Link, Shown},
    proxy::Proxy,
};

/// How the connections of one pool are made.
pub(crate) struct Route {
    pub(crate) egress: Arc<dyn Egress>,
    pub(crate) resolve: Arc<dyn Resolve>,
    pub(crate) tls: Arc<ClientConfig>,
    /// The proxy, and the TLS configuration for the connection to it, which shows no client certificate.
    pub(crate) proxy: Option<(Proxy, Arc<ClientConfig>)>,
    pub(crate) limit: Duration,
    /// Connections that are open, over all pools.
    pub(crate) open: Arc<AtomicUsize>,
}

/// Makes the connections of one pool.
#[derive(Clone)]
pub(crate) struct Connector(pub(crate) Arc<Route>);

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Stream>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let route = self.0.clone();
        Box::pin(async move {
            let link = Link::parse(&uri.to_string()).map_err(Error::Link)?;
            timeout(route.limit, route.connect(&link))
                .await
                .unwrap_or_else(|_| Err(route.late(link.shown())))
        })
    }
}

impl Route {
    async fn connect(&self, link: &Link) -> Result<Stream> {
        let Some((proxy, config)) = &self.proxy else {
            let tcp = self.dial(link).await?;
            return if link.is_https() {
                self.secure(link, Box::new(tcp)).await
            } else {
                Ok(self.plain(Box::new(tcp)))
            };
        };
        let at = proxy.link();
        self.egress
            .host(at.scheme(), at.host(), at.port())
            .map_err(|denied| Error::Denied {
                from: None,
                at: at.shown(),
                address: None,
                rule: denied.rule,
            })?;
        let tcp = self.dial(at).await?;
        let io: Box<dyn Io> = if at.is_https() {
            Box::new(handshake(config, at, tcp).await?)
        } else {
            Box::new(tcp)
        };
        if link.is_https() {
            self.secure(link, tunnel::open(io, link, proxy).await?).await
        } else {
            Ok(self.plain(io).proxied())
        }
    }

    fn plain(&self, io: Box<dyn Io>) -> Stream {
        Stream::new(io, false, &self.open)
    }

    async fn secure(&self, link: &Link, io: Box<dyn Io>) -> Result<Stream> {
        let tls = handshake(&self.tls, link, io).await?;
        let h2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok(Stream::new(Box::new(tls), h2, &self.open))
    }

    /// A TCP connection to the first of the allowed addresses that takes one. Each may use an equal share of the time that
    /// is left, so that one that swallows packets does not use up what the others need.
    async fn dial(&self, link: &Link) -> Result<TcpStream> {
        let addresses = self.addresses(link).await?;
        let end = Instant::now() + self.limit;
        let mut last = None;
        for (tried, address) in addresses.iter().enumerate() {
            let left = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
            let share = end.saturating_duration_since(Instant::now()) / left;
            match timeout(share, TcpStream::connect(SocketAddr::new(*address, link.port()))).await {
                Ok(Ok(tcp)) => {
                    // Requests are written whole; waiting for more to send would only delay them.
                    let _ = tcp.set_nodelay(true);
                    return Ok(tcp);
                }
                Ok(Err(error)) => last = Some(fault::connect(link.shown(), error)),
                Err(_) => last = Some(self.late(link.shown())),
            }
        }
        Err(last.unwrap_or_else(|| unresolved(link, io::ErrorKind::NotFound.into())))
    }

    async fn addresses(&self, link: &Link) -> Result<Vec<IpAddr>> {
        let found = match link.address() {
            Some(address) => vec![address],
            None => self
                .resolve
                .resolve(link.host())
                .await
                .map_err(|error| unresolved(link, error))?,
        };
        let mut denied = None;
        let mut allowed = Vec::with_capacity(found.len());
        for address in found.iter().map(IpAddr::to_canonical) {
            match self.egress.address(link.host(), address) {
                Ok(()) => allowed.push(address),
                Err(why) => {
                    denied = Some(Error::Denied {
                        from: None,
                        at: link.shown(),
                        address: Some(address),
                        rule: why.rule,
                    });
                }
            }
        }
        match denied {
            Some(denied) if allowed.is_empty() => Err(denied),
            _ => Ok(allowed),
        }
    }

    fn late(&self, at: Shown) -> Error {
        Error::Timeout {
            at,
            which: Timeout::Connect,
            after: self.limit,
        }
    }
}

fn unresolved(link: &Link, source: io::Error) -> Error {
    Error::Dns {
        host: link.host().to_owned(),
        source: Arc::new(source),
    }
}

async fn handshake<T: Io>(
    config: &Arc<ClientConfig>,
    link: &Link,
    io: T,
) -> Result<tokio_rustls::client::TlsStream<T>> {
    let name = ServerName::try_from(link.host().to_owned()).map_err(|_| Error::Request {
        what: "its host is no name that a certificate can be for".to_owned(),
    })?;
    TlsConnector::from(config.clone())
        .connect(name, io)
        .await
        .map_err(|error| fault::handshake(link.shown(), error))
}
