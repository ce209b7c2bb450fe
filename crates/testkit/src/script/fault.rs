//! `Fault`: what happens to a call; `Gate`: a door that a test opens.

use std::time::Duration;

use tokio::sync::watch;

/// What happens to a call.
#[derive(Clone, Debug)]
pub struct Fault(pub(crate) Kind);

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Fail { code: u16, retry_after: Option<u32> },
    Delay(Duration),
    Hold(Gate),
    HoldAnswer(Gate),
    CutBefore,
    CutAfter,
    Hang,
    EndWatch { after: u64, end: WatchEnd },
}

/// How an open watch ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchEnd {
    /// An `ERROR` event with status 410 `Expired`, then the regular end: the client must list again.
    Expire,
    /// The connection breaks in the middle of the stream.
    Cut,
    /// The regular end of a stream, as after its timeout.
    Close,
}

impl Fault {
    /// The server is not asked; the answer is `code` with a `metav1.Status` body.
    #[must_use]
    pub fn fail(code: u16) -> Self {
        Self(Kind::Fail {
            code,
            retry_after: None,
        })
    }

    /// [`fail`](Self::fail) that asks the client to come back after so many seconds (`Retry-After`, and
    /// `retryAfterSeconds` in the details).
    #[must_use]
    pub fn fail_retry_after(code: u16, seconds: u32) -> Self {
        Self(Kind::Fail {
            code,
            retry_after: Some(seconds),
        })
    }

    /// The server is not asked; the answer is a 409 `Conflict`, as after a lost race for a resourceVersion.
    #[must_use]
    pub fn conflict() -> Self {
        Self::fail(409)
    }

    /// The call reaches the server only after `time`. Later rules still apply.
    #[must_use]
    pub fn delay(time: Duration) -> Self {
        Self(Kind::Delay(time))
    }

    /// The call reaches the server only after the test opens `gate`. Later rules still apply.
    #[must_use]
    pub fn hold(gate: &Gate) -> Self {
        Self(Kind::Hold(gate.clone()))
    }

    /// The server does what it was asked; its answer reaches the caller only after the test opens `gate`.
    #[must_use]
    pub fn hold_answer(gate: &Gate) -> Self {
        Self(Kind::HoldAnswer(gate.clone()))
    }

    /// The connection breaks before the request reaches the server.
    #[must_use]
    pub fn cut_before() -> Self {
        Self(Kind::CutBefore)
    }

    /// The server does what it was asked, then the connection breaks: the caller cannot know.
    #[must_use]
    pub fn cut_after() -> Self {
        Self(Kind::CutAfter)
    }

    /// The request does not reach the server and is never answered.
    #[must_use]
    pub fn hang() -> Self {
        Self(Kind::Hang)
    }

    /// A watch that starts with an `ERROR` event 410 `Expired`. Only for watches; other calls pass.
    #[must_use]
    pub fn expire_watch() -> Self {
        Self::end_watch(0, WatchEnd::Expire)
    }

    /// A watch that ends so after it has delivered `after` events (bookmarks count). Only for watches; other calls
    /// pass.
    #[must_use]
    pub fn end_watch(after: u64, end: WatchEnd) -> Self {
        Self(Kind::EndWatch { after, end })
    }
}

/// A door for [`Fault::hold`] and [`Fault::hold_answer`]: closed until [`open`](Gate::open).
#[derive(Clone, Debug)]
pub struct Gate {
    open: watch::Sender<bool>,
    held: watch::Sender<u64>,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            open: watch::Sender::new(false),
            held: watch::Sender::new(0),
        }
    }
}

impl Gate {
    /// A closed gate.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets every held and every later call pass.
    pub fn open(&self) {
        self.open.send_replace(true);
    }

    /// Waits until `n` calls have arrived at the gate since it was made.
    pub async fn reached(&self, n: u64) {
        // The sender is ours, so the wait cannot end by its loss.
        let _ = self.held.subscribe().wait_for(|held| *held >= n).await;
    }

    /// Arrives at the gate, and waits until it is open.
    pub async fn pass(&self) {
        self.held.send_modify(|held| *held += 1);
        let _ = self.open.subscribe().wait_for(|open| *open).await;
    }
}
