//! `Round`: what the last round of a source came to, as long as this process lives.
//!
//! ```text
//!  act: fetch ─▶ hooks ─▶ package ─▶ store ─▶ Round ─▶ the next look sees it ─▶ ExternalArtifact, status
//! ```
//!
//! Invariant: nothing that has to outlive a crash is only here. After a restart the status says what was published, and the
//! first round asks upstream whether that is still so.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use trellis_sources::{
    failure::{Failure, Next},
    pipeline::{PipelineHash, Validators},
    revision::{ArtifactPath, Revision},
};

use super::{news::News, production::Known};

/// An artifact that is stored.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Record {
    /// Where, below the storage's top.
    pub(crate) path: ArtifactPath,
    /// Its revision.
    pub(crate) revision: Revision,
    /// Bytes of the archive.
    pub(crate) size: u64,
    /// When it was stored.
    pub(crate) stored: Timestamp,
    /// What upstream said with the body, and of what.
    pub(crate) known: Known,
    /// What the status says of that: what upstream says anew of the same data is no reason to write.
    pub(crate) told: Validators,
    /// What made it, beside the body.
    pub(crate) pipeline: PipelineHash,
    /// What else is known, by name.
    pub(crate) metadata: BTreeMap<String, String>,
    /// What the user should know although it is no error.
    pub(crate) warnings: Vec<String>,
}

/// What a round came to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Came {
    /// The artifact that there is holds what upstream has.
    Done,
    /// Nothing new is known.
    Failed {
        /// Why.
        failure: Failure,
        /// The same in words for the user.
        told: String,
        /// How many rounds in a row.
        failures: u32,
        /// What follows.
        next: Next,
    },
}

/// The last round of a source.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Round {
    /// The source: another of its name starts anew.
    pub(crate) uid: Option<String>,
    /// The generation of the spec that it was made for.
    pub(crate) generation: Option<i64>,
    /// With what it was made, beside upstream's body.
    pub(crate) pipeline: PipelineHash,
    /// The value of `reconcile.fluxcd.io/requestedAt` that it answered.
    pub(crate) requested: Option<String>,
    /// What it came to.
    pub(crate) came: Came,
    /// The artifact that there is: of this round, or of one before.
    pub(crate) record: Option<Record>,
    /// When the next one is due; none: when something changes.
    pub(crate) due: Option<Timestamp>,
    /// When stored files have to be looked through for some that go.
    pub(crate) collect: Option<Timestamp>,
    /// What is still to be told of it, once it is published.
    pub(crate) news: Option<News>,
}

/// The last round of each source, by namespace and name.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    of: Mutex<HashMap<(String, String), Round>>,
    /// How often in a row the storage did not answer for a source.
    away: Mutex<HashMap<(String, String), u32>>,
    /// Files that this process has read over before a first round.
    read: Mutex<HashSet<ArtifactPath>>,
}

impl Rounds {
    /// The last round of this source, if this process made one for it.
    pub(crate) fn last(&self, namespace: &str, name: &str, uid: Option<&str>) -> Option<Round> {
        let rounds = self.lock();
        let round = rounds.get(&(namespace.to_owned(), name.to_owned()))?;
        (round.uid.as_deref() == uid).then(|| round.clone())
    }

    /// The source has had another round.
    pub(crate) fn note(&self, namespace: &str, name: &str, round: Round) {
        self.lock().insert((namespace.to_owned(), name.to_owned()), round);
    }

    /// When stored files are looked through next.
    pub(crate) fn collect(&self, namespace: &str, name: &str, at: Option<Timestamp>) {
        if let Some(round) = self.lock().get_mut(&(namespace.to_owned(), name.to_owned())) {
            round.collect = at;
        }
    }

    /// Whether the file was read over by this process.
    pub(crate) fn is_read(&self, path: &ArtifactPath) -> bool {
        self.reads().contains(path)
    }

    /// The file was read over, and is as it should be.
    pub(crate) fn read(&self, path: &ArtifactPath) {
        self.reads().insert(path.clone());
    }

    /// The storage did not answer for the source: so often in a row by now.
    pub(crate) fn away(&self, namespace: &str, name: &str) -> u32 {
        let mut away = self.aways();
        let times = away.entry((namespace.to_owned(), name.to_owned())).or_default();
        *times = times.saturating_add(1);
        *times
    }

    /// The storage answered.
    pub(crate) fn answered(&self, namespace: &str, name: &str) {
        self.aways().remove(&(namespace.to_owned(), name.to_owned()));
    }

    /// This has been told.
    pub(crate) fn told(&self, namespace: &str, name: &str, news: &News) {
        if let Some(round) = self.lock().get_mut(&(namespace.to_owned(), name.to_owned())) {
            round.news.take_if(|pending| pending == news);
        }
    }

    /// The source is gone.
    pub(crate) fn forget(&self, namespace: &str, name: &str) {
        self.lock().remove(&(namespace.to_owned(), name.to_owned()));
        self.answered(namespace, name);
        self.reads()
            .retain(|path| (path.namespace.as_str(), path.name.as_str()) != (namespace, name));
    }

    fn aways(&self) -> MutexGuard<'_, HashMap<(String, String), u32>> {
        self.away.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reads(&self) -> MutexGuard<'_, HashSet<ArtifactPath>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(String, String), Round>> {
        self.of.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
