//! `Room`: how much of the spool all productions may take together.
//!
//! ```text
//!  small ─▶ no matter        large ─▶ all that it may need, at once, in the order in which it is asked for ─▶ until it is done
//! ```
//!
//! Invariants: who waits holds nothing, so that nobody waits for ever; one that needs more than there is has all of it alone;
//! a small one never waits for a large one.

use std::{
    fmt, io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::{
    io::AsyncWrite,
    sync::{AcquireError, OwnedSemaphorePermit, Semaphore},
};
use trellis_sources::{archive::Limits, shape::Shape};

use super::{super::order::Inner, Progress, Step};

/// What a production may take that is not counted, in bytes: as many as run at once take no more than a few hundred MiB.
const SMALL: u64 = 4 << 20;
/// How much of a body is taken before it counts as large, in bytes.
const BEGIN: u64 = 1 << 20;
/// Bytes of a place.
const PLACE: u64 = 64 << 10;
/// What a transform writes at most.
const TRANSFORMED: u64 = 16 << 20;

/// Room on the spool.
#[derive(Debug, Clone)]
pub(super) struct Room {
    places: Arc<Semaphore>,
    all: u32,
}

impl Room {
    /// Room for so many bytes.
    pub(super) fn new(bytes: u64) -> Self {
        let all = u32::try_from(bytes / PLACE).unwrap_or(u32::MAX).max(1);
        let places = usize::try_from(all).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            places: Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS))),
            all,
        }
    }

    /// Nothing yet, for a production with these needs.
    pub(super) fn held(&self, needs: Needs, progress: &Progress) -> Held {
        Held {
            room: self.clone(),
            needs,
            permit: None,
            progress: Arc::clone(progress),
        }
    }

    fn places(&self, bytes: u64) -> u32 {
        if bytes <= SMALL {
            return 0;
        }
        u32::try_from(bytes.div_ceil(PLACE)).unwrap_or(u32::MAX).min(self.all)
    }
}

/// What a production writes, by the size of its body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Needs {
    body: u64,
    hook: Option<u64>,
    transforms: bool,
    unpack: Option<Limits>,
}

impl Needs {
    /// Those of an order, where nothing is larger than `most` and an archive is unpacked within `limits`.
    pub(super) fn of(order: &Inner, most: u64, limits: Limits) -> Self {
        let hooks = order.post_request.iter();
        Self {
            body: order.max_bytes,
            hook: hooks.map(|hook| hook.max_output.unwrap_or(most).min(most)).max(),
            transforms: !order.transforms.is_empty(),
            unpack: (order.shape == Shape::Archive).then_some(limits),
        }
    }

    /// The most bytes that lie there at once for a body of that size.
    fn all(&self, body: u64) -> u64 {
        // A hook that is ignored leaves what it was given.
        let (last, hooked) = match self.hook {
            Some(hook) => (body.max(hook), body.max(hook).saturating_add(hook)),
            None => (body, body),
        };
        let last = if self.transforms {
            last.saturating_add(TRANSFORMED.min(last.saturating_mul(16)))
        } else {
            last
        };
        // What is unpacked many times over packs as well.
        let unpacked = self.unpack.map_or(0, |limits| {
            let most = last.saturating_mul(limits.ratio).max(Limits::FREE);
            limits.total.min(most)
        });
        hooked.max(last.saturating_mul(2).saturating_add(unpacked))
    }
}

/// What one production holds of the room. Given back when it is dropped.
pub(super) struct Held {
    room: Room,
    needs: Needs,
    permit: Option<OwnedSemaphorePermit>,
    progress: Progress,
}

impl fmt::Debug for Held {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Held").field(&self.permit).finish()
    }
}

impl Held {
    /// Holds what a body of that size, which is there, needs.
    pub(super) async fn hold(&mut self, body: u64) -> io::Result<()> {
        let places = self.room.places(self.needs.all(body));
        let has = self.has();
        let more = places.saturating_sub(has);
        if more == 0 {
            self.keep_places(places);
        } else if has > 0 {
            self.more(more)?;
        } else if self.more(more).is_err() {
            (self.progress)(Step::Waiting);
            let waiting = Arc::clone(&self.room.places).acquire_many_owned(more);
            self.permit = Some(waiting.await.map_err(io::Error::other)?);
        }
        Ok(())
    }

