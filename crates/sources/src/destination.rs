//! `Destination`: where the payload lies inside the artifact (`spec.destinationPath`), and its name when nobody says one.
//!
//! ```text
//!  "conf/app.yaml" ─▶ that file      "conf/" ─▶ folder + default name      absent ─▶ default name
//!  default name = last segment of the URL, with the ending that the content type or the shape asks for
//! ```
//!
//! Invariants: a destination never leaves the artifact and is never corrected silently; the kustomize-controller reads
//! only `.yaml` and `.yml`, so a manifest's default name ends so.

use trellis_core::Refusal;

use crate::{
    link::Link,
    path::{EntryPath, PathError},
    reason::Reason,
};

/// `spec.destinationPath`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Destination {
    path: Option<EntryPath>,
    folder: bool,
}

/// What the default name is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// The payload as it came.
    AsIs,
    /// Kubernetes objects: the name ends in `.yaml` or `.yml`.
    Manifest,
}

impl Destination {
    /// Reads the field. A trailing `/` names a folder; `./` is the artifact's top.
    ///
    /// # Errors
    /// `ConfigurationError`: absolute, a `..` segment, a `\`, a control character, or too long.
    pub fn parse(field: &str, text: &str) -> Result<Self, Refusal> {
        let folder = text.is_empty() || text == "." || text.ends_with('/') || text.ends_with("/.");
        match EntryPath::parse(text) {
            Ok(path) => Ok(Self {
                path: Some(path),
                folder,
            }),
            Err(PathError::Empty) => Ok(Self {
                path: None,
                folder: true,
            }),
            Err(error) => Err(Reason::ConfigurationError.refuse(error.to_string()).field(field).hint(
                "write a path relative to the artifact, such as manifests/app.yaml, or a folder such as manifests/",
            )),
        }
    }

    /// Whether the field names a folder rather than a file.
    #[must_use]
    pub fn is_folder(&self) -> bool {
        self.folder || self.path.is_none()
    }

    /// The folder that unpacked files go to; none: the artifact's top. A destination that names a file is taken as the
    /// folder of that name, because an archive is more than one file.
    #[must_use]
    pub fn folder(&self) -> Option<&EntryPath> {
        self.path.as_ref()
    }

    /// The file that the payload becomes.
    ///
    /// # Errors
    /// `ConfigurationError`: folder and default name together are too long.
    pub fn file(&self, default: &EntryPath) -> Result<EntryPath, Refusal> {
        match &self.path {
            None => Ok(default.clone()),
            Some(path) if !self.folder => Ok(path.clone()),
            Some(path) => path
                .join(default)
                .map_err(|error| Reason::ConfigurationError.refuse(error.to_string())),
        }
    }
}

/// Endings that a name keeps, whatever the content type says: servers send many files as `text/plain`.
const KNOWN: &[&str] = &[
    "yaml",
    "yml",
    "json",
    "jsonl",
    "toml",
    "xml",
    "csv",
    "txt",
    "md",
    "html",
    "js",
    "css",
    "ini",
    "conf",
    "cfg",
    "env",
    "properties",
    "pem",
    "crt",
    "key",
    "sh",
    "lua",
    "rego",
    "cue",
    "tpl",
    "tgz",
    "gz",
    "tar",
    "zip",
    "bin",
    "wasm",
    "lock",
    "tf",
    "hcl",
    "sql",
    "proto",
    "jsonnet",
    "nix",
];

/// The ending that a content type asks for.
fn ending(content_type: &str) -> Option<&'static str> {
    let essence = content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    Some(match essence.as_str() {
        "application/json" | "text/json" => "json",
        "application/yaml" | "application/x-yaml" | "text/yaml" | "text/x-yaml" | "text/vnd.yaml" => "yaml",
        "application/gzip" | "application/x-gzip" | "application/x-tgz" | "application/x-gtar" => "tar.gz",
        "application/x-tar" => "tar",
        "application/zip" | "application/x-zip-compressed" => "zip",
        "application/toml" => "toml",
        "application/xml" | "text/xml" => "xml",
        "text/csv" => "csv",
        "text/html" => "html",
        "text/plain" => "txt",
        other if other.ends_with("+json") => "json",
        other if other.ends_with("+yaml") => "yaml",
        other if other.ends_with("+xml") => "xml",
        _ => return None,
    })
}

