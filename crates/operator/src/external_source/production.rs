//! `Production`: from an order to a packed artifact on the spool. No cluster, no storage.
//!
//! ```text
//!  Order ─▶ preRequest hooks ─▶ request ─▶ body ─▶ checksum ─▶ postRequest hooks ─▶ transforms ─▶ shape ─▶ pack ─▶ Packed
//!              (whitelist, executor)         └──────── files of one folder, each gone when the next is there ───┘
//! ```
//!
//! Hooks do not stream into each other: each reads a file and writes one. So none waits for upstream or for another one
//! while its time runs, a chain needs one place in the executor whatever its length, hence chains never wait for each
//! other's places, upstream's checksum is known before any command sees a byte, and what is ignored or tried again has its
//! input. The price is a disk's: two files of the largest size at once, and their bytes twice through the page cache, which
//! compressing costs many times over.
//!
//! Small productions take of the disk what they need; large ones wait until there is room for all of what they may need.
//!
//! Invariants: memory does not grow with the data, except for what is shaped or transformed, which is bounded; what is on
//! its way lies in a folder of its own and goes with it; nothing but a whole output of a hook is used.

mod chain;
mod executor;
mod failed;
mod hooks;
mod pack;
mod room;
mod spool;
mod step;
mod transform;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio::{io::AsyncWriteExt as _, sync::Semaphore};
use trellis_core::Digest;
use trellis_fetch::{Body, Fetched, Generators, Transferred};
use trellis_sources::{
    archive::Limits,
    chain::request_change::Change,
    failure::Failure,
    measure::Measure,
    pipeline::Validators,
    reason::Reason,
    revision::{Revision, RevisionId},
};

use super::{
    Order, Settings,
    measured::{Measured, Operation, Said},
};
pub(super) use executor::Executor;
pub use failed::Failed;
pub(super) use failed::patience;
pub(super) use hooks::no_executor;
use room::{Held, Needs, Room};
use spool::Spool;
pub use step::{Progress, Step};

/// What is known of the source already. If it is still so, nothing is made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// What upstream said with its body.
    pub validators: Validators,
    /// What it was asked, where hooks changed that: validators are good for one request only.
    pub asked: Option<Digest>,
}

/// What came of an order.
#[derive(Debug)]
pub enum Product {
    /// Upstream has what was known.
    Unchanged,
    /// A new artifact, which may be equal to one before.
    Packed(Box<Packed>),
}

/// An artifact on the spool. Its file goes when this is dropped.
#[derive(Debug)]
pub struct Packed {
    /// The archive, a tar.gz.
    pub file: PathBuf,
    /// Digest and size of the archive.
    pub measure: Measure,
    /// What people call its revision.
    pub id: RevisionId,
    /// What upstream said of its body.
    pub validators: Validators,
    /// What upstream was asked, where hooks changed that.
    pub asked: Option<Digest>,
    /// Bytes that upstream sent, decompressed.
    pub fetched: u64,
    /// What the user should know although it is no error.
    pub warnings: Vec<String>,
    /// Whether the same data may give another artifact, because a hook failed and was ignored: asked for again although
    /// upstream says that it is the same.
    pub provisional: bool,
    _folder: TempDir,
    // After the folder: the room is free when the files are gone.
    _held: Held,
}

impl Packed {
    /// The revision under which it is published.
    #[must_use]
    pub fn revision(&self) -> Revision {
        Revision {
            id: self.id.clone(),
            digest: self.measure.digest,
        }
    }
}

/// Makes artifacts. The controller stores what comes of it; a command does not, and calls it so:
///
/// ```no_run
/// # use std::{collections::BTreeMap, error::Error, fs, path::Path, sync::Arc};
/// # use k8s_openapi::api::core::v1::Secret;
/// # use trellis_api::ExternalSource;
/// # use trellis_fetch::{Client, Generators};
/// # use trellis_operator::external_source::*;
/// # async fn render_and_try(text: &str, secret: Secret, hooks: trellis_hooks::Client) -> Result<(), Box<dyn Error>> {
/// let source: ExternalSource = serde_saphyr::from_str(text)?;
/// // By name: those that `secrets(&source.spec)` names.
/// let named = Secrets::from([("token".to_owned(), Some(Arc::new(secret)))]);
/// let mut settings = Settings::new("http://localhost", "/tmp");
/// if !source.spec.pre_request().is_empty() || !source.spec.post_request().is_empty() {
///     settings.hooks = Some(HooksSettings::open(hooks, "/etc/hooks/whitelist.yaml")?);
/// }
/// let order = Order::of(&source, &named, &settings)?; // a Refusal names the field
/// println!("{}", serde_json::to_string_pretty(&order.rendered())?); // trellis source render FILE
///
/// // trellis source try FILE
/// let client = Client::new(trellis_fetch::Settings::default(), Arc::new(Policy::default()));
/// let production = Production::new(&settings, Generators::standard(&client));
/// let progress: Progress = Arc::new(|step| eprintln!("{step}"));
/// if let Product::Packed(packed) = production.make(&order, &Known::default(), &progress).await? {
///     eprintln!("{}", packed.revision());
///     fs::copy(&packed.file, "artifact.tar.gz")?; // the file goes with `packed`
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Production {
    generators: Generators,
    executor: Option<Executor>,
    spool: Spool,
    room: Room,
    unpack: Limits,
    max_bytes: u64,
    longest: Duration,
    places: Arc<Semaphore>,
    measured: Measured,
}

