//! The examples: folders with an `example.yaml`, each applied in a namespace of its own and waited for.
//!
//! Invariant: an example is Ready when every object of ours in it says so for its current generation.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use futures::{StreamExt as _, stream::FuturesUnordered};
use kube::{
    Api, Client, ResourceExt as _,
    api::DynamicObject,
    core::{ApiResource, GroupVersionKind},
    runtime::{WatchStreamExt as _, watcher::watch_object},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use trellis_api::REQUESTED_AT;

use super::controllers;

/// Groups whose objects have a `Ready` of ours.
const OURS: [&str; 3] = ["trellis.dev", "flux.oddkin.co", "catalyst.dev"];
/// Manifests are written by people: more than this is a mistake.
const FILE_LIMIT: u64 = 4 << 20;

/// One example as found on disk.
#[derive(Debug)]
pub(crate) struct Example {
    /// Its folders, joined by dashes; also its namespace.
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) needs: Vec<Need>,
    manifests: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct About {
    description: String,
    #[serde(default)]
    needs: Vec<Need>,
}

/// What an example needs beyond what `dev up` starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Need {
    /// Linkerd, which says of routes, rate limits and egress networks whether it takes them; and the kinds of the Gateway
    /// API.
    Linkerd,
}

impl Need {
    /// For people.
    pub(crate) fn said(self) -> &'static str {
        match self {
            Self::Linkerd => "a cluster with Linkerd and the kinds of the Gateway API",
        }
    }
}

/// What became of one object of an example.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Line {
    pub(crate) example: String,
    pub(crate) object: String,
    pub(crate) ready: String,
    pub(crate) reason: String,
    pub(crate) message: String,
    /// Whether nothing will change until somebody changes something.
    pub(crate) stalled: bool,
}

impl Line {
    pub(crate) fn is_ready(&self) -> bool {
        self.ready == "True"
    }

    /// Whether there is nothing to wait for.
    fn is_known(&self) -> bool {
        self.is_ready() || self.stalled
    }
}

