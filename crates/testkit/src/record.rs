//! `Recording`: every call, in the order in which it began.
//!
//! layer ─▶ begun(call) … finished(answer) ─▶ calls, counts, waits, `Conversation` for a snapshot

mod conversation;
mod redact;

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::Method;
use jiff::Timestamp;
use tokio::sync::watch;

pub use self::conversation::Conversation;
use crate::{Calls, RequestInfo, lock};

/// The longest part of a request body that is kept, in bytes.
pub const BODY_LIMIT: usize = 64 * 1024;

/// How a call ended, as its caller saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// Not answered yet.
    Pending,
    /// The server's answer.
    Status(u16),
    /// An answer by the script; the server was not asked.
    Injected(u16),
    /// Connection broken by the script before the server was asked.
    CutBefore,
    /// Connection broken by the script after the server had answered with this status.
    CutAfter(u16),
    /// Held for good by the script; the server was not asked.
    Hung,
    /// The server answered with this status; the answer was withheld by the crash.
    Withheld(u16),
    /// Arrived after the crash; the server was not asked.
    Dead,
    /// The caller went away before the answer.
    Abandoned,
    /// The server could not be reached, or broke off.
    Failed(String),
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pending => f.write_str("pending"),
            Self::Status(code) => write!(f, "{code}"),
            Self::Injected(code) => write!(f, "{code} (injected)"),
            Self::CutBefore => f.write_str("cut before"),
            Self::CutAfter(code) => write!(f, "cut after {code}"),
            Self::Hung => f.write_str("hung"),
            Self::Withheld(code) => write!(f, "crash after {code}"),
            Self::Dead => f.write_str("dead"),
            Self::Abandoned => f.write_str("abandoned"),
            Self::Failed(why) => write!(f, "failed: {why}"),
        }
    }
}

/// One recorded call.
#[derive(Clone, Debug)]
pub struct Call {
    /// When it began.
    pub at: Timestamp,
    /// What was asked.
    pub info: RequestInfo,
    /// The same as it was sent: method, and path with query.
    pub sent: (Method, String),
    /// `User-Agent`, when the caller sends one. A layer sees a request before kube adds the configured headers.
    pub user_agent: Option<String>,
    /// `Content-Type`, empty when there is no body.
    pub content_type: String,
    /// Request body, at most [`BODY_LIMIT`] bytes of it.
    pub body: Bytes,
    /// How it ended.
    pub answer: Answer,
}

/// Every call that passed. Clones share the record.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    calls: Mutex<Vec<Call>>,
    changes: watch::Sender<()>,
}

/// A place in a recording.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(usize);

impl Recording {
    /// An empty recording.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Where the record stands now, for [`since`](Self::since).
    #[must_use]
    pub fn place(&self) -> Place {
        Place(lock(&self.inner.calls).len())
    }

    /// Every call so far.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.since(Place::default())
    }

    /// Every call after `place`.
    #[must_use]
    pub fn since(&self, place: Place) -> Vec<Call> {
        lock(&self.inner.calls).get(place.0..).unwrap_or_default().to_vec()
    }

    /// The calls among `which`.
    #[must_use]
    pub fn of(&self, which: &Calls) -> Vec<Call> {
        lock(&self.inner.calls)
            .iter()
            .filter(|call| which.matches(&call.info))
            .cloned()
            .collect()
    }

    /// Waits until `n` calls among `which` have ended, and returns them.
    pub async fn ended(&self, which: &Calls, n: usize) -> Vec<Call> {
        let mut changes = self.inner.changes.subscribe();
        loop {
            let ended: Vec<Call> = self
                .of(which)
                .into_iter()
                .filter(|call| call.answer != Answer::Pending)
                .collect();
            // The sender lives in `self`, so `changed` cannot fail.
            if ended.len() >= n || changes.changed().await.is_err() {
                return ended;
            }
        }
    }

    /// The calls as a readable text.
    #[must_use]
    pub fn conversation(&self) -> Conversation {
        Conversation::of(self.calls())
    }

    pub(crate) fn begun(&self, mut call: Call) -> Entry {
        call.body.truncate(BODY_LIMIT);
        let mut calls = lock(&self.inner.calls);
        calls.push(call);
        Entry {
            recording: self.clone(),
            index: calls.len() - 1,
            open: true,
        }
    }
}

/// The open end of a recorded call.
#[derive(Debug)]
pub(crate) struct Entry {
    recording: Recording,
    index: usize,
    open: bool,
}

impl Entry {
    pub(crate) fn finish(mut self, answer: Answer) {
        self.set(answer);
    }

    fn set(&mut self, answer: Answer) {
        self.open = false;
        if let Some(call) = lock(&self.recording.inner.calls).get_mut(self.index) {
            call.answer = answer;
        }
        self.recording.inner.changes.send_replace(());
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if self.open {
            self.set(Answer::Abandoned);
        }
    }
}
