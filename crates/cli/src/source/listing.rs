//! The files of an artifact.

use std::{fs::File, path::Path};

use flate2::read::GzDecoder;
use serde::Serialize;

/// A file of an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Entry {
    pub(super) path: String,
    pub(super) bytes: u64,
}

/// The files, in their order. Folders are left out.
pub(super) fn entries(artifact: &Path) -> std::io::Result<Vec<Entry>> {
    let mut archive = tar::Archive::new(GzDecoder::new(File::open(artifact)?));
    let mut entries = Vec::new();
    for entry in archive.entries()? {
        let entry = entry?;
        if entry.header().entry_type().is_file() {
            entries.push(Entry {
                path: entry.path()?.display().to_string(),
                bytes: entry.size(),
            });
        }
    }
    Ok(entries)
}
