//! `Pod`: what a container of the chart finds when it starts, laid out in a folder: its volumes, arguments, variables.
//!
//! ```text
//!  volumes ─▶ folders with the ConfigMaps of the chart   mountPath in an argument or a variable ─▶ such a folder
//! ```
//!
//! What the chart does not make, a Secret or a ConfigMap of the user, gets a content of its kind.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;
use tempfile::TempDir;

/// A whitelist of a user.
const WHITELIST: &str = "commands: { tr: { allowed: true, argumentPatterns: [a-z] } }\n";
/// A token of a user.
const TOKEN: &str = "0123456789abcdef0123456789abcdef\n";

/// The Pod of a Deployment.
pub(crate) struct Pod<'a> {
    spec: &'a Value,
    root: TempDir,
}

/// What a container is started with.
pub(crate) struct Start {
    /// Its arguments, with variables filled in as the kubelet does.
    pub arguments: Vec<String>,
    /// Its variables; what a Pod would fill in gets the name of its field.
    pub environment: Vec<(String, String)>,
}

impl<'a> Pod<'a> {
    /// Lays the volumes out.
    pub(crate) fn lay_out(spec: &'a Value, objects: &[Value]) -> Result<Self> {
        let root = tempfile::tempdir().context("no temporary folder")?;
        let pod = Self { spec, root };
        for volume in list(spec, "volumes") {
            let folder = pod.folder(text(volume, "/name"));
            std::fs::create_dir(&folder).with_context(|| format!("two volumes are {}", folder.display()))?;
            for (name, content) in files(volume, objects) {
                std::fs::write(folder.join(name), content).context("a volume cannot be filled")?;
            }
        }
        Ok(pod)
    }

    /// Containers of the Pod's field `kind`: `containers` or `initContainers`.
    pub(crate) fn containers(&self, kind: &str) -> &'a [Value] {
        list(self.spec, kind)
    }

    /// How a container of it starts.
    pub(crate) fn start(&self, container: &Value) -> Result<Start> {
        let environment: Vec<(String, String)> = list(container, "env")
            .iter()
            .filter_map(|variable| {
                let name = variable.get("name")?.as_str()?.to_owned();
                let value = variable.get("value").and_then(Value::as_str);
                let field = || variable.pointer("/valueFrom/fieldRef/fieldPath")?.as_str();
                let secret = || variable.pointer("/valueFrom/secretKeyRef/key")?.as_str();
                let value = value.or_else(field).or_else(secret)?;
                Some((name, self.here(container, value)))
            })
            .collect();
        let arguments = container.get("args").and_then(Value::as_array);
        let arguments = arguments.context("a container without arguments")?;
        let arguments = arguments.iter().map(|argument| {
            let argument = argument.as_str().context("an argument that is no string")?;
            let filled = environment.iter().fold(argument.to_owned(), |argument, (name, value)| {
                argument.replace(&format!("$({name})"), value)
            });
            Ok(match filled.split_once('=') {
                Some((flag, value)) => format!("{flag}={}", self.here(container, value)),
                None => filled,
            })
        });
        Ok(Start {
            arguments: arguments.collect::<Result<_>>()?,
            environment,
        })
    }

    /// A path below a mount of the container, as it is here; any other text as it is.
    fn here(&self, container: &Value, value: &str) -> String {
        let (scheme, path) = match value.strip_prefix("unix://") {
            Some(path) => ("unix://", path),
            None => ("", value),
        };
        let mounts = list(container, "volumeMounts").iter();
        let below = mounts.filter_map(|mount| {
            let rest = path.strip_prefix(text(mount, "/mountPath"))?;
            (rest.is_empty() || rest.starts_with('/')).then(|| (rest, self.folder(text(mount, "/name"))))
        });
        below.min_by_key(|(rest, _)| rest.len()).map_or_else(
            || value.to_owned(),
            |(rest, folder)| format!("{scheme}{}{rest}", folder.display()),
        )
    }

    fn folder(&self, volume: &str) -> PathBuf {
        self.root.path().join(volume)
    }

    /// A folder for what is no volume.
    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }
}

/// The files of a volume.
fn files(volume: &Value, objects: &[Value]) -> Vec<(String, String)> {
    if volume.get("secret").is_some() {
        let items = list(volume.get("secret").unwrap_or(&Value::Null), "items");
        let paths = items.iter().map(|item| text(item, "/path").to_owned());
        return paths.map(|path| (path, TOKEN.to_owned())).collect();
    }
    let name = text(volume, "/configMap/name");
    if name.is_empty() {
        return Vec::new();
    }
    let made = objects
        .iter()
        .find(|object| text(object, "/kind") == "ConfigMap" && text(object, "/metadata/name") == name);
    let Some(data) = made.and_then(|made| made.get("data")?.as_object()) else {
        return vec![("whitelist.yaml".to_owned(), WHITELIST.to_owned())];
    };
    let entries = data
        .iter()
        .map(|(name, content)| (name.clone(), content.as_str().unwrap_or_default().to_owned()));
    entries.collect()
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(object: &'a Value, key: &str) -> &'a [Value] {
    object
        .get(key)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn variables_are_filled_in_and_mounts_are_found() {
        let rules =
            json!({"kind": "ConfigMap", "metadata": {"name": "rules"}, "data": {"whitelist.yaml": "commands: {}"}});
        let spec = json!({
            "volumes": [
                {"name": "rules", "configMap": {"name": "rules"}},
                {"name": "token", "secret": {"secretName": "t", "items": [{"key": "word", "path": "token"}]}},
                {"name": "socket", "emptyDir": {}},
            ],
            "containers": [{
                "args": ["operator", "--identity=$(POD_NAME)", "--rules=/etc/rules/whitelist.yaml", "--other=/etc/rulesome"],
                "env": [
                    {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "id"}}},
                    {"name": "ENDPOINT", "value": "unix:///run/t/hooks.sock"},
                ],
                "volumeMounts": [
                    {"name": "rules", "mountPath": "/etc/rules"},
                    {"name": "socket", "mountPath": "/run/t"},
                ],
            }],
        });
        let pod = Pod::lay_out(&spec, &[rules]).unwrap();
        let start = pod.start(&pod.containers("containers")[0]).unwrap();
        let root = pod.root().display();
        assert_eq!(
            start.arguments,
            [
                "operator".to_owned(),
                "--identity=metadata.name".to_owned(),
                format!("--rules={root}/rules/whitelist.yaml"),
                "--other=/etc/rulesome".to_owned(),
            ]
        );
        assert_eq!(start.environment[1], ("KEY".to_owned(), "id".to_owned()));
        assert_eq!(start.environment[2].1, format!("unix://{root}/socket/hooks.sock"));
        let read = |path: &str| std::fs::read_to_string(pod.root().join(path)).unwrap();
        assert_eq!(read("rules/whitelist.yaml"), "commands: {}");
        assert_eq!(read("token/token"), TOKEN);
        assert!(pod.start(&json!({})).is_err());
    }
}
