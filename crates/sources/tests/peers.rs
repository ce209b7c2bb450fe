//! Archives as others read and write them: GNU tar, gzip and sha256sum, run on what the packer wrote.

#![expect(clippy::disallowed_methods, reason = "these tests ask other programs")]
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests"
)]

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::{Command, Stdio},
};

use trellis_sources::{
    archive::{Limits, Links, Mode, Packer, Sink, tar, tar_gz},
    measure::Measure,
    path::EntryPath,
};

/// Runs a program to its end, with the C locale, and returns what it wrote.
fn run(program: &str, arguments: &[&str], folder: &Path) -> Vec<u8> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("this test needs {program}: {error}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

type Files = BTreeMap<EntryPath, (Mode, Vec<u8>)>;

fn files() -> Files {
    let long = format!("{}/{}/values.yaml", "d".repeat(120), "e".repeat(120));
    [
        ("manifests/app.yaml", Mode::Plain, b"kind: ConfigMap\n".to_vec()),
        ("manifests/empty", Mode::Plain, Vec::new()),
        ("manifests.d/run.sh", Mode::Executable, b"#!/bin/sh\n".to_vec()),
        (
            "für uns/größe.bin",
            Mode::Plain,
            (0..70_000_u32).flat_map(u32::to_le_bytes).collect(),
        ),
        (long.as_str(), Mode::Plain, vec![b'x'; 512]),
    ]
    .into_iter()
    .map(|(name, mode, bytes)| (EntryPath::parse(name).unwrap(), (mode, bytes)))
    .collect()
}

fn pack(files: &Files, to: &Path) -> Measure {
    let mut packer = Packer::new(File::create(to).unwrap());
    for (path, (mode, bytes)) in files {
        packer.file(path, *mode, bytes.len() as u64, bytes.as_slice()).unwrap();
    }
    packer.finish().unwrap().1
}

#[test]
fn gnu_tar_and_gzip_read_what_we_pack() {
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("a.tar.gz");
    let measure = pack(&files(), &archive);
    run("gzip", &["-t", "a.tar.gz"], folder.path());
    let sum = run("sha256sum", &["a.tar.gz"], folder.path());
    assert!(String::from_utf8(sum).unwrap().starts_with(&measure.digest.hex()));
    assert_eq!(fs::metadata(&archive).unwrap().len(), measure.size);

    fs::create_dir(folder.path().join("out")).unwrap();
    run("tar", &["-xpzf", "a.tar.gz", "-C", "out"], folder.path());
    for (path, (mode, bytes)) in files() {
        let file = folder.path().join("out").join(path.as_str());
        assert_eq!(fs::read(&file).unwrap(), bytes, "{path}");
        assert_eq!(
            fs::metadata(&file).unwrap().permissions().mode() & 0o7777,
            mode.bits(),
            "{path}"
        );
    }
}

/// The tar without the checksums of its headers, which are written with six digits or with seven.
fn unsummed(mut bytes: Vec<u8>) -> Vec<u8> {
    for block in bytes
        .chunks_exact_mut(512)
        .filter(|block| block[257..].starts_with(b"ustar"))
    {
        block[148..156].fill(0);
    }
    bytes
}

/// GNU tar, told to forget the same things, writes the same tar, byte for byte, but for the spelling of checksums and its
/// blocking of the end.
#[test]
fn gnu_tar_packs_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    pack(&files(), &folder.path().join("a.tar.gz"));
    fs::create_dir(folder.path().join("in")).unwrap();
    run("tar", &["-xpzf", "a.tar.gz", "-C", "in"], folder.path());
    // In our order: by segments.
    let mut list = Vec::new();
    let mut listed = std::collections::BTreeSet::new();
    for path in files().keys() {
        for folder in path
            .ancestors()
            .filter(|folder| listed.insert(folder.clone()))
            .collect::<Vec<_>>()
        {
            writeln!(list, "{folder}/").unwrap();
        }
        writeln!(list, "{path}").unwrap();
    }
    fs::write(folder.path().join("list"), list).unwrap();
    let theirs = run(
        "tar",
        &[
            "--format=gnu",
            "--no-recursion",
            "--mtime=@0",
            "--owner=:0",
            "--group=:0",
            "--numeric-owner",
            "-C",
            "in",
            "-cf",
            "-",
            "-T",
            "list",
        ],
        folder.path(),
    );
    let ours = unsummed(run("gzip", &["-dc", "a.tar.gz"], folder.path()));
    let theirs = unsummed(theirs);
    let end = |bytes: &[u8]| bytes.iter().rposition(|byte| *byte != 0).unwrap();
    assert_eq!(end(&ours), end(&theirs));
    let differs = ours.iter().zip(&theirs).position(|(one, other)| one != other);
    assert!(differs.is_none_or(|at| at > end(&ours)), "they differ at {differs:?}");
}

#[derive(Default)]
struct Kept(Files);

impl Sink for Kept {
    fn folder(&mut self, _: &EntryPath) -> io::Result<()> {
        Ok(())
    }

    fn file(&mut self, path: &EntryPath, mode: Mode, content: &mut dyn Read) -> io::Result<()> {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        self.0.insert(path.clone(), (mode, bytes));
        Ok(())
    }
}

#[test]
fn we_read_what_gnu_tar_packs_in_each_of_its_formats() {
    let folder = tempfile::tempdir().unwrap();
    pack(&files(), &folder.path().join("a.tar.gz"));
    let inside = folder.path().join("in");
    fs::create_dir(&inside).unwrap();
    run("tar", &["-xpzf", "a.tar.gz", "-C", "in"], folder.path());
    symlink("/etc/passwd", inside.join("link")).unwrap();
    for format in ["gnu", "pax", "posix"] {
        run(
            "tar",
            &[&format!("--format={format}"), "-C", "in", "-czf", "b.tar.gz", "."],
            folder.path(),
        );
        let mut kept = Kept::default();
        let archive = File::open(folder.path().join("b.tar.gz")).unwrap();
        let done = tar_gz(archive, Limits::default(), Links::Skip, &mut kept).unwrap();
        assert_eq!((kept.0, done.links), (files(), 1), "{format}");
    }
    // The oldest formats have no room for the longest name.
    fs::remove_dir_all(inside.join("d".repeat(120))).unwrap();
    for format in ["ustar", "v7", "oldgnu"] {
        run(
            "tar",
            &[&format!("--format={format}"), "-C", "in", "-cf", "b.tar", "."],
            folder.path(),
        );
        let mut kept = Kept::default();
        tar(
            File::open(folder.path().join("b.tar")).unwrap(),
            Limits::default(),
            Links::Skip,
            &mut kept,
        )
        .unwrap();
        assert_eq!(kept.0.len(), 4, "{format}");
    }
}

#[test]
fn two_gzip_members_are_one_stream() {
    let folder = tempfile::tempdir().unwrap();
    pack(&files(), &folder.path().join("a.tar.gz"));
    let plain = run("gzip", &["-dc", "a.tar.gz"], folder.path());
    let (one, two) = plain.split_at(plain.len() / 2);
    let mut both = Vec::new();
    for half in [one, two] {
        fs::write(folder.path().join("half"), half).unwrap();
        both.extend(run("gzip", &["-c", "half"], folder.path()));
    }
    let mut kept = Kept::default();
    tar_gz(both.as_slice(), Limits::default(), Links::Skip, &mut kept).unwrap();
    assert_eq!(kept.0, files());
}
