//! Chance that can be repeated: `SplitMix64` from a seed that a failed run prints.

use std::hash::{BuildHasher, Hasher, RandomState};

/// A sequence of random numbers.
pub(crate) struct Chance {
    seed: u64,
    state: u64,
}

impl Chance {
    /// From this seed, or from a new one.
    pub(crate) fn new(seed: Option<u64>) -> Self {
        let seed = seed.unwrap_or_else(|| RandomState::new().build_hasher().finish() >> 32);
        Self { seed, state: seed }
    }

    /// What repeats this sequence.
    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// Another sequence that follows from this one.
    pub(crate) fn fork(&mut self) -> Self {
        Self::new(Some(self.next()))
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).unwrap();
        usize::try_from(self.next() % end).unwrap()
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
}
