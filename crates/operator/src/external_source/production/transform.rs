//! The transforms of an order, one after another, in a thread where they may take their time.
//!
//! Invariant: a few at once, since each holds its payload; one that is shaped counts as one that is transformed.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::Path,
    sync::Arc,
};

use tokio::sync::{AcquireError, OwnedSemaphorePermit};
use trellis_sources::{failure::Failure, transform::Bounds};

use super::{super::Order, Data, Failed, Production, Progress, Step};

/// Payloads at once that are held whole, by transforms or to be shaped: each takes its memory several times.
pub(super) const PLACES: u32 = 2;
/// The payload that is held alone, in bytes.
const LARGE: u64 = 4 << 20;

impl Production {
    /// A place to hold a payload of so many bytes in. They are given in the order in which they are asked for.
    pub(super) async fn place(&self, bytes: u64) -> Result<OwnedSemaphorePermit, AcquireError> {
        let places = if bytes > LARGE { PLACES } else { 1 };
        Arc::clone(&self.places).acquire_many_owned(places).await
    }

    /// What the transforms make of the data.
    pub(super) async fn transformed(
        &self,
        order: &Order,
        folder: &Path,
        data: Data,
        progress: &Progress,
    ) -> Result<Data, Failed> {
        if order.inner().transforms.is_empty() {
            return Ok(data);
        }
        let place = self.place(data.size).await;
        let (order, progress) = (order.clone(), Arc::clone(progress));
        let file = folder.join("transformed");
        let working = tokio::task::spawn_blocking(move || {
            let _place = place;
            let bounds = Bounds::default();
            let mut payload = read(&data.file, bounds.input).map_err(|error| Failed::spool(&error))?;
            for (place, transform) in order.inner().transforms.iter().enumerate() {
                progress(Step::Transforming(place + 1));
                payload = transform
                    .run(&payload, &bounds)
                    .map_err(|refusal| Failed::of(Failure::Payload(refusal)))?;
            }
            fs::write(&file, &payload).map_err(|error| Failed::spool(&error))?;
            let size = payload.len() as u64;
            Ok(Data { file, size })
        });
        working.await.map_err(|error| Failed::defect(&error))?
    }
}

/// One byte more than may be transformed is enough to be refused.
fn read(file: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file)?.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}
