//! What is said of a source. Pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use trellis_api::external_source::{
    Artifact, ExternalSource, ExternalSourceStatus, FORCE_AT, HISTORY_LIMIT, HistoryEntry, SOURCE_VERIFIED,
};
use trellis_core::{
    Refusal,
    condition::{Draft, RECONCILING, State},
};
use trellis_runtime::{End, Outcome, Reported};
use trellis_sources::{
    failure::{Failure, Next},
    interval::Interval,
    reason::Reason,
};

use super::{
    Seen,
    round::{Came, Record, Round},
    see,
};

pub(super) fn report(source: &ExternalSource, seen: &Seen, outcome: &Outcome) -> Reported<ExternalSourceStatus> {
    let before = source.status.clone().unwrap_or_default();
    let record = seen.record.as_ref();
    let mut status = ExternalSourceStatus {
        artifact: seen.servable().map(|record| artifact(seen, record)),
        last_handled_etag: record.and_then(|record| record.told.etag.clone()),
        last_modified: record.and_then(|record| record.told.last_modified.clone()),
        pipeline_hash: record.map(|record| record.pipeline.to_string()),
        last_handled_force_at: before.last_handled_force_at.clone(),
        failures: seen
            .round
            .as_ref()
            .map_or(0, |round| counted(&round.came, seen.attempts)),
        next_retry_time: next_try(seen.round.as_ref()).map(whole).map(Time),
        history: before.history.clone(),
        ..ExternalSourceStatus::default()
    };
    if succeeded(seen.round.as_ref()) && see::forced(source) {
        status.last_handled_force_at = source.annotations().get(FORCE_AT).cloned();
    }
    if let Some(record) = record {
        remember(&mut status.history, record);
    }
    let mut conditions = Vec::new();
    if source.spec.checksum.is_some() && record.is_some() {
        conditions.push(verified(seen));
    }
    if let Some(Came::Failed {
        told,
        next: Next::In(_) | Next::AtInterval,
        ..
    }) = seen.round.as_ref().map(|round| &round.came)
        && matches!(outcome.end, End::Waiting(_))
    {
        let retrying = Reason::ProgressingWithRetry.as_str();
        conditions.push(Draft::new(RECONCILING, State::True, retrying, told.clone()));
    }
    Reported {
        ready: outcome.ready(Reason::Succeeded.as_str(), message(source, seen)),
        status,
        conditions,
    }
}

/// The failures that the status counts: where none is followed by another try soon, they move no number, since nothing else
/// may be new for days.
fn counted(came: &Came, attempts: u32) -> u32 {
    match came {
        Came::Done => 0,
        Came::Failed {
            failures,
            next: Next::In(_),
            ..
        } => *failures,
        Came::Failed {
            failure: Failure::Hook { .. },
            ..
        } => 1,
        Came::Failed { failures, next, .. } if *next == Next::GivenUp => (*failures).min(attempts.max(1)),
        Came::Failed { .. } => 1,
    }
}

/// When the next try is due, where that is before the interval's end.
fn next_try(round: Option<&Round>) -> Option<Timestamp> {
    let round = round?;
    match round.came {
        Came::Failed { next: Next::In(_), .. } => round.due,
        _ => None,
    }
}

fn succeeded(round: Option<&Round>) -> bool {
    round.is_some_and(|round| !matches!(round.came, Came::Failed { .. }))
}

fn artifact(seen: &Seen, record: &Record) -> Artifact {
    Artifact {
        url: seen.url(&record.path),
        revision: record.revision.to_string(),
        last_update_time: Time(record.stored),
        digest: Some(record.revision.digest.to_string()),
        size: Some(record.size),
        path: Some(record.path.to_string()),
        metadata: record.metadata.clone(),
    }
}

/// The newest revision first, each once.
fn remember(history: &mut Vec<HistoryEntry>, record: &Record) {
    let revision = record.revision.to_string();
    if history.first().is_some_and(|newest| newest.revision == revision) {
        return;
    }
    history.insert(
        0,
        HistoryEntry {
            revision,
            time: Time(record.stored),
            size: Some(record.size),
        },
    );
    history.truncate(HISTORY_LIMIT);
}

/// Whether the data has the checksum that the spec pins.
fn verified(seen: &Seen) -> Draft {
    let wrong = match seen.round.as_ref().map(|round| &round.came) {
        Some(Came::Failed { failure, .. }) if failure.reason() == Reason::VerificationFailed.as_str() => Some(failure),
        _ => None,
    };
    match wrong {
        Some(failure) => Draft::new(SOURCE_VERIFIED, State::False, failure.reason(), failure.to_string()),
        None => Draft::new(
            SOURCE_VERIFIED,
            State::True,
            Reason::Succeeded.as_str(),
            "the data has the checksum that the spec pins",
        ),
    }
}

/// What a source that is in place says.
fn message(source: &ExternalSource, seen: &Seen) -> String {
    let Some(record) = &seen.record else {
        return String::new();
    };
    let mut parts = vec![stored(record)];
    let interval = Interval::parse("spec.interval", &source.spec.interval).ok();
    parts.extend(interval.and_then(Interval::note).map(ToOwned::to_owned));
    parts.extend(record.warnings.iter().chain(&seen.notes).cloned());
    parts.join("; ")
}

/// What is said of an artifact that is there.
pub(super) fn stored(record: &Record) -> String {
    format!("stored artifact for revision {}", record.revision)
}

/// What a source says whose last round failed: why, what follows, and what is served meanwhile.
pub(super) fn failed(seen: &Seen, told: &str, next: Next, due: Option<Timestamp>) -> String {
    let mut parts = vec![told.to_owned()];
    // Only what is soon is told as a time, since each time is a write.
    parts.push(match next {
        Next::In(_) => {
            let at = due.map(|due| whole(due).to_string()).unwrap_or_default();
            format!("tried again at {at}")
        }
        Next::AtInterval => "asked again at the interval, and when the spec or a Secret changes".to_owned(),
        Next::GivenUp => "the tries are used up; asked again at the interval".to_owned(),
        _ => "nothing is tried until the spec, or an object that it names, changes".to_owned(),
    });
    parts.extend(seen.notes.iter().cloned());
    parts.push(served(seen));
    parts.join("; ")
}

/// What a source says while the storage does not answer.
pub(super) fn away(seen: &Seen, why: &str) -> String {
    let mut parts = vec![format!("the storage: {why}; asked again soon")];
    parts.extend(seen.notes.iter().cloned());
    parts.push(match &seen.record {
        Some(record) => format!("revision {} is still published", record.revision),
        None => "nothing is published".to_owned(),
    });
    parts.join("; ")
}

/// What a source says that cannot be asked, beside why.
pub(super) fn refused(seen: &Seen, refusal: &Refusal) -> Refusal {
    let mut parts = vec![refusal.message.clone()];
    parts.extend(seen.notes.iter().cloned());
    parts.push(served(seen));
    Refusal {
        message: parts.join("; "),
        ..refusal.clone()
    }
}

fn served(seen: &Seen) -> String {
    match seen.servable() {
        Some(record) => format!(
            "revision {} of {} is still served",
            record.revision,
            whole(record.stored)
        ),
        None => "nothing is served".to_owned(),
    }
}

/// Without parts of a second, as the API server keeps times.
pub(super) fn whole(time: Timestamp) -> Timestamp {
    time.checked_sub(SignedDuration::from_nanos(i64::from(time.subsec_nanosecond())))
        .unwrap_or(time)
}
