//! A round: upstream is asked, and what it has becomes a stored file.
//!
//! ```text
//!  order ─▶ fetch ─▶ spool ─▶ checksum ─▶ pack ─▶ spool ─▶ store ─▶ Round
//! ```
//!
//! Invariants: memory does not grow with the data; what is on its way lies in a folder of the round and goes with it.

mod failed;
mod pack;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use kube::ResourceExt as _;
use tokio::io::AsyncWriteExt as _;
use trellis_api::external_source::{ExternalSource, FETCHING, STORING};
use trellis_fetch::{Fetched, Transferred};
use trellis_runtime::{Result, Says};
use trellis_sources::{
    failure::{Chance, Failure, Next},
    pipeline::Validators,
    reason::Reason,
    revision::{ArtifactPath, Revision},
};
use trellis_store::{Content, garbage};

use super::{
    Asked, ExternalSources,
    round::{Came, Record, Round},
    see, stored, unusable,
};
use failed::Failed;
use pack::Packed;

/// How long something goes on before it is told: each telling is a write.
const WORTH_TELLING: Duration = Duration::from_secs(2);
/// The annotation of OCI that Flux's kustomize-controller takes for the version of the data.
const ORIGIN: &str = "org.opencontainers.image.revision";

impl ExternalSources {
    /// Makes a round and notes what it came to. That a source fails is no error of the round.
    pub(super) async fn round(&self, source: &ExternalSource, asked: &Asked, says: &Says) -> Result<()> {
        let (namespace, name) = (source.namespace().unwrap_or_default(), source.name_any());
        let made = tokio::time::timeout(self.settings.longest, self.make(&namespace, &name, asked, says)).await;
        let made = made.unwrap_or_else(|_| Err(Failed::too_long(self.settings.longest)));
        let now = Timestamp::now();
        let chance = Chance::new(fastrand::f64());
        let interval = asked.order.interval.next(chance);
        let (came, record, wait) = match made {
            Ok(made) => (Came::Done, made.or_else(|| asked.record.clone()), Some(interval)),
            Err(Failed { failure, told }) => {
                let failures = asked.failures.saturating_add(1);
                let next = failure.next(failures, &self.settings.backoff, chance);
                let wait = match next {
                    Next::In(wait) => Some(wait),
                    Next::OnChange => None,
                    _ => Some(interval),
                };
                tracing::warn!(failures, reason = failure.reason(), "{told}");
                (
                    Came::Failed {
                        failure,
                        told,
                        failures,
                        next,
                    },
                    asked.record.clone(),
                    wait,
                )
            }
        };
        let other = record.as_ref().map(|record| &record.path) != asked.record.as_ref().map(|record| &record.path);
        let before = self.rounds.last(&namespace, &name, source.uid().as_deref());
        let collect = if other {
            Some(now)
        } else {
            before.and_then(|round| round.collect)
        };
        let round = Round {
            uid: source.uid(),
            pipeline: asked.pipeline,
            requested: see::requested(source).map(ToOwned::to_owned),
            came,
            record,
            due: wait.and_then(|wait| now.checked_add(wait).ok()),
            collect,
        };
        self.rounds.note(&namespace, &name, round);
        Ok(())
    }

    /// Removes stored files that nobody needs any more.
    pub(super) async fn collect(&self, source: &ExternalSource, names: &[String]) -> Result<()> {
        let keys = names.iter().map(|name| name.parse());
        let keys: Vec<_> = keys
            .collect::<Result<_, trellis_store::InvalidKey>>()
            .map_err(|error| unusable(&error.to_string()))?;
        let collected = garbage::collect(&*self.storage, keys).await;
        if let Some(error) = collected.failures.into_iter().next() {
            return Err(stored(&error.1));
        }
        let (namespace, name) = (source.namespace().unwrap_or_default(), source.name_any());
        let left = self.files(&namespace, &name).await?;
        // What is left beside the current file goes when it is old enough.
        let ttl = self.settings.retention.ttl + Duration::from_secs(1);
        let next = Timestamp::now().checked_add(ttl).ok().filter(|_| left.len() > 1);
        self.rounds.collect(&namespace, &name, next);
        Ok(())
    }

