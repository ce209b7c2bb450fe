//! `Wire`: an upstream below HTTP: what it does with a connection is a function that a test exchanges at any time.
//!
//! ```text
//!  Wire ─ accept ─▶ Act: answers │ pours │ falls_silent │ shakes_hands (TLS), then another Act
//! ```
//!
//! Invariant: whatever an act does ends when its peer closes, or with the test's runtime.

use std::{
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

/// Both ways of a connection, encrypted or not.
pub(crate) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// What is done with a connection.
pub(crate) type Act = Arc<dyn Fn(Box<dyn Io>) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// A server on a free port of loopback; it ends with the test's runtime.
#[derive(Clone)]
pub(crate) struct Wire {
    address: SocketAddr,
    act: Arc<Mutex<Act>>,
    accepted: Arc<AtomicUsize>,
}

impl Wire {
    pub(crate) async fn start(act: Act) -> Self {
        Self::at("127.0.0.1:0", act).await
    }

    /// At this address of loopback, of which there are many.
    pub(crate) async fn at(address: &str, act: Act) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let wire = Self {
            address: listener.local_addr().unwrap(),
            act: Arc::new(Mutex::new(act)),
            accepted: Arc::default(),
        };
        let (act, accepted) = (Arc::clone(&wire.act), Arc::clone(&wire.accepted));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::SeqCst);
                let act = Arc::clone(&act.lock().unwrap());
                tokio::spawn(async move { act(Box::new(stream)).await });
            }
        });
        wire
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// From the next connection on.
    pub(crate) fn does(&self, act: Act) {
        *self.act.lock().unwrap() = act;
    }

    /// Connections so far.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

/// An act of this function.
fn act<F>(of: impl Fn(Box<dyn Io>) -> F + Send + Sync + 'static) -> Act
where
    F: Future<Output = ()> + Send + 'static,
{
    Arc::new(move |io| Box::pin(of(io)))
}

/// Reads the head of a request.
async fn asked(io: &mut dyn Io) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match io.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
}

/// Says these bytes when asked, and closes.
pub(crate) fn says(bytes: impl Into<Vec<u8>>) -> Act {
    let bytes: Arc<[u8]> = bytes.into().into();
    act(move |mut io| {
        let bytes = Arc::clone(&bytes);
        async move {
            asked(&mut io).await;
            let _ = io.write_all(&bytes).await;
            let _ = io.shutdown().await;
        }
    })
}

/// Says these bytes before it is asked, as a server of another protocol does.
pub(crate) fn greets(bytes: &'static str) -> Act {
    act(move |mut io| async move {
        let _ = io.write_all(bytes.as_bytes()).await;
        let _ = io.shutdown().await;
        // Closing before what came is read would take back what was said.
        let mut rest = [0; 1024];
        while io.read(&mut rest).await.is_ok_and(|read| read > 0) {}
    })
}

/// A whole answer: a status with its word, headers that end with a line's end each, and a body.
pub(crate) fn answers(status: &str, headers: &str, body: &[u8]) -> Act {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n");
    says([head.as_bytes(), body].concat())
}

/// Says these bytes, then the piece again and again.
pub(crate) fn pours(head: &str, piece: impl Into<Vec<u8>>) -> Act {
    let (head, piece): (Arc<str>, Arc<[u8]>) = (head.into(), piece.into().into());
    act(move |mut io| {
        let (head, piece) = (Arc::clone(&head), Arc::clone(&piece));
        async move {
            asked(&mut io).await;
            let _ = io.write_all(head.as_bytes()).await;
            while io.write_all(&piece).await.is_ok() {}
        }
    })
}

/// Says these bytes, then nothing until the peer closes.
pub(crate) fn falls_silent(bytes: &str) -> Act {
    let bytes: Arc<str> = bytes.into();
    act(move |mut io| {
        let bytes = Arc::clone(&bytes);
        async move {
            asked(&mut io).await;
            let _ = io.write_all(bytes.as_bytes()).await;
            let _ = io.read_u8().await;
        }
    })
}

/// Shakes hands as a server of TLS, and goes on so.
pub(crate) fn shakes_hands(config: ServerConfig, then: Act) -> Act {
    let acceptor = TlsAcceptor::from(Arc::new(config));
    act(move |io| {
        let (acceptor, then) = (acceptor.clone(), Arc::clone(&then));
        async move {
            if let Ok(stream) = acceptor.accept(io).await {
                then(Box::new(stream)).await;
            }
        }
    })
}
