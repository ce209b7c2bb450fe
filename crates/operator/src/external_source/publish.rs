//! The `ExternalArtifact`: what Flux's consumers read. Pure.
//!
//! Invariant: its times move only with what they speak of, so that publishing again the same writes nothing.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Resource as _, ResourceExt as _};
use trellis_api::external_source::ExternalSource;
use trellis_bindings::flux::{Artifact, ExternalArtifact, ExternalArtifactSpec, ExternalArtifactStatus, SourceRef};
use trellis_core::condition::{self, Draft, READY, State};

use super::{Seen, round::Record};

/// The artifact of this record; without one, what says that there is none.
pub(super) fn external_artifact(source: &ExternalSource, seen: &Seen, record: Option<&Record>) -> ExternalArtifact {
    let spec = ExternalArtifactSpec {
        source_ref: Some(SourceRef {
            api_version: Some(ExternalSource::api_version(&()).into_owned()),
            kind: ExternalSource::kind(&()).into_owned(),
            name: source.name_any(),
            namespace: source.namespace(),
        }),
    };
    let mut object = ExternalArtifact::new(&source.name_any(), spec);
    object.metadata.namespace = source.namespace();
    // What users select their sources by, consumers select artifacts by.
    object.metadata.labels.clone_from(&source.metadata.labels);
    object.status = Some(status(source, seen, record));
    object
}

fn status(source: &ExternalSource, seen: &Seen, record: Option<&Record>) -> ExternalArtifactStatus {
    let before = seen.published.as_ref().and_then(|published| published.status.as_ref());
    let ready = match record {
        Some(record) => {
            let message = format!("stored artifact for revision {}", record.revision);
            Draft::new(READY, State::True, "Succeeded", message)
        }
        None => Draft::new(
            READY,
            State::False,
            "StorageOperationFailed",
            "the stored file is lost; it is made again",
        ),
    };
    let conditions = before.map(|status| status.conditions.clone()).unwrap_or_default();
    let generation = source.metadata.generation.unwrap_or_default();
    ExternalArtifactStatus {
        artifact: record.map(|record| artifact(seen, record)),
        conditions: condition::settle(&conditions, vec![ready], generation, seen.now),
    }
}

fn artifact(seen: &Seen, record: &Record) -> Artifact {
    Artifact {
        digest: record.revision.digest.to_string(),
        path: record.path.to_string(),
        url: seen.url(&record.path),
        revision: record.revision.to_string(),
        last_update_time: Time(record.stored),
        size: i64::try_from(record.size).ok(),
        metadata: (!record.metadata.is_empty()).then(|| record.metadata.clone()),
    }
}
