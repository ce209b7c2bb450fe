//! The fence: no byte of a write leaves this process unless the claim of the Lease is still valid.
//!
//! ```text
//!  request ─▶ layer: valid? ─▶ TLS ─▶ socket: valid? ─▶ API server
//!                  └─ no: NotLeader          └─ no: connection ends
//! ```
//!
//! Two checks, because a process can be stopped between them: the layer gives a request its clear error
//! before anything is sent; the socket asks again at the very write, so that a process that is resumed
//! long after its claim expired sends nothing of what it had prepared.
//!
//! Invariant: the deadline is reckoned from *before* the renewal was sent and ends before the Lease does.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use hyper_util::client::legacy::connect::{Connected, Connection};

/// A moment on a clock that never goes back and, on Linux, runs on while the machine sleeps: a claim must not look
/// fresh to a virtual machine that was suspended for an hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Duration);

impl Moment {
    /// The present moment.
    #[must_use]
    pub fn now() -> Self {
        #[cfg(target_os = "linux")]
        let clock = rustix::time::ClockId::Boottime;
        #[cfg(not(target_os = "linux"))]
        let clock = rustix::time::ClockId::Monotonic;
        let time = rustix::time::clock_gettime(clock);
        let nanos = u32::try_from(time.tv_nsec).unwrap_or_default();
        Self(Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), nanos))
    }

    /// Time since then.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        Self::now().0.saturating_sub(self.0)
    }
}

impl std::ops::Add<Duration> for Moment {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

/// Until when this process may write. Cheap to clone, shared by every client of a term.
#[derive(Debug, Clone)]
pub struct Fence {
    /// The deadline as a [`Moment`], in milliseconds; zero: not (any more) the leader.
    deadline: Arc<AtomicU64>,
    /// The time between the deadline and the moment from which somebody else may write.
    margin: Duration,
}

/// The claim is not valid (any more).
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the claim of the Lease has expired")]
pub struct Lost;

impl Fence {
    /// A fence that lets nothing pass until [`Fence::extend`], with a margin after its deadline.
    #[must_use]
    pub fn closed(margin: Duration) -> Self {
        Self {
            deadline: Arc::new(AtomicU64::new(0)),
            margin,
        }
    }

    /// The time between the deadline and the moment from which somebody else may write: bytes that were sent before
    /// the deadline must have arrived, or be given up, by then.
    #[must_use]
    pub fn margin(&self) -> Duration {
        self.margin
    }

    /// Lets writes pass until `deadline`.
    pub fn extend(&self, deadline: Moment) {
        self.deadline.store(
            u64::try_from(deadline.0.as_millis()).unwrap_or(u64::MAX),
            Ordering::SeqCst,
        );
    }

    /// Lets nothing pass from now on.
    pub fn close(&self) {
        self.deadline.store(0, Ordering::SeqCst);
    }

    /// How long the claim is still valid; zero when it is not.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        Duration::from_millis(self.deadline.load(Ordering::SeqCst)).saturating_sub(Moment::now().0)
    }

    /// Whether the claim is valid now.
    ///
    /// # Errors
    /// [`Lost`] when it is not.
    pub fn check(&self) -> Result<(), Lost> {
        if self.remaining().is_zero() { Err(Lost) } else { Ok(()) }
    }
}

