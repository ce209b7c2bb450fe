//! `Step`: what a production is at, for who looks on.

use std::{fmt, sync::Arc};

use trellis_fetch::Transferred;

/// Told what goes on, from any thread; it has to be quick.
pub type Progress = Arc<dyn Fn(Step<'_>) + Send + Sync>;

/// What goes on. Displayed as a short sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step<'a> {
    /// A hook is run, or waits for a place to run in; again for each try.
    Hook(&'a str),
    /// Upstream is asked, and its body comes: told at its begin and for every piece.
    Fetching(Transferred),
    /// A transform works, counted from 1.
    Transforming(usize),
    /// It waits until there is room for all of it.
    Waiting,
    /// The artifact is made of this many bytes.
    Packing(u64),
}

impl fmt::Display for Step<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hook(name) => write!(out, "running hook {name}"),
            Self::Fetching(Transferred { bytes: 0, total: None }) => out.write_str("asking"),
            Self::Fetching(Transferred { bytes, total: None }) => write!(out, "fetched {bytes} bytes"),
            Self::Fetching(Transferred {
                bytes,
                total: Some(total),
            }) => write!(out, "fetched {bytes} of {total} bytes"),
            Self::Transforming(number) => write!(out, "running transform {number}"),
            Self::Waiting => out.write_str("waiting for room on the spool"),
            Self::Packing(bytes) => write!(out, "packing {bytes} bytes"),
        }
    }
}
