//! One hop: a request and the head of its answer.
//!
//! ```text
//!  Request + Hop ─▶ policy by name ─▶ gate of the host ─▶ pool ─▶ head, in time ─▶ Answer { status, headers, body }
//! ```
//!
//! Invariants: nothing that a caller gave as a secret goes to another origin; a kept connection that turns out to be dead
//! is not the source's failure: a `GET` is then asked once more.

use std::{net::IpAddr, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, Response, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::{CaptureConnection, capture_connection};
use tokio::time::{sleep, timeout};

use crate::{
    client::Inner,
    connect::Used,
    error::{Error, Hints, Result, Timeout},
    fault,
    generator::{Order, Validators},
    hosts::Permit,
    link::Link,
    pools::{Busy, Pool},
    proxy::Proxy,
    request::{Method, Request},
};

/// Longest header of an answer that is kept.
const LONGEST: usize = 1024;
/// Rate-limit headers that are kept.
const MOST: usize = 16;

/// Where a request is now.
pub(crate) struct At {
    pub(crate) link: Link,
    pub(crate) method: Method,
    /// Whether it has left the origin that the caller named.
    pub(crate) foreign: bool,
}

/// The head of an answer. The place at the host is kept while it lives.
pub(crate) struct Answer {
    pub(crate) response: Response<Incoming>,
    pub(crate) _permit: Permit,
    pub(crate) _busy: Busy,
}

impl Inner {
    /// Ask one hop.
    pub(crate) async fn ask(self: &Arc<Self>, request: &Request, at: &At, order: &Order) -> Result<Answer> {
        let link = &at.link;
        let uri = link.uri().map_err(Error::Link)?;
        let proxy = request.via.proxy(&self.settings.proxies, link, &uri);
        self.judge(link, proxy).await?;
        let identity = request.identity.as_ref().filter(|_| !at.foreign);
        let party = request.party(order.tenant.as_deref(), at.foreign);
        let party = Some(&party).filter(|_| !order.insists);
        let permit = self.hosts.enter(&link.authority(), party).await?;
        let pool = self.pools.get(&self.settings, &request.trust, identity, proxy)?;
        let busy = self.pools.busy();
        let limit = request.header_timeout.unwrap_or(self.settings.header_timeout);
        let message = || self.message(request, at, &order.known, proxy, uri.clone());
        let response = match head(&pool, message()?, link, limit).await {
            Err((Error::Broken { .. }, true)) if at.method == Method::Get => {
                head(&pool, message()?, link, limit).await.map_err(|(error, _)| error)?
            }
            other => other.map_err(|(error, _)| error)?,
        };
        Ok(Answer {
            response,
            _permit: permit,
            _busy: busy,
        })
    }

    /// The policy, by name. What a connection then goes to is judged when it is made; behind a proxy every address of the
    /// target is judged here, since no connection of ours will show it, and the proxy may take any of them. What only
    /// the proxy can resolve is judged by name alone.
    async fn judge(&self, link: &Link, proxy: Option<&Proxy>) -> Result<()> {
        self.egress
            .host(link.scheme(), link.host(), link.port())
            .map_err(|denied| Error::Denied {
                from: None,
                at: link.shown(),
                address: None,
                rule: denied.rule,
            })?;
        if proxy.is_none() {
            return Ok(());
        }
        let addresses = match link.address() {
            Some(address) => vec![address],
            None => timeout(self.settings.connect_timeout, self.pools.resolve(link.host()))
                .await
                .ok()
                .and_then(Result::ok)
                .unwrap_or_default(),
        };
        addresses.iter().map(IpAddr::to_canonical).try_for_each(|address| {
            let judged = self.egress.address(link.host(), address);
            judged.map_err(|denied| Error::Denied {
                from: None,
                at: link.shown(),
                address: Some(address),
                rule: denied.rule,
            })
        })
    }

    fn message(
        &self,
        request: &Request,
        at: &At,
        known: &Validators,
        proxy: Option<&Proxy>,
        uri: http::Uri,
    ) -> Result<http::Request<Full<bytes::Bytes>>> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        let agent = HeaderValue::try_from(self.settings.user_agent.as_str());
        headers.insert(header::USER_AGENT, agent.map_err(|_| unsendable("user agent"))?);
        if !at.foreign {
            for name in request.headers.keys() {
                headers.remove(name);
            }
            headers.extend(
                request
                    .headers
                    .iter()
                    .map(|(name, value)| (name.clone(), value.clone())),
            );
        }
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if at.method == Method::Get {
            for (name, value) in [
                (header::IF_NONE_MATCH, &known.etag),
                (header::IF_MODIFIED_SINCE, &known.last_modified),
            ] {
                if let Some(value) = value {
                    headers.insert(name, HeaderValue::try_from(value).map_err(|_| unsendable("validator"))?);
                }
            }
        }
        // Within a tunnel the proxy reads no headers.
        if let Some(value) = proxy.filter(|_| !at.link.is_https()).and_then(Proxy::authorization) {
            headers.insert(header::PROXY_AUTHORIZATION, value.clone());
        }
        let body = if at.method == Method::Get {
            bytes::Bytes::new()
        } else {
            request.body.clone()
        };
        let mut message = http::Request::new(Full::new(body));
        *message.method_mut() = at.method.http();
        *message.uri_mut() = uri;
        *message.headers_mut() = headers;
        Ok(message)
    }
}

