//! Garbage: deletes what was decided to be such elsewhere.
//!
//! ```text
//!  keys ─▶ delete, delete, ✗, delete ─▶ Collected { deleted 3, failed 1 }
//! ```
//!
//! Invariants: decides nothing; one failure does not keep the rest from being deleted; what was gone already is fine.

use crate::{error::Error, key::Key, storage::Storage};

/// How many failures are kept whole.
const KEPT: usize = 10;

/// What became of a list of deletions.
#[derive(Debug, Default)]
pub struct Collected {
    /// How many files were deleted. On S3 those that were gone already count too.
    pub deleted: u64,
    /// How many were gone already.
    pub absent: u64,
    /// How many are still there, or may be.
    pub failed: u64,
    /// The first ten failures.
    pub failures: Vec<(Key, Error)>,
}

impl Collected {
    /// Whether nothing of the list is left.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.failed == 0
    }
}

/// Deletes these files, one after the other. Dropping the future stops between two of them or after the current one.
pub async fn collect(storage: &dyn Storage, keys: impl IntoIterator<Item = Key>) -> Collected {
    let mut collected = Collected::default();
    for key in keys {
        match storage.delete(&key).await {
            Ok(true) => collected.deleted += 1,
            Ok(false) => collected.absent += 1,
            Err(error) => {
                collected.failed += 1;
                tracing::debug!(%key, error = error.chain(), "a file was not deleted");
                if collected.failures.len() < KEPT {
                    collected.failures.push((key, error));
                }
            }
        }
    }
    collected
}