/// Data on its way.
#[derive(Debug)]
struct Data {
    file: PathBuf,
    size: u64,
}

impl Production {
    /// One that fetches with `generators`, and runs hooks, keeps files and limits them as it is set. What a process left in
    /// the folder for files that is dead is removed.
    #[must_use]
    pub fn new(settings: &Settings, generators: Generators) -> Self {
        Self {
            generators,
            executor: settings
                .hooks
                .as_ref()
                .map(|hooks| Executor::new(hooks, settings.measured.clone())),
            spool: Spool::open(&settings.spool),
            room: Room::new(settings.spool_bytes),
            unpack: settings.unpack,
            max_bytes: settings.max_bytes,
            longest: settings.longest,
            places: Arc::new(Semaphore::new(transform::PLACES as usize)),
            measured: settings.measured.clone(),
        }
    }

    /// Makes the artifact, unless upstream has what is `known`. Dropping the future ends what it started.
    ///
    /// # Errors
    /// Why there is none: what it means, and what the user is told.
    pub async fn make(&self, order: &Order, known: &Known, progress: &Progress) -> Result<Product, Failed> {
        let making = tokio::time::timeout(self.longest, self.made(order, known, progress));
        making.await.unwrap_or_else(|_| Err(Failed::too_long(self.longest)))
    }

    pub(super) fn executor(&self) -> Option<&Executor> {
        self.executor.as_ref()
    }

    async fn made(&self, order: &Order, known: &Known, progress: &Progress) -> Result<Product, Failed> {
        let needs = Needs::of(order.inner(), self.max_bytes, self.unpack);
        let mut held = self.room.held(needs, progress);
        let folder = self.spool.place().map_err(|error| Failed::spool(&error))?;
        let before = hooks::before(self.executor.as_ref(), order, progress).await?;
        let asked = asked(&before.change);
        // Validators of another request say nothing of this one.
        let known = if known.asked == asked {
            known.validators.clone()
        } else {
            Validators::default()
        };
        let announced = Arc::new(AtomicU64::new(0));
        let wanted = wanted(order, known, progress, &announced);
        let file = folder.path().join("body");
        let sink = (file.as_path(), &mut held, announced);
        let Some(body) = self.fetch(order, &before.change, &wanted, sink).await? else {
            return Ok(Product::Unchanged);
        };
        check(order, &body)?;
        filled(body.size, "upstream's answer is empty")?;
        held.hold(body.size).await.map_err(|error| Failed::spool(&error))?;
        let fetched = Data { file, size: body.size };
        let left = order.inner().max_retries.saturating_sub(before.retries);
        let hooks = hooks::After {
            folder: folder.path(),
            most: self.max_bytes,
            retries: left,
        };
        let (data, ignored) = hooks.run(self.executor.as_ref(), order, fetched, progress).await?;
        let data = self.transformed(order, folder.path(), data, progress).await?;
        filled(data.size, "the payload is empty after the hooks and transforms")?;
        progress(Step::Packing(data.size));
        let archived = self.packed(order, folder.path(), data, body.content_type).await?;
        held.keep(archived.measure.size);
        let ignored: Vec<String> = before.ignored.into_iter().chain(ignored).collect();
        Ok(Product::Packed(Box::new(Packed {
            file: archived.file,
            measure: archived.measure,
            id: archived.id,
            validators: Validators {
                etag: body.validators.etag,
                last_modified: body.validators.last_modified,
            },
            asked,
            fetched: body.size,
            provisional: !ignored.is_empty(),
            warnings: ignored.into_iter().chain(archived.warnings).collect(),
            _folder: folder,
            _held: held,
        })))
    }

