//! Archives: ours, written so that the same content gives the same bytes, and upstream's, read as if by an enemy.
//!
//! ```text
//!  entries, sorted ─▶ Packer ─▶ tar ─▶ gzip ─▶ sha256 + size ─▶ Write
//!  upstream's .tar.gz, .tar, .zip ─▶ Limits, names, kinds ─▶ Sink (the caller's spool) ─▶ sorted ─▶ Packer
//! ```
//!
//! Invariants: nothing is held whole, neither a payload nor an archive; an entry that is not a file or folder inside the
//! archive never reaches a sink; what is read is bounded by [`Limits`] before it is read.

mod bounded;
mod pack;
mod source;
mod unpack;
mod zipped;

pub use bounded::Limits;
pub use pack::{Mode, PackError, Packer};
pub use source::{Links, Sink, Unpacked};
pub use unpack::{tar, tar_gz};
pub use zipped::zip;

use std::io;

use thiserror::Error;

use crate::path::PathError;

/// What an upstream archive is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// gzip around tar; `.tgz`.
    TarGz,
    /// tar alone.
    Tar,
    /// zip, stored or deflated.
    Zip,
}

impl Format {
    /// How many bytes [`Format::detect`] wants to see.
    pub const HEAD: usize = 512;

    /// Reads the first bytes. None: none of them, or fewer bytes than it takes to tell.
    #[must_use]
    pub fn detect(head: &[u8]) -> Option<Self> {
        match head {
            [0x1f, 0x8b, ..] => Some(Self::TarGz),
            [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => Some(Self::Zip),
            _ if head.get(257..262) == Some(b"ustar") => Some(Self::Tar),
            _ => None,
        }
    }
}

/// Why an upstream archive is not unpacked. Names of entries are those of the archive.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum UnpackError {
    /// A bound of [`Limits`] is exceeded.
    #[error("the archive exceeds {bound}")]
    Limit {
        /// Which, with its value.
        bound: String,
    },
    /// An entry's path leaves the archive or cannot be kept.
    #[error("the archive has an entry {name:?} that cannot be kept: {why}")]
    Path {
        /// The entry.
        name: String,
        /// What is wrong with its path.
        why: PathError,
    },
    /// An entry is neither a file nor a folder.
    #[error("the archive has an entry {name:?} that is a {kind}")]
    Kind {
        /// The entry.
        name: String,
        /// What it is.
        kind: &'static str,
    },
    /// Two entries have one name, or a file has the name of a folder.
    #[error("the archive has two entries named {name:?}")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// It is no such archive, or a damaged one.
    #[error("the archive cannot be read: {0}")]
    Malformed(String),
    /// The sink failed.
    #[error("what was unpacked cannot be written")]
    Sink(#[source] io::Error),
}

#[cfg(test)]
mod tests;
