//! `S3`: files in a bucket of AWS, `MinIO` or another service that speaks S3.
//!
//! ```text
//!  put:  HEAD (right? done) ─▶ PUT, or parts of 8 MiB, two at a time ─▶ hash agrees? complete : abort
//!  open: GET, resumed by range where it breaks ─▶ body
//! ```
//!
//! On `object_store` (`SigV4`, parts, pages of lists, retries). Own are: the digest beside the object, the time that a
//! body may stall, statuses that it folds into one (see `answer`), and the form of endpoints.
//!
//! Assumptions: an object whose metadata `sha256` says the digest of its key is right, as only [`Storage::put`] writes
//! it and the service checks what arrives (each request is signed with the SHA-256 of its payload). [`Storage::verify`]
//! reads it over, and what it finds corrupt has to be deleted before it is stored again, as [`Cached`](crate::Cached) does.
//! Parts that a killed process left are invisible; the bucket needs a lifecycle rule that aborts
//! incomplete uploads, as all users of multipart uploads do.
//!
//! Deletions are single requests: the bulk one of S3 needs a digest of its body in the header that some services want
//! as MD5. The proxy variables of the environment (`HTTPS_PROXY`, `NO_PROXY`) are read by the HTTP client.

mod answer;
mod settings;
mod upload;

use std::{ops::Range, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};
use http::Method;
use object_store::{
    Attribute, GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt as _, aws::AmazonS3, path::Path, signer::Signer as _,
};

use crate::{
    content::Content,
    error::{Error, Result},
    key::{Key, Prefix},
    locks::Locks,
    storage::{Body, Entry, Opened, Put, Stat, Storage},
};
use answer::mapped;

pub use settings::{S3Credentials, S3Settings};

/// The metadata that holds the digest of an object, as 64 hexadecimal digits.
const DIGEST: &str = "sha256";

/// Files in a bucket. Cheap to clone.
#[derive(Debug, Clone)]
pub struct S3 {
    /// For requests that have to end in time.
    calls: Arc<AmazonS3>,
    /// For bodies, which last as long as their reader takes.
    bodies: Arc<AmazonS3>,
    stall: Duration,
    locks: Locks,
}

impl S3 {
    /// A storage by these settings. Nothing is asked of the service yet.
    ///
    /// # Errors
    /// [`Error::Settings`].
    pub fn new(settings: &S3Settings) -> Result<Self> {
        Ok(Self {
            calls: Arc::new(settings.client(Some(settings.request_timeout))?),
            bodies: Arc::new(settings.client(None)?),
            stall: settings.request_timeout,
            locks: Locks::default(),
        })
    }

    /// What the service says of the object, and whether it is the file of that key.
    async fn look(&self, key: &Key) -> Result<Option<(Stat, bool)>> {
        let options = GetOptions {
            head: true,
            ..GetOptions::default()
        };
        match self.calls.get_opts(&path(key), options).await {
            Ok(found) => {
                let recorded = found.attributes.get(&Attribute::Metadata(DIGEST.into()));
                let right = recorded.is_some_and(|recorded| **recorded == *key.digest().hex());
                Ok(Some((stat(&found.meta), right)))
            }
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(mapped(key, error)),
        }
    }
}

#[async_trait]
impl Storage for S3 {
    fn name(&self) -> &'static str {
        "s3"
    }

    async fn put(&self, key: &Key, content: Content) -> Result<Put> {
        let _held = self.locks.hold(key).await;
        let unreadable = |source| Error::Content {
            subject: key.to_string(),
            source,
        };
        let size = content.size().await.map_err(unreadable)?;
        if let Some((stat, true)) = self.look(key).await?
            && size.is_none_or(|size| size == stat.size)
        {
            return Ok(Put::Unchanged);
        }
        let reader = content.reader().await.map_err(unreadable)?;
        upload::upload(&*self.calls, key, reader).await?;
        Ok(Put::Stored)
    }

    async fn open(&self, key: &Key, range: Option<Range<u64>>) -> Result<Opened> {
        if range.as_ref().is_some_and(Range::is_empty) {
            return Err(Error::OutOfRange { key: key.clone() });
        }
        let options = GetOptions {
            range: range.map(Into::into),
            ..GetOptions::default()
        };
        let path = path(key);
        let asked = tokio::time::timeout(self.stall, self.bodies.get_opts(&path, options));
        let got = asked.await.map_err(|_| stalled(key, self.stall))?;
        let got = got.map_err(|error| match error {
            object_store::Error::NotFound { .. } => Error::NotFound { key: key.clone() },
            error if answer::status(&error) == Some(http::StatusCode::RANGE_NOT_SATISFIABLE) => {
                Error::OutOfRange { key: key.clone() }
            }
            error => mapped(key, error),
        })?;
        Ok(Opened {
            stat: stat(&got.meta),
            range: got.range.clone(),
            body: patient(key.clone(), got.into_stream(), self.stall),
        })
    }

    async fn head(&self, key: &Key) -> Result<Option<Stat>> {
        Ok(self.look(key).await?.map(|(stat, _)| stat))
    }

    fn list(&self, prefix: &Prefix) -> BoxStream<'static, Result<Entry>> {
        let below = (!prefix.as_str().is_empty()).then(|| Path::from(prefix.as_str()));
        let prefix = prefix.subject();
        let objects = self.calls.list(below.as_ref());
        objects
            .map_err(move |error| mapped(&prefix, error))
            .try_filter_map(async |object| {
                let key = object.location.as_ref().parse::<Key>().ok();
                Ok(key.map(|key| Entry {
                    key,
                    stat: stat(&object),
                }))
            })
            .boxed()
    }

    async fn delete(&self, key: &Key) -> Result<bool> {
        let _held = self.locks.hold(key).await;
        match self.calls.delete(&path(key)).await {
            Ok(()) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(mapped(key, error)),
        }
    }

    async fn presigned(&self, key: &Key, valid: Duration) -> Result<Option<String>> {
        let url = self.calls.signed_url(Method::GET, &path(key), valid).await;
        Ok(Some(url.map_err(|error| mapped(key, error))?.to_string()))
    }
}

/// The object of a key. Keys hold nothing that would have to be encoded.
fn path(key: &Key) -> Path {
    Path::from(key.as_str())
}

fn stat(meta: &ObjectMeta) -> Stat {
    Stat {
        size: meta.size,
        modified: meta.last_modified.into(),
    }
}

/// The body, given up when the service sends nothing for that long while somebody waits for it.
///
/// The client's own limit would count the time in which nobody reads, too, and cut slow readers.
fn patient(key: Key, body: BoxStream<'static, object_store::Result<bytes::Bytes>>, stall: Duration) -> Body {
    stream::unfold(Some((key, body)), move |state| async move {
        let (key, mut body) = state?;
        match tokio::time::timeout(stall, body.next()).await {
            Err(_) => Some((Err(stalled(&key, stall)), None)),
            Ok(None) => None,
            Ok(Some(Ok(bytes))) => Some((Ok(bytes), Some((key, body)))),
            Ok(Some(Err(error))) => Some((Err(mapped(&key, error)), None)),
        }
    })
    .boxed()
}

/// Nothing came.
#[derive(Debug, thiserror::Error)]
#[error("nothing was received for {0:?}")]
struct Stalled(Duration);

fn stalled(key: &Key, stall: Duration) -> Error {
    Error::Unreachable {
        subject: key.to_string(),
        source: Stalled(stall).into(),
    }
}