    /// Upstream's body in a file; none: it is as it was known.
    async fn fetch(
        &self,
        order: &Order,
        change: &Change,
        wanted: &trellis_fetch::Order,
        (file, held, announced): (&Path, &mut Held, Arc<AtomicU64>),
    ) -> Result<Option<Body>, Failed> {
        let source = order
            .source(change)
            .map_err(|refusal| Failed::of(Failure::Refused(refusal)))?;
        let failed = |error| Failed::fetch(error, &order.inner().shown);
        let generator = self.generators.create(source).map_err(failed)?;
        let file = tokio::fs::File::create(file)
            .await
            .map_err(|error| Failed::spool(&error))?;
        let mut file = held.around(file, announced);
        let began = Instant::now();
        let fetched = generator.generate(wanted, &mut file).await;
        let said = match &fetched {
            Ok(Fetched::Body(body)) => Said::Data(body.size),
            Ok(Fetched::NotModified) => Said::Unchanged,
            Err(_) => Said::Nothing,
        };
        self.measured.asked(order.generator(), said, began.elapsed());
        let fetched = fetched.map_err(|error| {
            let too_large = matches!(error, trellis_fetch::Error::TooLarge { .. });
            let failed = failed(error);
            if too_large && order.inner().capped {
                failed.because(Reason::SizeLimitExceeded, "the operator's --artifact-max-bytes")
            } else {
                failed
            }
        })?;
        file.flush().await.map_err(|error| Failed::spool(&error))?;
        Ok(match fetched {
            Fetched::NotModified => None,
            Fetched::Body(body) => Some(body),
        })
    }

    async fn packed(
        &self,
        order: &Order,
        folder: &Path,
        data: Data,
        content_type: Option<String>,
    ) -> Result<pack::Archived, Failed> {
        let (order, folder, limits) = (order.clone(), folder.to_owned(), self.unpack);
        let reads = pack::reads(order.inner()).filter(|most| data.size <= *most);
        let place = match reads {
            Some(_) => Some(self.place(data.size).await),
            None => None,
        };
        let packing = tokio::task::spawn_blocking(move || {
            let _place = place;
            let data = (data.file.as_path(), data.size);
            pack::pack(order.inner(), &folder, data, content_type.as_deref(), limits)
        });
        let began = Instant::now();
        let packed = packing.await.map_err(|error| Failed::defect(&error))?;
        self.measured
            .worked(Operation::Package, packed.is_ok(), began.elapsed());
        packed
    }
}

/// How the request is made.
fn wanted(order: &Order, known: Validators, progress: &Progress, announced: &Arc<AtomicU64>) -> trellis_fetch::Order {
    let (told, announced) = (Arc::clone(progress), Arc::clone(announced));
    told(Step::Fetching(Transferred { bytes: 0, total: None }));
    trellis_fetch::Order {
        known: trellis_fetch::Validators {
            etag: known.etag,
            last_modified: known.last_modified,
        },
        max_bytes: Some(order.inner().max_bytes),
        total_timeout: order.inner().timeout,
        tenant: order.inner().tenant.clone(),
        insists: order.inner().insists,
        progress: Some(Arc::new(move |transferred| {
            announced.store(transferred.total.unwrap_or_default(), Ordering::Relaxed);
            told(Step::Fetching(transferred));
        })),
    }
}

/// Headers that are other ones in each request without that the answer is: what signs it, and when.
const SIGNATURES: &[&str] = &[
    "authorization",
    "date",
    "x-amz-content-sha256",
    "x-amz-date",
    "x-amz-security-token",
];

/// What tells this request from the one of the spec, where they differ in what an answer may depend on.
fn asked(change: &Change) -> Option<Digest> {
    let differs = change.query.is_some() || change.body.is_some() || change.headers.is_some();
    differs.then(|| {
        let headers = change.headers.iter().flatten();
        let headers: Vec<_> = headers
            .filter(|(name, _)| !SIGNATURES.contains(&name.as_str()))
            .collect();
        let text = serde_json::to_string(&(&change.query, &headers, &change.body)).unwrap_or_default();
        Digest::of(text.as_bytes())
    })
}

/// Refuses data of no bytes: published, it would be the order to remove everything that was there before.
fn filled(size: u64, message: &str) -> Result<(), Failed> {
    if size > 0 {
        return Ok(());
    }
    Err(Failed::of(Failure::Payload(
        Reason::PermanentError.refuse(message).hint(
            "nothing is published of it, as consumers would remove what they have; serve something, such as a comment",
        ),
    )))
}

/// Compares the data with what the spec pins.
fn check(order: &Order, body: &Body) -> Result<(), Failed> {
    let Some(pinned) = order.inner().checksum.filter(|pinned| *pinned != body.digest) else {
        return Ok(());
    };
    Err(Failed::of(Failure::Payload(
        Reason::VerificationFailed
            .refuse(format!(
                "the data has the digest {}, and spec.checksum is {pinned}",
                body.digest
            ))
            .hint("correct spec.checksum, or what the source serves"),
    )))
}
