//! Files of pinned modules that are kept beside a peer's programs.
//!
//! ```text
//! go mod download ─▶ folder of the module in Go's cache ─▶ copy into the entry
//! ```
//!
//! Invariant: an entry does not refer to Go's module cache, which may be emptied at any time.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use super::{BuildError, Builder};
use crate::Peer;
use crate::cache::at;
use crate::process::ProcessError;

/// The folder of an entry that holds them.
const FOLDER: &str = "files";

/// The part of what `go mod download -json` says of a module that is read here.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Downloaded {
    dir: PathBuf,
    error: String,
}

/// Where an entry keeps the files of `peer`, by name.
pub(super) fn of(peer: &Peer, entry: &Path) -> BTreeMap<String, PathBuf> {
    let path = |name: &String| entry.join(FOLDER).join(name);
    let files = peer.files.iter();
    files.map(|file| (file.name.clone(), path(&file.name))).collect()
}

impl Builder {
    /// Copies the files of `peer`, whose module is in `source`, into `output`.
    pub(super) async fn copy_files(&self, peer: &Peer, source: &Path, output: &Path) -> Result<(), BuildError> {
        let paths = of(peer, output);
        if !paths.is_empty() {
            let folder = output.join(FOLDER);
            fs::create_dir(&folder).map_err(at(&folder))?;
        }
        let mut folders = BTreeMap::new();
        for file in &peer.files {
            if !folders.contains_key(&file.module) {
                let folder = self.module_dir(peer, &file.module, source).await?;
                folders.insert(&file.module, folder);
            }
            if let (Some(folder), Some(to)) = (folders.get(&file.module), paths.get(&file.name)) {
                let from = folder.join(&file.path);
                fs::copy(&from, to).map_err(at(&from))?;
            }
        }
        Ok(())
    }

    /// The folder of a module at the version that the `go.mod` in `source` pins, fetched if need be.
    async fn module_dir(&self, peer: &Peer, module: &str, source: &Path) -> Result<PathBuf, BuildError> {
        let failed = |said: &str| BuildError::Module {
            peer: peer.name.clone(),
            module: module.to_owned(),
            said: said.trim().to_owned(),
        };
        let mut command = Command::new("go");
        command.args(["mod", "download", "-json", module]).current_dir(source);
        self.environment(&mut command);
        let run = tokio::process::Command::from(command).kill_on_drop(true).output().await;
        let output = run.map_err(|source| ProcessError::Spawn {
            name: "go mod download".to_owned(),
            source,
        })?;
        // A failed download is told in the same JSON.
        let told: Downloaded =
            serde_json::from_slice(&output.stdout).map_err(|_| failed(&String::from_utf8_lossy(&output.stderr)))?;
        if told.error.is_empty() && told.dir.is_absolute() {
            Ok(told.dir)
        } else {
            Err(failed(&told.error))
        }
    }
}
