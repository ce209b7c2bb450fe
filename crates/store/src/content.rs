//! `Content`: what is to be stored, as a file or as a stream.
//!
//! ```text
//!  File ──────────────────────────▶ blocking writer        File ─┐
//!  Stream ─▶ pump ─▶ 4 pieces ────▶ (disk)                 Stream ┴─▶ AsyncRead (memory, S3)
//! ```
//!
//! Invariants: at most half a MiB is on its way; a stream that is dropped before its end is told from one that ended.

use std::{fmt, fs::File, io, path::PathBuf, pin::Pin};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    sync::mpsc,
};

/// How much is read at once, in bytes.
pub(crate) const PIECE: usize = 128 * 1024;

/// Bytes as they come.
pub type Reader = Pin<Box<dyn AsyncRead + Send>>;

/// What is to be stored.
pub enum Content {
    /// A local file. It is copied, and stays.
    File(PathBuf),
    /// Bytes as they come.
    Stream(Reader),
}

impl Content {
    /// A local file.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::File(path.into())
    }

    /// Bytes as they come.
    pub fn stream(reader: impl AsyncRead + Send + 'static) -> Self {
        Self::Stream(Box::pin(reader))
    }

    /// How many bytes there are, if that is known beforehand.
    pub(crate) fn size(&self) -> impl Future<Output = io::Result<Option<u64>>> + use<> {
        // Without `self` in the future: a stream need not be `Sync`.
        let path = match self {
            Self::File(path) => Some(path.clone()),
            Self::Stream(_) => None,
        };
        async {
            match path {
                Some(path) => Ok(Some(tokio::fs::metadata(path).await?.len())),
                None => Ok(None),
            }
        }
    }

    /// The bytes, for who reads without blocking.
    pub(crate) async fn reader(self) -> io::Result<Reader> {
        match self {
            Self::File(path) => Ok(Box::pin(tokio::fs::File::open(path).await?)),
            Self::Stream(reader) => Ok(reader),
        }
    }

    /// The bytes, for who reads with blocking, and what has to run meanwhile.
    pub(crate) fn split(self) -> (Feed, Pump) {
        match self {
            Self::File(path) => (Feed::File(path), Pump(None)),
            Self::Stream(reader) => {
                let (sender, receiver) = mpsc::channel(4);
                (Feed::Pieces(receiver), Pump(Some((reader, sender))))
            }
        }
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

/// A piece of a stream on its way to the blocking side.
pub(crate) enum Piece {
    Bytes(Bytes),
    End,
    Failed(io::Error),
}

/// The side of the reader that does not block.
pub(crate) struct Pump(Option<(Reader, mpsc::Sender<Piece>)>);

impl Pump {
    /// Feeds the other side until the end, or until it wants no more.
    pub(crate) async fn run(self) {
        let Some((mut reader, sender)) = self.0 else { return };
        loop {
            let mut buffer = BytesMut::with_capacity(PIECE);
            let piece = match reader.read_buf(&mut buffer).await {
                Ok(0) => Piece::End,
                Ok(_) => Piece::Bytes(buffer.freeze()),
                Err(error) => Piece::Failed(error),
            };
            let last = !matches!(piece, Piece::Bytes(_));
            if sender.send(piece).await.is_err() || last {
                return;
            }
        }
    }
}

/// The side of the writer, which blocks.
pub(crate) enum Feed {
    File(PathBuf),
    Pieces(mpsc::Receiver<Piece>),
}

impl Feed {
    /// Hands every piece to `take`.
    ///
    /// # Errors
    /// The outer one when the content cannot be read, the inner one is that of `take`.
    pub(crate) fn each<E>(self, mut take: impl FnMut(&[u8]) -> Result<(), E>) -> io::Result<Result<(), E>> {
        match self {
            Self::File(path) => {
                let mut file = File::open(path)?;
                let mut buffer = vec![0; PIECE];
                loop {
                    let read = io::Read::read(&mut file, &mut buffer)?;
                    if read == 0 {
                        return Ok(Ok(()));
                    }
                    if let Err(error) = take(buffer.get(..read).unwrap_or_default()) {
                        return Ok(Err(error));
                    }
                }
            }
            Self::Pieces(mut pieces) => loop {
                match pieces.blocking_recv() {
                    Some(Piece::Bytes(bytes)) => {
                        if let Err(error) = take(&bytes) {
                            return Ok(Err(error));
                        }
                    }
                    Some(Piece::End) => return Ok(Ok(())),
                    Some(Piece::Failed(error)) => return Err(error),
                    None => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the stream was given up")),
                }
            },
        }
    }
}
