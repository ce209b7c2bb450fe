//! Kubernetes Events: one whenever `Ready` changes its state or reason, none at rest.
//!
//! The same is logged within the span of the reconcile: an Event's object and reason lead to the line, and the line's
//! `reconcile_id` to everything else that the reconcile did.

use std::sync::Arc;

use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use trellis_core::condition::READY;

/// The API server refuses longer notes.
const NOTE_LIMIT: usize = 1024;

/// Publishes the Events of one controller.
#[derive(Clone)]
pub struct Events {
    recorder: Recorder,
    instance: Arc<str>,
}

impl Events {
    /// Events reported by `trellis-<controller>`, from the replica called `identity`.
    #[must_use]
    pub fn new(client: Client, controller: &str, identity: &str) -> Self {
        let reporter = Reporter {
            controller: format!("trellis-{controller}"),
            instance: Some(identity.to_owned()),
        };
        Self {
            recorder: Recorder::new(client, reporter),
            instance: identity.into(),
        }
    }

    /// Name of this replica.
    pub(crate) fn instance(&self) -> &str {
        &self.instance
    }

    /// Tells something of an object.
    pub(crate) async fn told(&self, object: &ObjectReference, warning: bool, reason: &str, note: &str) {
        let event = Event {
            type_: if warning { EventType::Warning } else { EventType::Normal },
            reason: reason.to_owned(),
            note: Some(truncated(note, NOTE_LIMIT)),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        tracing::info!(reason, note, "told");
        if let Err(error) = self.recorder.publish(&event, object).await {
            tracing::debug!(%error, "event not published");
        }
    }

    /// Tells that `Ready` is another than before. An Event that cannot be published is logged and lost: the status
    /// carries the same news.
    pub(crate) async fn ready_changed(&self, object: &ObjectReference, before: &[Condition], after: &[Condition]) {
        let Some(event) = ready_event(before, after) else {
            return;
        };
        tracing::info!(reason = event.reason, note = event.note, "Ready changed");
        if let Err(error) = self.recorder.publish(&event, object).await {
            tracing::debug!(%error, "event not published");
        }
    }
}

fn ready_event(before: &[Condition], after: &[Condition]) -> Option<Event> {
    let ready = |conditions: &[Condition]| conditions.iter().find(|condition| condition.type_ == READY).cloned();
    let now = ready(after)?;
    // Progress is no news: its end will be.
    if now.status == "Unknown" && now.reason == "Progressing" {
        return None;
    }
    let news = ready(before).is_none_or(|then| (then.status, then.reason) != (now.status.clone(), now.reason.clone()));
    news.then(|| Event {
        type_: if now.status == "True" {
            EventType::Normal
        } else {
            EventType::Warning
        },
        reason: now.reason.clone(),
        note: Some(truncated(&now.message, NOTE_LIMIT)),
        action: "Reconcile".to_owned(),
        secondary: None,
    })
}

/// As much of a message as fits, in bytes.
pub(crate) fn truncated(message: &str, limit: usize) -> String {
    let mut note = String::new();
    for character in message.chars() {
        if note.len() + character.len_utf8() > limit {
            break;
        }
        note.push(character);
    }
    note
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn ready(status: &str, reason: &str) -> Vec<Condition> {
        vec![Condition {
            type_: READY.into(),
            status: status.into(),
            reason: reason.into(),
            message: "é".repeat(1000),
            last_transition_time: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH),
            observed_generation: None,
        }]
    }

    #[rstest]
    #[case::first(vec![], ready("True", "Applied"), Some("Applied"))]
    #[case::same(ready("True", "Applied"), ready("True", "Applied"), None)]
    #[case::flipped(ready("True", "Applied"), ready("False", "Opaque"), Some("Opaque"))]
    #[case::other_reason(ready("False", "Headless"), ready("False", "Opaque"), Some("Opaque"))]
    #[case::progress(vec![], ready("Unknown", "Progressing"), None)]
    fn an_event_tells_news_only(
        #[case] before: Vec<Condition>,
        #[case] after: Vec<Condition>,
        #[case] expected: Option<&str>,
    ) {
        let event = ready_event(&before, &after);
        assert_eq!(event.as_ref().map(|event| event.reason.as_str()), expected);
        assert!(event.is_none_or(|event| event.note.unwrap().len() <= NOTE_LIMIT));
    }
}
