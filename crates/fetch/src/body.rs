//! A body on its way from the connection to the sink.
//!
//! ```text
//!  frames ─▶ limit as sent ─▶ content coding undone ─▶ limit decompressed ─▶ sha256 ─▶ sink
//! ```
//!
//! Invariants: neither limit is passed by more than one piece, and nothing beyond it reaches the sink; a piece of at most
//! 4 KiB is decompressed at a time, which is 4 MiB at most (DEFLATE expands 1032-fold at most).
//!
//! `Accept-Encoding: identity` is sent: servers that compress on the way give an `ETag` that they then do not know again
//! (Apache's `-gzip` suffix), and a check that answers 304 saves more than compression. What comes compressed all the same
//! (objects stored so) is decompressed.

use std::{io::Write as _, sync::Arc, time::Duration};

use flate2::write::MultiGzDecoder;
use http::{HeaderMap, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::{io::AsyncWriteExt as _, time::timeout};
use trellis_core::digest::{Digest, Hasher};

use crate::{
    error::{Error, Excess, Result, Timeout},
    generator::{Progress, Sink, Transferred},
    link::Shown,
};

/// Compressed bytes that are decompressed at a time.
const PIECE: usize = 4 * 1024;

/// What limits a body.
pub(crate) struct Limits<'a> {
    pub(crate) at: Shown,
    pub(crate) bytes: u64,
    pub(crate) idle: Duration,
    pub(crate) progress: Option<&'a Progress>,
}

/// What the sink got.
pub(crate) struct Received {
    pub(crate) size: u64,
    pub(crate) digest: Digest,
}

enum Coding {
    Identity,
    Gzip(Box<MultiGzDecoder<Vec<u8>>>),
}

/// Get a body into a sink.
pub(crate) async fn receive(
    mut body: Incoming,
    headers: &HeaderMap,
    limits: &Limits<'_>,
    sink: &mut Sink<'_>,
) -> Result<Received> {
    let announced = body.size_hint().exact();
    if let Some(size) = announced.filter(|size| *size > limits.bytes) {
        return Err(too_large(limits, Excess::Declared(size)));
    }
    let mut coding = coding(headers, &limits.at)?;
    let mut digest = Hasher::default();
    let (mut came, mut size) = (0_u64, 0_u64);
    loop {
        let frame = timeout(limits.idle, body.frame()).await.map_err(|_| Error::Timeout {
            at: limits.at.clone(),
            which: Timeout::Idle,
            after: limits.idle,
        })?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|source| Error::Cut {
            at: limits.at.clone(),
            received: came,
            source: Arc::new(source),
        })?;
        let Ok(data) = frame.into_data() else { continue };
        came += data.len() as u64;
        if came > limits.bytes {
            return Err(too_large(limits, Excess::Received));
        }
        match &mut coding {
            Coding::Identity => put(&data, &mut size, &mut digest, limits, sink).await?,
            Coding::Gzip(decoder) => {
                for piece in data.chunks(PIECE) {
                    decoder.write_all(piece).map_err(|_| damaged(limits))?;
                    let plain = std::mem::take(decoder.get_mut());
                    put(&plain, &mut size, &mut digest, limits, sink).await?;
                }
            }
        }
        if let Some(progress) = limits.progress {
            progress(Transferred {
                bytes: came,
                total: announced,
            });
        }
    }
    if let Coding::Gzip(decoder) = &mut coding {
        decoder.try_finish().map_err(|_| damaged(limits))?;
        let plain = std::mem::take(decoder.get_mut());
        put(&plain, &mut size, &mut digest, limits, sink).await?;
    }
    sink.flush().await.map_err(|error| Error::Sink(Arc::new(error)))?;
    let digest = digest.finish();
    Ok(Received { size, digest })
}

async fn put(data: &[u8], size: &mut u64, digest: &mut Hasher, limits: &Limits<'_>, sink: &mut Sink<'_>) -> Result<()> {
    *size += data.len() as u64;
    if *size > limits.bytes {
        return Err(too_large(limits, Excess::Decoded));
    }
    digest.update(data);
    sink.write_all(data).await.map_err(|error| Error::Sink(Arc::new(error)))
}

fn coding(headers: &HeaderMap, at: &Shown) -> Result<Coding> {
    let mut codings = headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity"));
    let Some(first) = codings.next() else {
        return Ok(Coding::Identity);
    };
    let gzip = first.eq_ignore_ascii_case(b"gzip") || first.eq_ignore_ascii_case(b"x-gzip");
    if !gzip || codings.next().is_some() {
        return Err(Error::Encoding {
            at: at.clone(),
            why: "only gzip is known, once",
        });
    }
    Ok(Coding::Gzip(Box::new(MultiGzDecoder::new(Vec::new()))))
}

fn damaged(limits: &Limits<'_>) -> Error {
    Error::Encoding {
        at: limits.at.clone(),
        why: "it is damaged or cut off",
    }
}

fn too_large(limits: &Limits<'_>, excess: Excess) -> Error {
    Error::TooLarge {
        at: limits.at.clone(),
        limit: limits.bytes,
        excess,
    }
}

/// Take what is left of a small body that nobody wants, so that its connection can be used again.
pub(crate) async fn drain(mut body: Incoming) {
    const SMALL: usize = 64 * 1024;
    const SOON: Duration = Duration::from_millis(500);
    let rest = async {
        let mut taken = 0;
        while let Some(Ok(frame)) = body.frame().await {
            taken += frame.data_ref().map_or(0, bytes::Bytes::len);
            if taken > SMALL {
                return;
            }
        }
    };
    // Whether it came to its end does not matter: if not, the connection is closed.
    let _ = timeout(SOON, rest).await;
}
