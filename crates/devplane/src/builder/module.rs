//! A peer's module on disk, and the `go build` invocations that it takes.

use std::fs;
use std::path::Path;

use crate::Peer;
use crate::cache::{CacheError, at};

/// Writes the module into `folder`.
pub(super) fn write(peer: &Peer, folder: &Path) -> Result<(), CacheError> {
    let fixed = [("go.mod", peer.go_mod.as_ref()), ("go.sum", peer.go_sum.as_ref())];
    let sources = peer.sources.iter().map(|(path, text)| (path.as_str(), text.as_ref()));
    for (path, text) in fixed.into_iter().chain(sources) {
        let path = folder.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(at(parent))?;
        }
        fs::write(&path, text).map_err(at(&path))?;
    }
    Ok(())
}

/// The output and package arguments of each `go build`: one for all programs whose name is what Go calls them, which
/// compiles them side by side, and one for each other program.
pub(super) fn outputs(peer: &Peer, folder: &Path) -> Vec<Vec<String>> {
    let folder = folder.display().to_string();
    let (usual, renamed): (Vec<_>, Vec<_>) = peer
        .binaries
        .iter()
        .partition(|binary| binary.package.rsplit('/').next() == Some(&binary.name));
    let mut all = Vec::new();
    if !usual.is_empty() {
        let packages = usual.iter().map(|binary| binary.package.clone());
        all.push(
            ["-o".to_owned(), format!("{folder}/")]
                .into_iter()
                .chain(packages)
                .collect(),
        );
    }
    for binary in renamed {
        all.push(vec![
            "-o".to_owned(),
            format!("{folder}/{}", binary.name),
            binary.package.clone(),
        ]);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_with_their_usual_name_are_built_together() {
        let peer = Peer::new("tiny", "module tiny\n", "")
            .binary("tiny", "example.org/tiny")
            .binary("two", "example.org/two")
            .binary("etcd", "example.org/server/v3");
        let all = outputs(&peer, Path::new("/out"));
        assert_eq!(
            all,
            [
                vec!["-o", "/out/", "example.org/tiny", "example.org/two"],
                vec!["-o", "/out/etcd", "example.org/server/v3"]
            ]
        );
    }
}
