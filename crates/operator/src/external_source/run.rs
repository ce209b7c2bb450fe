//! A round: upstream is asked, and what it has becomes a stored file.
//!
//! ```text
//!  order ─▶ Production ─▶ packed file ─▶ store ─▶ Round
//!               └─ steps ─▶ tell ─▶ Fetching, ExecutingHooks, Storing: once it takes long
//! ```
//!
//! Invariant: that a source fails is no error of the round; it is noted.

mod tell;

use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::ResourceExt as _;
use trellis_api::external_source::ExternalSource;
use trellis_runtime::{Result, Says};
use trellis_sources::{
    failure::{Chance, Next},
    pipeline::Validators,
    revision::ArtifactPath,
};
use trellis_store::{Content, Key, garbage};

use super::{
    Asked, ExternalSources,
    measured::{Of, Operation},
    news::News,
    production::{Failed, Known, Packed, Product},
    round::{Came, Record, Round},
    see,
};

/// The annotation of OCI that Flux's kustomize-controller takes for the version of the data.
const ORIGIN: &str = "org.opencontainers.image.revision";

impl ExternalSources {
    /// Makes a round and notes what it came to. That a source fails is no error of the round.
    pub(super) async fn round(&self, source: &ExternalSource, asked: &Asked, says: &Says) -> Result<()> {
        let (namespace, name) = (source.namespace().unwrap_or_default(), source.name_any());
        let of = Of {
            namespace: &namespace,
            name: &name,
        };
        let running = self.settings.measured.round(of);
        let made = self.make(&namespace, &name, asked, says).await;
        let now = Timestamp::now();
        let chance = Chance::new(fastrand::f64());
        let interval = asked.order.inner().interval.next(chance);
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
        let failures = match &came {
            Came::Done => 0,
            Came::Failed { failures, .. } => *failures,
        };
        self.settings
            .measured
            .ended(of, asked.order.generator(), &running, failures, now);
        if let Some(record) = &record {
            self.settings.measured.serves(of, record.size);
        }
        let other = record.as_ref().map(|record| &record.path) != asked.record.as_ref().map(|record| &record.path);
        let before = self.rounds.last(&namespace, &name, source.uid().as_deref());
        // What a process before this one left beside it is looked through once.
        let collect = if other || before.is_none() {
            Some(now)
        } else {
            before.as_ref().and_then(|round| round.collect)
        };
        let told_before = before.as_ref().map(|round| &round.came);
        let failed = asked.failures > 0 || matches!(told_before, Some(Came::Failed { .. }));
        let news = News::of(told_before, failed, &came, asked.record.as_ref(), record.as_ref());
        let news = news.or_else(|| before.as_ref().and_then(|round| round.news.clone()));
        let round = Round {
            news,
            uid: source.uid(),
            generation: source.metadata.generation,
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

    /// Removes stored files that nobody needs any more. That this fails is no fault of the source, and is tried again later.
    pub(super) async fn collect(&self, source: &ExternalSource, names: &[String]) -> Result<()> {
        let keys: Vec<Key> = names.iter().filter_map(|name| name.parse().ok()).collect();
        let began = Instant::now();
        let collected = garbage::collect(&*self.storage, keys).await;
        if !names.is_empty() {
            let complete = collected.is_complete();
            self.settings
                .measured
                .worked(Operation::Collect, complete, began.elapsed());
        }
        // What stays too long takes room, and is no fault of the source.
        if let Some((key, error)) = collected.failures.first() {
            tracing::warn!(%key, failed = collected.failed, error = error.told(), "old files were not removed; trying again");
        }
        let (namespace, name) = (source.namespace().unwrap_or_default(), source.name_any());
        // Where they cannot be listed they are looked through again later, as what is left is.
        let left = self
            .files(&namespace, &name)
            .await?
            .map_or(usize::MAX, |left| left.len());
        // What is left beside the current file goes when it is old enough.
        let ttl = self.settings.retention.ttl + Duration::from_secs(1);
        let ttl = if collected.is_complete() {
            ttl
        } else {
            ttl.max(see::LATER)
        };
        let next = Timestamp::now().checked_add(ttl).ok().filter(|_| left > 1);
        self.rounds.collect(&namespace, &name, next);
        Ok(())
    }

    /// The artifact of what upstream has now; none when it has what it had.
    async fn make(&self, namespace: &str, name: &str, asked: &Asked, says: &Says) -> Result<Option<Record>, Failed> {
        let (tells, telling) = tell::teller(says, asked.order.inner().shown.clone());
        let known = asked.known.clone().unwrap_or_default();
        let stored = async {
            let packed = match self.production.make(&asked.order, &known, &tells.progress()).await? {
                Product::Unchanged => return Ok(None),
                Product::Packed(packed) => packed,
            };
            let path = ArtifactPath {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                digest: packed.measure.digest,
            };
            let key = see::key(&path).map_err(|error| Failed::defect(&error))?;
            tells.storing(packed.measure.size);
            let began = Instant::now();
            let put = self.storage.put(&key, Content::file(&packed.file)).await;
            self.settings
                .measured
                .worked(Operation::Store, put.is_ok(), began.elapsed());
            put.map_err(|error| Failed::storage(&error))?;
            Ok(Some(record(asked, path, *packed)))
        };
        tokio::select! {
            stored = stored => stored,
            never = telling => match never {},
        }
    }
}

/// What is noted of a stored archive.
fn record(asked: &Asked, path: ArtifactPath, packed: Packed) -> Record {
    let same = asked.record.as_ref().filter(|before| before.path == path);
    let validators = &packed.validators;
    let version = validators.etag.clone().or_else(|| validators.last_modified.clone());
    let metadata = version
        .map(|version| (ORIGIN.to_owned(), version))
        .into_iter()
        .collect();
    // Without validators the data is asked for again: another try of what was ignored.
    let validators = if packed.provisional {
        Validators::default()
    } else {
        validators.clone()
    };
    // The same data under another version is nothing to write: some servers name each answer anew.
    let told = same
        .filter(|before| before.pipeline == asked.pipeline && !before.told.is_empty() && !validators.is_empty())
        .map_or_else(|| validators.clone(), |before| before.told.clone());
    Record {
        revision: packed.revision(),
        path,
        size: packed.measure.size,
        stored: super::report::whole(same.map_or_else(Timestamp::now, |before| before.stored)),
        known: Known {
            validators,
            asked: packed.asked,
        },
        pipeline: asked.pipeline,
        metadata: same.map_or(metadata, |before| before.metadata.clone()),
        told,
        warnings: packed.warnings,
    }
}
