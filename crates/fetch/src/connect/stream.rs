//! `Stream`: what the HTTP library reads from and writes to, whatever lies under it.
//!
//! ```text
//!  TCP │ TLS over TCP │ TLS over a tunnel ─▶ Stream { proxied, h2 } ─▶ pool
//! ```
//!
//! Invariants: it is counted as open from its making to its drop.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use tokio::io::{AsyncRead, AsyncWrite};

/// Anything that bytes go through both ways.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// Whether a connection has carried a request before. The pool hands it out with the connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Used(Arc<AtomicBool>);

impl Used {
    /// Note a use; whether there was one before.
    pub(crate) fn again(&self) -> bool {
        self.0.swap(true, Ordering::Relaxed)
    }
}

/// A connection.
pub(crate) struct Stream {
    io: TokioIo<Box<dyn Io>>,
    h2: bool,
    proxied: bool,
    used: Used,
    open: Arc<AtomicUsize>,
}

impl Stream {
    pub(crate) fn new(io: Box<dyn Io>, h2: bool, open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self {
            io: TokioIo::new(io),
            h2,
            proxied: false,
            used: Used::default(),
            open: open.clone(),
        }
    }

    /// The other side is a proxy that wants whole URLs.
    pub(crate) fn proxied(mut self) -> Self {
        self.proxied = true;
        self
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        let connected = Connected::new().proxy(self.proxied).extra(self.used.clone());
        if self.h2 { connected.negotiated_h2() } else { connected }
    }
}

impl Read for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
}
