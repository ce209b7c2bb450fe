use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Cursor, Read, Write},
};

use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;
use rstest::rstest;

use trellis_core::Digest;

use ::tar::{Builder, EntryType, Header};
use ::zip::{ZipWriter, write::SimpleFileOptions};

use super::*;
use crate::path::EntryPath;
use zipped::zip_of;

mod zipped;

/// Keeps everything, in memory.
#[derive(Debug, Default, PartialEq, Eq)]
struct Kept {
    folders: Vec<String>,
    files: BTreeMap<String, (Mode, Vec<u8>)>,
}

impl Sink for Kept {
    fn folder(&mut self, path: &EntryPath) -> io::Result<()> {
        self.folders.push(path.to_string());
        Ok(())
    }

    fn file(&mut self, path: &EntryPath, mode: Mode, content: &mut dyn Read) -> io::Result<()> {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        self.files.insert(path.to_string(), (mode, bytes));
        Ok(())
    }
}

fn path(text: &str) -> EntryPath {
    EntryPath::parse(text).unwrap()
}

fn packed(files: &BTreeMap<EntryPath, (Mode, Vec<u8>)>) -> (Vec<u8>, crate::measure::Measure) {
    let mut packer = Packer::new(Vec::new());
    for (path, (mode, bytes)) in files {
        packer.file(path, *mode, bytes.len() as u64, bytes.as_slice()).unwrap();
    }
    packer.finish().unwrap()
}

fn small() -> Limits {
    Limits {
        total: 1 << 20,
        file: 64 << 10,
        entries: 20,
        depth: 4,
        ratio: 200,
    }
}

/// One raw tar entry, with a name that no writer would write.
fn entry(out: &mut Vec<u8>, kind: EntryType, name: &[u8], body: &[u8]) {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o600);
    header.set_size(body.len() as u64);
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.set_cksum();
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(body);
    out.resize(out.len().next_multiple_of(512), 0);
}

fn one(kind: EntryType, name: &[u8], body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    entry(&mut out, kind, name, body);
    out.resize(out.len() + 1024, 0);
    out
}

