//! A hook between a reader and a writer, such as two files.
//!
//! ```text
//!  from (AsyncRead) ─▶ body ─▶ hook ─▶ Output, judged at its end ─▶ to (AsyncWrite)
//! ```
//!
//! Invariant: what the writer holds after an error is to be thrown away.

use std::io;

use bytes::{Bytes, BytesMut};
use futures::{TryStreamExt as _, stream};
use http_body_util::StreamBody;
use hyper::body::{Body, Frame};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::{Client, Error, Hook};

/// Bytes that are read at once.
const CHUNK: usize = 256 * 1024;

impl Client {
    /// Runs a hook on what a reader has, and writes what the hook writes; gives back how many bytes that were. Memory
    /// does not grow with them.
    ///
    /// # Errors
    /// As [`Client::run`]; [`Error::TooLarge`] when there are more than `most` bytes, which ends the hook;
    /// [`Error::Kept`] when they cannot be written.
    pub async fn pipe<R, W>(&self, hook: &Hook, from: R, to: &mut W, most: u64) -> Result<u64, Error>
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin,
    {
        let mut output = self.run(hook, body(from)).await?;
        let mut written = 0_u64;
        while let Some(bytes) = output.try_next().await? {
            written = written.saturating_add(bytes.len() as u64);
            if written > most {
                return Err(Error::TooLarge(format!("hook: stdout has more than {most} bytes")));
            }
            to.write_all(&bytes).await.map_err(Error::Kept)?;
        }
        to.flush().await.map_err(Error::Kept)?;
        Ok(written)
    }
}

/// What a reader has, as a body.
fn body<R>(from: R) -> impl Body<Data = Bytes, Error = io::Error> + Send + 'static
where
    R: AsyncRead + Send + Unpin + 'static,
{
    let chunks = stream::try_unfold(from, |mut from| async move {
        let mut chunk = BytesMut::with_capacity(CHUNK);
        let read = from.read_buf(&mut chunk).await?;
        Ok::<_, io::Error>((read > 0).then(|| (chunk.freeze(), from)))
    });
    StreamBody::new(chunks.map_ok(Frame::data))
}
