//! `Measure`: digest and size of what passes through a writer.

use std::io::{self, Write};

use trellis_core::digest::{Digest, Hasher};

/// What passed through a [`Measured`] writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measure {
    /// SHA-256 of all bytes.
    pub digest: Digest,
    /// How many bytes.
    pub size: u64,
}

/// A writer that measures what it passes on.
pub struct Measured<W> {
    inner: W,
    hash: Hasher,
    size: u64,
}

impl<W> Measured<W> {
    /// Measures what is written to `inner` from now on.
    pub fn new(inner: W) -> Self {
        Self {
            inner,
            hash: Hasher::default(),
            size: 0,
        }
    }

    /// The writer, and what went through.
    pub fn finish(self) -> (W, Measure) {
        let measure = Measure {
            digest: self.hash.finish(),
            size: self.size,
        };
        (self.inner, measure)
    }
}

impl<W: Write> Write for Measured<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.inner.write(bytes)?;
        // A writer that claims more than it was given is cut to what there was.
        let passed = bytes.get(..taken).unwrap_or(bytes);
        self.hash.update(passed);
        self.size += passed.len() as u64;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn in_pieces_or_at_once(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 0_usize..300) {
            let cut = cut.min(bytes.len());
            let mut writer = Measured::new(Vec::new());
            writer.write_all(&bytes[..cut]).unwrap();
            writer.write_all(&bytes[cut..]).unwrap();
            let (out, measure) = writer.finish();
            prop_assert_eq!(measure, Measure { digest: Digest::of(&out), size: bytes.len() as u64 });
            prop_assert_eq!(measure.digest.to_string().parse(), Ok(measure.digest));
        }
    }
}
