//! The reads: the spec with its Secrets, what is published, what is stored, and the last round.

use std::{collections::BTreeMap, time::Duration};

use futures::TryStreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use trellis_api::external_source::{ExternalSource, ExternalSourceStatus, FORCE_AT, REQUESTED_AT};
use trellis_bindings::flux::ExternalArtifact;
use trellis_core::Refusal;
use trellis_hooks::{Kept, Report};
use trellis_runtime::{Result, World};
use trellis_sources::{
    failure::{Backoff, Chance},
    pipeline::{Pipeline, Stored, Validators},
    retention,
    revision::ArtifactPath,
    whitelist::Whitelist,
};
use trellis_store::{Key, Prefix};

use super::{
    ExternalSources, Seen,
    order::{self, Order, Secrets},
    production::{self, Known},
    round::Record,
    storage, unusable,
};

/// How soon a storage that does not answer is asked again: later and later, and not by all sources at once.
const AWAY: Backoff = Backoff {
    base: Duration::from_secs(15),
    max: Duration::from_mins(5),
    jitter: 0.25,
    attempts: u32::MAX,
    patience: Duration::ZERO,
};

/// The storage does not answer.
pub(super) struct Away {
    /// Why.
    pub(super) why: String,
    /// How soon it is asked again.
    pub(super) again: Duration,
}

/// How long what failed while nobody waits for it is left alone.
pub(super) const LATER: Duration = Duration::from_mins(1);

impl ExternalSources {
    pub(super) async fn look(&self, world: &World, source: &ExternalSource) -> Result<Seen> {
        let (namespace, name) = (source.namespace().unwrap_or_default(), source.name_any());
        let mut secrets = Secrets::new();
        for secret in order::secrets(&source.spec) {
            let found = world.get::<Secret>(Some(&namespace), secret).await?;
            secrets.insert(secret.to_owned(), found);
        }
        let spec = serde_json::to_value(&source.spec).unwrap_or_default();
        let rules = self.rules(source);
        let version = rules.as_ref().map(version);
        let pipeline = Pipeline {
            spec: Some(&spec),
            whitelist: version.as_deref(),
            resolved: resolved(&secrets),
        };
        let round = self.rounds.last(&namespace, &name, source.uid().as_deref());
        let record = round
            .as_ref()
            .map_or_else(|| recorded(source), |round| round.record.clone());
        let mut away = None;
        let state = match &record {
            Some(record) => self.state(record, round.is_none()).await?.unwrap_or_else(|why| {
                away = Some(why);
                Stored::Verified
            }),
            None => Stored::Missing,
        };
        if away.is_none() {
            self.rounds.answered(&namespace, &name);
        }
        let away = away.map(|why| self.away(&namespace, &name, why)).transpose()?;
        let now = Timestamp::now();
        let looks = round
            .as_ref()
            .and_then(|round| round.collect)
            .is_some_and(|at| at <= now);
        let files = if looks {
            let files = self.files(&namespace, &name).await?;
            let complain = |why: &String| tracing::warn!(error = why, "stored files cannot be listed; trying again");
            files
                .inspect_err(|why| {
                    complain(why);
                    let later = now.checked_add(LATER).ok();
                    self.rounds.collect(&namespace, &name, later);
                })
                .ok()
        } else {
            None
        };
        Ok(Seen {
            order: self.order(source, &secrets),
            notes: rules.iter().filter_map(note).collect(),
            pipeline: pipeline.hash(),
            published: world.get::<ExternalArtifact>(Some(&namespace), &name).await?,
            record,
            stored: state,
            away,
            round,
            files,
            retention: self.settings.retention,
            attempts: self.settings.backoff.attempts,
            base: self.settings.base.clone(),
            now,
        })
    }

    /// The storage is away. The first time is no news yet: the runtime looks again in a second.
    fn away(&self, namespace: &str, name: &str, why: String) -> Result<Away> {
        match self.rounds.away(namespace, name) {
            0 | 1 => Err(storage(why)),
            times => Ok(Away {
                why,
                again: AWAY.delay(times - 1, Chance::new(fastrand::f64())),
            }),
        }
    }

    /// What is asked, if all of it may be.
    fn order(&self, source: &ExternalSource, secrets: &Secrets) -> Result<Order, Refusal> {
        let order = Order::of(source, secrets, &self.settings)?;
        if order.has_hooks() {
            let executor = self.production.executor().ok_or_else(production::no_executor)?;
            executor.allows(&order)?;
        }
        Ok(order)
    }

    /// The rules for the hooks of a source; none: it has no hooks, or nobody runs them.
    fn rules(&self, source: &ExternalSource) -> Option<Kept<Whitelist>> {
        let executor = self.production.executor()?;
        let hooks = source.spec.pre_request().iter().chain(source.spec.post_request());
        (hooks.count() > 0).then(|| executor.rules())
    }

