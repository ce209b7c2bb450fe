//! `Shape`: what the payload becomes inside the artifact, so that Flux can use it.
//!
//! ```text
//!  Raw       payload ─▶ file                               Archive  upstream archive ─▶ its files
//!  Manifest  YAML or JSON ─▶ checked ─▶ .yaml              ConfigMap, Secret  payload ─▶ one object in a .yaml
//!  optionally a kustomization.yaml beside the file
//! ```
//!
//! Invariants: a `.yaml` that we make parses as Kubernetes objects, because the kustomize-controller fails on every one that
//! does not; what will be ignored there is said in a warning; equal payloads give equal entries.

mod manifest;
mod wrapped;
mod yaml;

use trellis_core::Refusal;

pub use wrapped::{DATA_LIMIT, Wrap};

use crate::{
    archive::Mode,
    destination::{Destination, Naming},
    path::EntryPath,
    reason::Reason,
};

/// Largest payload that is read as objects, in bytes. Larger ones would not fit into an API server either.
pub const MANIFEST_LIMIT: u64 = 32 << 20;

/// What the payload becomes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Shape {
    /// A file with the payload as it came.
    #[default]
    Raw,
    /// A file of Kubernetes objects.
    Manifest,
    /// A `ConfigMap` that holds the payload under one key.
    ConfigMap(Wrap),
    /// A Secret that holds the payload under one key.
    Secret(Wrap),
    /// The files of the archive that the payload is; see [`crate::archive`].
    Archive,
}

/// A `kustomization.yaml` beside the payload.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kustomization {
    /// Lists the file as a resource.
    Resource,
    /// Generates a `ConfigMap` of this name, without a hash behind it, from the file: for payloads that are no objects.
    ConfigMap {
        /// Name of the `ConfigMap`.
        name: String,
    },
}

/// The payload as far as shaping needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload<'a> {
    /// All of it; what [`Shape::reads`] asks for.
    Whole(&'a [u8]),
    /// It lies in the caller's spool.
    Spooled,
}

/// What an entry holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// The payload, streamed from the spool.
    Payload,
    /// These bytes.
    Bytes(Vec<u8>),
}

/// A file of the artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it lies.
    pub path: EntryPath,
    /// Who may do what with it.
    pub mode: Mode,
    /// What it holds.
    pub content: Content,
}

/// What an artifact holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shaped {
    /// Its files, in the order in which they are packed.
    pub entries: Vec<Entry>,
    /// What the user should know although it is no error.
    pub warnings: Vec<String>,
}

impl Shape {
    /// How many bytes of payload have to be at hand to shape it; none: it is streamed, whatever its size.
    #[must_use]
    pub fn reads(&self) -> Option<u64> {
        match self {
            Self::Raw | Self::Archive => None,
            Self::Manifest => Some(MANIFEST_LIMIT),
            Self::ConfigMap(_) | Self::Secret(_) => Some(DATA_LIMIT),
        }
    }

    /// What the default name has to be.
    #[must_use]
    pub fn naming(&self) -> Naming {
        match self {
            Self::Raw | Self::Archive => Naming::AsIs,
            Self::Manifest | Self::ConfigMap(_) | Self::Secret(_) => Naming::Manifest,
        }
    }

    /// The same, with the payload under this key where none is chosen: the name that it has upstream.
    #[must_use]
    pub fn keyed(&self, name: &EntryPath) -> Self {
        let mut shape = self.clone();
        if let Self::ConfigMap(wrap) | Self::Secret(wrap) = &mut shape {
            wrap.key.get_or_insert_with(|| name.name().to_owned());
        }
        shape
    }

    /// The refusal of a payload that is larger than [`Shape::reads`].
    #[must_use]
    pub fn too_large(&self, size: u64) -> Refusal {
        let (what, limit) = match self {
            Self::ConfigMap(_) => ("a ConfigMap holds", DATA_LIMIT),
            Self::Secret(_) => ("a Secret holds", DATA_LIMIT),
            _ => ("manifests are read up to", MANIFEST_LIMIT),
        };
        Reason::SizeLimitExceeded
            .refuse(format!("the payload has {size} bytes, and {what} {limit}"))
            .hint("shape it as Raw or Archive, or select the part that is needed with a transform")
    }