    /// Gives back what a file of that size, which is all that is left, does not take.
    pub(super) fn keep(&mut self, bytes: u64) {
        self.keep_places(self.room.places(bytes));
    }

    fn keep_places(&mut self, places: u32) {
        let surplus = self.has().saturating_sub(places);
        if let Some(permit) = &mut self.permit {
            drop(permit.split(usize::try_from(surplus).unwrap_or_default()));
        }
    }

    fn has(&self) -> u32 {
        let places = self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        u32::try_from(places).unwrap_or(u32::MAX)
    }

    /// More than was announced. To wait for it with what is held could be for ever.
    fn more(&mut self, places: u32) -> io::Result<()> {
        let full = |_| io::Error::new(io::ErrorKind::StorageFull, "no room for more than was announced");
        let permit = Arc::clone(&self.room.places)
            .try_acquire_many_owned(places)
            .map_err(full)?;
        match &mut self.permit {
            Some(held) => held.merge(permit),
            None => self.permit = Some(permit),
        }
        Ok(())
    }

    /// The file, which takes more than a beginning once there is room for all of it. `announced`: what the server said of
    /// its size, or nothing.
    pub(super) fn around(&mut self, file: tokio::fs::File, announced: Arc<AtomicU64>) -> Roomy<'_> {
        Roomy {
            held: self,
            file,
            announced,
            written: 0,
            room: BEGIN,
            waiting: None,
        }
    }
}

type Waiting = Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send>>;

/// A file that there is room for.
pub(super) struct Roomy<'a> {
    held: &'a mut Held,
    file: tokio::fs::File,
    announced: Arc<AtomicU64>,
    written: u64,
    /// How large it may become.
    room: u64,
    waiting: Option<Waiting>,
}

