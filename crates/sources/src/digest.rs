//! `Digest`: the SHA-256 of an artifact's bytes as they are downloaded.
//!
//! Invariant: only SHA-256, by the one crypto library; the text form is that of Flux, `sha256:` and 64 hex digits in lower
//! case.

use std::{
    fmt::{self, Write as _},
    io::{self, Write},
    str::FromStr,
};

use aws_lc_rs::digest::{Context, SHA256};
use thiserror::Error;

/// A SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// The text is no `sha256:<64 hex digits>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a digest of the form sha256:<64 hex digits>")]
pub struct DigestError;

impl Digest {
    /// The digest of bytes at hand.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_slice(aws_lc_rs::digest::digest(&SHA256, bytes).as_ref())
    }

    /// SHA-256 gives 32 bytes; there is no other length to be surprised by.
    fn from_slice(bytes: &[u8]) -> Self {
        let mut digest = [0; 32];
        for (to, from) in digest.iter_mut().zip(bytes) {
            *to = *from;
        }
        Self(digest)
    }

    /// 64 hex digits in lower case.
    #[must_use]
    pub fn hex(&self) -> String {
        self.0.iter().fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a String does not fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// Reads 64 hex digits in lower case.
    ///
    /// # Errors
    /// It is anything else.
    pub fn from_hex(hex: &str) -> Result<Self, DigestError> {
        let nibble = |byte: u8| match byte {
            b'0'..=b'9' => Ok(byte - b'0'),
            b'a'..=b'f' => Ok(byte - b'a' + 10),
            _ => Err(DigestError),
        };
        if hex.len() != 64 {
            return Err(DigestError);
        }
        let mut digest = [0; 32];
        for (to, pair) in digest.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            for byte in pair {
                *to = *to << 4 | nibble(*byte)?;
            }
        }
        Ok(Self(digest))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        Self::from_hex(text.strip_prefix("sha256:").ok_or(DigestError)?)
    }
}

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
    hash: Context,
    size: u64,
}

impl<W> Measured<W> {
    /// Measures what is written to `inner` from now on.
    pub fn new(inner: W) -> Self {
        Self {
            inner,
            hash: Context::new(&SHA256),
            size: 0,
        }
    }

    /// The writer, and what went through.
    pub fn finish(self) -> (W, Measure) {
        let digest = Digest::from_slice(self.hash.finish().as_ref());
        (
            self.inner,
            Measure {
                digest,
                size: self.size,
            },
        )
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
    use rstest::rstest;

    use super::*;

    /// FIPS 180-2, appendix B.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn the_standards_example() {
        assert_eq!(Digest::of(b"abc").to_string(), format!("sha256:{ABC}"));
        assert_eq!(format!("sha256:{ABC}").parse(), Ok(Digest::of(b"abc")));
    }

    #[rstest]
    #[case(ABC)]
    #[case("sha256:ba78")]
    #[case("sha512:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")]
    #[case("sha256:BA7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")]
    #[case("sha256:ga7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")]
    #[case("")]
    fn no_digest(#[case] text: &str) {
        assert_eq!(text.parse::<Digest>(), Err(DigestError));
    }

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
