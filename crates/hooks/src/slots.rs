//! `Slots`: how many runs there are at once, and how many may wait.
//!
//! Invariant: whoever finds the queue full is told at once; whoever waits leaves the queue by being dropped.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// All slots of a sidecar.
#[derive(Debug)]
pub(crate) struct Slots {
    free: Arc<Semaphore>,
    waiting: AtomicUsize,
    queue: usize,
    patience: Duration,
}

/// A run's place, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    _permit: OwnedSemaphorePermit,
}

/// No place was free in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the executor is busy: {0} hooks wait already; try again later")]
pub(crate) struct Busy(usize);

impl Slots {
    pub(crate) fn new(at_once: usize, queue: usize, patience: Duration) -> Self {
        let free = Arc::new(Semaphore::new(at_once.clamp(1, Semaphore::MAX_PERMITS)));
        Self {
            free,
            waiting: AtomicUsize::new(0),
            queue,
            patience,
        }
    }

    /// A slot, after waiting in the queue when it must be.
    pub(crate) async fn take(&self) -> Result<Slot, Busy> {
        if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
            return Ok(Slot { _permit: permit });
        }
        let place = Place(&self.waiting);
        let before = self.waiting.fetch_add(1, Ordering::AcqRel);
        if before >= self.queue {
            return Err(Busy(before));
        }
        let permit = tokio::time::timeout(self.patience, Arc::clone(&self.free).acquire_owned()).await;
        drop(place);
        match permit {
            Ok(Ok(permit)) => Ok(Slot { _permit: permit }),
            _ => Err(Busy(before)),
        }
    }
}

/// One who waits, counted until dropped.
struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_queue_is_bounded_and_patient() {
        let slots = Slots::new(1, 1, Duration::from_secs(30));
        let first = slots.take().await.unwrap();
        let mut second = Box::pin(slots.take());
        assert!(second.as_mut().now_or_never().is_none());
        assert_eq!(slots.take().await.unwrap_err(), Busy(1));
        drop(second);
        let mut third = Box::pin(slots.take());
        assert!(third.as_mut().now_or_never().is_none(), "the place of who left is free");
        drop(first);
        let third = third.await.unwrap();
        assert_eq!(slots.take().await.unwrap_err(), Busy(0), "patience ends");
        drop(third);
        slots.take().await.unwrap();
    }
}
