//! `Digest`: the SHA-256 of some bytes, and the running one.
//!
//! ```text
//!  bytes ─▶ Hasher ─▶ Digest ─▶ "<64 hex>" in keys, "sha256:<64 hex>" where the algorithm is said
//! ```
//!
//! Invariants: only SHA-256, only by aws-lc-rs; the text is lower-case.

use std::{fmt, str::FromStr};

use aws_lc_rs::digest::{Context, SHA256};

/// A text is not the digest that it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a SHA-256 digest: 64 lower-case hexadecimal digits, with or without `sha256:` before them")]
pub struct InvalidDigest {
    text: String,
}

/// The SHA-256 of a file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::default();
        hasher.update(bytes);
        hasher.finish()
    }

    /// The 64 lower-case hexadecimal digits, without the algorithm.
    #[must_use]
    pub fn hex(&self) -> String {
        let digits = self.0.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
    }
}

/// `sha256:<hex>`, the form of the OCI image specification.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidDigest { text: text.to_owned() };
        let hex = text.strip_prefix("sha256:").unwrap_or(text).as_bytes();
        let mut digest = [0; 32];
        if hex.len() != 2 * digest.len() {
            return Err(invalid());
        }
        for (byte, pair) in digest.iter_mut().zip(hex.chunks_exact(2)) {
            for digit in pair {
                *byte = *byte << 4 | value(*digit).ok_or_else(invalid)?;
            }
        }
        Ok(Self(digest))
    }
}

/// The value of a lower-case hexadecimal digit.
fn value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
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
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    /// From FIPS 180-4's examples.
    #[rstest]
    #[case(b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")]
    #[case(b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")]
    fn known_digests(#[case] bytes: &[u8], #[case] hex: &str) {
        assert_eq!(Digest::of(bytes).hex(), hex);
        assert_eq!(Digest::of(bytes).to_string(), format!("sha256:{hex}"));
    }

    #[rstest]
    #[case::short("ab")]
    #[case::upper("E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855")]
    #[case::other("sha512:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")]
    #[case::wide("é3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b85")]
    fn what_is_no_digest(#[case] text: &str) {
        assert!(text.parse::<Digest>().is_err());
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
            prop_assert_eq!(digest.hex().parse(), Ok(digest));
        }
    }
}
