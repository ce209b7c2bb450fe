//! Bounds on what an upstream archive may unpack to, held while it is read.

use std::{
    cell::Cell,
    fmt,
    io::{self, Read},
    rc::Rc,
};

use super::UnpackError;

/// How much an upstream archive may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of everything, unpacked, headers included.
    pub total: u64,
    /// Bytes of one file.
    pub file: u64,
    /// Entries, folders included.
    pub entries: u64,
    /// Segments of a path.
    pub depth: usize,
    /// How many bytes one byte of the archive may unpack to, beyond the first [`Limits::FREE`].
    pub ratio: u64,
}

impl Limits {
    /// Bytes that may come out before the ratio counts: small archives of very regular text are no bombs.
    pub const FREE: u64 = 16 << 20;
}

impl Default for Limits {
    /// 512 MiB in at most 10000 entries of at most 128 MiB and 32 segments, and a ratio of 200: gzip of plain text reaches
    /// 20, of very regular text 100, and cannot pass 1032.
    fn default() -> Self {
        Self {
            total: 512 << 20,
            file: 128 << 20,
            entries: 10_000,
            depth: 32,
            ratio: 200,
        }
    }
}

/// A bound that is exceeded, on its way through an `io::Error`.
#[derive(Debug)]
pub(super) struct Exceeded(pub(super) String);

impl fmt::Display for Exceeded {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "exceeds {}", self.0)
    }
}

impl std::error::Error for Exceeded {}

impl Exceeded {
    fn error(bound: String) -> io::Error {
        io::Error::other(Self(bound))
    }
}

/// What an error of reading means.
pub(super) fn understood(error: &io::Error) -> UnpackError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Exceeded>()) {
        Some(Exceeded(bound)) => UnpackError::Limit { bound: bound.clone() },
        None => UnpackError::Malformed(error.to_string()),
    }
}

/// Counts what is read from the archive as it is stored.
pub(super) struct Counted<R> {
    inner: R,
    count: Rc<Cell<u64>>,
}

impl<R> Counted<R> {
    pub(super) fn new(inner: R) -> (Self, Rc<Cell<u64>>) {
        let count = Rc::new(Cell::new(0));
        let counted = Self {
            inner,
            count: Rc::clone(&count),
        };
        (counted, count)
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(into)?;
        self.count.set(self.count.get() + count as u64);
        Ok(count)
    }
}

/// Holds the bounds on what comes out: the total, and its ratio to what went in.
pub(super) struct Bounded<R> {
    inner: R,
    limits: Limits,
    stored: Rc<Cell<u64>>,
    out: Rc<Cell<u64>>,
}

impl<R> Bounded<R> {
    /// `stored`: bytes of the archive that were read, or its size. `out`: bytes that came out so far.
    pub(super) fn new(inner: R, limits: Limits, stored: Rc<Cell<u64>>, out: Rc<Cell<u64>>) -> Self {
        Self {
            inner,
            limits,
            stored,
            out,
        }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(into)?;
        let out = self.out.get() + count as u64;
        self.out.set(out);
        if out > self.limits.total {
            return Err(Exceeded::error(format!("{} bytes in all", self.limits.total)));
        }
        let fair = self.stored.get().saturating_mul(self.limits.ratio);
        if out > fair.saturating_add(Limits::FREE) {
            return Err(Exceeded::error(format!("{} times its own size", self.limits.ratio)));
        }
        Ok(count)
    }
}

/// The content of one file: at most so many bytes, and exactly as many as announced.
pub(super) struct Content<R> {
    inner: R,
    limit: u64,
    announced: u64,
    seen: u64,
}

impl<R> Content<R> {
    pub(super) fn new(inner: R, limit: u64, announced: u64) -> Self {
        Self {
            inner,
            limit,
            announced,
            seen: 0,
        }
    }
}

impl<R: Read> Read for Content<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(into)?;
        self.seen += count as u64;
        if self.seen > self.limit {
            return Err(Exceeded::error(format!("{} bytes in one file", self.limit)));
        }
        let ended = count == 0 && !into.is_empty();
        if self.seen > self.announced || (ended && self.seen < self.announced) {
            let found = self.seen;
            let announced = self.announced;
            return Err(io::Error::other(format!(
                "a file has {found} bytes instead of {announced}"
            )));
        }
        Ok(count)
    }
}
