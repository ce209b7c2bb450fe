//! The condition algebra: what an object's conditions become, given what they were and what is known now.
//!
//! ```text
//!  previous conditions ──┐
//!  drafts (what is true) ├─▶ settle ─▶ next conditions
//!  generation, now ──────┘
//! ```
//!
//! Invariants: the transition time moves only when a status flips; unchanged input settles to identical output;
//! the order of drafts and of previous conditions is irrelevant. Follows kstatus and `metav1.Condition`.

use std::{cmp::Reverse, collections::BTreeMap, fmt};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The object does what its spec asks.
pub const READY: &str = "Ready";
/// Work towards the current spec goes on (kstatus).
pub const RECONCILING: &str = "Reconciling";
/// Nothing moves until the user acts (kstatus).
pub const STALLED: &str = "Stalled";

/// Longest message that `metav1.Condition` admits, in bytes.
pub const MESSAGE_LIMIT: usize = 32_768;

/// Status of a condition, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// The statement is untrue.
    False,
    /// Nobody knows.
    Unknown,
    /// The statement is true.
    True,
}

impl State {
    /// The spelling of the Kubernetes API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

/// A condition before it has times: what is true now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// Condition type, such as [`READY`].
    pub type_: String,
    /// Status.
    pub state: State,
    /// `CamelCase` reason from the kind's closed set.
    pub reason: String,
    /// One sentence for the user; cut at [`MESSAGE_LIMIT`] bytes.
    pub message: String,
}

impl Draft {
    /// A draft of one condition.
    pub fn new(type_: impl Into<String>, state: State, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            type_: type_.into(),
            state,
            reason: reason.into(),
            message: message.into(),
        }
    }

    /// The draft of a condition as it stands; none when its status is no [`State`].
    #[must_use]
    pub fn again(condition: &Condition) -> Option<Self> {
        let states = [State::False, State::Unknown, State::True];
        let state = states.into_iter().find(|state| state.as_str() == condition.status)?;
        Some(Self::new(
            &condition.type_,
            state,
            &condition.reason,
            &condition.message,
        ))
    }
}

/// The conditions that the object carries next: `Ready` first, then by type.
///
/// A type that is not drafted disappears. If a type is drafted twice, the worse statement stays
/// (`False`, then `Unknown`, then `True`). `lastTransitionTime` has a resolution of one second, as on the wire,
/// so that what was stored compares equal to what was computed.
#[must_use]
pub fn settle(previous: &[Condition], drafts: Vec<Draft>, generation: i64, now: Timestamp) -> Vec<Condition> {
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let before: BTreeMap<&str, &Condition> = previous.iter().map(|c| (c.type_.as_str(), c)).collect();

    let mut worst: BTreeMap<(Reverse<bool>, String), Draft> = BTreeMap::new();
    for draft in drafts {
        let key = (Reverse(draft.type_ == READY), draft.type_.clone());
        match worst.get(&key) {
            Some(kept) if rank(kept) <= rank(&draft) => {}
            _ => {
                worst.insert(key, draft);
            }
        }
    }

    worst
        .into_values()
        .map(|draft| {
            let since = before
                .get(draft.type_.as_str())
                .filter(|old| old.status == draft.state.as_str())
                .map_or(Time(now), |old| old.last_transition_time.clone());
            Condition {
                last_transition_time: since,
                message: cut(draft.message),
                observed_generation: Some(generation),
                reason: draft.reason,
                status: draft.state.as_str().into(),
                type_: draft.type_,
            }
        })
        .collect()
}

fn rank(draft: &Draft) -> (State, &str, &str) {
    (draft.state, &draft.reason, &draft.message)
}

fn cut(mut message: String) -> String {
    message.truncate(message.floor_char_boundary(MESSAGE_LIMIT));
    message
}

#[cfg(test)]
mod tests;