fn unsendable(what: &str) -> Error {
    Error::Request {
        what: format!("the {what} fits in no header"),
    }
}

/// The head of the answer; with an error, whether the connection had been used before.
async fn head(
    pool: &Pool,
    mut message: http::Request<Full<bytes::Bytes>>,
    link: &Link,
    limit: Duration,
) -> Result<Response<Incoming>, (Error, bool)> {
    let mut connection = capture_connection(&mut message);
    let mut timer = connection.clone();
    let answer = pool.request(message);
    tokio::select! {
        answer = answer => {
            let again = used(&mut connection);
            answer.map_err(|error| (fault::exchange(link.shown(), error), again))
        }
        // The time for connecting is the connector's to limit; the wait for the answer begins after it.
        () = async {
            if timer.wait_for_connection_metadata().await.is_none() {
                std::future::pending::<()>().await;
            }
            sleep(limit).await;
        } => Err((Error::Timeout { at: link.shown(), which: Timeout::Header, after: limit }, false)),
    }
}

fn used(connection: &mut CaptureConnection) -> bool {
    let mut extras = http::Extensions::new();
    if let Some(connected) = connection.connection_metadata().as_ref() {
        connected.get_extras(&mut extras);
    }
    extras.get::<Used>().is_some_and(Used::again)
}

/// A header as text, if it is short and readable.
pub(crate) fn text(headers: &HeaderMap, name: &header::HeaderName) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?.trim();
    (!value.is_empty() && value.len() <= LONGEST).then(|| value.to_owned())
}

/// What tells this answer's state of the source from another.
pub(crate) fn validators(headers: &HeaderMap) -> Validators {
    Validators {
        etag: text(headers, &header::ETAG),
        last_modified: text(headers, &header::LAST_MODIFIED),
    }
}

/// What an answer says about when to come back.
pub(crate) fn hints(headers: &HeaderMap) -> Hints {
    let limits = |name: &str| name.starts_with("ratelimit") || name.starts_with("x-ratelimit");
    Hints {
        retry_after: text(headers, &header::RETRY_AFTER),
        rate_limit: headers
            .keys()
            .filter(|name| limits(name.as_str()))
            .filter_map(|name| Some((name.to_string(), text(headers, name)?)))
            .take(MOST)
            .collect(),
        date: text(headers, &header::DATE),
    }
}