/// Whether an error of the client came from a fence.
#[must_use]
pub fn is_lost(error: &kube::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<Lost>() {
            return true;
        }
        // `io::Error` hides its inner error from `source()` when it was made by `io::Error::other`.
        if let Some(io) = error.downcast_ref::<io::Error>()
            && io
                .get_ref()
                .is_some_and(<dyn std::error::Error + Send + Sync>::is::<Lost>)
        {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Refuses mutating requests once the claim has expired.
#[derive(Debug, Clone)]
pub struct FenceLayer(pub Fence);

/// See [`FenceLayer`].
#[derive(Debug, Clone)]
pub struct Fenced<S> {
    inner: S,
    fence: Fence,
}

impl<S> tower::Layer<S> for FenceLayer {
    type Service = Fenced<S>;

    fn layer(&self, inner: S) -> Fenced<S> {
        Fenced {
            inner,
            fence: self.0.clone(),
        }
    }
}

impl<S, B> tower::Service<http::Request<B>> for Fenced<S>
where
    S: tower::Service<http::Request<B>>,
    S::Error: Into<tower::BoxError>,
    S::Future: Send + 'static,
    S::Response: Send + 'static,
{
    type Response = S::Response;
    type Error = tower::BoxError;
    type Future = futures::future::BoxFuture<'static, Result<S::Response, tower::BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        if !request.method().is_safe()
            && let Err(lost) = self.fence.check()
        {
            return Box::pin(async move { Err(lost.into()) });
        }
        let answer = self.inner.call(request);
        Box::pin(async move { answer.await.map_err(Into::into) })
    }
}

/// A connection that ends instead of carrying bytes out once the claim has expired.
pub(crate) struct FencedIo<T> {
    inner: T,
    fence: Option<Fence>,
}

impl<T> FencedIo<T> {
    fn gate(&self) -> io::Result<()> {
        self.fence
            .as_ref()
            .map_or(Ok(()), |fence| fence.check().map_err(io::Error::other))
    }
}

impl<T: hyper::rt::Read + Unpin> hyper::rt::Read for FencedIo<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<T: hyper::rt::Write + Unpin> hyper::rt::Write for FencedIo<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.gate()?;
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.gate()?;
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }
}

impl<T: Connection> Connection for FencedIo<T> {
    fn connected(&self) -> Connected {
        self.inner.connected()
    }
}

/// Makes fenced connections.
#[derive(Debug, Clone)]
pub(crate) struct FencedConnector<C> {
    pub(crate) inner: C,
    pub(crate) fence: Option<Fence>,
}

impl<C> tower::Service<http::Uri> for FencedConnector<C>
where
    C: tower::Service<http::Uri>,
    C::Future: Send + 'static,
    C::Response: Send + 'static,
    C::Error: Send + 'static,
{
    type Response = FencedIo<C::Response>;
    type Error = C::Error;
    type Future = futures::future::BoxFuture<'static, Result<Self::Response, C::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, uri: http::Uri) -> Self::Future {
        let fence = self.fence.clone();
        let connecting = self.inner.call(uri);
        Box::pin(async move {
            Ok(FencedIo {
                inner: connecting.await?,
                fence,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_is_closed_until_extended_and_after_its_deadline() {
        let fence = Fence::closed(Duration::ZERO);
        assert!(fence.check().is_err());
        fence.extend(Moment::now() + Duration::from_mins(1));
        assert!(fence.check().is_ok());
        fence.extend(Moment::now());
        assert!(fence.check().is_err());
        fence.extend(Moment::now() + Duration::from_mins(1));
        fence.close();
        assert!(fence.check().is_err());
    }

    #[tokio::test]
    async fn the_layer_refuses_writes_and_lets_reads_pass() {
        use tower::{Layer as _, ServiceExt as _};
        let fence = Fence::closed(Duration::ZERO);
        let service = FenceLayer(fence.clone()).layer(tower::service_fn(async |_: http::Request<()>| {
            Ok::<_, std::convert::Infallible>("answer")
        }));
        let request = |method: http::Method| http::Request::builder().method(method).uri("/").body(()).unwrap();
        let refused = service.clone().oneshot(request(http::Method::PATCH)).await.unwrap_err();
        assert!(refused.is::<Lost>());
        assert_eq!(
            service.clone().oneshot(request(http::Method::GET)).await.unwrap(),
            "answer"
        );
        fence.extend(Moment::now() + Duration::from_mins(1));
        assert_eq!(service.oneshot(request(http::Method::DELETE)).await.unwrap(), "answer");
    }

    #[tokio::test]
    async fn the_socket_refuses_bytes_after_the_deadline() {
        use hyper::rt::Write as _;
        let (ours, _theirs) = tokio::io::duplex(64);
        let fence = Fence::closed(Duration::ZERO);
        fence.extend(Moment::now() + Duration::from_mins(1));
        let mut io = FencedIo {
            inner: hyper_util::rt::TokioIo::new(ours),
            fence: Some(fence.clone()),
        };
        assert_eq!(
            std::future::poll_fn(|cx| Pin::new(&mut io).poll_write(cx, b"ab"))
                .await
                .unwrap(),
            2
        );
        fence.close();
        let error = std::future::poll_fn(|cx| Pin::new(&mut io).poll_write(cx, b"ab"))
            .await
            .unwrap_err();
        assert!(is_lost(&kube::Error::Service(Box::new(error))));
    }
}
