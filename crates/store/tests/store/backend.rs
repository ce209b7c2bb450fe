//! The backends that the suite runs over, and files to put into them.

use std::{path::PathBuf, pin::Pin, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use tempfile::TempDir;
use trellis_store::{Content, Digest, Disk, Entry, Key, Memory, Opened, Prefix, S3, Storage};

use crate::service::Service;

/// Which backend a case is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    Disk,
    Memory,
    S3,
}

/// A storage with what it needs to live.
pub(crate) struct Bench {
    pub(crate) storage: Arc<dyn Storage>,
    /// Where the files lie, if a test may look there.
    pub(crate) root: Option<PathBuf>,
    _alive: (Option<TempDir>, Option<Service>),
}

impl Backend {
    pub(crate) async fn start(self) -> Bench {
        match self {
            Self::Disk => {
                let root = tempfile::tempdir().unwrap();
                Bench {
                    storage: Arc::new(Disk::open(root.path()).await.unwrap()),
                    root: Some(root.path().to_owned()),
                    _alive: (Some(root), None),
                }
            }
            Self::Memory => Bench {
                storage: Arc::new(Memory::bounded(256 << 20)),
                root: None,
                _alive: (None, None),
            },
            Self::S3 => {
                let service = Service::start().await;
                Bench {
                    storage: Arc::new(S3::new(&service.endpoint.settings()).unwrap()),
                    root: Some(service.bucket_root()),
                    _alive: (None, Some(service)),
                }
            }
        }
    }
}

/// Incompressible bytes, the same for the same seed.
pub(crate) fn bytes(seed: u64, size: usize) -> Bytes {
    let mut state = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let words = std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(size).collect::<Vec<u8>>().into()
}

pub(crate) fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

pub(crate) fn key(of: &str, bytes: &[u8]) -> Key {
    Key::new(&prefix(of), Digest::of(bytes)).unwrap()
}

/// The bytes as a stream of small pieces.
pub(crate) fn streamed(bytes: Bytes) -> Content {
    let pieces = futures::stream::unfold(bytes, async |mut rest| {
        let piece = rest.split_to(rest.len().min(30_011));
        (!piece.is_empty()).then_some((Ok::<_, std::io::Error>(piece), rest))
    });
    let pieces: Pin<Box<dyn futures::Stream<Item = _> + Send>> = Box::pin(pieces);
    Content::stream(tokio_util::io::StreamReader::new(pieces))
}

/// The bytes as a local file.
pub(crate) fn spooled(bytes: &[u8]) -> (tempfile::NamedTempFile, Content) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let content = Content::file(file.path());
    (file, content)
}

pub(crate) async fn read(opened: Opened) -> Bytes {
    let pieces: Vec<Bytes> = opened.body.try_collect().await.unwrap();
    pieces.concat().into()
}

pub(crate) async fn listed(storage: &dyn Storage, below: &str) -> Vec<Entry> {
    let mut entries: Vec<_> = storage.list(&prefix(below)).map(Result::unwrap).collect().await;
    entries.sort_by(|one, other| one.key.cmp(&other.key));
    entries
}

/// Every name below the directory, temporary ones too.
pub(crate) fn names(root: &std::path::Path) -> Vec<String> {
    let mut names = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                directories.push(entry.path());
            } else {
                names.push(entry.file_name().into_string().unwrap());
            }
        }
    }
    names.sort();
    names
}
