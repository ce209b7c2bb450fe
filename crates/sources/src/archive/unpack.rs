//! Reading tar, plain and in gzip.
//!
//! Extension headers (long names of GNU and of pax) are read here, because the tar crate reads them whole, whatever their
//! length. A length in a pax header that differs from the header's own is refused: readers disagree about which one counts.

use std::{
    cell::Cell,
    io::{self, Read},
    rc::Rc,
};

use flate2::read::MultiGzDecoder;
use tar::{Archive, EntryType};

use super::{
    Limits, Links, Sink, UnpackError, Unpacked,
    bounded::{Bounded, Counted, understood},
    source::{Walk, kind},
};
use crate::path::{PATH_LIMIT, PathError};

/// Longest extension header, in bytes. Paths that we take are shorter.
const EXTENSION: u64 = 64 * 1024;

/// Unpacks gzip around tar, to the end of the stream, so that the checksum counts.
///
/// # Errors
/// See [`UnpackError`]. What the sink was given before is to be thrown away.
pub fn tar_gz(input: impl Read, limits: Limits, links: Links, sink: &mut dyn Sink) -> Result<Unpacked, UnpackError> {
    let (counted, stored) = Counted::new(input);
    walk(MultiGzDecoder::new(counted), stored, limits, links, sink)
}

/// Unpacks tar.
///
/// # Errors
/// See [`UnpackError`]. What the sink was given before is to be thrown away.
pub fn tar(input: impl Read, limits: Limits, links: Links, sink: &mut dyn Sink) -> Result<Unpacked, UnpackError> {
    let (counted, stored) = Counted::new(input);
    walk(counted, stored, limits, links, sink)
}

fn walk(
    input: impl Read,
    stored: Rc<Cell<u64>>,
    limits: Limits,
    links: Links,
    sink: &mut dyn Sink,
) -> Result<Unpacked, UnpackError> {
    let bounded = Bounded::new(input, limits, stored, Rc::new(Cell::new(0)));
    let mut archive = Archive::new(bounded);
    let mut walk = Walk::new(limits, links, sink);
    let mut next = Extension::default();
    let mut headers = 0_u64;
    for entry in archive.entries().map_err(|error| understood(&error))?.raw(true) {
        let mut entry = entry.map_err(|error| understood(&error))?;
        headers += 1;
        walk.count()?;
        let size = entry.size();
        let kind_of = entry.header().entry_type();
        match kind_of {
            EntryType::GNULongName => next.long_name(extension(&mut entry, size)?)?,
            EntryType::XHeader => next.pax(&extension(&mut entry, size)?)?,
            // The target of a link that is left out or refused, and the comment that git writes.
            EntryType::GNULongLink | EntryType::XGlobalHeader => {
                extension(&mut entry, size)?;
            }
            _ => {
                let extension = std::mem::take(&mut next);
                if extension.size.is_some_and(|told| told != size) {
                    return Err(UnpackError::Malformed("an entry has two lengths".to_owned()));
                }
                let name = extension
                    .path
                    .unwrap_or_else(|| entry.header().path_bytes().into_owned());
                match kind_of {
                    EntryType::Regular | EntryType::Continuous if name.ends_with(b"/") => walk.folder(&name)?,
                    EntryType::Regular | EntryType::Continuous => {
                        let mode = entry.header().mode().map_err(|error| understood(&error))?;
                        walk.file(&name, mode, size, &mut entry)?;
                    }
                    EntryType::Directory => walk.folder(&name)?,
                    EntryType::Symlink => walk.link(&name)?,
                    EntryType::Link => return Err(kind(&name, "hard link")),
                    EntryType::Char | EntryType::Block => return Err(kind(&name, "device")),
                    EntryType::Fifo => return Err(kind(&name, "named pipe")),
                    EntryType::GNUSparse => return Err(kind(&name, "sparse file")),
                    _ => return Err(kind(&name, "entry of an unknown kind")),
                }
            }
        }
    }
    if next != Extension::default() {
        return Err(UnpackError::Malformed(
            "it ends after a name without an entry".to_owned(),
        ));
    }
    let done = walk.done;
    let mut rest = archive.into_inner();
    io::copy(&mut rest, &mut io::sink()).map_err(|error| understood(&error))?;
    if headers == 0 {
        return Err(UnpackError::Malformed("it holds nothing".to_owned()));
    }
    Ok(done)
}

fn extension(entry: &mut impl Read, size: u64) -> Result<Vec<u8>, UnpackError> {
    if size > EXTENSION {
        return Err(UnpackError::Limit {
            bound: format!("{EXTENSION} bytes in an extension header"),
        });
    }
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).map_err(|error| understood(&error))?;
    if bytes.len() as u64 == size {
        Ok(bytes)
    } else {
        Err(UnpackError::Malformed("it ends within an extension header".to_owned()))
    }
}

/// What extension headers say of the entry that follows.
#[derive(Debug, Default, PartialEq, Eq)]
struct Extension {
    path: Option<Vec<u8>>,
    size: Option<u64>,
}

impl Extension {
    fn long_name(&mut self, mut name: Vec<u8>) -> Result<(), UnpackError> {
        if name.last() == Some(&0) {
            name.pop();
        }
        self.name(name)
    }

    fn name(&mut self, name: Vec<u8>) -> Result<(), UnpackError> {
        if name.len() > PATH_LIMIT {
            return Err(UnpackError::Path {
                name: String::from_utf8_lossy(name.get(..100).unwrap_or_default()).into_owned(),
                why: PathError::TooLong,
            });
        }
        match self.path.replace(name) {
            None => Ok(()),
            Some(_) => Err(UnpackError::Malformed("an entry has two names".to_owned())),
        }
    }

    /// Records of the form `<length> <key>=<value>\n` (POSIX.1-2001, pax).
    fn pax(&mut self, mut rest: &[u8]) -> Result<(), UnpackError> {
        let malformed = || UnpackError::Malformed("a pax header cannot be read".to_owned());
        while !rest.is_empty() {
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let (number, after) = rest.split_at_checked(digits).ok_or_else(malformed)?;
            let length: usize = std::str::from_utf8(number)
                .ok()
                .and_then(|n| n.parse().ok())
                .ok_or_else(malformed)?;
            let inside = length
                .checked_sub(digits)
                .and_then(|length| after.split_at_checked(length));
            let (record, next) = inside.ok_or_else(malformed)?;
            let record = record
                .strip_prefix(b" ")
                .and_then(|record| record.strip_suffix(b"\n"))
                .ok_or_else(malformed)?;
            let at = record.iter().position(|byte| *byte == b'=').ok_or_else(malformed)?;
            let (key, value) = record.split_at_checked(at).ok_or_else(malformed)?;
            let value = value.strip_prefix(b"=").ok_or_else(malformed)?;
            match key {
                b"path" => self.name(value.to_vec())?,
                b"size" => {
                    let size = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                    self.size = Some(size.ok_or_else(malformed)?);
                }
                _ if key.starts_with(b"GNU.sparse.") => return Err(kind(b"pax", "sparse file")),
                _ => {}
            }
            rest = next;
        }
        Ok(())
    }
}
