//! What a policy's status says of one target: as much of it as there is room for.

use trellis_api::{Readiness, Section, SectionState, SectionStatus, TargetStatus};

use super::{Enacted, Standing};
use crate::{Reason, shown::cut};

/// Most notes that a status tells of a target.
const MAX_NOTES: usize = 8;

/// Most characters of one of them.
const NOTE: usize = 600;

impl Enacted {
    /// The notes as far as a status tells them: the first few, and how many more there are.
    #[must_use]
    pub fn told(&self) -> Vec<String> {
        let mut told: Vec<String> = self.notes.iter().take(MAX_NOTES).map(|note| cut(note, NOTE)).collect();
        let more = self.notes.len().saturating_sub(MAX_NOTES);
        told.extend((more > 0).then(|| format!("and {more} more")));
        told
    }

    /// Which policy decides instead of this one, section by section.
    pub fn losses(&self) -> impl Iterator<Item = String> {
        self.sections.iter().filter_map(|(section, standing)| match standing {
            Standing::Overridden(by) => Some(format!("policy {by} sets {section}")),
            _ => None,
        })
    }

    /// What the policy's status says of this target, given that what is to be written is.
    #[must_use]
    pub fn status(&self) -> TargetStatus {
        let by: Vec<String> = self.losses().collect();
        let (ready, reason, message) = match self.refusal() {
            Some(refusal) => (Readiness::False, refusal.reason, refusal.to_string()),
            None if !self.in_force() => (Readiness::False, Reason::Overridden.as_str(), by.join("; ")),
            None if by.is_empty() => (Readiness::True, Reason::Applied.as_str(), self.told().join("; ")),
            None => {
                let told: Vec<String> = by.into_iter().chain(self.told()).collect();
                (Readiness::True, Reason::PartiallyOverridden.as_str(), told.join("; "))
            }
        };
        TargetStatus {
            kind: self.target.kind(),
            namespace: self.target.namespace.clone(),
            name: self.target.name.clone(),
            ready,
            reason: reason.into(),
            message,
            sections: self
                .sections
                .iter()
                .map(|(section, standing)| standing.status(*section))
                .collect(),
        }
    }
}

impl Standing {
    fn status(&self, section: Section) -> SectionStatus {
        let (state, by) = match self {
            Self::Won => (SectionState::InForce, None),
            Self::Overridden(by) => (SectionState::Overridden, Some(by.to_string())),
            Self::Inert(_) => (SectionState::Inert, None),
            Self::Pending(_) => (SectionState::Pending, None),
        };
        SectionStatus { section, state, by }
    }
}
