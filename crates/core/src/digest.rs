//! `Digest`: the SHA-256 of some bytes, and the running one.
//!
//! ```text
//!  bytes ─▶ Hasher ─▶ Digest ─▶ "<64 hex>" in keys, "sha256:<64 hex>" where the algorithm is said
//! ```
//!
//! Invariants: only SHA-256, only by aws-lc-rs; the text is lower-case, in the form of the OCI image specification and of
//! Flux.

use std::{
    fmt::{self, Write as _},
    str::FromStr,
};

use aws_lc_rs::digest::{Context, SHA256};

/// A SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// The text is no `sha256:<64 hex digits>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a digest of the form sha256:<64 hex digits>")]
pub struct DigestError;

impl Digest {
    /// The digest of bytes at hand.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::default();
        hasher.update(bytes);
        hasher.finish()
    }

    /// The 64 hex digits in lower case, without the algorithm.
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
        fmt::Display::fmt(self, out)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        Self::from_hex(text.strip_prefix("sha256:").ok_or(DigestError)?)
    }
}

/// A digest that is being computed.
#[derive(Clone)]
pub struct Hasher(Context);

impl Hasher {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of everything that was taken.
    #[must_use]
    pub fn finish(self) -> Digest {
        let mut digest = [0; 32];
        // SHA-256 gives 32 bytes; there is no other length to be surprised by.
        for (byte, computed) in digest.iter_mut().zip(self.0.finish().as_ref()) {
            *byte = *computed;
        }
        Digest(digest)
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self(Context::new(&SHA256))
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Hasher")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    /// From FIPS 180-4's examples.
    #[rstest]
    #[case(b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")]
    #[case(b"abc", ABC)]
    fn known_digests(#[case] bytes: &[u8], #[case] hex: &str) {
        assert_eq!(Digest::of(bytes).hex(), hex);
        assert_eq!(Digest::of(bytes).to_string(), format!("sha256:{hex}"));
        assert_eq!(format!("sha256:{hex}").parse(), Ok(Digest::of(bytes)));
    }

    #[rstest]
    #[case::bare(ABC)]
    #[case::short("sha256:ba78")]
    #[case::other("sha512:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")]
    #[case::upper("sha256:BA7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")]
    #[case::no_digit("sha256:ga7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")]
    #[case::nothing("")]
    fn no_digest(#[case] text: &str) {
        assert_eq!(text.parse::<Digest>(), Err(DigestError));
    }

    #[rstest]
    #[case::short("ab")]
    #[case::upper("E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855")]
    #[case::other("sha512:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")]
    #[case::wide("é3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b85")]
    fn no_digits(#[case] text: &str) {
        assert_eq!(Digest::from_hex(text), Err(DigestError));
        assert_eq!(text.parse::<Digest>(), Err(DigestError));
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter_and_texts_come_back(bytes: Vec<u8>, at: prop::sample::Index) {
            let (one, two) = bytes.split_at(at.index(bytes.len() + 1));
            let mut hasher = Hasher::default();
            hasher.update(one);
            hasher.update(two);
            let digest = hasher.finish();
            prop_assert_eq!(digest, Digest::of(&bytes));
            prop_assert_eq!(digest.to_string().parse(), Ok(digest));
            prop_assert_eq!(Digest::from_hex(&digest.hex()), Ok(digest));
        }
    }
}
