//! The archive: the data in the form that the spec asks for. Blocking, in a thread of its own.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use trellis_sources::{
    archive::{self, Format, Limits, Links, Mode, PackError, Packer, Sink, UnpackError},
    destination::{Naming, default_name},
    failure::Failure,
    measure::Measure,
    path::EntryPath,
    reason::Reason,
    revision::RevisionId,
    shape::{Content, Entry as Shaped, Kustomization, NO_MANIFEST, Payload, Shape, holds_manifest, no_manifest},
};

use super::{super::order::Inner, Failed};

/// Longest `Chart.yaml` that is read, in bytes.
const CHART_LIMIT: u64 = 1 << 20;

/// An archive on its way to the storage.
pub(super) struct Archived {
    pub(super) file: PathBuf,
    pub(super) measure: Measure,
    pub(super) id: RevisionId,
    pub(super) warnings: Vec<String>,
}

/// A file of the archive.
struct Entry {
    path: EntryPath,
    mode: Mode,
    size: u64,
    from: From,
}

enum From {
    File(PathBuf),
    Bytes(Vec<u8>),
}

/// The largest file of objects that is looked at although it is packed as it came, in bytes.
const LOOK_LIMIT: u64 = 1 << 20;

/// How large data may be to be read whole; none: it is not read whole, whatever its size.
pub(super) fn reads(order: &Inner) -> Option<u64> {
    match order.shape {
        Shape::Raw => Some(LOOK_LIMIT),
        _ => order.shape.reads(),
    }
}

/// Packs the file `body` into one in `folder`.
pub(super) fn pack(
    order: &Inner,
    folder: &Path,
    (body, size): (&Path, u64),
    content_type: Option<&str>,
    limits: Limits,
) -> Result<Archived, Failed> {
    let (mut entries, mut warnings) = if order.shape == Shape::Archive {
        unpacked(order, folder, body, limits)?
    } else {
        shaped(order, body, size, content_type)?
    };
    entries.sort_by(|one, other| one.path.cmp(&other.path));
    if !holds_manifest(entries.iter().map(|entry| &entry.path))
        && !warnings.iter().any(|warning| warning == NO_MANIFEST)
    {
        warnings.push(NO_MANIFEST.to_owned());
    }
    let id = id(&entries)?;
    if id != RevisionId::latest() {
        // A chart is for Helm.
        warnings.retain(|warning| warning != NO_MANIFEST);
    }
    let file = folder.join("artifact");
    let out = File::create(&file).map_err(|error| Failed::spool(&error))?;
    let mut packer = Packer::new(out);
    for entry in &entries {
        let packed = match &entry.from {
            From::Bytes(bytes) => packer.file(&entry.path, entry.mode, entry.size, bytes.as_slice()),
            From::File(path) => {
                let content = File::open(path).map_err(|error| Failed::spool(&error))?;
                packer.file(&entry.path, entry.mode, entry.size, content)
            }
        };
        packed.map_err(unpackable)?;
    }
    let (out, measure) = packer.finish().map_err(unpackable)?;
    out.sync_all().map_err(|error| Failed::spool(&error))?;
    leave(folder, &file).map_err(|error| Failed::spool(&error))?;
    Ok(Archived {
        file,
        measure,
        id,
        warnings,
    })
}

