//! Which file a permitted command is, by its place: directory and name, never the last name alone.
//!
//! ```text
//!  jq           ─▶ first `jq` in the fixed path                                  ─▶ /usr/bin/jq
//!  /bin/jq      ─▶ the same place, when /bin is /usr/bin                         ─▶ /usr/bin/jq
//!  /tmp/x/jq    ─▶ another place                                                 ─▶ refused
//! ```
//!
//! Invariant: two commands are the same only when their directories are, after symbolic links in them are followed,
//! and their names are. A link as last part is not followed: a program with many names (busybox) does by its name.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::{Component, Path, PathBuf},
};

use trellis_core::digest::{Digest, Hasher};

use crate::{Permit, Program};

/// Why a permitted command was not started after all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unresolved {
    /// The fixed path has no such program.
    #[error("command {0:?} is allowed, but no such program is in the path of the executor")]
    Missing(String),
    /// The command is a path to another file than the one that is allowed.
    #[error("command {asked:?} is not allowed: it is not {allowed}")]
    Elsewhere {
        /// As asked for.
        asked: String,
        /// The file that is allowed.
        allowed: String,
    },
    /// The command is a path that does not start at the root, or names no file.
    #[error("command {0:?} is not allowed: a path must be absolute and name a file")]
    NotAbsolute(String),
    /// The file is not the pinned one.
    #[error("command {command:?} is not allowed: {file} has the sha256 {found}, not the pinned {pinned}")]
    Pin {
        /// As asked for.
        command: String,
        /// The file.
        file: String,
        /// What it has.
        found: String,
        /// What it should have.
        pinned: String,
    },
    /// The file could not be read.
    #[error("cannot read {file} for command {command:?}")]
    Read {
        /// As asked for.
        command: String,
        /// The file.
        file: String,
        /// The cause.
        source: io::Error,
    },
}

/// The file to run for `command`, under `permit`; bare names are looked up in `path`.
pub(crate) fn resolve(command: &str, permit: &Permit, path: &[PathBuf]) -> Result<PathBuf, Unresolved> {
    let missing = || Unresolved::Missing(command.to_owned());
    let file = match &permit.program {
        Program::Named(name) if !name.is_empty() && !name.contains('/') => {
            let found = path
                .iter()
                .map(|folder| folder.join(name))
                .find(|file| runs(file))
                .ok_or_else(missing)?;
            placed(&found).ok_or_else(missing)?
        }
        Program::Named(_) => return Err(Unresolved::NotAbsolute(command.to_owned())),
        Program::File(file) => {
            if !file.is_absolute() {
                return Err(Unresolved::NotAbsolute(file.display().to_string()));
            }
            placed(file).filter(|file| runs(file)).ok_or_else(missing)?
        }
    };
    let same = if command.contains('/') {
        if !Path::new(command).is_absolute() || command.ends_with(['/', '.']) {
            return Err(Unresolved::NotAbsolute(command.to_owned()));
        }
        placed(Path::new(command)).as_ref() == Some(&file)
    } else {
        // A bare name has no place of its own: the permit that was given for it says which file it is.
        match &permit.program {
            Program::Named(name) => name == command,
            Program::File(_) => !command.is_empty(),
        }
    };
    if !same {
        return Err(Unresolved::Elsewhere {
            asked: command.to_owned(),
            allowed: file.display().to_string(),
        });
    }
    if let Some(pinned) = &permit.sha256 {
        check(command, &file, pinned)?;
    }
    Ok(file)
}

/// A file that somebody may run.
fn runs(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
}

/// The place of a file: its real directory and its name.
fn placed(file: &Path) -> Option<PathBuf> {
    let Some(Component::Normal(name)) = file.components().next_back() else {
        return None;
    };
    Some(fs::canonicalize(file.parent()?).ok()?.join(name))
}

fn check(command: &str, file: &Path, pinned: &str) -> Result<(), Unresolved> {
    let found = digest(file)
        .map(|digest| digest.hex())
        .map_err(|source| Unresolved::Read {
            command: command.to_owned(),
            file: file.display().to_string(),
            source,
        })?;
    if found.eq_ignore_ascii_case(pinned) {
        return Ok(());
    }
    Err(Unresolved::Pin {
        command: command.to_owned(),
        file: file.display().to_string(),
        found,
        pinned: pinned.to_owned(),
    })
}

