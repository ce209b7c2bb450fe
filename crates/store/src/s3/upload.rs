//! Sending a file to the bucket, in one request or in parts.
//!
//! ```text
//!  reader ─▶ 8 MiB ─┬─ all there was ─▶ hash agrees? ─▶ PUT
//!                   └─ more ─▶ parts, two on their way ─▶ hash agrees? ─▶ complete
//! ```
//!
//! Invariants: at most three parts are in memory; nothing is visible before the hash agreed; what fails is aborted, so
//! that its parts are not kept and paid for.

use bytes::{Bytes, BytesMut};
use object_store::{
    Attribute, Attributes, MultipartUpload, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, UploadPart,
};
use tokio::{io::AsyncReadExt as _, task::JoinSet};

use super::{DIGEST, answer::mapped, path};
use trellis_core::digest::{Digest, Hasher};

use crate::{
    content::Reader,
    error::{Error, Result},
    key::Key,
};

/// The size of a part, in bytes. S3 takes 5 MiB to 5 GiB, all but the last alike.
const PART: usize = 8 * 1024 * 1024;

/// How many parts S3 takes.
const PARTS: u64 = 10_000;

/// How many parts are on their way at once.
const ABREAST: usize = 2;

/// Stores what the reader gives as the object of that key.
pub(super) async fn upload(store: &dyn ObjectStore, key: &Key, mut reader: Reader) -> Result<()> {
    let first = part(key, &mut reader).await?;
    if first.len() < PART {
        agreed(key, Digest::of(&first))?;
        let options = PutOptions {
            attributes: attributes(key),
            ..PutOptions::default()
        };
        let put = store.put_opts(&path(key), first.into(), options).await;
        return put.map(drop).map_err(|error| mapped(key, error));
    }
    let options = PutMultipartOptions {
        attributes: attributes(key),
        ..PutMultipartOptions::default()
    };
    let started = store.put_multipart_opts(&path(key), options).await;
    let mut upload = started.map_err(|error| mapped(key, error))?;
    let sent = match send(key, upload.as_mut(), first, &mut reader).await {
        Ok(()) => upload.complete().await.map(drop).map_err(|error| mapped(key, error)),
        Err(error) => Err(error),
    };
    if sent.is_err()
        && let Err(error) = upload.abort().await
    {
        tracing::debug!(%key, %error, "parts of a failed upload stay until the bucket's lifecycle rule aborts them");
    }
    sent
}

/// Sends all parts, and compares the digest of them all.
async fn send(key: &Key, upload: &mut dyn MultipartUpload, first: Bytes, reader: &mut Reader) -> Result<()> {
    let mut hasher = Hasher::default();
    let mut sending: JoinSet<object_store::Result<()>> = JoinSet::new();
    let mut next = first;
    let mut left = PARTS;
    while !next.is_empty() {
        left = left.checked_sub(1).ok_or_else(|| Error::TooLarge {
            subject: key.to_string(),
            limit: PARTS * PART as u64,
        })?;
        hasher.update(&next);
        let last = next.len() < PART;
        let sent: UploadPart = upload.put_part(PutPayload::from(next));
        sending.spawn(sent);
        next = if last { Bytes::new() } else { part(key, reader).await? };
        while sending.len() >= ABREAST {
            joined(key, &mut sending).await?;
        }
    }
    while !sending.is_empty() {
        joined(key, &mut sending).await?;
    }
    agreed(key, hasher.finish())
}

/// Waits for one of the parts.
async fn joined(key: &Key, sending: &mut JoinSet<object_store::Result<()>>) -> Result<()> {
    match sending.join_next().await {
        None | Some(Ok(Ok(()))) => Ok(()),
        Some(Ok(Err(error))) => Err(mapped(key, error)),
        Some(Err(error)) => Err(Error::Io {
            subject: key.to_string(),
            source: std::io::Error::other(error),
        }),
    }
}

/// The next part: whole, or what is left.
async fn part(key: &Key, reader: &mut Reader) -> Result<Bytes> {
    let mut part = BytesMut::new();
    let mut rest = reader.take(PART as u64);
    loop {
        // Grows with a small file, and is at once as large as a part when there are more.
        match rest.read_buf(&mut part).await {
            Ok(0) => return Ok(part.freeze()),
            Ok(_) if part.len() == part.capacity() => part.reserve(part.len().clamp(64 * 1024, PART - part.len() + 1)),
            Ok(_) => {}
            Err(source) => {
                return Err(Error::Content {
                    subject: key.to_string(),
                    source,
                });
            }
        }
    }
}

fn agreed(key: &Key, found: Digest) -> Result<()> {
    if found == key.digest() {
        return Ok(());
    }
    Err(Error::Mismatch {
        key: key.clone(),
        found,
    })
}

/// What is kept beside the object.
fn attributes(key: &Key) -> Attributes {
    Attributes::from_iter([
        (Attribute::ContentType, "application/gzip".to_owned()),
        (Attribute::Metadata(DIGEST.into()), key.digest().hex()),
    ])
}
