//! `Packer`: the deterministic tar.gz.

use std::io::{self, Read, Write};

use flate2::{Compression, GzBuilder, write::GzEncoder};
use tar::{Builder, EntryType, Header};
use thiserror::Error;

use crate::{
    measure::{Measure, Measured},
    path::EntryPath,
};

/// The one level: it is part of the bytes, hence of every digest.
const LEVEL: u32 = 6;
/// `unknown`, so that no system's number is in the bytes (RFC 1952, 2.3.1).
const OPERATING_SYSTEM: u8 = 255;

/// Who may do what with a file. The owner may always read: the kustomize-controller applies modes as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Mode {
    /// `0644`.
    #[default]
    Plain,
    /// `0755`.
    Executable,
}

impl Mode {
    /// What an upstream mode becomes: executable if its owner may execute it.
    #[must_use]
    pub fn of_bits(bits: u32) -> Self {
        if bits & 0o100 == 0 {
            Self::Plain
        } else {
            Self::Executable
        }
    }

    /// The permission bits.
    #[must_use]
    pub fn bits(self) -> u32 {
        match self {
            Self::Plain => 0o644,
            Self::Executable => 0o755,
        }
    }
}

/// Why an archive is not written. What was written so far is to be thrown away.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PackError {
    /// An entry does not come after the one before it, in the order of [`EntryPath`].
    #[error("the entry {after} comes after {before}, out of order")]
    OutOfOrder {
        /// The entry before.
        before: EntryPath,
        /// The entry that should have come earlier.
        after: EntryPath,
    },
    /// An entry lies below a file.
    #[error("the entry {below} lies below the file {file}")]
    BelowFile {
        /// The file.
        file: EntryPath,
        /// The entry.
        below: EntryPath,
    },
    /// The content has another length than announced.
    #[error("the entry {path} has not the {announced} bytes that it was announced with")]
    Length {
        /// The entry.
        path: EntryPath,
        /// The announced length.
        announced: u64,
    },
    /// The content cannot be read, or the archive not written.
    #[error("the archive cannot be written")]
    Io(#[from] io::Error),
}

/// Writes a tar.gz in which equal entries give equal bytes: owner 0 without names, time 0, fixed modes, one gzip header, one
/// level, folders as entries of their own before what they hold.
///
/// # Guarantees
/// Memory is constant; the digest and the size are those of the bytes that `finish` has written.
pub struct Packer<W: Write> {
    tar: Builder<GzEncoder<Measured<W>>>,
    last: Option<(EntryPath, bool)>,
}

impl<W: Write> Packer<W> {
    /// An archive that is written to `out`, which needs no buffer of its own.
    pub fn new(out: W) -> Self {
        let gzip = GzBuilder::new().mtime(0).operating_system(OPERATING_SYSTEM);
        let mut tar = Builder::new(gzip.write(Measured::new(out), Compression::new(LEVEL)));
        tar.sparse(false);
        Self { tar, last: None }
    }

    /// Adds a folder, also one that will hold nothing. Folders around files are added by themselves.
    ///
    /// # Errors
    /// See [`PackError`].
    pub fn folder(&mut self, path: &EntryPath) -> Result<(), PackError> {
        if matches!(&self.last, Some((last, false)) if last == path) {
            return Ok(());
        }
        self.advance(path, false)?;
        self.put_folder(path)
    }

    /// Adds a file of exactly `size` bytes.
    ///
    /// # Errors
    /// See [`PackError`].
    pub fn file(&mut self, path: &EntryPath, mode: Mode, size: u64, content: impl Read) -> Result<(), PackError> {
        self.advance(path, true)?;
        let mut header = header(EntryType::Regular, mode.bits(), size);
        let mut content = content.take(size);
        self.tar.append_data(&mut header, path.as_str(), &mut content)?;
        let missing = content.limit();
        let mut rest = content.into_inner();
        if missing > 0 || io::copy(&mut (&mut rest).take(1), &mut io::sink())? > 0 {
            return Err(PackError::Length {
                path: path.clone(),
                announced: size,
            });
        }
        Ok(())
    }

    /// Checks the order and adds the folders around `path` that are not there yet.
    fn advance(&mut self, path: &EntryPath, is_file: bool) -> Result<(), PackError> {
        let before = self.last.replace((path.clone(), is_file));
        if let Some((last, was_file)) = &before {
            if path <= last {
                return Err(PackError::OutOfOrder {
                    before: last.clone(),
                    after: path.clone(),
                });
            }
            if *was_file && last.is_around(path) {
                return Err(PackError::BelowFile {
                    file: last.clone(),
                    below: path.clone(),
                });
            }
        }
        for folder in path.ancestors() {
            let there = before
                .as_ref()
                .is_some_and(|(last, _)| folder == *last || folder.is_around(last));
            if !there {
                self.put_folder(&folder)?;
            }
        }
        Ok(())
    }

    fn put_folder(&mut self, path: &EntryPath) -> Result<(), PackError> {
        let mut header = header(EntryType::Directory, 0o755, 0);
        self.tar.append_data(&mut header, format!("{path}/"), io::empty())?;
        Ok(())
    }

    /// Writes the end, and says what was written.
    ///
    /// # Errors
    /// The archive cannot be written.
    pub fn finish(self) -> Result<(W, Measure), PackError> {
        let mut measured = self.tar.into_inner()?.finish()?;
        measured.flush()?;
        Ok(measured.finish())
    }
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}