fn digest(file: &Path) -> io::Result<Digest> {
    let mut file = File::open(file)?;
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = file.read(&mut buffer)?;
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else {
            return Ok(hasher.finish());
        };
        hasher.update(bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rstest::rstest;
    use tempfile::TempDir;

    use super::*;

    /// `real/jq`, `real/busybox`, `real/cat -> busybox`, `real/sh -> busybox`, `link -> real`, `other/jq`.
    fn place() -> TempDir {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for folder in ["real", "other"] {
            fs::create_dir(at(folder)).unwrap();
        }
        for file in ["real/jq", "real/busybox", "other/jq"] {
            fs::write(at(file), "#!/bin/sh\n").unwrap();
            fs::set_permissions(at(file), fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::write(at("real/data"), "no program").unwrap();
        fs::set_permissions(at("real/data"), fs::Permissions::from_mode(0o644)).unwrap();
        symlink("busybox", at("real/cat")).unwrap();
        symlink("busybox", at("real/sh")).unwrap();
        symlink("real", at("link")).unwrap();
        root
    }

    fn ask(root: &Path, command: &str, program: Program, sha256: Option<&str>) -> Result<PathBuf, Unresolved> {
        let permit = Permit {
            program,
            sha256: sha256.map(str::to_owned),
        };
        resolve(
            &command.replace("ROOT", root.to_str().unwrap()),
            &permit,
            &[root.join("link")],
        )
    }

    #[rstest]
    #[case::by_name("jq", Some("real/jq"))]
    #[case::by_its_path("ROOT/real/jq", Some("real/jq"))]
    #[case::by_a_linked_folder("ROOT/link/jq", Some("real/jq"))]
    #[case::by_a_detour("ROOT/other/../link/jq", Some("real/jq"))]
    #[case::the_same_name_elsewhere("ROOT/other/jq", None)]
    #[case::a_relative_path("real/jq", None)]
    #[case::here("./jq", None)]
    #[case::another_name("yq", None)]
    #[case::a_folder("ROOT/real/", None)]
    #[case::a_folder_by_dot("ROOT/real/jq/.", None)]
    #[case::nothing("", None)]
    fn a_bare_name_is_one_file(#[case] command: &str, #[case] expected: Option<&str>) {
        let root = place();
        let found = ask(root.path(), command, Program::Named("jq".to_owned()), None).ok();
        assert_eq!(
            found,
            expected.map(|name| root.path().canonicalize().unwrap().join(name))
        );
    }

    #[test]
    fn a_program_of_many_names_does_only_what_its_allowed_name_does() {
        let root = place();
        let cat = || Program::Named("cat".to_owned());
        let file = ask(root.path(), "cat", cat(), None).unwrap();
        assert!(file.ends_with("real/cat"), "{file:?}");
        for command in ["ROOT/real/sh", "ROOT/real/busybox"] {
            assert!(
                matches!(
                    ask(root.path(), command, cat(), None),
                    Err(Unresolved::Elsewhere { .. })
                ),
                "{command}"
            );
        }
    }

    #[rstest]
    #[case::itself("ROOT/real/jq", true)]
    #[case::by_a_link("ROOT/link/jq", true)]
    #[case::elsewhere("ROOT/other/jq", false)]
    #[case::by_a_name_that_is_permitted_as_this_file("jq", true)]
    fn an_absolute_path_is_one_file(#[case] command: &str, #[case] runs: bool) {
        let root = place();
        let program = Program::File(root.path().join("real/jq"));
        assert_eq!(ask(root.path(), command, program, None).is_ok(), runs);
    }

    #[test]
    fn a_file_that_nobody_may_run_is_missing() {
        let root = place();
        let found = ask(root.path(), "data", Program::Named("data".to_owned()), None);
        assert!(matches!(found, Err(Unresolved::Missing(_))), "{found:?}");
    }

    #[test]
    fn a_pinned_file_must_have_its_digest() {
        let root = place();
        let jq = || Program::Named("jq".to_owned());
        // printf '#!/bin/sh\n' | sha256sum
        let right = "a8076d3d28d21e02012b20eaf7dbf75409a6277134439025f282e368e3305abf";
        assert!(ask(root.path(), "jq", jq(), Some(right)).is_ok());
        let error = ask(root.path(), "jq", jq(), Some(&"0".repeat(64)))
            .unwrap_err()
            .to_string();
        assert!(error.contains("jq") && error.contains(right), "{error}");
    }
}
