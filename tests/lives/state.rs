//! What is compared: everything that the operator left, in the cluster and on its disk, without times and random names.

use kube::{Api, api::ListParams};
use serde_json::{Value, json};
use trellis_api::ExternalSource;
use trellis_bindings::flux::ExternalArtifact;

use crate::{site::Site, story::NAME};

/// Fields that say when, or follow from where on this machine upstream is.
const TIMES: [&str; 5] = ["lastUpdateTime", "lastTransitionTime", "time", "url", "pipelineHash"];

/// The state of the site.
pub(crate) async fn of(site: &Site) -> Value {
    let sources: Api<ExternalSource> = site.namespace.api();
    let artifacts: Api<ExternalArtifact> = site.namespace.api();
    let list = ListParams::default();
    let sources = sources.list(&list).await.unwrap().items;
    let artifacts = artifacts.list(&list).await.unwrap().items;
    let mut names = vec![(site.namespace.name().to_owned(), "<ns>".to_owned())];
    for source in &sources {
        names.push((source.metadata.uid.clone().unwrap(), "<uid of the source>".to_owned()));
    }
    for artifact in &artifacts {
        let uid = artifact.metadata.uid.clone().unwrap();
        names.push((uid, "<uid of the artifact>".to_owned()));
    }
    // Without the current one the files are those that a collector has or has not come to yet.
    let current = artifacts
        .first()
        .and_then(|artifact| artifact.status.as_ref()?.artifact.as_ref());
    let stored = site.stored(NAME);
    let kept = current.map(|artifact| stored.iter().any(|file| artifact.path.ends_with(file.as_str())));
    let mut state = json!({
        "sources": sources.iter().map(|source| json!({
            "spec": source.spec, "status": source.status, "finalizers": source.metadata.finalizers,
        })).collect::<Value>(),
        "artifacts": artifacts.iter().map(|artifact| json!({
            "spec": artifact.spec, "status": artifact.status, "owners": artifact.metadata.owner_references,
            "labels": artifact.metadata.labels,
        })).collect::<Value>(),
        "current file is stored": kept,
        "files without a source": if sources.is_empty() { stored } else { Vec::new() },
    });
    strip(&mut state, &names);
    state
}

/// Takes out times, and puts names in for what is random, in keys too.
fn strip(value: &mut Value, names: &[(String, String)]) {
    match value {
        Value::String(text) => {
            for (actual, shown) in names {
                *text = text.replace(actual, shown);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| strip(item, names)),
        Value::Object(fields) => {
            fields.retain(|name, _| !TIMES.contains(&name.as_str()));
            fields.values_mut().for_each(|field| strip(field, names));
        }
        _ => {}
    }
}
