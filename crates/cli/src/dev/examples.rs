//! The examples: folders with an `example.yaml`, each applied in a namespace of its own and waited for.
//!
//! Invariant: an example is Ready when every object of ours, and of Flux, in it says so for its current generation.

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
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    controllers,
    line::{Line, line},
    upstream::{PLACEHOLDER, Upstream},
};

/// Groups whose objects say `Ready`, of ours and of Flux, with the annotation that asks for a look at them.
const AWAITED: [(&str, &str); 4] = [
    ("trellis.dev", trellis_api::REQUESTED_AT),
    ("catalyst.dev", trellis_api::REQUESTED_AT),
    ("flux.oddkin.co", trellis_api::external_source::REQUESTED_AT),
    ("toolkit.fluxcd.io", trellis_api::external_source::REQUESTED_AT),
];
/// Manifests and files of upstream are written by people: more than this is a mistake.
pub(super) const FILE_LIMIT: u64 = 4 << 20;

/// One example as found on disk.
#[derive(Debug)]
pub(crate) struct Example {
    /// Its folders, joined by dashes; also its namespace.
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) needs: Vec<Need>,
    /// Folder with what it fetches.
    pub(super) upstream: Option<PathBuf>,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Need {
    /// Flux's kustomize- and helm-controller
    Flux,
    /// Linkerd, which says of routes, rate limits and egress networks whether it takes them; and the kinds of the Gateway
    /// API.
    #[value(skip)]
    Linkerd,
}

impl Need {
    /// For people.
    pub(crate) fn said(self) -> &'static str {
        match self {
            Self::Flux => "--with flux",
            Self::Linkerd => "a cluster with Linkerd and the kinds of the Gateway API, which is not to be had here",
        }
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
        upstream: Some(folder.join("upstream")).filter(|folder| folder.is_dir()),
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

/// Applies an example, and asks for every object in it that says `Ready` to be looked at again: what its status says from
/// before does not count. Returns these objects.
pub(crate) async fn apply(
    client: &Client,
    example: &Example,
    upstream: &Upstream,
    asked: &str,
) -> anyhow::Result<Vec<DynamicObject>> {
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": example.name } });
    controllers::apply(client, &namespace).await?;
    let url = upstream.url(example);
    let mut awaited = Vec::new();
    for manifest in &example.manifests {
        let mut manifest = manifest.clone();
        put_url(&mut manifest, &url);
        let version = manifest
            .get("apiVersion")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        if let Some(metadata) = manifest.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.entry("namespace").or_insert_with(|| json!(example.name));
            // Others are left alone: who applies an empty map owns it whole.
            if let Some(annotation) = asks(manifest_group(&version))
                && let Some(annotations) = metadata
                    .entry("annotations")
                    .or_insert_with(|| json!({}))
                    .as_object_mut()
            {
                annotations.insert(annotation.to_owned(), json!(asked));
            }
        }
        let object = controllers::apply(client, &manifest)
            .await
            .with_context(|| format!("example {}", example.name))?;
        if is_awaited(&object) {
            awaited.push(object);
        }
    }
    Ok(awaited)
}

/// Puts the address of the example's files where it is named.
fn put_url(value: &mut Value, url: &str) {
    match value {
        Value::String(text) if text.contains(PLACEHOLDER) => *text = text.replace(PLACEHOLDER, url),
        Value::Array(items) => items.iter_mut().for_each(|item| put_url(item, url)),
        Value::Object(fields) => fields.values_mut().for_each(|field| put_url(field, url)),
        _ => {}
    }
}

fn is_awaited(object: &DynamicObject) -> bool {
    let version = object.types.as_ref().map(|types| types.api_version.as_str());
    asks(manifest_group(version.unwrap_or_default())).is_some()
}

fn manifest_group(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

/// The annotation by which an object of this group is asked for a look, if it says `Ready`.
fn asks(group: &str) -> Option<&'static str> {
    let is = |awaited: &str| group == awaited || group.ends_with(&format!(".{awaited}"));
    AWAITED
        .iter()
        .find(|(awaited, _)| is(awaited))
        .map(|(_, annotation)| *annotation)
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

#[cfg(test)]
mod tests {
    use super::{super::line::tests::object, *};

    #[test]
    fn what_says_ready_is_told_by_its_group() {
        assert!(is_awaited(&object(&json!({}))));
        let mut service = object(&json!({}));
        service.types = Some(kube::core::TypeMeta {
            api_version: "v1".into(),
            kind: "Service".into(),
        });
        assert!(!is_awaited(&service));
        service.types = Some(kube::core::TypeMeta {
            api_version: "eviltrellis.dev/v1".into(),
            kind: "X".into(),
        });
        assert!(!is_awaited(&service));
    }

    #[test]
    fn the_shipped_examples_load() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
        let examples = find(&root).unwrap();
        assert!(examples.iter().any(|example| example.name == "resilience-first-light"));
        assert!(examples.iter().all(|example| !example.manifests.is_empty()));
        for needs in [&[][..], &[Need::Linkerd], &[Need::Flux]] {
            assert!(examples.iter().any(|example| example.needs == needs), "{needs:?}");
        }
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
