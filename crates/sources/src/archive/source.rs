//! What is common to every kind of upstream archive: names, kinds and counts, before anything reaches the sink.

use std::{
    collections::BTreeMap,
    io::{self, Read},
};

use super::{
    Limits, Mode, UnpackError,
    bounded::{Content, understood},
};
use crate::path::EntryPath;

/// Where unpacked entries go, in the order of the archive. The caller's: usually files in a spool folder, each under a
/// number rather than under its name.
pub trait Sink {
    /// A folder. It may come after what it holds, more than once, or never.
    ///
    /// # Errors
    /// It cannot be kept.
    fn folder(&mut self, path: &EntryPath) -> io::Result<()>;

    /// A file. What is not read of `content` is read and checked afterwards.
    ///
    /// # Errors
    /// It cannot be kept. Errors of `content` are passed on as they are.
    fn file(&mut self, path: &EntryPath, mode: Mode, content: &mut dyn Read) -> io::Result<()>;
}

/// What becomes of symbolic links. Hard links are always refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Links {
    /// They are left out, and counted, as Flux does.
    #[default]
    Skip,
    /// The archive is refused.
    Refuse,
}

/// What an archive held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unpacked {
    /// Files that the sink was given.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Symbolic links that were left out.
    pub links: u64,
}

/// The state while an archive is walked.
pub(super) struct Walk<'a> {
    pub(super) limits: Limits,
    links: Links,
    sink: &'a mut dyn Sink,
    seen: BTreeMap<EntryPath, bool>,
    count: u64,
    pub(super) done: Unpacked,
}

impl<'a> Walk<'a> {
    pub(super) fn new(limits: Limits, links: Links, sink: &'a mut dyn Sink) -> Self {
        Self {
            limits,
            links,
            sink,
            seen: BTreeMap::new(),
            count: 0,
            done: Unpacked::default(),
        }
    }

    /// One more header, of whatever kind.
    pub(super) fn count(&mut self) -> Result<(), UnpackError> {
        self.count += 1;
        if self.count > self.limits.entries {
            return Err(UnpackError::Limit {
                bound: format!("{} entries", self.limits.entries),
            });
        }
        Ok(())
    }

    pub(super) fn link(&mut self, name: &[u8]) -> Result<(), UnpackError> {
        match self.links {
            Links::Skip => {
                self.done.links += 1;
                Ok(())
            }
            Links::Refuse => Err(kind(name, "symbolic link")),
        }
    }

    /// None: the archive's top.
    fn path(&self, name: &[u8]) -> Result<Option<EntryPath>, UnpackError> {
        if matches!(name, b"." | b"./") {
            return Ok(None);
        }
        let path = EntryPath::from_bytes(name).map_err(|why| UnpackError::Path { name: shown(name), why })?;
        if path.segments().count() > self.limits.depth {
            return Err(UnpackError::Limit {
                bound: format!("{} segments in a path", self.limits.depth),
            });
        }
        Ok(Some(path))
    }

    pub(super) fn folder(&mut self, name: &[u8]) -> Result<(), UnpackError> {
        let Some(path) = self.path(name)? else {
            return Ok(());
        };
        self.note(&path, false)?;
        self.sink.folder(&path).map_err(UnpackError::Sink)
    }

    /// `content` gives at most `announced` bytes by itself, or is cut here.
    pub(super) fn file(
        &mut self,
        name: &[u8],
        mode: u32,
        announced: u64,
        content: impl Read,
    ) -> Result<(), UnpackError> {
        let Some(path) = self.path(name)? else {
            return Err(UnpackError::Malformed("a file without a name".to_owned()));
        };
        if announced > self.limits.file {
            return Err(UnpackError::Limit {
                bound: format!("{} bytes in one file", self.limits.file),
            });
        }
        self.note(&path, true)?;
        let mut tap = Tap {
            inner: Content::new(content, self.limits.file, announced),
            failed: None,
        };
        let kept = self.sink.file(&path, Mode::of_bits(mode), &mut tap);
        if let Some(error) = tap.failed {
            return Err(error);
        }
        kept.map_err(UnpackError::Sink)?;
        io::copy(&mut tap, &mut io::sink()).map_err(|error| understood(&error))?;
        self.done.files += 1;
        self.done.bytes += announced;
        Ok(())
    }

    /// A name is one thing once: extractors differ in which of two they keep, and a checked one may hide another.
    fn note(&mut self, path: &EntryPath, is_file: bool) -> Result<(), UnpackError> {
        let twice = |name: &EntryPath| UnpackError::Duplicate { name: name.to_string() };
        for folder in path.ancestors() {
            if *self.seen.entry(folder).or_insert(false) {
                return Err(twice(path));
            }
        }
        match self.seen.insert(path.clone(), is_file) {
            Some(was_file) if was_file || is_file => Err(twice(path)),
            _ => Ok(()),
        }
    }
}

pub(super) fn kind(name: &[u8], kind: &'static str) -> UnpackError {
    UnpackError::Kind {
        name: shown(name),
        kind,
    }
}

/// A name for a message: short, without control characters.
fn shown(name: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(name).chars().take(100).collect();
    text.replace(char::is_control, "?")
}

/// Remembers why reading failed, so that a sink's error and the archive's are told apart.
struct Tap<R> {
    inner: R,
    failed: Option<UnpackError>,
}

impl<R: Read> Read for Tap<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.inner.read(into).inspect_err(|error| {
            if error.kind() != io::ErrorKind::Interrupted {
                self.failed = Some(understood(error));
            }
        })
    }
}