    /// The entries of the artifact.
    ///
    /// `default`: the name where the destination gives none, from [`crate::destination::default_name`] with
    /// [`Shape::naming`].
    ///
    /// # Errors
    /// `ConfigurationError`: names that Kubernetes does not take, or a kustomization that cannot lie beside the file.
    /// `PermanentError`: the payload is not what the shape needs. `SizeLimitExceeded`: it is larger than it may be.
    pub fn shape(
        &self,
        destination: &Destination,
        default: &EntryPath,
        kustomization: Option<&Kustomization>,
        payload: Payload<'_>,
    ) -> Result<Shaped, Refusal> {
        if *self == Self::Archive {
            return match kustomization {
                None => Ok(Shaped::default()),
                Some(_) => Err(Reason::ConfigurationError
                    .refuse("a kustomization.yaml is written for one file, and an archive has many")),
            };
        }
        let path = destination.file(default)?;
        let content = match (self, payload) {
            (Self::Raw | Self::Archive, _) => Content::Payload,
            (_, Payload::Spooled) => return Err(self.too_large(u64::MAX)),
            (Self::Manifest, Payload::Whole(bytes)) => {
                self.fits(bytes)?;
                manifest::read(bytes)?
            }
            (Self::ConfigMap(wrap), Payload::Whole(bytes)) => {
                self.fits(bytes)?;
                Content::Bytes(wrap.config_map(bytes, default)?)
            }
            (Self::Secret(wrap), Payload::Whole(bytes)) => {
                self.fits(bytes)?;
                Content::Bytes(wrap.secret(bytes, default)?)
            }
        };
        if *self != Self::Raw && !path.is_manifest() {
            return Err(Reason::ConfigurationError
                .refuse(format!(
                    "{path} would be ignored, because it ends neither in .yaml nor in .yml"
                ))
                .field("spec.destinationPath")
                .hint("give the file such an ending, or name a folder with a / at the end"));
        }
        let mut shaped = Shaped::default();
        shaped.entries.push(Entry {
            path,
            mode: Mode::Plain,
            content,
        });
        if let Some(kustomization) = kustomization {
            shaped.kustomize(kustomization)?;
        }
        shaped.entries.sort_by(|one, other| one.path.cmp(&other.path));
        shaped.warn();
        Ok(shaped)
    }

    fn fits(&self, bytes: &[u8]) -> Result<(), Refusal> {
        let size = bytes.len() as u64;
        if self.reads().is_some_and(|limit| size > limit) {
            Err(self.too_large(size))
        } else {
            Ok(())
        }
    }
}

impl Shaped {
    fn kustomize(&mut self, kustomization: &Kustomization) -> Result<(), Refusal> {
        let Some(file) = self.entries.first().map(|entry| entry.path.clone()) else {
            return Ok(());
        };
        if file.is_kustomization() {
            return Err(Reason::ConfigurationError
                .refuse(format!("{file} is a kustomization already"))
                .hint("write no second one"));
        }
        let beside = EntryPath::literal("kustomization.yaml");
        let path = match file.ancestors().last() {
            Some(folder) => folder
                .join(&beside)
                .map_err(|error| Reason::ConfigurationError.refuse(error.to_string()))?,
            None => beside,
        };
        let bytes = kustomization.yaml(file.name())?;
        self.entries.push(Entry {
            path,
            mode: Mode::Plain,
            content: Content::Bytes(bytes),
        });
        Ok(())
    }

    fn warn(&mut self) {
        if !holds_manifest(self.entries.iter().map(|entry| &entry.path)) {
            self.warnings.push(NO_MANIFEST.to_owned());
        }
    }
}

/// What [`holds_manifest`] means for the user.
pub const NO_MANIFEST: &str = "the artifact holds no .yaml or .yml file, so a Kustomization applies nothing from it";

/// Whether the kustomize-controller finds anything in an artifact of these files.
pub fn holds_manifest<'a>(paths: impl IntoIterator<Item = &'a EntryPath>) -> bool {
    paths
        .into_iter()
        .any(|path| path.is_manifest() || path.is_kustomization())
}

/// What the user should know of a file that is named like a manifest, where the kustomize-controller fails on it.
#[must_use]
pub fn no_manifest(path: &EntryPath, bytes: &[u8]) -> Option<String> {
    let refusal = manifest::read(bytes).err()?;
    let wrong = refusal.reason == Reason::PermanentError.as_str();
    wrong.then(|| {
        format!(
            "a Kustomization fails on {path}, because {}; give it another ending if it is no manifest",
            refusal.message
        )
    })
}

impl Kustomization {
    fn yaml(&self, file: &str) -> Result<Vec<u8>, Refusal> {
        let mut value = serde_json::json!({ "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization" });
        let (key, part) = match self {
            Self::Resource => ("resources", serde_json::json!([file])),
            Self::ConfigMap { name } => {
                wrapped::valid_name(name)?;
                wrapped::valid_key(file)?;
                let generator = serde_json::json!({
                    "name": name, "files": [file], "options": { "disableNameSuffixHash": true },
                });
                ("configMapGenerator", serde_json::json!([generator]))
            }
        };
        if let Some(object) = value.as_object_mut() {
            object.insert(key.to_owned(), part);
        }
        Ok(yaml::document(&value).into_bytes())
    }
}

#[cfg(test)]
mod tests;