    /// Whether the file is there, or why the storage does not say so. It is read over when this process looks at it for the
    /// first time.
    async fn state(&self, record: &Record, first: bool) -> Result<Answer<Stored>> {
        let key = key(&record.path)?;
        if first && !self.rounds.is_read(&record.path) {
            return Ok(match self.storage.verify(&key).await {
                Ok(trellis_store::Verdict::Right) => {
                    self.rounds.read(&record.path);
                    Ok(Stored::Verified)
                }
                Ok(trellis_store::Verdict::Missing) => Ok(Stored::Missing),
                Ok(trellis_store::Verdict::Corrupt { .. }) => Ok(Stored::Corrupted),
                Err(error) => Err(error.told()),
            });
        }
        Ok(match self.storage.head(&key).await {
            Ok(Some(stat)) if stat.size == record.size => Ok(Stored::Verified),
            Ok(Some(_)) => Ok(Stored::Corrupted),
            Ok(None) => Ok(Stored::Missing),
            Err(error) => Err(error.told()),
        })
    }

    /// The stored files of a source, or why the storage does not list them.
    pub(super) async fn files(&self, namespace: &str, name: &str) -> Result<Answer<Vec<retention::Stored>>> {
        let listed: trellis_store::Result<Vec<_>> = self.storage.list(&folder(namespace, name)?).try_collect().await;
        let entries = match listed {
            Ok(entries) => entries,
            Err(error) => return Ok(Err(error.told())),
        };
        let files = entries.into_iter().map(|entry| retention::Stored {
            name: entry.key.to_string(),
            modified: Timestamp::try_from(entry.stat.modified).unwrap_or_default(),
        });
        Ok(Ok(files.collect()))
    }
}

/// What the storage says, or why it says nothing.
type Answer<T> = std::result::Result<T, String>;

/// What of the rules decides about artifacts.
fn version(rules: &Kept<Whitelist>) -> String {
    let good = rules.good.as_ref();
    good.map_or_else(|| "none".to_owned(), |whitelist| whitelist.version().to_owned())
}

/// What users of hooks should know of the rules.
fn note(rules: &Kept<Whitelist>) -> Option<String> {
    rules.good.as_ref()?;
    match &rules.report {
        Report::Good => None,
        Report::Missing => Some("the whitelist of hooks is missing; the last good one counts".to_owned()),
        _ => Some("the whitelist of hooks is broken; the last good one counts".to_owned()),
    }
}

/// The folder of all that a source stores.
pub(super) fn folder(namespace: &str, name: &str) -> Result<Prefix> {
    ArtifactPath::folder(namespace, name)
        .parse()
        .map_err(|error: trellis_store::InvalidKey| unusable(&error.to_string()))
}

/// The key of a stored file.
pub(super) fn key(path: &ArtifactPath) -> Result<Key> {
    path.to_string()
        .parse()
        .map_err(|error: trellis_store::InvalidKey| unusable(&error.to_string()))
}

/// What the user asks for by annotation.
pub(super) fn requested(source: &ExternalSource) -> Option<&str> {
    source.annotations().get(REQUESTED_AT).map(String::as_str)
}

/// Whether the data is asked for although the server may say that it is the same.
pub(super) fn forced(source: &ExternalSource) -> bool {
    let force = source.annotations().get(FORCE_AT);
    let handled = source
        .status
        .as_ref()
        .and_then(|status| status.last_handled_force_at.as_ref());
    force.is_some() && force.map(String::as_str) == requested(source) && force != handled
}

/// Failures that an earlier process counted for this spec and this request.
pub(super) fn failures_before(source: &ExternalSource) -> u32 {
    let status = source.status.as_ref();
    let current = status.filter(|status| status.common.observed_generation == source.metadata.generation);
    let answered = |status: &&ExternalSourceStatus| {
        let handled = status.common.last_handled_reconcile_at.as_deref();
        requested(source).is_none_or(|asked| Some(asked) == handled)
    };
    current.filter(answered).map_or(0, |status| status.failures)
}

/// What the status says of the artifact that is published.
fn recorded(source: &ExternalSource) -> Option<Record> {
    let status = source.status.as_ref()?;
    let artifact = status.artifact.as_ref()?;
    let validators = Validators {
        etag: status.last_handled_etag.clone(),
        last_modified: status.last_modified.clone(),
    };
    Some(Record {
        path: artifact.path.as_ref()?.parse().ok()?,
        revision: artifact.revision.parse().ok()?,
        size: artifact.size?,
        stored: artifact.last_update_time.0,
        known: Known {
            validators: validators.clone(),
            // Where hooks change the request, another process asks without validators once.
            asked: None,
        },
        told: validators,
        pipeline: status.pipeline_hash.as_ref()?.parse().ok()?,
        metadata: artifact.metadata.clone(),
        warnings: Vec::new(),
    })
}

/// Which Secret it is, and its version. Not its content: the hash that is made of this stands in the status, where a digest
/// of a weak secret could be guessed at. So a Secret that is touched means that the data is fetched anew.
fn resolved(secrets: &Secrets) -> BTreeMap<String, String> {
    let version = |secret: &Secret| {
        let (uid, version) = (secret.uid(), secret.resource_version());
        format!("{}/{}", uid.unwrap_or_default(), version.unwrap_or_default())
    };
    let each = secrets.iter().map(|(name, secret)| {
        let version = secret.as_ref().map(|secret| version(secret)).unwrap_or_default();
        (format!("Secret/{name}"), version)
    });
    each.collect()
}