    /// The artifact of what upstream has now; none when it has what it had.
    async fn make(&self, namespace: &str, name: &str, asked: &Asked, says: &Says) -> Result<Option<Record>, Failed> {
        let order = &asked.order;
        let spool = tempfile::tempdir_in(&self.settings.spool).map_err(|error| Failed::spool(&error))?;
        let body = spool.path().join("body");
        let generator = self.generators.create(order.source.clone()).map_err(Failed::fetch)?;
        let wanted = trellis_fetch::Order {
            known: known(asked),
            max_bytes: Some(order.max_bytes),
            total_timeout: order.timeout,
            progress: Some(told_when_long(says, &order.shown)),
        };
        let mut file = tokio::fs::File::create(&body)
            .await
            .map_err(|error| Failed::spool(&error))?;
        let fetched = match generator.generate(&wanted, &mut file).await.map_err(Failed::fetch)? {
            Fetched::NotModified => return Ok(None),
            Fetched::Body(fetched) => fetched,
        };
        file.flush().await.map_err(|error| Failed::spool(&error))?;
        drop(file);
        if let Some(pinned) = order.checksum.filter(|pinned| *pinned != fetched.digest) {
            return Err(Failed::of(Failure::Payload(
                Reason::VerificationFailed
                    .refuse(format!(
                        "the data has the digest {}, and spec.checksum is {pinned}",
                        fetched.digest
                    ))
                    .hint("correct spec.checksum, or what the source serves"),
            )));
        }
        let (ordered, limits) = (order.clone(), self.settings.unpack);
        let (folder, content_type) = (spool.path().to_owned(), fetched.content_type.clone());
        let size = fetched.size;
        let packing =
            tokio::task::spawn_blocking(move || pack::pack(&ordered, &folder, size, content_type.as_deref(), limits));
        let packed = packing.await.map_err(|error| Failed::defect(&error))??;
        let path = ArtifactPath {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            digest: packed.measure.digest,
        };
        let key = see::key(&path).map_err(|error| Failed::defect(&error))?;
        if size > LARGE {
            says.now(STORING, "Progressing", format!("storing {} bytes", packed.measure.size));
        }
        self.storage
            .put(&key, Content::file(&packed.file))
            .await
            .map_err(|error| Failed::storage(&error))?;
        let validators = Validators {
            etag: fetched.validators.etag.clone(),
            last_modified: fetched.validators.last_modified.clone(),
        };
        Ok(Some(record(asked, path, packed, validators)))
    }
}

/// What is noted of a stored archive.
fn record(asked: &Asked, path: ArtifactPath, packed: Packed, validators: Validators) -> Record {
    let same = asked.record.as_ref().filter(|before| before.path == path);
    let mut metadata = BTreeMap::new();
    if let Some(version) = validators.etag.clone().or_else(|| validators.last_modified.clone()) {
        metadata.insert(ORIGIN.to_owned(), version);
    }
    Record {
        revision: Revision {
            id: packed.id,
            digest: path.digest,
        },
        path,
        size: packed.measure.size,
        stored: super::report::whole(same.map_or_else(Timestamp::now, |before| before.stored)),
        validators,
        pipeline: asked.pipeline,
        metadata,
        warnings: packed.warnings,
    }
}

/// Bytes of data from which storing is worth telling.
const LARGE: u64 = 32 << 20;

fn known(asked: &Asked) -> trellis_fetch::Validators {
    let known = asked.known.clone().unwrap_or_default();
    trellis_fetch::Validators {
        etag: known.etag,
        last_modified: known.last_modified,
    }
}

/// Says that data is being fetched once that takes long.
fn told_when_long(says: &Says, shown: &str) -> trellis_fetch::Progress {
    let (says, shown, began) = (says.clone(), shown.to_owned(), Instant::now());
    let told = AtomicBool::new(false);
    Arc::new(move |transferred: Transferred| {
        if began.elapsed() < WORTH_TELLING || told.swap(true, Ordering::Relaxed) {
            return;
        }
        let size = transferred
            .total
            .map(|total| format!(" ({total} bytes)"))
            .unwrap_or_default();
        says.now(FETCHING, "Progressing", format!("fetching {shown}{size}"));
    })
}