/// The name of a payload that nobody named: from the last segment of the URL's path, else `data`.
#[must_use]
pub fn default_name(link: &Link, content_type: Option<&str>, naming: Naming) -> EntryPath {
    let segment = link.last_segment().unwrap_or_default();
    let safe: String = segment
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') {
                c
            } else {
                '-'
            }
        })
        .take(200)
        .collect();
    let stem = safe.trim_matches(|c| matches!(c, '.' | '-'));
    let stem = if stem.is_empty() { "data" } else { stem };
    let known = stem
        .rsplit_once('.')
        .map(|(_, end)| end)
        .filter(|end| KNOWN.contains(&end.to_ascii_lowercase().as_str()));
    let name = match naming {
        Naming::Manifest => match known {
            Some("yaml" | "yml") => stem.to_owned(),
            Some(end)
                if end.eq_ignore_ascii_case("json")
                    || end.eq_ignore_ascii_case("yaml")
                    || end.eq_ignore_ascii_case("yml") =>
            {
                let bare = stem.get(..stem.len().saturating_sub(end.len() + 1)).unwrap_or_default();
                format!("{}.yaml", if bare.is_empty() { "data" } else { bare })
            }
            _ => format!("{stem}.yaml"),
        },
        Naming::AsIs => match (known, content_type.and_then(ending)) {
            (None, Some(end)) => format!("{stem}.{end}"),
            _ => stem.to_owned(),
        },
    };
    // The characters above leave nothing that a path refuses; `data` stands for what cannot be.
    EntryPath::parse(&name).unwrap_or_else(|_| EntryPath::literal("data"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("a..b.yaml", Ok("a..b.yaml"), false)]
    #[case("conf/app.yaml", Ok("conf/app.yaml"), false)]
    #[case("./conf/app.yaml", Ok("conf/app.yaml"), false)]
    #[case("conf/", Ok("conf/named"), true)]
    #[case("conf/.", Ok("conf/named"), true)]
    #[case("", Ok("named"), true)]
    #[case(".", Ok("named"), true)]
    #[case("./", Ok("named"), true)]
    #[case("/etc/passwd", Err("absolute"), false)]
    #[case("../up", Err("`..`"), false)]
    #[case("a/../../up", Err("`..`"), false)]
    #[case("a\\b", Err("`\\`"), false)]
    #[case("a\0b", Err("control"), false)]
    fn the_field(#[case] text: &str, #[case] expected: Result<&str, &str>, #[case] folder: bool) {
        let default = EntryPath::parse("named").unwrap();
        match (Destination::parse("spec.destinationPath", text), expected) {
            (Ok(found), Ok(path)) => {
                assert_eq!(found.file(&default).unwrap().as_str(), path);
                assert_eq!(found.is_folder(), folder);
            }
            (Err(refusal), Err(word)) => {
                assert!(refusal.message.contains(word), "{refusal}");
                assert_eq!(refusal.field.as_deref(), Some("spec.destinationPath"));
            }
            (found, expected) => panic!("{found:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn an_absent_field_is_the_default_name() {
        let default = EntryPath::parse("named").unwrap();
        assert_eq!(Destination::default().file(&default).unwrap(), default);
    }

    #[rstest]
    #[case("https://h/app.yaml", None, "app.yaml", "app.yaml")]
    #[case("https://h/app.yml", Some("text/plain"), "app.yml", "app.yml")]
    #[case("https://h/app.YAML", None, "app.YAML", "app.yaml")]
    #[case("https://h/config.json?x=1", Some("application/json"), "config.json", "config.yaml")]
    #[case(
        "https://h/api/config",
        Some("application/json; charset=utf-8"),
        "config.json",
        "config.yaml"
    )]
    #[case(
        "https://h/releases/v1.2.3",
        Some("application/vnd.github+json"),
        "v1.2.3.json",
        "v1.2.3.yaml"
    )]
    #[case(
        "https://h/chart-1.0.0.tgz",
        Some("application/octet-stream"),
        "chart-1.0.0.tgz",
        "chart-1.0.0.tgz.yaml"
    )]
    #[case("https://h/archive/main", Some("application/gzip"), "main.tar.gz", "main.yaml")]
    #[case("https://h/", Some("text/yaml"), "data.yaml", "data.yaml")]
    #[case("https://h", None, "data", "data.yaml")]
    #[case("https://h/a/", None, "a", "a.yaml")]
    #[case("https://h/..%2f..%2fetc%2fpasswd", None, "etc-passwd", "etc-passwd.yaml")]
    #[case("https://h/%2e%2e", None, "data", "data.yaml")]
    #[case("https://h/a%00b%5cc", None, "a-b-c", "a-b-c.yaml")]
    #[case("https://h/.json", None, "json", "json.yaml")]
    fn the_default_name(#[case] url: &str, #[case] kind: Option<&str>, #[case] raw: &str, #[case] manifest: &str) {
        let link = Link::parse("spec.generator.http.url", url).unwrap();
        assert_eq!(default_name(&link, kind, Naming::AsIs).as_str(), raw);
        assert_eq!(default_name(&link, kind, Naming::Manifest).as_str(), manifest);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn every_default_name_is_one_segment(path in "[ -~äß%./]{0,40}", kind in "[ -~]{0,20}") {
            if let Ok(link) = Link::parse("url", &format!("https://h/{path}")) {
                for naming in [Naming::AsIs, Naming::Manifest] {
                    let name = default_name(&link, Some(&kind), naming);
                    prop_assert_eq!(name.segments().count(), 1);
                    prop_assert!(naming == Naming::AsIs || name.is_manifest());
                }
            }
        }
    }
}