fn many(entries: &[(EntryType, &[u8], &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (kind, name, body) in entries {
        entry(&mut out, *kind, name, body);
    }
    out.resize(out.len() + 1024, 0);
    out
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::best());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

const FILE: EntryType = EntryType::Regular;

#[rstest]
#[case::absolute(one(FILE, b"/etc/passwd", b"x"), "absolute")]
#[case::parent(one(FILE, b"../x", b"x"), "`..`")]
#[case::parent_inside(one(FILE, b"a/../../x", b"x"), "`..`")]
#[case::parent_folder(one(EntryType::Directory, b"../", b""), "`..`")]
#[case::backslash(one(FILE, b"..\\x", b"x"), "`\\`")]
#[case::control(one(FILE, b"a\nb", b"x"), "control")]
#[case::not_utf8(one(FILE, b"a\xff", b"x"), "not UTF-8")]
#[case::no_name(one(FILE, b"", b"x"), "names nothing")]
#[case::hard_link(one(EntryType::Link, b"a", b""), "hard link")]
#[case::device(one(EntryType::Block, b"a", b""), "device")]
#[case::character_device(one(EntryType::Char, b"a", b""), "device")]
#[case::pipe(one(EntryType::Fifo, b"a", b""), "named pipe")]
#[case::sparse(one(EntryType::GNUSparse, b"a", b""), "sparse")]
#[case::unknown(one(EntryType::new(b'Q'), b"a", b""), "unknown kind")]
#[case::twice(many(&[(FILE, b"a", b"1"), (FILE, b"./a", b"2")]), "two entries")]
#[case::file_as_folder(many(&[(FILE, b"a", b"1"), (FILE, b"a/b", b"2")]), "two entries")]
#[case::folder_as_file(many(&[(FILE, b"a/b", b"1"), (FILE, b"a", b"2")]), "two entries")]
#[case::link_then_below(many(&[(EntryType::Link, b"a", b""), (FILE, b"a/b", b"2")]), "hard link")]
#[case::deep(one(FILE, b"a/b/c/d/e", b"x"), "4 segments")]
#[case::large_file(one(FILE, b"a", &vec![7; 70_000]), "65536 bytes in one file")]
#[case::long_name_bomb(one(EntryType::GNULongName, b"././@LongLink", &vec![b'a'; 70_000]), "extension header")]
#[case::long_name(one(EntryType::GNULongName, b"././@LongLink", &[b'a'; 2000]), "too long")]
#[case::long_name_up(many(&[(EntryType::GNULongName, b"L", b"../x\0"), (FILE, b"x", b"1")]), "`..`")]
#[case::pax_up(many(&[(EntryType::XHeader, b"p", b"13 path=../x\n"), (FILE, b"x", b"1")]), "`..`")]
#[case::pax_size(many(&[(EntryType::XHeader, b"p", b"9 size=9\n"), (FILE, b"x", b"1")]), "two lengths")]
#[case::pax_garbage(many(&[(EntryType::XHeader, b"p", b"99 path=x\n"), (FILE, b"x", b"1")]), "pax header")]
#[case::pax_sparse(many(&[(EntryType::XHeader, b"p", b"22 GNU.sparse.major=1\n"), (FILE, b"x", b"1")]), "sparse")]
#[case::two_names(many(&[(EntryType::XHeader, b"p", b"10 path=x\n"), (EntryType::GNULongName, b"L", b"y\0"), (FILE, b"z", b"")]), "two names")]
#[case::name_alone(one(EntryType::GNULongName, b"L", b"x\0"), "without an entry")]
#[case::cut(one(FILE, b"a", &[7; 2000])[..1024].to_vec(), "instead of 2000")]
#[case::empty(vec![0; 1024], "holds nothing")]
#[case::nonsense(vec![b'x'; 2048], "cannot be read")]
#[case::many_entries((0..30).fold(Vec::new(), |mut out, n| { entry(&mut out, FILE, format!("f{n}").as_bytes(), b""); out }), "20 entries")]
#[case::much((0..19).fold(Vec::new(), |mut out, n| { entry(&mut out, FILE, format!("f{n}").as_bytes(), &vec![7; 60_000]); out }), "1048576 bytes in all")]
fn hostile_tar(#[case] bytes: Vec<u8>, #[case] says: &str) {
    for (found, how) in [
        (tar(bytes.as_slice(), small(), Links::Skip, &mut Kept::default()), "tar"),
        (
            tar_gz(gz(&bytes).as_slice(), small(), Links::Skip, &mut Kept::default()),
            "tar.gz",
        ),
    ] {
        let error = found.unwrap_err().to_string();
        assert!(error.contains(says), "{how}: {error}");
    }
}

/// Bytes without end, as a server could send them.
fn endless_gzip() -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::best());
    let mut head = Vec::new();
    entry(&mut head, FILE, b"a", b"");
    out.write_all(&head).unwrap();
    for _ in 0..20 {
        out.write_all(&vec![0; 1 << 20]).unwrap();
    }
    out.finish().unwrap()
}

#[rstest]
#[case::by_ratio(Limits { total: 1 << 30, ..Limits::default() }, "200 times its own size")]
#[case::by_total(Limits { total: 8 << 20, ..Limits::default() }, "8388608 bytes in all")]
fn a_bomb_behind_the_end_of_the_archive_goes_off_nowhere(#[case] limits: Limits, #[case] says: &str) {
    let error = tar_gz(endless_gzip().as_slice(), limits, Links::Skip, &mut Kept::default()).unwrap_err();
    assert!(error.to_string().contains(says), "{error}");
}

#[test]
fn damage_is_seen() {
    let mut bytes = gz(&one(FILE, b"a", b"content"));
    let at = bytes.len() - 6; // the checksum
    bytes[at] ^= 1;
    assert!(matches!(
        tar_gz(bytes.as_slice(), small(), Links::Skip, &mut Kept::default()),
        Err(UnpackError::Malformed(_))
    ));
}

#[test]
fn links_are_left_out_or_refused() {
    let bytes = many(&[(EntryType::Symlink, b"a", b""), (FILE, b"b", b"1")]);
    let mut kept = Kept::default();
    let done = tar(bytes.as_slice(), small(), Links::Skip, &mut kept).unwrap();
    assert_eq!((done.links, done.files, kept.files.len()), (1, 1, 1));
    let error = tar(bytes.as_slice(), small(), Links::Refuse, &mut Kept::default()).unwrap_err();
    assert!(error.to_string().contains("symbolic link"), "{error}");
}

