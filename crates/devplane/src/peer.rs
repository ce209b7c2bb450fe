//! `Peer`: what to build — a pinned Go module and the programs wanted from it.

use std::borrow::Cow;

/// A program of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binary {
    /// File name of the result, for example `kube-apiserver`.
    pub name: String,
    /// Import path of its main package.
    pub package: String,
}

/// A file of a pinned module that a peer's programs need beside them, such as a `CustomResourceDefinition`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleFile {
    /// Name of the copy, for example `source.toolkit.fluxcd.io_buckets.yaml`.
    pub name: String,
    /// The module that has it, as `go.mod` names it.
    pub module: String,
    /// Its path in that module.
    pub path: String,
}

/// A pinned Go module with the programs to build from it. Built in constructors under [`crate::peers`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Names the peer in the cache and in progress; lower-case letters, digits, `-` and `.`.
    pub name: String,
    /// The pinned `go.mod`.
    pub go_mod: Cow<'static, str>,
    /// The matching `go.sum`.
    pub go_sum: Cow<'static, str>,
    /// Further Go files (path relative to `go.mod`, contents), for a peer that is only a library. Usually none.
    pub sources: Vec<(String, Cow<'static, str>)>,
    /// The programs wanted.
    pub binaries: Vec<Binary>,
    /// Files of pinned modules that are kept beside the programs. Usually none.
    pub files: Vec<ModuleFile>,
    /// Go variables set by the linker (`-X name=value`), such as versions.
    pub stamps: Vec<(String, String)>,
    /// Build tags.
    pub tags: Vec<String>,
    /// Environment of the Go tool, such as `CGO_ENABLED=0`.
    pub env: Vec<(String, String)>,
}

impl Peer {
    /// A peer without programs.
    #[must_use]
    pub fn new(name: impl Into<String>, go_mod: &'static str, go_sum: &'static str) -> Self {
        Self {
            name: name.into(),
            go_mod: go_mod.into(),
            go_sum: go_sum.into(),
            ..Self::default()
        }
    }

    /// Adds a program.
    #[must_use]
    pub fn binary(mut self, name: impl Into<String>, package: impl Into<String>) -> Self {
        self.binaries.push(Binary {
            name: name.into(),
            package: package.into(),
        });
        self
    }

    /// Adds a file of a pinned module under its own name.
    #[must_use]
    pub fn file(mut self, module: impl Into<String>, path: impl Into<String>) -> Self {
        let path = path.into();
        self.files.push(ModuleFile {
            name: path.rsplit('/').next().unwrap_or(&path).to_owned(),
            module: module.into(),
            path,
        });
        self
    }

    /// Adds a linker stamp.
    #[must_use]
    pub fn stamp(mut self, variable: impl Into<String>, value: impl Into<String>) -> Self {
        self.stamps.push((variable.into(), value.into()));
        self
    }

    /// Arguments of `go build` apart from output and packages.
    pub(crate) fn flags(&self) -> Vec<String> {
        let mut linker = String::from("-s -w");
        for (variable, value) in &self.stamps {
            linker.push_str(" -X ");
            linker.push_str(variable);
            linker.push('=');
            linker.push_str(value);
        }
        let mut flags = vec!["-trimpath".to_owned(), "-ldflags".to_owned(), linker];
        if !self.tags.is_empty() {
            flags.extend(["-tags".to_owned(), self.tags.join(",")]);
        }
        flags
    }

    /// For people: the name and the programs.
    pub(crate) fn title(&self) -> String {
        let names: Vec<&str> = self.binaries.iter().map(|binary| binary.name.as_str()).collect();
        format!("{} ({})", self.name, names.join(", "))
    }
}
