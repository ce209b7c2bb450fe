use super::*;

fn zipped(write: impl FnOnce(&mut ZipWriter<Cursor<Vec<u8>>>)) -> Vec<u8> {
    let mut out = ZipWriter::new(Cursor::new(Vec::new()));
    write(&mut out);
    out.finish().unwrap().into_inner()
}

pub(super) fn zip_of(names: &[&str], body: &[u8]) -> Vec<u8> {
    zipped(|out| {
        for name in names {
            out.start_file(*name, SimpleFileOptions::default()).unwrap();
            out.write_all(body).unwrap();
        }
    })
}

/// Replaces a name by another of the same length, in both headers.
fn renamed(mut bytes: Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
    for at in 0..bytes.len() - from.len() {
        if bytes[at..].starts_with(from) {
            bytes[at..at + to.len()].copy_from_slice(to);
        }
    }
    bytes
}

#[rstest]
#[case::parent(renamed(zip_of(&["aa/x"], b"1"), b"aa/x", b"../x"), "`..`")]
#[case::absolute(renamed(zip_of(&["aaax"], b"1"), b"aaax", b"/etc"), "absolute")]
#[case::backslash(renamed(zip_of(&["aaax"], b"1"), b"aaax", b"..\\x"), "`\\`")]
#[case::nul(renamed(zip_of(&["aaax"], b"1"), b"aaax", b"a\0ax"), "control")]
#[case::twice(renamed(zip_of(&["aaax", "bbbx"], b"1"), b"bbbx", b"aaax"), "one name")]
#[case::twice_by_dot(renamed(zip_of(&["x", "aax"], b"1"), b"aax", b"./x"), "two entries")]
#[case::file_as_folder(renamed(zip_of(&["a", "bbb"], b"1"), b"bbb", b"a/b"), "two entries")]
#[case::large(zip_of(&["a"], &vec![7; 70_000]), "65536 bytes in one file")]
#[case::many(zip_of(&(0..30).map(|n| ["a", "b", "c", "d", "e"][n % 5].repeat(n + 1)).collect::<Vec<_>>().iter().map(String::as_str).collect::<Vec<_>>(), b""), "20 entries")]
#[case::deep(zip_of(&["a/b/c/d/e"], b"1"), "4 segments")]
#[case::link_refused(zipped(|out| out.add_symlink("a", "/etc/passwd", SimpleFileOptions::default()).unwrap()), "symbolic link")]
#[case::nonsense(vec![b'x'; 2048], "no end record")]
#[case::empty(Vec::new(), "no end record")]
#[case::cut({ let bytes = zip_of(&["a"], b"1"); bytes[30..].to_vec() }, "cannot be read")]
fn hostile_zip(#[case] bytes: Vec<u8>, #[case] says: &str) {
    let error = zip(Cursor::new(bytes), small(), Links::Refuse, &mut Kept::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains(says), "{error}");
}

#[rstest]
#[case::by_ratio(Limits { ratio: 20, ..Limits::default() }, "20 times")]
#[case::by_total(Limits { total: 8 << 20, ..Limits::default() }, "8388608 bytes in all")]
#[case::by_file(Limits { file: 8 << 20, ..Limits::default() }, "8388608 bytes in one file")]
fn a_zip_bomb(#[case] limits: Limits, #[case] says: &str) {
    let bytes = zip_of(&["a"], &vec![0; 20 << 20]);
    let error = zip(Cursor::new(bytes), limits, Links::Skip, &mut Kept::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains(says), "{error}");
}

#[test]
fn a_zip_that_understates_its_sizes_does_not_pass() {
    let bytes = zip_of(&["a"], &vec![7; 50_000]);
    let lying = renamed(bytes, &50_000_u32.to_le_bytes(), &50_u32.to_le_bytes());
    assert!(zip(Cursor::new(lying), small(), Links::Skip, &mut Kept::default()).is_err());
}
