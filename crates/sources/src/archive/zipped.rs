//! Reading zip. The directory is at the end, so this needs a file rather than a stream.

use std::{
    cell::Cell,
    io::{Read, Seek, SeekFrom},
    rc::Rc,
};

use zip::{CompressionMethod, ZipArchive, result::ZipError};

use super::{
    Limits, Links, Sink, UnpackError, Unpacked,
    bounded::{Bounded, understood},
    source::{Walk, kind},
};

/// The end record with the longest comment.
const TAIL: u64 = 22 + 65_535;
/// What starts an end record.
const END: [u8; 4] = [b'P', b'K', 5, 6];
/// The kind of file in a mode.
const KIND: u32 = 0o170_000;

/// Unpacks zip: stored and deflated entries, without encryption.
///
/// # Errors
/// See [`UnpackError`]. What the sink was given before is to be thrown away.
pub fn zip(
    mut input: impl Read + Seek,
    limits: Limits,
    links: Links,
    sink: &mut dyn Sink,
) -> Result<Unpacked, UnpackError> {
    let size = announced(&mut input, &limits)?;
    let mut archive = ZipArchive::new(input).map_err(of_zip)?;
    if archive.has_duplicate_names() {
        return Err(UnpackError::Malformed("two entries have one name".to_owned()));
    }
    let (stored, out) = (Rc::new(Cell::new(size)), Rc::new(Cell::new(0)));
    let mut walk = Walk::new(limits, links, sink);
    for index in 0..archive.len() {
        walk.count()?;
        let mut file = archive.by_index(index).map_err(of_zip)?;
        let name = file.name_raw().to_vec();
        if file.encrypted() {
            return Err(kind(&name, "encrypted file"));
        }
        if !matches!(
            file.compression(),
            CompressionMethod::Stored | CompressionMethod::Deflated
        ) {
            return Err(kind(&name, "file of a compression that is not read"));
        }
        let mode = file.unix_mode().unwrap_or(0o644);
        match mode & KIND {
            0o120_000 => walk.link(&name)?,
            _ if file.is_dir() => walk.folder(&name)?,
            0 | 0o100_000 => {
                let announced = file.size();
                let content = Bounded::new(&mut file, limits, Rc::clone(&stored), Rc::clone(&out));
                walk.file(&name, mode, announced, content)?;
            }
            _ => return Err(kind(&name, "device, pipe or socket")),
        }
    }
    Ok(walk.done)
}

/// The archive's size, after every end record in its tail was seen to announce no more entries than we take: the zip crate
/// reads the whole directory before it can be asked how long it is.
fn announced(input: &mut (impl Read + Seek), limits: &Limits) -> Result<u64, UnpackError> {
    let io = |error: std::io::Error| understood(&error);
    let size = input.seek(SeekFrom::End(0)).map_err(io)?;
    input.seek(SeekFrom::Start(size.saturating_sub(TAIL))).map_err(io)?;
    let mut tail = Vec::new();
    input.take(TAIL).read_to_end(&mut tail).map_err(io)?;
    input.rewind().map_err(io)?;
    let mut records = 0;
    for record in tail.windows(22).filter(|window| window.starts_with(&END)) {
        records += 1;
        let entries = match record {
            [_, _, _, _, _, _, _, _, _, _, low, high, ..] => u64::from(u16::from_le_bytes([*low, *high])),
            _ => 0,
        };
        if entries > limits.entries {
            return Err(UnpackError::Limit {
                bound: format!("{} entries", limits.entries),
            });
        }
    }
    if records == 0 {
        return Err(UnpackError::Malformed("it has no end record".to_owned()));
    }
    Ok(size)
}

fn of_zip(error: ZipError) -> UnpackError {
    match error {
        ZipError::Io(error) => understood(&error),
        other => UnpackError::Malformed(other.to_string()),
    }
}
