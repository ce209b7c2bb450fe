//! `Generator`: one source, ready to be asked; an `Order`, and what came of it.
//!
//! ```text
//!  Order { known validators, limits, progress } ─▶ generate ─▶ NotModified │ Body { validators, size, digest, link } + sink
//! ```
//!
//! Invariants: a body goes to the sink as it comes; what a sink holds after an error is to be thrown away.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::io::AsyncWrite;
use trellis_core::Digest;

use crate::{error::Result, link::Shown};

/// Where a body goes.
pub type Sink<'a> = dyn AsyncWrite + Send + Unpin + 'a;

/// Told about a body while it comes.
pub type Progress = Arc<dyn Fn(Transferred) + Send + Sync>;

/// How far a body has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transferred {
    /// Bytes so far, as sent.
    pub bytes: u64,
    /// Bytes that were announced.
    pub total: Option<u64>,
}

/// What tells one state of a source from another. They are good for the link that they came from only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Validators {
    /// `ETag`, with its quotes, and `W/` if it is weak. Sent back as it came; comparing is the server's.
    pub etag: Option<String>,
    /// `Last-Modified`, as it came.
    pub last_modified: Option<String>,
}

/// What is wanted of one request.
#[derive(Clone, Default)]
pub struct Order {
    /// What the caller has: if the source is still so, no body comes. Sent with `GET` only.
    pub known: Validators,
    /// Bytes that the body may have, as sent and decompressed. None: the client's limit.
    pub max_bytes: Option<u64>,
    /// Time for everything together. None: the client's limit.
    pub total_timeout: Option<Duration>,
    /// In whose name it is asked, such as a namespace: who asks for another shares no wait that a host asked for.
    pub tenant: Option<String>,
    /// Whether it is asked although its host wants to be left alone: a person insists.
    pub insists: bool,
    /// Told about the body while it comes; for every piece, so that it has to be quick.
    pub progress: Option<Progress>,
}

impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Order")
            .field("known", &self.known)
            .field("max_bytes", &self.max_bytes)
            .field("total_timeout", &self.total_timeout)
            .finish_non_exhaustive()
    }
}

/// What came of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// The source is as the caller knows it. Nothing was written.
    NotModified,
    /// A body, which the sink has.
    Body(Body),
}

/// A body that went into a sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    /// For the next order.
    pub validators: Validators,
    /// `Content-Type`, as it came.
    pub content_type: Option<String>,
    /// Bytes that the sink got.
    pub size: u64,
    /// Of the bytes that the sink got.
    pub digest: Digest,
    /// What answered, after redirects.
    pub link: Shown,
}

/// One source, ready to be asked, again and again.
#[async_trait]
pub trait Generator: Send + Sync {
    /// Get the source's bytes into a sink, unless they are what the caller knows.
    async fn generate(&self, order: &Order, sink: &mut Sink<'_>) -> Result<Fetched>;

    /// Whether it can tell an unchanged source without sending its body.
    fn supports_conditional_fetch(&self) -> bool;

    /// When the source says that it changed last. It is asked for that, without its body being taken.
    async fn last_modified(&self) -> Result<Option<String>>;
}
