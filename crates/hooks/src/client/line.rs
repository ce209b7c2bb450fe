//! `Line`: the connection of one run, closed when it is dropped.
//!
//! Invariant: every task of the connection ends with its line, so that the socket is closed whatever they wait for.

use hyper::rt::Executor;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Closes its connection when it is dropped.
#[derive(Debug)]
pub(super) struct Line {
    _guard: DropGuard,
}

/// Runs the tasks of one connection.
#[derive(Debug, Clone)]
pub(super) struct Tied(CancellationToken);

/// An executor for a connection, and what ends all that it runs.
pub(super) fn tied() -> (Tied, Line) {
    let stop = CancellationToken::new();
    (
        Tied(stop.clone()),
        Line {
            _guard: stop.drop_guard(),
        },
    )
}

impl<F> Executor<F> for Tied
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, task: F) {
        let stop = self.0.clone();
        tokio::spawn(async move {
            let _ = stop.run_until_cancelled(task).await;
        });
    }
}
