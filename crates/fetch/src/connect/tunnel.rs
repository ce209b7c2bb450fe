//! A tunnel through an HTTP proxy (RFC 9110, 9.3.6).
//!
//! ```text
//!  CONNECT host:port + Proxy-Authorization ─▶ 2xx ─▶ bytes both ways
//!                                          └▶ else Error::Proxy with the status
//! ```
//!
//! Invariants: the proxy's credentials go to the proxy only; what it answers is never shown.

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::stream::Io;
use crate::{
    error::{Error, Result},
    link::Link,
    proxy::Proxy,
};

/// Have a proxy connect to the host of a link.
pub(crate) async fn open(io: Box<dyn Io>, link: &Link, proxy: &Proxy) -> Result<Box<dyn Io>> {
    let failed = |status: Option<u16>, message: &str| Error::Proxy {
        proxy: proxy.link().shown(),
        status,
        message: message.to_owned(),
    };
    let broken = |error: &hyper::Error| {
        failed(
            None,
            if error.is_parse() {
                "it does not speak HTTP"
            } else {
                "the connection to it broke"
            },
        )
    };
    let (mut sender, connection) = http1::handshake::<_, Empty<Bytes>>(TokioIo::new(io))
        .await
        .map_err(|error| broken(&error))?;
    // Ends with the sender, that is with this future, unless the tunnel opens.
    tokio::spawn(connection.with_upgrades());

    let authority = link.authority();
    let mut request = Request::builder()
        .method(Method::CONNECT)
        .uri(&authority)
        .header(header::HOST, &authority)
        .body(Empty::new())
        .map_err(|_| failed(None, "its target fits in no request"))?;
    if let Some(value) = proxy.authorization() {
        request.headers_mut().insert(header::PROXY_AUTHORIZATION, value.clone());
    }
    let answer = sender.send_request(request).await.map_err(|error| broken(&error))?;
    match answer.status().as_u16() {
        200..=299 => {}
        407 => return Err(failed(Some(407), "it wants other credentials (407)")),
        status => return Err(failed(Some(status), &format!("it answered {status}"))),
    }
    let upgraded = hyper::upgrade::on(answer).await.map_err(|error| broken(&error))?;
    Ok(Box::new(TokioIo::new(upgraded)))
}
