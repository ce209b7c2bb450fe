//! Bodies that are bombs, lead out of their archive, or are not what was promised.

use std::{
    fmt::Write as _,
    io::{Cursor, Write as _},
};

use flate2::{Compression, write::GzEncoder};
use serde_json::json;
use tar::{EntryType, Header};
use zip::{ZipWriter, write::SimpleFileOptions};

use super::{Case, SECRET, Then, prove, site, yaml};
use crate::{
    archive::{archive, config_map},
    wire::{Act, answers},
};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::best());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

/// A `.tar.gz` with one entry, whatever its name.
fn entry(kind: EntryType, name: &[u8], body: &[u8]) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name);
    header.set_entry_type(kind);
    header.set_size(body.len().try_into().unwrap());
    header.set_mode(0o644);
    if kind != EntryType::Regular {
        header.set_link_name("/etc/passwd").unwrap();
    }
    header.set_cksum();
    let mut tar = tar::Builder::new(Vec::new());
    tar.append(&header, body).unwrap();
    gzip(&tar.into_inner().unwrap())
}

/// A zip with one file. The name is put in afterwards, as no writer takes one that leads out.
fn zipped(name: &str, body: &[u8]) -> Vec<u8> {
    let mut out = ZipWriter::new(Cursor::new(Vec::new()));
    let plain = "x".repeat(name.len());
    out.start_file(&plain, SimpleFileOptions::default()).unwrap();
    out.write_all(body).unwrap();
    let mut bytes = out.finish().unwrap().into_inner();
    for at in 0..bytes.len() - name.len() {
        if bytes[at..].starts_with(plain.as_bytes()) {
            bytes[at..at + name.len()].copy_from_slice(name.as_bytes());
        }
    }
    bytes
}

fn body(bytes: &[u8]) -> Act {
    answers("200 OK", "content-type: application/octet-stream\r\n", bytes)
}

/// An archive that turns bad.
fn archived(name: &'static str, bad: &[u8], reason: &'static str, says: &str) -> Case {
    let says = format!("the payload cannot be used: {says}");
    let mut case = Case::new(name, body(bad), reason, says, Then::Interval);
    case.good = ["1", "2"].map(|number| body(&archive(&[("app.yaml", &config_map("one", "number", number))])));
    case.path = format!("app.tgz?token={SECRET}");
    case.spec = json!({ "output": { "as": "Archive" } });
    case.http = json!({ "maxBytes": 1 << 20 });
    case
}

/// What a proxy says instead of what was asked for.
const HTML: &[u8] = b"<!doctype html>\n<title>Sign in</title>\n<p>Please: sign in\n";

/// Nothing is unpacked beyond its limits or out of its folder.
#[tokio::test(flavor = "multi_thread")]
async fn an_archive_is_not_unpacked_beyond_its_limits_or_out_of_its_folder() {
    let site = site("hostile-archives").await;
    let zeros = vec![0; 40 << 20];
    let out = |name: &str, why: &str| format!("the archive has an entry {name:?} that cannot be kept: {why}");
    let cases = vec![
        archived(
            "zip-bomb",
            &zipped("bomb", &zeros),
            "SizeLimitExceeded",
            "the archive exceeds 200 times its own size",
        ),
        archived(
            "tar-bomb",
            &entry(EntryType::Regular, b"bomb", &zeros),
            "SizeLimitExceeded",
            "the archive exceeds 200 times its own size",
        ),
        archived(
            "zip-up",
            &zipped("../../x.yaml", b"x"),
            "PermanentError",
            &out("../../x.yaml", "the path has a `..` segment"),
        ),
        archived(
            "tar-up",
            &entry(EntryType::Regular, b"a/../../x.yaml", b"x"),
            "PermanentError",
            &out("a/../../x.yaml", "the path has a `..` segment"),
        ),
        archived(
            "tar-absolute",
            &entry(EntryType::Regular, b"/etc/x.yaml", b"x"),
            "PermanentError",
            &out("/etc/x.yaml", "the path is absolute"),
        ),
        archived(
            "tar-backslash",
            &entry(EntryType::Regular, b"..\\x.yaml", b"x"),
            "PermanentError",
            &out("..\\x.yaml", "the path has a `\\`"),
        ),
        archived(
            "hard-link",
            &entry(EntryType::Link, b"x.yaml", b""),
            "PermanentError",
            "the archive has an entry \"x.yaml\" that is a hard link",
        ),
        archived(
            "device",
            &entry(EntryType::Char, b"x.yaml", b""),
            "PermanentError",
            "the archive has an entry \"x.yaml\" that is a device",
        ),
        archived(
            "links-alone",
            &entry(EntryType::Symlink, b"x.yaml", b""),
            "PermanentError",
            "nothing of the archive is left; hint: correct spec.output.archive, which says what is taken",
        ),
        archived(
            "no-archive",
            HTML,
            "PermanentError",
            "the data is no archive of tar, gzip-compressed or not, or of zip; hint: set spec.output.as to Raw, or correct \
             what the source serves",
        ),
    ];
    prove(&site, cases).await;
}

/// A payload that is not what the spec promises is not published.
#[tokio::test(flavor = "multi_thread")]
async fn a_payload_that_is_not_what_was_promised_is_not_published() {
    let site = site("hostile-payload").await;
    let encoded = "content-type: application/yaml\r\ncontent-encoding: gzip\r\n";
    let mut cases = vec![
        Case::new(
            "gzip-bomb",
            answers("200 OK", encoded, &gzip(&vec![0; 40 << 20])),
            "SizeLimitExceeded",
            "URL: the decompressed body has more bytes, more than the limit of 65536 bytes",
            Then::Interval,
        ),
        Case::new(
            "no-gzip",
            answers("200 OK", encoded, b"plain"),
            "PermanentError",
            "URL: the content coding cannot be undone: it is damaged or cut off",
            Then::Interval,
        ),
    ];
    let manifest = |name, bad: Act, reason: &'static str, says: &str| {
        let says = format!("the payload cannot be used: {says}");
        let mut case = Case::new(name, bad, reason, says, Then::Interval);
        case.spec = json!({ "output": { "as": "Manifest" } });
        case
    };
    let mut lists = manifest(
        "lists",
        yaml("lists", &format!("{{\"a\":[{}1]}}", "[],".repeat(1_000_000))),
        "SizeLimitExceeded",
        "the payload has more than 500000 values, where a key counts as one and an object as eight; hint: shape it as Raw \
         or Archive, or serve less",
    );
    lists.http = json!({ "maxBytes": 8 << 20 });
    cases.extend([
        lists,
        manifest(
            "html",
            answers("200 OK", "content-type: text/html\r\n", HTML),
            "PermanentError",
            "the payload looks like an HTML page; hint: it may be a login page, or one that says what is wrong: open its \
             address without credentials",
        ),
        manifest(
            "empty",
            answers("200 OK", "", b"# nothing\n"),
            "PermanentError",
            "the payload holds no Kubernetes object; hint: shape the payload as ConfigMap, Secret or Raw, or make objects \
             of it with a transform",
        ),
        manifest(
            "aliases",
            yaml("bomb", &aliases()),
            "SizeLimitExceeded",
            "a document of the payload expands beyond 250000 values, at line 5 column 45; hint: shape it as Raw or \
             Archive, or serve less",
        ),
    ]);
    prove(&site, cases).await;
}

/// The bomb of YAML: each line is ten times the one before.
fn aliases() -> String {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let each = vec![format!("*a{}", level - 1); 10].join(", ");
        writeln!(text, "a{level}: &a{level} [{each}]").unwrap();
    }
    text
}