#[test]
fn the_comment_of_git_and_long_names_are_read() {
    let long = format!("{}/file.yaml", "d".repeat(150));
    let mut name = long.clone().into_bytes();
    name.push(0);
    let pax = b"22 path=f\xc3\xbcr/uns.yaml\n";
    let bytes = many(&[
        (EntryType::XGlobalHeader, b"pax_global_header", b"19 comment=abcdefg\n"),
        (EntryType::GNULongName, b"././@LongLink", &name),
        (FILE, b"cut", b"1"),
        (EntryType::XHeader, b"p", pax),
        (FILE, b"cut", b"2"),
        (EntryType::Directory, b"./", b""),
    ]);
    let mut kept = Kept::default();
    tar(bytes.as_slice(), Limits::default(), Links::Refuse, &mut kept).unwrap();
    assert_eq!(kept.files.keys().collect::<Vec<_>>(), [&long, "für/uns.yaml"]);
}

#[test]
fn a_sink_that_fails_is_not_the_archives_fault() {
    struct Full;
    impl Sink for Full {
        fn folder(&mut self, _: &EntryPath) -> io::Result<()> {
            Ok(())
        }
        fn file(&mut self, _: &EntryPath, _: Mode, _: &mut dyn Read) -> io::Result<()> {
            Err(io::ErrorKind::StorageFull.into())
        }
    }
    let found = tar(one(FILE, b"a", b"1").as_slice(), small(), Links::Skip, &mut Full);
    assert!(matches!(found, Err(UnpackError::Sink(error)) if error.kind() == io::ErrorKind::StorageFull));
}

#[rstest]
#[case(gz(b"x"), Some(Format::TarGz))]
#[case(one(FILE, b"a", b""), Some(Format::Tar))]
#[case(zip_of(&["a"], b""), Some(Format::Zip))]
#[case(zip_of(&[], b""), Some(Format::Zip))]
#[case(b"apiVersion: v1".to_vec(), None)]
#[case(Vec::new(), None)]
fn a_format_is_seen(#[case] bytes: Vec<u8>, #[case] format: Option<Format>) {
    assert_eq!(Format::detect(&bytes[..bytes.len().min(Format::HEAD)]), format);
}