/// The examples below a folder, in the order of their names.
pub(crate) fn find(root: &Path) -> anyhow::Result<Vec<Example>> {
    if !root.is_dir() {
        bail!("there is no folder {}; name one with --examples", root.display());
    }
    let mut found = Vec::new();
    collect(root, &mut Vec::new(), &mut found)?;
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

/// Examples lie two folders deep; a link in a circle must not be followed for ever.
const DEPTH: usize = 4;

fn collect(folder: &Path, names: &mut Vec<String>, found: &mut Vec<Example>) -> anyhow::Result<()> {
    if folder.join("example.yaml").is_file() {
        found.push(load(folder, names).with_context(|| format!("example {}", folder.display()))?);
        return Ok(());
    }
    if names.len() >= DEPTH {
        return Ok(());
    }
    for entry in sorted(folder)? {
        if entry.is_dir() {
            names.push(entry.file_name().unwrap_or_default().to_string_lossy().into_owned());
            collect(&entry, names, found)?;
            names.pop();
        }
    }
    Ok(())
}

fn load(folder: &Path, names: &[String]) -> anyhow::Result<Example> {
    let about: About = serde_saphyr::from_str(&read(&folder.join("example.yaml"))?).context("example.yaml")?;
    let mut manifests = Vec::new();
    for path in sorted(folder)? {
        let is_manifest = path.extension().is_some_and(|extension| extension == "yaml")
            && path.file_name().is_some_and(|name| name != "example.yaml");
        if !is_manifest {
            continue;
        }
        let documents: Vec<Value> =
            serde_saphyr::from_multiple(&read(&path)?).with_context(|| path.display().to_string())?;
        manifests.extend(documents.into_iter().filter(|document| !document.is_null()));
    }
    let name = if names.is_empty() {
        "example".to_owned()
    } else {
        names.join("-").to_lowercase()
    };
    Ok(Example {
        name,
        description: about.description,
        needs: about.needs,
        manifests,
    })
}

fn read(path: &Path) -> anyhow::Result<String> {
    let size = fs::metadata(path).with_context(|| path.display().to_string())?.len();
    if size > FILE_LIMIT {
        bail!("{} has {size} bytes; at most {FILE_LIMIT} are read", path.display());
    }
    fs::read_to_string(path).with_context(|| path.display().to_string())
}

fn sorted(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut paths = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// Applies an example, and asks for every object of ours in it to be looked at again: what its status says from
/// before does not count. Returns these objects.
pub(crate) async fn apply(client: &Client, example: &Example, asked: &str) -> anyhow::Result<Vec<DynamicObject>> {
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": example.name } });
    controllers::apply(client, &namespace).await?;
    let mut ours = Vec::new();
    for manifest in &example.manifests {
        let mut manifest = manifest.clone();
        let version = manifest
            .get("apiVersion")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        if let Some(metadata) = manifest.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.entry("namespace").or_insert_with(|| json!(example.name));
            // Others are left alone: who applies an empty map owns it whole.
            if ours_by_group(manifest_group(&version))
                && let Some(annotations) = metadata
                    .entry("annotations")
                    .or_insert_with(|| json!({}))
                    .as_object_mut()
            {
                annotations.insert(REQUESTED_AT.to_owned(), json!(asked));
            }
        }
        let object = controllers::apply(client, &manifest)
            .await
            .with_context(|| format!("example {}", example.name))?;
        if is_ours(&object) {
            ours.push(object);
        }
    }
    Ok(ours)
}

fn is_ours(object: &DynamicObject) -> bool {
    ours_by_group(manifest_group(
        object
            .types
            .as_ref()
            .map(|types| types.api_version.as_str())
            .unwrap_or_default(),
    ))
}

fn manifest_group(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

fn ours_by_group(group: &str) -> bool {
    OURS.iter()
        .any(|ours| group == *ours || group.ends_with(&format!(".{ours}")))
}

/// Watches objects until it is known of each whether it is Ready. `current` always holds what was last seen, in the
/// order of `objects`.
pub(crate) async fn wait(client: &Client, objects: &[(String, DynamicObject)], asked: &str, current: &mut [Line]) {
    let mut watching: FuturesUnordered<_> = FuturesUnordered::new();
    for (index, (example, object)) in objects.iter().enumerate() {
        watching.push(next(index, example.clone(), changes(client, object), asked));
    }
    while let Some((index, line, changes)) = watching.next().await {
        let example = line.example.clone();
        if let Some(slot) = current.get_mut(index) {
            *slot = line;
        }
        // Known ones are watched on: one that was Ready may have ceased to be, while another was waited for.
        if current.iter().all(Line::is_known) {
            return;
        }
        watching.push(next(index, example, changes, asked));
    }
}

type Changes = futures::stream::BoxStream<'static, DynamicObject>;

async fn next(index: usize, example: String, mut changes: Changes, asked: &str) -> (usize, Line, Changes) {
    let line = match changes.next().await {
        Some(object) => line(&example, &object, asked),
        None => std::future::pending().await,
    };
    (index, line, changes)
}

fn changes(client: &Client, object: &DynamicObject) -> Changes {
    let types = object.types.clone().unwrap_or_default();
    let kind = GroupVersionKind::try_from(&types).unwrap_or_else(|_| GroupVersionKind::gvk("", "", &types.kind));
    let resource = ApiResource::from_gvk(&kind);
    let api: Api<DynamicObject> = Api::namespaced_with(
        client.clone(),
        object.namespace().as_deref().unwrap_or("default"),
        &resource,
    );
    watch_object(api, &object.name_any())
        .default_backoff()
        .filter_map(|change| futures::future::ready(change.ok().flatten()))
        .boxed()
}

/// What an object says about itself, if it has been looked at since it was `asked`.
pub(crate) fn line(example: &str, object: &DynamicObject, asked: &str) -> Line {
    let kind = object
        .types
        .as_ref()
        .map(|types| types.kind.clone())
        .unwrap_or_default();
    let conditions = object.data.pointer("/status/conditions").and_then(Value::as_array);
    let condition = |type_: &str| {
        conditions
            .into_iter()
            .flatten()
            .find(|condition| condition["type"] == type_)
    };
    let handled = object
        .data
        .pointer("/status/lastHandledReconcileAt")
        .and_then(Value::as_str)
        == Some(asked);
    let current =
        |condition: &&Value| handled && condition["observedGeneration"].as_i64() == object.metadata.generation;
    let ready = condition("Ready").filter(current);
    let text = |field: &str, missing: &str| {
        ready
            .and_then(|ready| ready[field].as_str())
            .unwrap_or(missing)
            .to_owned()
    };
    Line {
        example: example.to_owned(),
        object: format!("{kind}/{}", object.name_any()),
        ready: text("status", "Unknown"),
        reason: text("reason", "NotReported"),
        message: text("message", "no controller has reported on it yet"),
        stalled: condition("Stalled").as_ref().is_some_and(current),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(status: &Value) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "resilience.trellis.dev/v1alpha1", "kind": "ResiliencePolicy",
            "metadata": { "name": "web", "namespace": "ns", "generation": 2 }, "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn a_ready_of_an_older_generation_or_an_earlier_look_does_not_count() {
        let ready = |generation: i64, handled: &str| {
            json!({ "lastHandledReconcileAt": handled, "conditions": [{ "type": "Ready", "status": "True",
                "reason": "Applied", "message": "m", "observedGeneration": generation }] })
        };
        assert!(line("e", &object(&ready(2, "now")), "now").is_ready());
        assert!(!line("e", &object(&ready(1, "now")), "now").is_ready());
        assert!(!line("e", &object(&ready(2, "before")), "now").is_ready());
        assert_eq!(line("e", &object(&json!({})), "now").reason, "NotReported");
    }

    #[test]
    fn ours_are_told_by_their_group() {
        assert!(is_ours(&object(&json!({}))));
        let mut service = object(&json!({}));
        service.types = Some(kube::core::TypeMeta {
            api_version: "v1".into(),
            kind: "Service".into(),
        });
        assert!(!is_ours(&service));
        service.types = Some(kube::core::TypeMeta {
            api_version: "eviltrellis.dev/v1".into(),
            kind: "X".into(),
        });
        assert!(!is_ours(&service));
    }

    #[test]
    fn the_shipped_examples_load() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
        let examples = find(&root).unwrap();
        assert!(examples.iter().any(|example| example.name == "resilience-first-light"));
        assert!(examples.iter().all(|example| !example.manifests.is_empty()));
        let (met, unmet): (Vec<_>, Vec<_>) = examples.iter().partition(|example| example.needs.is_empty());
        assert!(!met.is_empty());
        assert!(unmet.iter().any(|example| example.needs == [Need::Linkerd]));
    }

    #[test]
    fn wrong_examples_say_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        assert!(
            find(&folder.path().join("none"))
                .unwrap_err()
                .to_string()
                .contains("--examples")
        );
        std::fs::write(folder.path().join("example.yaml"), "describtion: x\n").unwrap();
        let error = format!("{:#}", find(folder.path()).unwrap_err());
        assert!(error.contains("describtion"), "{error}");
        std::fs::write(
            folder.path().join("example.yaml"),
            "description: x\nneeds: [teleport]\n",
        )
        .unwrap();
        let error = format!("{:#}", find(folder.path()).unwrap_err());
        assert!(error.contains("teleport") && error.contains("linkerd"), "{error}");
    }
}