impl Roomy<'_> {
    fn poll_room(&mut self, context: &mut Context<'_>, size: u64) -> Poll<io::Result<()>> {
        if self.waiting.is_none() {
            let announced = self.announced.load(Ordering::Relaxed);
            let (most, first) = (self.held.needs.body, self.held.permit.is_none());
            // What is compressed on its way may be more than was announced.
            self.room = if first && (size..most).contains(&announced) {
                announced
            } else {
                most.max(size)
            };
            let places = self.held.room.places(self.held.needs.all(self.room));
            let more = places.saturating_sub(self.held.has());
            if more == 0 {
                return Poll::Ready(Ok(()));
            }
            if self.held.more(more).is_ok() {
                return Poll::Ready(Ok(()));
            }
            if !first {
                return Poll::Ready(self.held.more(more));
            }
            (self.held.progress)(Step::Waiting);
            self.waiting = Some(Box::pin(Arc::clone(&self.held.room.places).acquire_many_owned(more)));
        }
        if let Some(waiting) = &mut self.waiting {
            let permit = ready!(waiting.as_mut().poll(context)).map_err(io::Error::other)?;
            self.waiting = None;
            self.held.permit = Some(permit);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Roomy<'_> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let size = this.written.saturating_add(bytes.len() as u64);
        if size > this.room || this.waiting.is_some() {
            ready!(this.poll_room(context, size))?;
        }
        let written = ready!(Pin::new(&mut this.file).poll_write(context, bytes))?;
        this.written = this.written.saturating_add(written as u64);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().file).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().file).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use futures::{FutureExt as _, poll};
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn needs(body: u64) -> Needs {
        Needs {
            body,
            hook: None,
            transforms: false,
            unpack: None,
        }
    }

    /// Counts how often somebody waits.
    fn counted() -> (Progress, Arc<AtomicUsize>) {
        let count = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&count);
        let progress: Progress = Arc::new(move |step| {
            assert_eq!(step, Step::Waiting);
            counter.fetch_add(1, Ordering::SeqCst);
        });
        (progress, count)
    }

    fn file() -> tokio::fs::File {
        tokio::fs::File::from_std(tempfile::tempfile().unwrap())
    }

    #[test]
    fn a_production_needs_the_most_that_lies_there_at_once() {
        let hooked = Needs {
            hook: Some(30 * MIB),
            ..needs(100 * MIB)
        };
        assert_eq!(needs(100 * MIB).all(10 * MIB), 20 * MIB);
        assert_eq!(hooked.all(10 * MIB), 60 * MIB);
        assert_eq!(hooked.all(40 * MIB), 80 * MIB);
        let archive = Needs {
            unpack: Some(Limits::default()),
            ..needs(100 * MIB)
        };
        assert_eq!(archive.all(MIB), 202 * MIB);
        assert_eq!(archive.all(100 * MIB), 712 * MIB);
    }

    #[tokio::test]
    async fn large_ones_wait_in_order_and_small_ones_never_do() {
        let room = Room::new(100 * MIB);
        let (progress, waited) = counted();
        let mut held: Vec<_> = (0..4).map(|_| room.held(needs(100 * MIB), &progress)).collect();
        let [one, two, three, small] = held.as_mut_slice() else {
            unreachable!()
        };
        one.hold(30 * MIB).await.unwrap();
        let mut second = Box::pin(two.hold(30 * MIB));
        assert!(poll!(&mut second).is_pending());
        // There would be room for the third, but the second was first.
        let mut third = Box::pin(three.hold(10 * MIB));
        assert!(poll!(&mut third).is_pending());
        assert_eq!(waited.load(Ordering::SeqCst), 2);
        small.hold(MIB).await.unwrap();
        one.hold(5 * MIB).await.unwrap();
        second.await.unwrap();
        third.await.unwrap();
        let [_, two, ..] = held.as_mut_slice() else {
            unreachable!()
        };
        two.keep(5 * MIB);
        assert_eq!(room.places.available_permits() as u64, 65 * MIB / PLACE);
        drop(held);
        assert_eq!(room.places.available_permits() as u64, 100 * MIB / PLACE);
    }

    #[tokio::test]
    async fn one_that_needs_more_than_there_is_has_it_alone() {
        let room = Room::new(10 * MIB);
        let (progress, _) = counted();
        let mut large = room.held(needs(100 * MIB), &progress);
        large.hold(50 * MIB).await.unwrap();
        assert_eq!(room.places.available_permits(), 0);
    }

    #[tokio::test]
    async fn a_body_waits_for_room_once_it_is_large_and_others_are_there() {
        let room = Room::new(20 * MIB);
        let (progress, waited) = counted();
        let piece = vec![0; 1 << 20];
        let mut first = room.held(needs(100 * MIB), &progress);
        first.hold(9 * MIB).await.unwrap();
        let mut second = room.held(needs(8 * MIB), &progress);
        let mut body = second.around(file(), Arc::default());
        body.write_all(&piece).await.unwrap();
        assert_eq!(waited.load(Ordering::SeqCst), 0);
        let mut more = Box::pin(body.write_all(&piece));
        assert!(poll!(&mut more).is_pending());
        assert_eq!(waited.load(Ordering::SeqCst), 1);
        drop(first);
        more.await.unwrap();
        body.write_all(&piece).await.unwrap();
        second.hold(3 * MIB).now_or_never().unwrap().unwrap();
        assert_eq!(room.places.available_permits() as u64, 14 * MIB / PLACE);
    }

    /// What is announced is held; what is more, because it came compressed, is only taken where there is room for it.
    #[tokio::test]
    async fn what_is_more_than_announced_does_not_wait_with_what_it_holds() {
        let room = Room::new(20 * MIB);
        let (progress, waited) = counted();
        let piece = vec![0; 3 << 20];
        let mut other = room.held(needs(100 * MIB), &progress);
        other.hold(5 * MIB).await.unwrap();
        let mut held = room.held(needs(100 * MIB), &progress);
        let mut body = held.around(file(), Arc::new(AtomicU64::new(4 * MIB)));
        body.write_all(&piece).await.unwrap();
        let full = async {
            body.write_all(&piece).await?;
            body.write_all(&piece).await
        };
        assert_eq!(full.await.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(waited.load(Ordering::SeqCst), 0);
    }
}