#[test]
fn the_bytes_of_an_archive_are_fixed() {
    let files = BTreeMap::from([(path("manifests/app.yaml"), (Mode::Plain, b"kind: ConfigMap\n".to_vec()))]);
    let (bytes, measure) = packed(&files);
    // No name, time 0, no hint of a system (RFC 1952).
    assert_eq!(bytes[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
    assert_eq!((measure.digest, measure.size), (Digest::of(&bytes), bytes.len() as u64));
    // Changes of this digest change every user's revisions: say so in the changelog.
    assert_eq!(measure.digest.hex(), FIXED);
}

const FIXED: &str = "cc17ec15d0c829b701b23460a5417675e9434fb0f51b87ef64c4effe8ecb7453";

#[rstest]
#[case::out_of_order(&["b", "a"], "out of order")]
#[case::twice(&["a", "a"], "out of order")]
#[case::below_a_file(&["a", "a/b"], "below the file")]
#[case::folder_after_content(&["a/b", "a"], "out of order")]
fn what_is_no_tree_is_not_packed(#[case] names: &[&str], #[case] says: &str) {
    let mut packer = Packer::new(Vec::new());
    let found = names
        .iter()
        .try_for_each(|name| packer.file(&path(name), Mode::Plain, 1, &b"x"[..]));
    assert!(found.unwrap_err().to_string().contains(says));
}

#[rstest]
#[case(2, b"x")]
#[case(0, b"x")]
#[case(1, b"xy")]
fn a_wrong_length_is_seen(#[case] size: u64, #[case] content: &[u8]) {
    let found = Packer::new(Vec::new()).file(&path("a"), Mode::Plain, size, content);
    assert!(matches!(found, Err(PackError::Length { .. })));
}

fn some_files() -> impl Strategy<Value = BTreeMap<EntryPath, (Mode, Vec<u8>)>> {
    let name = proptest::collection::vec("[a-c.ä]{1,3}|[a-z]{90,120}", 1..4).prop_map(|segments| segments.join("/"));
    let mode = prop_oneof![Just(Mode::Plain), Just(Mode::Executable)];
    let file = (name, mode, proptest::collection::vec(any::<u8>(), 0..1500));
    proptest::collection::vec(file, 1..8).prop_map(|files| {
        let mut kept: BTreeMap<EntryPath, (Mode, Vec<u8>)> = BTreeMap::new();
        for (name, mode, bytes) in files {
            let Ok(path) = EntryPath::parse(&name) else { continue };
            if kept
                .keys()
                .all(|other| !other.is_around(&path) && !path.is_around(other))
            {
                kept.insert(path, (mode, bytes));
            }
        }
        kept.entry(path("zz")).or_insert((Mode::Plain, Vec::new()));
        kept
    })
}

fn read_back(kept: &Kept) -> BTreeMap<EntryPath, (Mode, Vec<u8>)> {
    kept.files
        .iter()
        .map(|(name, file)| (path(name), file.clone()))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_is_packed_is_unpacked_and_packs_to_the_same(files in some_files()) {
        let (bytes, measure) = packed(&files);
        prop_assert_eq!(&packed(&files).0, &bytes);
        let mut kept = Kept::default();
        let done = tar_gz(bytes.as_slice(), Limits::default(), Links::Refuse, &mut kept).unwrap();
        prop_assert_eq!(done.files, files.len() as u64);
        prop_assert_eq!(&read_back(&kept), &files);
        prop_assert_eq!(packed(&read_back(&kept)).1, measure);
        // Every folder is an entry, before what it holds.
        let folders: BTreeSet<String> =
            files.keys().flat_map(|file| file.ancestors().map(|folder| folder.to_string()).collect::<Vec<_>>()).collect();
        prop_assert_eq!(kept.folders.iter().cloned().collect::<BTreeSet<_>>(), folders);
    }

    /// The order of an upstream archive, its times, owners and compression do not matter.
    #[test]
    fn the_same_content_gives_the_same_bytes(files in some_files(), mtime in any::<u32>(), uid in 0_u64..9999, reverse: bool) {
        let mut names: Vec<_> = files.keys().collect();
        if reverse {
            names.reverse();
        }
        let mut builder = Builder::new(Vec::new());
        let mut zip_out = ZipWriter::new(Cursor::new(Vec::new()));
        for name in names {
            let (mode, bytes) = &files[name];
            let mut header = Header::new_ustar();
            header.set_mode(if *mode == Mode::Executable { 0o711 } else { 0o400 });
            header.set_mtime(mtime.into());
            header.set_uid(uid);
            header.set_username("somebody").unwrap();
            header.set_size(bytes.len() as u64);
            builder.append_data(&mut header, name.as_str(), bytes.as_slice()).unwrap();
            zip_out.start_file(name.as_str(), SimpleFileOptions::default().unix_permissions(mode.bits())).unwrap();
            zip_out.write_all(bytes).unwrap();
        }
        let upstream = builder.into_inner().unwrap();
        let (_, expected) = packed(&files);
        let mut kept = Kept::default();
        tar_gz(gz(&upstream).as_slice(), Limits::default(), Links::Refuse, &mut kept).unwrap();
        prop_assert_eq!(packed(&read_back(&kept)).1, expected);
        let mut kept = Kept::default();
        zip(zip_out.finish().unwrap(), Limits::default(), Links::Refuse, &mut kept).unwrap();
        prop_assert_eq!(packed(&read_back(&kept)).1, expected);
    }

    /// Whatever comes, it ends, and nothing outside reaches the sink.
    #[test]
    fn noise_is_survived(mut bytes in proptest::collection::vec(any::<u8>(), 0..3000), kind in 0..3, flips in proptest::collection::vec((0_usize..4000, any::<u8>()), 0..6)) {
        let files = BTreeMap::from([(path("a/b"), (Mode::Plain, bytes.clone()))]);
        match kind {
            0 => bytes = packed(&files).0,
            1 => bytes = zip_of(&["a/b"], &bytes),
            _ => bytes = one(FILE, b"a/b", &bytes),
        }
        for (at, value) in flips {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        let mut kept = Kept::default();
        let _ = match kind {
            0 => tar_gz(bytes.as_slice(), small(), Links::Skip, &mut kept),
            1 => zip(Cursor::new(bytes), small(), Links::Skip, &mut kept),
            _ => tar(bytes.as_slice(), small(), Links::Skip, &mut kept),
        };
        for name in kept.files.keys() {
            prop_assert!(EntryPath::parse(name).is_ok_and(|path| path.as_str() == name));
        }
    }
}
