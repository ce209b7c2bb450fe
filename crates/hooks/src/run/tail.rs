//! `Tail`: the last bytes of a stream, however long it was.

use std::collections::VecDeque;

/// The last bytes of a stream.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tail {
    kept: VecDeque<u8>,
    total: u64,
}

impl Tail {
    /// Adds bytes and keeps the last `most`.
    pub(crate) fn push(&mut self, bytes: &[u8], most: usize) {
        self.total = self.total.saturating_add(bytes.len() as u64);
        let bytes = bytes.get(bytes.len().saturating_sub(most)..).unwrap_or_default();
        let over = (self.kept.len() + bytes.len()).saturating_sub(most);
        self.kept.drain(..over.min(self.kept.len()));
        self.kept.extend(bytes);
    }

    /// How many bytes there were in all.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// The last bytes, at most `most`; whether some were dropped is said in a first line.
    pub(crate) fn last(&self, most: usize) -> Vec<u8> {
        let from = self.kept.len().saturating_sub(most);
        let kept = self.kept.iter().skip(from).copied();
        let dropped = self.total.saturating_sub((self.kept.len() - from) as u64);
        if dropped == 0 {
            return kept.collect();
        }
        format!("[{dropped} bytes before]\n")
            .into_bytes()
            .into_iter()
            .chain(kept)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn the_end_is_kept(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..10)) {
            let mut tail = Tail::default();
            for chunk in &chunks {
                tail.push(chunk, 32);
            }
            let all = chunks.concat();
            let last = tail.last(16);
            prop_assert_eq!(tail.total(), all.len() as u64);
            if all.len() <= 16 {
                prop_assert_eq!(last, all);
            } else {
                let kept = &all[all.len() - 16..];
                prop_assert_eq!(last, [format!("[{} bytes before]\n", all.len() - 16).as_bytes(), kept].concat());
            }
        }
    }
}
