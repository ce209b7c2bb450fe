//! `News`: what users of an artifact are told, as an Event on its `ExternalArtifact` and, where Flux's notification-controller
//! has an address, as a request to it. Alerts of Flux know that kind and not ours.
//!
//! ```text
//!  round before, this round ─▶ News? ─▶ (published) ─▶ Event, POST {involvedObject, severity, reason, message, metadata}
//! ```
//!
//! Invariants: nothing is told of a check that found nothing new, and of a failure only when it is another one than before;
//! what cannot be told is logged and lost, since the status says the same.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Resource as _, ResourceExt as _};
use serde::Serialize;
use trellis_api::ExternalSource;
use trellis_bindings::flux::ExternalArtifact;
use trellis_runtime::{
    Says,
    notify::{self, Address, Notifier, Severity},
};
use trellis_sources::reason::Reason;

use super::{
    report,
    round::{Came, Record},
};

/// Annotations that Flux hands on, by their beginning.
const HANDED_ON: &str = "event.toolkit.fluxcd.io/";
/// The annotation of OCI that names the version of the data.
const ORIGIN: &str = "org.opencontainers.image.revision";

/// What there is to tell of a round.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct News {
    /// `NewArtifact`, `Succeeded` after a failure, or why it failed.
    pub(super) reason: &'static str,
    /// In words.
    pub(super) message: String,
    /// Whether it is a failure.
    pub(super) error: bool,
    /// The revision that is served.
    pub(super) revision: String,
    /// The version of the data, as upstream calls it.
    pub(super) origin: Option<String>,
}

impl News {
    /// What a round is worth telling: of an artifact that was there before and now, or that is new.
    pub(super) fn of(
        before: Option<&Came>,
        failed: bool,
        came: &Came,
        then: Option<&Record>,
        now: Option<&Record>,
    ) -> Option<Self> {
        let record = now?;
        let new = then.is_none_or(|then| then.revision != record.revision);
        let (reason, message, error) = match came {
            Came::Done if new => ("NewArtifact", report::stored(record), false),
            Came::Done if failed => (Reason::Succeeded.as_str(), report::stored(record), false),
            Came::Done => return None,
            Came::Failed { failure, told, .. } => {
                let same = |before: &Came| matches!(before, Came::Failed { failure: one, .. } if one.reason() == failure.reason());
                if before.is_some_and(same) {
                    return None;
                }
                (failure.reason(), told.clone(), true)
            }
        };
        Some(Self {
            reason,
            message,
            error,
            revision: record.revision.to_string(),
            origin: record.metadata.get(ORIGIN).cloned(),
        })
    }

    /// Whether what is published is what it speaks of; a failure leaves that as it was, or takes it back.
    pub(super) fn is_of(&self, published: &ExternalArtifact) -> bool {
        let artifact = published.status.as_ref().and_then(|status| status.artifact.as_ref());
        self.error || artifact.is_some_and(|artifact| artifact.revision == self.revision)
    }

    /// As the notification-controller gets it.
    fn notification(&self, source: &ExternalSource, about: &ExternalArtifact) -> notify::News {
        let group = ExternalArtifact::group(&());
        let mut metadata = BTreeMap::from([(format!("{group}/revision"), self.revision.clone())]);
        if let Some((_, digest)) = self.revision.split_once('@') {
            metadata.insert(format!("{group}/digest"), digest.to_owned());
        }
        metadata.extend(
            self.origin
                .clone()
                .map(|origin| (format!("{group}/originRevision"), origin)),
        );
        let handed_on = source
            .annotations()
            .iter()
            .filter(|(name, _)| name.starts_with(HANDED_ON));
        metadata.extend(handed_on.map(|(name, value)| (name.clone(), value.clone())));
        notify::News {
            involved_object: about.object_ref(&()),
            severity: if self.error { Severity::Error } else { Severity::Info },
            reason: self.reason.to_owned(),
            message: self.message.clone(),
            metadata,
        }
    }
}

/// Tells news.
pub(super) struct Teller(Option<Notifier>);

impl Teller {
    /// One that tells the notification-controller too, where its address is known.
    pub(super) fn new(to: Option<&Address>, controller: &str) -> Self {
        Self(to.map(|to| Notifier::start(to, controller)))
    }

    /// Tells it.
    pub(super) async fn tell(&self, news: &News, source: &ExternalSource, about: &ExternalArtifact, says: &Says) {
        let reference: ObjectReference = about.object_ref(&());
        says.event(&reference, news.error, news.reason, &news.message).await;
        if let Some(notifier) = &self.0 {
            notifier.tell(news.notification(source, about), says.instance());
        }
    }
}
