//! Archives as artifacts are, their digests, and what may be in them.

use aws_lc_rs::digest::{SHA256, digest};
use flate2::{Compression, write::GzEncoder};

/// A `.tar.gz` with these files (path, text), the same bytes for the same files.
pub(crate) fn archive(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    for (path, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len().try_into().unwrap());
        header.set_mode(0o644);
        tar.append_data(&mut header, path, text.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

/// The SHA-256 of bytes in hexadecimal digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    let digest = digest(&SHA256, bytes);
    let hexadecimal = |text, byte| format!("{text}{byte:02x}");
    digest.as_ref().iter().fold(String::new(), hexadecimal)
}

/// The manifest of a `ConfigMap` with one key.
pub(crate) fn config_map(name: &str, key: &str, value: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\ndata:\n  {key}: \"{value}\"\n")
}
