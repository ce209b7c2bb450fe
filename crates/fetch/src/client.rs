//! `Client`: asks requests, hop by hop, under one policy.
//!
//! ```text
//!  Request ─▶ ask ─▶ redirect? ─▶ ask …  ─▶ 304: NotModified │ 2xx: body into the sink │ else Error::Status
//! ```
//!
//! Invariants: everything of one request happens within its total time; dropping its future ends it and gives back what it
//! had taken.

use std::{fmt, sync::Arc};

use tokio::time::timeout;

use crate::{
    body::{self, Limits},
    egress::{Egress, Resolve, SystemResolver},
    error::{Error, RedirectFault, Result, Timeout},
    exchange::{self, Answer, At},
    generator::{Body, Fetched, Order, Sink, Validators},
    hosts::{Hosts, Party},
    link::Link,
    pools::Pools,
    redirect,
    request::{Method, Request},
    settings::Settings,
};

/// Asks requests under one policy. Clones share connections, limits and waits.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) settings: Settings,
    pub(crate) egress: Arc<dyn Egress>,
    pub(crate) pools: Pools,
    pub(crate) hosts: Hosts,
}

impl Client {
    /// A client with the system's resolver.
    #[must_use]
    pub fn new(settings: Settings, egress: Arc<dyn Egress>) -> Self {
        Self::with_resolver(settings, egress, Arc::new(SystemResolver))
    }

    /// A client with a resolver of one's own.
    #[must_use]
    pub fn with_resolver(settings: Settings, egress: Arc<dyn Egress>, resolve: Arc<dyn Resolve>) -> Self {
        let hosts = Hosts::new(&settings);
        let pools = Pools::new(egress.clone(), resolve);
        Self {
            inner: Arc::new(Inner {
                settings,
                egress,
                pools,
                hosts,
            }),
        }
    }

    /// What all sources of one host share.
    #[must_use]
    pub fn hosts(&self) -> &Hosts {
        &self.inner.hosts
    }

    /// Connections that are open, for a gauge.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.inner.pools.open()
    }

    /// Pools that are kept, for a gauge.
    #[must_use]
    pub fn pools(&self) -> usize {
        self.inner.pools.len()
    }

    /// Get what a request answers into a sink, unless it is what the caller knows. After an error the sink may hold part
    /// of a body.
    pub async fn fetch(&self, request: &Request, order: &Order, sink: &mut Sink<'_>) -> Result<Fetched> {
        let limit = order.total_timeout.unwrap_or(self.inner.settings.total_timeout);
        let work = async {
            let (at, answer) = self.answer(request, order).await?;
            let headers = answer.response.headers().clone();
            let Answer {
                response,
                _permit: permit,
                _busy: busy,
            } = answer;
            if response.status().as_u16() == 304 {
                return Ok(Fetched::NotModified);
            }
            let limits = Limits {
                at: at.link.shown(),
                bytes: order.max_bytes.unwrap_or(self.inner.settings.max_bytes),
                idle: self.inner.settings.idle_timeout,
                progress: order.progress.as_ref(),
            };
            let received = body::receive(response.into_body(), &headers, &limits, sink).await?;
            drop((permit, busy));
            Ok(Fetched::Body(Body {
                validators: exchange::validators(&headers),
                content_type: exchange::text(&headers, &http::header::CONTENT_TYPE),
                size: received.size,
                digest: received.digest,
                link: at.link.shown(),
            }))
        };
        timeout(limit, work).await.unwrap_or_else(|_| Err(late(request, limit)))
    }

    /// The validators of what a request answers; its body is not taken.
    pub async fn look(&self, request: &Request) -> Result<Validators> {
        let limit = self.inner.settings.total_timeout;
        let work = async {
            let (_, answer) = self.answer(request, &Order::default()).await?;
            Ok(exchange::validators(answer.response.headers()))
        };
        timeout(limit, work).await.unwrap_or_else(|_| Err(late(request, limit)))
    }

    /// The first answer that is neither a redirect nor a failure: 200, 201, 203, or 304 if something was known.
    async fn answer(&self, request: &Request, order: &Order) -> Result<(At, Answer)> {
        if matches!(request.trust, crate::Trust::Unchecked) && !self.inner.settings.allow_unchecked {
            return Err(Error::InsecureNotAllowed);
        }
        let known = &order.known;
        let conditional = known.etag.is_some() || known.last_modified.is_some();
        let most = request.redirects.unwrap_or(self.inner.settings.max_redirects);
        let mut at = At {
            link: request.link.clone(),
            method: request.method,
            foreign: false,
        };
        let mut followed = 0;
        loop {
            let asked = self.inner.ask(request, &at, order).await;
            let answer = asked.map_err(|error| {
                if followed > 0 {
                    led(error, &request.link, &at)
                } else {
                    error
                }
            })?;
            let status = answer.response.status().as_u16();
            tracing::debug!(link = %at.link, status, "answered");
            match status {
                200 | 201 | 203 => return Ok((at, answer)),
                304 if conditional && at.method == Method::Get => return Ok((at, answer)),
                _ if !redirect::is_redirect(status) => {
                    let party = request.party(order.tenant.as_deref(), at.foreign);
                    return Err(self.failed(&at, party, answer).await);
                }
                _ => {}
            }
            let location = answer
                .response
                .headers()
                .get(http::header::LOCATION)
                .and_then(|value| value.to_str().ok());
            let next = redirect::next(&at.link, at.method, status, location);
            // The place at this host must be free before one at the next is waited for.
            body::drain(answer.response.into_body()).await;
            let refuse = |to: Option<Link>, fault| Error::Redirect {
                from: at.link.shown(),
                to: to.map(|to| to.shown()),
                fault,
            };
            let hop = next.map_err(|(to, fault)| refuse(to, fault))?;
            if followed >= most {
                return Err(refuse(Some(hop.link), RedirectFault::TooMany { limit: most }));
            }
            followed += 1;
            at = At {
                foreign: at.foreign || hop.foreign,
                link: hop.link,
                method: hop.method,
            };
        }
    }

    async fn failed(&self, at: &At, party: Party, answer: Answer) -> Error {
        let response = answer.response;
        let status = response.status().as_u16();
        let hints = exchange::hints(response.headers());
        if let Some(wait) = (self.inner.settings.patience)(status, &hints) {
            self.inner.hosts.hold(&at.link.authority(), party, wait);
        }
        body::drain(response.into_body()).await;
        Error::Status {
            at: at.link.shown(),
            status,
            hints,
        }
    }
}

/// A refusal of where redirects led tells so: what is refused is not what the caller named. A refused proxy is the
/// caller's own.
fn led(error: Error, first: &Link, at: &At) -> Error {
    match error {
        Error::Denied {
            at: denied,
            address,
            rule,
            ..
        } if denied == at.link.shown() || denied == at.link.origin() => Error::Denied {
            from: Some(first.shown()),
            at: denied,
            address,
            rule,
        },
        other => other,
    }
}

fn late(request: &Request, limit: std::time::Duration) -> Error {
    Error::Timeout {
        at: request.link.shown(),
        which: Timeout::Total,
        after: limit,
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("connections", &self.connections())
            .finish_non_exhaustive()
    }
}
