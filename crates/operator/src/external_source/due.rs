//! When upstream is asked, and how. Pure.
//!
//! ```text
//!  spec, Secrets, request ─ another? ─┐
//!  last round: due? ──────────────────┼─▶ asked: with validators or without, after so many failures
//!  stored file: lost? ────────────────┘
//! ```
//!
//! Invariant: failures count until a success, another spec or a request; once the tries are used up, an interval has one.

use trellis_api::external_source::ExternalSource;
use trellis_sources::pipeline::{Ask, Stored, Validators};

use super::{
    Asked, Order, Seen,
    round::{Came, Round},
    see,
};

/// Whether a round was made for what is asked now. What changes nothing of the data, such as the end of a suspension, is a
/// reason to ask as well.
fn is_of(round: &Round, source: &ExternalSource, seen: &Seen) -> bool {
    round.pipeline == seen.pipeline
        && round.generation == source.metadata.generation
        && round.requested.as_deref() == see::requested(source)
}

/// Whether upstream has to be asked now.
pub(super) fn is_due(source: &ExternalSource, seen: &Seen) -> bool {
    let Some(round) = &seen.round else { return true };
    let lost = seen.record.is_some() && seen.stored != Stored::Verified;
    let succeeded = !matches!(round.came, Came::Failed { .. });
    !is_of(round, source, seen) || round.due.is_some_and(|due| due <= seen.now) || (lost && succeeded)
}

/// How it is asked.
pub(super) fn asked(source: &ExternalSource, seen: &Seen, order: &Order) -> Asked {
    let unknown = Validators::default();
    let considered = trellis_sources::pipeline::Seen {
        pipeline: seen.pipeline,
        recorded: seen.record.as_ref().map(|record| record.pipeline),
        validators: seen.record.as_ref().map_or(&unknown, |record| &record.known.validators),
        stored: seen.stored,
        forced: see::forced(source),
    };
    let of = seen.round.as_ref().filter(|round| is_of(round, source, seen));
    let failures = match of.map(|round| &round.came) {
        // Also when the tries are used up: from then on each interval has one.
        Some(Came::Failed { failures, .. }) => *failures,
        // A new process goes on counting.
        None if seen.round.is_none() => see::failures_before(source),
        _ => 0,
    };
    Asked {
        order: order.clone(),
        known: seen
            .record
            .as_ref()
            .filter(|_| considered.ask() == Ask::IfChanged)
            .map(|record| record.known.clone()),
        record: seen.record.clone(),
        pipeline: seen.pipeline,
        failures,
    }
}