/// Removes everything else.
fn leave(folder: &Path, file: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.path() == file {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn unpackable(error: PackError) -> Failed {
    match error {
        PackError::Io(error) => Failed::spool(&error),
        error => Failed::of(Failure::Payload(Reason::PermanentError.refuse(error.to_string()))),
    }
}

/// The data as one file, or as an object around it.
fn shaped(
    order: &Inner,
    body: &Path,
    size: u64,
    content_type: Option<&str>,
) -> Result<(Vec<Entry>, Vec<String>), Failed> {
    let payload = |refusal| Failed::of(Failure::Payload(refusal));
    let whole = match order.shape.reads() {
        Some(limit) if size > limit => return Err(payload(order.shape.too_large(size))),
        Some(_) => Some(fs::read(body).map_err(|error| Failed::spool(&error))?),
        None => None,
    };
    let default = default_name(&order.link, content_type, order.shape.naming());
    let kustomization = order.kustomization.then_some(Kustomization::Resource);
    let read = whole.as_deref().map_or(Payload::Spooled, Payload::Whole);
    let shaped = order
        .shape
        .keyed(&default_name(&order.link, content_type, Naming::AsIs))
        .shape(&order.destination, &default, kustomization.as_ref(), read)
        .map_err(payload)?;
    let mut warnings = shaped.warnings;
    warnings.extend(no_objects(order, &shaped.entries, body, size)?);
    let entries = shaped.entries.into_iter().map(|entry| match entry.content {
        Content::Payload => Entry {
            path: entry.path,
            mode: entry.mode,
            size,
            from: From::File(body.to_owned()),
        },
        Content::Bytes(bytes) => Entry {
            path: entry.path,
            mode: entry.mode,
            size: bytes.len() as u64,
            from: From::Bytes(bytes),
        },
    });
    Ok((entries.collect(), warnings))
}

/// What the user should know where a file that is named like a manifest is none.
fn no_objects(order: &Inner, entries: &[Shaped], body: &Path, size: u64) -> Result<Option<String>, Failed> {
    let named = entries
        .iter()
        .find(|entry| entry.content == Content::Payload && entry.path.is_manifest());
    let Some(file) = named.filter(|_| order.shape == Shape::Raw && size <= LOOK_LIMIT) else {
        return Ok(None);
    };
    let bytes = fs::read(body).map_err(|error| Failed::spool(&error))?;
    Ok(no_manifest(&file.path, &bytes))
}

/// The files of the archive that the data is.
fn unpacked(order: &Inner, folder: &Path, body: &Path, limits: Limits) -> Result<(Vec<Entry>, Vec<String>), Failed> {
    let mut input = File::open(body).map_err(|error| Failed::spool(&error))?;
    let mut head = Vec::new();
    let read = (&mut input).take(Format::HEAD as u64).read_to_end(&mut head);
    read.map_err(|error| Failed::spool(&error))?;
    let input = File::open(body).map_err(|error| Failed::spool(&error))?;
    let place = folder.join("files");
    fs::create_dir(&place).map_err(|error| Failed::spool(&error))?;
    let mut files = Files {
        order,
        place,
        entries: Vec::new(),
    };
    let links = Links::Skip;
    let done = match Format::detect(&head) {
        Some(Format::TarGz) => archive::tar_gz(input, limits, links, &mut files),
        Some(Format::Tar) => archive::tar(input, limits, links, &mut files),
        Some(Format::Zip) => archive::zip(input, limits, links, &mut files),
        _ => {
            return Err(Failed::of(Failure::Payload(
                Reason::PermanentError
                    .refuse("the data is no archive of tar, gzip-compressed or not, or of zip")
                    .hint("set spec.output.as to Raw, or correct what the source serves"),
            )));
        }
    };
    let done = done.map_err(|error| match error {
        UnpackError::Sink(error) => Failed::spool(&error),
        UnpackError::Limit { .. } => Failed::of(Failure::Payload(Reason::SizeLimitExceeded.refuse(error.to_string()))),
        error => Failed::of(Failure::Payload(Reason::PermanentError.refuse(error.to_string()))),
    })?;
    if files.entries.is_empty() {
        return Err(Failed::of(Failure::Payload(
            Reason::PermanentError
                .refuse("nothing of the archive is left")
                .hint("correct spec.output.archive, which says what is taken"),
        )));
    }
    let links = (done.links > 0).then(|| format!("{} symbolic links were left out", done.links));
    Ok((files.entries, links.into_iter().collect()))
}

/// Keeps what is unpacked, under numbers: names of upstream are names in the archive only.
struct Files<'a> {
    order: &'a Inner,
    place: PathBuf,
    entries: Vec<Entry>,
}

impl Files<'_> {
    /// The path that the entry has in the artifact; none: it is not taken.
    fn placed(&self, path: &EntryPath) -> Option<io::Result<EntryPath>> {
        let cut: Vec<&str> = path.segments().skip(self.order.unpack.strip).collect();
        let mut path = EntryPath::parse(&cut.join("/")).ok()?;
        if let Some(below) = &self.order.unpack.below {
            path = EntryPath::parse(path.as_str().strip_prefix(below.as_str())?.strip_prefix('/')?).ok()?;
        }
        let placed = match self.order.destination.folder() {
            None => Ok(path),
            Some(folder) => folder.join(&path),
        };
        Some(placed.map_err(io::Error::other))
    }
}

impl Sink for Files<'_> {
    fn folder(&mut self, _: &EntryPath) -> io::Result<()> {
        // Folders come back around their files.
        Ok(())
    }

    fn file(&mut self, path: &EntryPath, mode: Mode, content: &mut dyn Read) -> io::Result<()> {
        let Some(path) = self.placed(path) else { return Ok(()) };
        let path = path?;
        let at = self.place.join(self.entries.len().to_string());
        let size = io::copy(content, &mut File::create(&at)?)?;
        self.entries.push(Entry {
            path,
            mode,
            size,
            from: From::File(at),
        });
        Ok(())
    }
}

/// The version of the chart that the archive is, if it is one: one folder with a `Chart.yaml` in it.
fn id(entries: &[Entry]) -> Result<RevisionId, Failed> {
    let mut folders = entries.iter().map(|entry| entry.path.segments().next());
    let first = folders.next().flatten();
    let one = folders.all(|folder| folder == first);
    let chart = first.filter(|_| one).map(|folder| format!("{folder}/Chart.yaml"));
    let chart = chart.and_then(|chart| entries.iter().find(|entry| entry.path.as_str() == chart));
    let Some(chart) = chart else {
        return Ok(RevisionId::latest());
    };
    let text = match &chart.from {
        From::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        From::File(path) => {
            let mut bytes = Vec::new();
            let read = File::open(path).and_then(|file| file.take(CHART_LIMIT).read_to_end(&mut bytes));
            read.map_err(|error| Failed::spool(&error))?;
            String::from_utf8_lossy(&bytes).into_owned()
        }
    };
    RevisionId::of_chart(&text).map_err(|refusal| Failed::of(Failure::Payload(refusal)))
}
