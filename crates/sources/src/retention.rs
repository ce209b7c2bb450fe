//! Retention: which stored files go.
//!
//! ```text
//!  stored files of one source, newest first:  current │ kept: young and among the newest │ gone: expired, or too many
//! ```
//!
//! Invariants: the current file never goes; with equal input the same files go, in the same order; a sweep removes only what
//! reads as a path of ours.

use std::{cmp::Reverse, collections::BTreeSet, time::Duration};

use jiff::Timestamp;

use crate::revision::ArtifactPath;

/// How much is kept of what is no longer current.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Files older than this go (`--artifact-retention-ttl`): consumers that read an older revision are done by then.
    pub ttl: Duration,
    /// At most so many files stay, the current one included (`--artifact-retention-records`).
    pub records: usize,
}

impl Default for Retention {
    /// Flux's numbers.
    fn default() -> Self {
        Self {
            ttl: Duration::from_mins(1),
            records: 2,
        }
    }
}

/// A stored file of one source.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stored {
    /// Name or path; only compared.
    pub name: String,
    /// When it was written.
    pub modified: Timestamp,
}

impl Retention {
    /// The names of the files that go, oldest first.
    ///
    /// First what is expired, then the oldest until [`Retention::records`] are left. A file from the future, as a clock that
    /// was set back leaves it, is young. Without a current file (it is being lost, or not published yet) nothing goes.
    #[must_use]
    pub fn garbage(&self, stored: &[Stored], current: Option<&str>, now: Timestamp) -> Vec<String> {
        let Some(current) = current else {
            return Vec::new();
        };
        let mut others: Vec<&Stored> = stored.iter().filter(|file| file.name != current).collect();
        others.sort_by_key(|file| (Reverse(file.modified), Reverse(&file.name)));
        others.dedup_by_key(|file| &file.name);
        let expired =
            |file: &Stored| Duration::try_from(now.duration_since(file.modified)).is_ok_and(|age| age > self.ttl);
        let beside = self.records.saturating_sub(1);
        let gone = others
            .into_iter()
            .enumerate()
            .filter(|(place, file)| *place >= beside || expired(file));
        let mut gone: Vec<String> = gone.map(|(_, file)| file.name.clone()).collect();
        gone.reverse();
        gone
    }
}

/// The stored paths that no source owns, sorted. Paths that are none of ours are left alone.
#[must_use]
pub fn orphans<'a>(
    stored: impl IntoIterator<Item = &'a str>,
    owners: &BTreeSet<(String, String)>,
) -> Vec<ArtifactPath> {
    let ours = stored.into_iter().filter_map(|path| path.parse::<ArtifactPath>().ok());
    let mut gone: Vec<ArtifactPath> = ours
        .filter(|path| !owners.contains(&(path.namespace.clone(), path.name.clone())))
        .collect();
    gone.sort();
    gone.dedup();
    gone
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// Files as (name, age in seconds).
    fn stored(files: &[(&str, i64)]) -> Vec<Stored> {
        files
            .iter()
            .map(|(name, age)| Stored {
                name: (*name).to_owned(),
                modified: at(1000 - age),
            })
            .collect()
    }

    #[rstest]
    #[case::only_the_current(&[("a", 900)], Some("a"), &[])]
    #[case::young(&[("a", 10), ("b", 20)], Some("a"), &[])]
    #[case::expired(&[("a", 10), ("b", 61)], Some("a"), &["b"])]
    #[case::on_the_second(&[("a", 10), ("b", 60)], Some("a"), &[])]
    #[case::too_many(&[("a", 10), ("b", 20), ("c", 30), ("d", 40)], Some("a"), &["d", "c"])]
    #[case::current_is_the_oldest(&[("a", 900), ("b", 10), ("c", 20)], Some("a"), &["c"])]
    #[case::back_to_an_old_revision(&[("a", 900), ("b", 100)], Some("a"), &["b"])]
    #[case::from_the_future(&[("a", 10), ("b", -500)], Some("a"), &[])]
    #[case::nothing_is_current(&[("a", 900), ("b", 901), ("c", 902)], None, &[])]
    #[case::current_is_lost(&[("b", 900)], Some("a"), &["b"])]
    fn what_goes(#[case] files: &[(&str, i64)], #[case] current: Option<&str>, #[case] gone: &[&str]) {
        assert_eq!(Retention::default().garbage(&stored(files), current, at(1000)), gone);
    }

    #[test]
    fn a_sweep_takes_what_nobody_owns() {
        let hex = "0".repeat(64);
        let path = |rest: &str| format!("externalsource/{rest}/{hex}.tar.gz");
        let stored = [
            path("shop/web"),
            path("shop/gone"),
            path("shop/gone"),
            "lost+found".to_owned(),
            format!("{}.tmp", path("shop/gone")),
        ];
        let owners = BTreeSet::from([("shop".to_owned(), "web".to_owned())]);
        let gone = orphans(stored.iter().map(String::as_str), &owners);
        assert_eq!(
            gone.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [path("shop/gone")]
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn the_laws(ages in proptest::collection::vec(0_i64..200, 0..8), current in 0_usize..8, records in 0_usize..5, ttl in 0_u64..200, turn in 0_usize..8) {
            let mut stored: Vec<Stored> =
                ages.iter().enumerate().map(|(n, age)| Stored { name: format!("f{n}"), modified: at(1000 - age) }).collect();
            let current = format!("f{current}");
            let retention = Retention { ttl: Duration::from_secs(ttl), records };
            let gone = retention.garbage(&stored, Some(&current), at(1000));
            prop_assert!(!gone.contains(&current));
            let left: Vec<Stored> = stored.iter().filter(|file| !gone.contains(&file.name)).cloned().collect();
            let others = left.iter().filter(|file| file.name != current).count();
            prop_assert!(others <= records.saturating_sub(1));
            prop_assert!(left.iter().all(|file| file.name == current || 1000 - file.modified.as_second() <= ttl.cast_signed()));
            // Again: nothing. In another order: the same.
            prop_assert!(retention.garbage(&left, Some(&current), at(1000)).is_empty());
            let turn = turn.min(stored.len());
            stored.rotate_left(turn);
            prop_assert_eq!(retention.garbage(&stored, Some(&current), at(1000)), gone);
        }
    }
}
