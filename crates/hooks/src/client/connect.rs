//! The connection of a client: a socket file or loopback, whatever the address of the request says.

use std::{
    io::{self, IoSlice},
    net::Ipv4Addr,
    pin::Pin,
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use tokio::net::{TcpStream, UnixStream};

use super::Endpoint;

/// Connects to the endpoint.
#[derive(Debug, Clone)]
pub(super) struct Connect(pub(super) Endpoint);

impl tower::Service<Uri> for Connect {
    type Response = Wire;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Wire>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(connect(self.0.clone()))
    }
}

/// A new connection.
pub(super) async fn connect(endpoint: Endpoint) -> io::Result<Wire> {
    match endpoint {
        Endpoint::Socket(path) => Ok(Wire::Socket(TokioIo::new(UnixStream::connect(path).await?))),
        Endpoint::Loopback { port, .. } => {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
            stream.set_nodelay(true)?;
            Ok(Wire::Loopback(TokioIo::new(stream)))
        }
    }
}

/// A connection of either kind.
pub(super) enum Wire {
    Socket(TokioIo<UnixStream>),
    Loopback(TokioIo<TcpStream>),
}

/// Does the same with whichever it is.
macro_rules! either {
    ($wire:expr, $stream:ident => $do:expr) => {
        match $wire.get_mut() {
            Wire::Socket($stream) => {
                let $stream = Pin::new($stream);
                $do
            }
            Wire::Loopback($stream) => {
                let $stream = Pin::new($stream);
                $do
            }
        }
    };
}

impl Connection for Wire {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_read(cx, buffer))
    }
}

impl Write for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, stream => stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, stream => stream.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_shutdown(cx))
    }
}
