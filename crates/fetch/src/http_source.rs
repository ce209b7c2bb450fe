//! The type `http`: whatever one HTTP request answers.
//!
//! ```text
//!  Request ─▶ Client::fetch (conditional if it is a GET)
//! ```
//!
//! Invariants: one request for each order and hop, never a `HEAD` before it.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    client::Client,
    error::{Error, Result},
    generator::{Fetched, Generator, Order, Sink},
    registry::{Maker, Source},
    request::{Method, Request},
};

/// The name of the type.
pub(crate) const KIND: &str = "http";

/// Asks one HTTP request.
#[derive(Debug, Clone)]
pub struct HttpGenerator {
    client: Client,
    request: Request,
}

impl HttpGenerator {
    /// One that asks this.
    #[must_use]
    pub const fn new(client: Client, request: Request) -> Self {
        Self { client, request }
    }
}

pub(crate) fn maker(client: &Client) -> Maker {
    let client = client.clone();
    Arc::new(move |source| match source {
        Source::Http(request) => Ok(Box::new(HttpGenerator::new(client.clone(), *request))),
        other => Err(Error::Request {
            what: format!("{} is not {KIND}", other.kind()),
        }),
    })
}

#[async_trait]
impl Generator for HttpGenerator {
    async fn generate(&self, order: &Order, sink: &mut Sink<'_>) -> Result<Fetched> {
        self.client.fetch(&self.request, order, sink).await
    }

    fn supports_conditional_fetch(&self) -> bool {
        self.request.method == Method::Get
    }

    async fn last_modified(&self) -> Result<Option<String>> {
        Ok(self.client.look(&self.request).await?.last_modified)
    }
}
