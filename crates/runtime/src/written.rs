//! Our own writes, kept until the watch has caught up with them, so that no decision rests on less than we know.
//!
//! ```text
//!  begin ─▶ request ─▶ answer ──▶ kept ──▶ the watch shows it, or something newer ─▶ forgotten
//!              └─ the object goes meanwhile ─▶ not kept
//! ```
//!
//! Invariant: what is kept is newer than what the watch has shown, and exists.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use crate::Reference;

/// An answer of the API server, with its resource version.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) version: u64,
    pub(crate) object: Arc<Value>,
}

/// The writes of one controller.
#[derive(Debug, Default)]
pub(crate) struct Written {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    answers: HashMap<Reference, Answer>,
    /// Requests on their way, and up to which version the object went since they were sent.
    sent: HashMap<Reference, u64>,
}

/// A write on its way. Dropped without an answer, it leaves everything as it was.
#[derive(Debug)]
pub(crate) struct Sent {
    written: Arc<Written>,
    reference: Reference,
}

impl Written {
    /// A write of this object is about to be sent. There is never more than one at a time.
    pub(crate) fn begin(self: &Arc<Self>, reference: &Reference) -> Sent {
        self.lock().sent.insert(reference.clone(), 0);
        Sent {
            written: Arc::clone(self),
            reference: reference.clone(),
        }
    }

    /// What is known of an object beyond the watch.
    pub(crate) fn get(&self, reference: &Reference) -> Option<Answer> {
        self.lock().answers.get(reference).cloned()
    }

    /// The watch shows the object in this version.
    pub(crate) fn seen(&self, reference: &Reference, meta: &ObjectMeta) {
        let mut state = self.lock();
        if state
            .answers
            .get(reference)
            .is_some_and(|answer| revision(meta) >= answer.version)
        {
            state.answers.remove(reference);
        }
    }

    /// The watch shows that the object is gone, since this version if it says so. An end that is older than our
    /// answer is that of an earlier object of the same name.
    pub(crate) fn gone(&self, reference: &Reference, version: Option<u64>) {
        let version = version.unwrap_or(u64::MAX);
        let mut state = self.lock();
        if state
            .answers
            .get(reference)
            .is_some_and(|answer| answer.version <= version)
        {
            state.answers.remove(reference);
        }
        if let Some(gone) = state.sent.get_mut(reference) {
            *gone = version.max(*gone);
        }
    }

    /// A list does not have an object that was seen before. What was written since the list began stands.
    pub(crate) fn missed(&self, reference: &Reference) {
        if let Some(gone) = self.lock().sent.get_mut(reference) {
            *gone = u64::MAX;
        }
    }

    /// The objects for which a list that begins now has to speak: they were written before it.
    pub(crate) fn before_list(&self, concerned: impl Fn(&Reference) -> bool) -> Vec<(Reference, u64)> {
        let state = self.lock();
        let concerned = state.answers.iter().filter(|(reference, _)| concerned(reference));
        concerned
            .map(|(reference, answer)| (reference.clone(), answer.version))
            .collect()
    }

    /// The list that began then does not have the object. Returns what is forgotten by that.
    pub(crate) fn not_listed(&self, reference: &Reference, version: u64) -> Option<Arc<Value>> {
        let mut state = self.lock();
        if state.answers.get(reference)?.version != version {
            return None;
        }
        state.answers.remove(reference).map(|answer| answer.object)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sent {
    /// The API server's answer: the object as it is now.
    pub(crate) fn answered(self, object: Value) {
        let Some(version) = version_of(&object) else { return };
        let mut state = self.written.lock();
        let gone = state.sent.get(&self.reference).copied().unwrap_or_default();
        let newer = state
            .answers
            .get(&self.reference)
            .is_none_or(|known| known.version < version);
        if version > gone && newer {
            state.answers.insert(
                self.reference.clone(),
                Answer {
                    version,
                    object: Arc::new(object),
                },
            );
        }
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        self.written.lock().sent.remove(&self.reference);
    }
}

/// Resource versions of one kind are decimal numbers that grow with each write (Kubernetes 1.35 promises it,
/// etcd-backed servers always did). An unreadable one counts as oldest.
pub(crate) fn revision(meta: &ObjectMeta) -> u64 {
    meta.resource_version
        .as_deref()
        .and_then(|version| version.parse().ok())
        .unwrap_or_default()
}

/// The same of an object that is not typed.
pub(crate) fn version_of(object: &Value) -> Option<u64> {
    object.get("metadata")?.get("resourceVersion")?.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reference() -> Reference {
        Reference {
            group: String::new(),
            kind: "Service".into(),
            namespace: Some("ns".into()),
            name: "web".into(),
        }
    }

    fn object(version: u64) -> Value {
        json!({ "metadata": { "resourceVersion": version.to_string() } })
    }

    fn meta(version: u64) -> ObjectMeta {
        ObjectMeta {
            resource_version: Some(version.to_string()),
            ..ObjectMeta::default()
        }
    }

    fn known(written: &Written) -> Option<u64> {
        written.get(&reference()).map(|answer| answer.version)
    }

    #[test]
    fn an_answer_is_kept_until_the_watch_has_it() {
        let written = Arc::new(Written::default());
        written.begin(&reference()).answered(object(9));
        written.seen(&reference(), &meta(8));
        assert_eq!(known(&written), Some(9));
        written.seen(&reference(), &meta(9));
        assert_eq!(known(&written), None);
    }

    #[test]
    fn an_object_that_went_while_it_was_written_is_not_kept() {
        let written = Arc::new(Written::default());
        let sent = written.begin(&reference());
        written.gone(&reference(), Some(10));
        sent.answered(object(9));
        assert_eq!(known(&written), None);
        written.begin(&reference()).answered(object(12));
        assert_eq!(known(&written), Some(12), "the next write starts anew");
        let sent = written.begin(&reference());
        written.gone(&reference(), None);
        sent.answered(object(13));
        assert_eq!(known(&written), None, "an end without version counts");
    }

    #[test]
    fn the_end_of_an_earlier_object_is_no_end_of_what_was_written_since() {
        let written = Arc::new(Written::default());
        let sent = written.begin(&reference());
        written.gone(&reference(), Some(8));
        sent.answered(object(9));
        written.gone(&reference(), Some(8));
        assert_eq!(known(&written), Some(9));
        written.missed(&reference());
        assert_eq!(known(&written), Some(9));
        written.gone(&reference(), Some(10));
        assert_eq!(known(&written), None);
        let sent = written.begin(&reference());
        written.missed(&reference());
        sent.answered(object(11));
        assert_eq!(known(&written), None, "a list without it was later than the request");
    }

    #[test]
    fn a_write_without_answer_changes_nothing_and_an_older_answer_neither() {
        let written = Arc::new(Written::default());
        written.begin(&reference()).answered(object(9));
        drop(written.begin(&reference()));
        written.begin(&reference()).answered(object(7));
        assert_eq!(known(&written), Some(9));
    }

    #[test]
    fn a_list_that_began_after_the_write_and_lacks_the_object_ends_it() {
        let written = Arc::new(Written::default());
        written.begin(&reference()).answered(object(9));
        let before = written.before_list(|_| true);
        written.begin(&reference()).answered(object(10));
        for (reference, version) in &before {
            assert_eq!(written.not_listed(reference, *version), None);
        }
        assert_eq!(known(&written), Some(10), "written after the list began");
        for (reference, version) in written.before_list(|_| true) {
            let forgotten = written.not_listed(&reference, version).unwrap();
            assert_eq!(version_of(&forgotten), Some(10));
        }
        assert_eq!(known(&written), None);
    }
}
