//! The three streams of a run, each with its limit.
//!
//! Invariant: a stream that has nobody at its other end any more is no failure of the run; who reads what was asked
//! for decides that.

use std::{pin::Pin, time::Duration};

use bytes::{Buf as _, Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Body;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::{ChildStderr, ChildStdin, ChildStdout},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;

use super::{End, Tail};
use crate::wire::STDERR_KEPT;

/// One buffer of standard output, in bytes. Pipes are made as large, so that one read empties them.
const BUFFER: usize = 256 * 1024;
/// How long a stream may stay open after the warden has ended: only a process that escaped it can hold it open.
const AFTERMATH: Duration = Duration::from_secs(1);

/// Passes the body on to standard input and counts it. A command that does not read all of it is served as well.
pub(super) async fn feed<B>(
    stdin: Option<ChildStdin>,
    mut body: B,
    limit: u64,
    gone: &CancellationToken,
    total: &mut u64,
) -> Result<(), End>
where
    B: Body<Data = Bytes> + Send + Unpin,
{
    let mut stdin = stdin;
    if let Some(stdin) = &stdin {
        // The default size does too, only slower.
        let _ = rustix::pipe::fcntl_setpipe_size(stdin, BUFFER);
    }
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            () = gone.cancelled() => return Ok(()),
        };
        let Some(frame) = frame else { break };
        // The caller did not send all of it: what was sent must not be taken for the whole.
        let Ok(frame) = frame else { return Err(End::Cancelled) };
        let Ok(mut data) = frame.into_data() else { continue };
        *total = total.saturating_add(data.len() as u64);
        if *total > limit {
            return Err(End::TooLarge { stream: "stdin", limit });
        }
        if let Some(pipe) = &mut stdin {
            let written = tokio::select! {
                written = async {
                    while data.has_remaining() {
                        pipe.write_buf(&mut data).await?;
                    }
                    std::io::Result::Ok(())
                } => written,
                () = gone.cancelled() => return Ok(()),
            };
            if written.is_err() {
                // It does not read on; what still comes is counted and dropped.
                stdin = None;
            }
        }
    }
    Ok(())
}

/// Passes standard output on and counts it.
pub(super) async fn pump(
    stdout: Option<ChildStdout>,
    output: mpsc::Sender<Bytes>,
    limit: u64,
    gone: &CancellationToken,
    total: &mut u64,
) -> Result<(), End> {
    let Some(mut stdout) = stdout else { return Ok(()) };
    let _ = rustix::pipe::fcntl_setpipe_size(&stdout, BUFFER);
    let mut buffer = BytesMut::new();
    while let Some(read) = next(&mut stdout, &mut buffer, gone).await {
        *total = total.saturating_add(read.len() as u64);
        if *total > limit {
            return Err(End::TooLarge {
                stream: "stdout",
                limit,
            });
        }
        if output.send(read).await.is_err() {
            return Err(End::Cancelled);
        }
    }
    Ok(())
}

/// Keeps the end of standard error.
pub(super) async fn keep(
    stderr: Option<ChildStderr>,
    tail: &mut Tail,
    limit: u64,
    gone: &CancellationToken,
) -> Result<(), End> {
    let Some(mut stderr) = stderr else { return Ok(()) };
    let mut buffer = BytesMut::new();
    while let Some(read) = next(&mut stderr, &mut buffer, gone).await {
        tail.push(&read, STDERR_KEPT);
        if tail.total() > limit {
            return Err(End::TooLarge {
                stream: "stderr",
                limit,
            });
        }
    }
    Ok(())
}

/// The next bytes, until the stream ends or nobody who matters can write to it any more.
async fn next(stream: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut, gone: &CancellationToken) -> Option<Bytes> {
    buffer.reserve(BUFFER);
    let mut stream = Pin::new(stream);
    tokio::select! {
        biased;
        read = stream.read_buf(buffer) => match read {
            Ok(1..) => Some(buffer.split().freeze()),
            Ok(0) | Err(_) => None,
        },
        () = async { gone.cancelled().await; tokio::time::sleep(AFTERMATH).await } => None,
    }
}
