//! Lines run and lines there, per crate, out of llvm-cov's summary.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use anyhow::{Context, Result};

/// Lines run of lines there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Share {
    pub run: u32,
    pub all: u32,
}

impl Share {
    /// In percent; a crate without code is wholly run.
    pub(crate) fn percent(self) -> f64 {
        if self.all == 0 {
            100.0
        } else {
            f64::from(self.run) * 100.0 / f64::from(self.all)
        }
    }

    fn add(&mut self, other: Self) {
        self.run += other.run;
        self.all += other.all;
    }
}

impl fmt::Display for Share {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{:.1} % ({} of {} lines)",
            self.percent(),
            self.run,
            self.all
        )
    }
}

/// The share of each crate under `crates/`.
#[derive(Debug, Default)]
pub(crate) struct Lines(BTreeMap<String, Share>);

impl Lines {
    /// Reads `llvm-cov export --summary-only`. Only `crates/<name>/src` counts: dependencies and test folders do not.
    pub(crate) fn read(report: &str, root: &Path) -> Result<Self> {
        #[derive(serde::Deserialize)]
        struct Report {
            data: Vec<Data>,
        }
        #[derive(serde::Deserialize)]
        struct Data {
            files: Vec<File>,
        }
        #[derive(serde::Deserialize)]
        struct File {
            filename: String,
            summary: Summary,
        }
        #[derive(serde::Deserialize)]
        struct Summary {
            lines: Count,
        }
        #[derive(serde::Deserialize)]
        struct Count {
            count: u32,
            covered: u32,
        }
        let report: Report = serde_json::from_str(report).context("llvm-cov's report is not the JSON we know")?;
        let mut lines = Self::default();
        for file in report.data.into_iter().flat_map(|data| data.files) {
            let path = Path::new(&file.filename);
            let inside = path.strip_prefix(root).unwrap_or(path);
            let mut parts = inside.iter().filter_map(|part| part.to_str());
            if let (Some("crates"), Some(name), Some("src")) = (parts.next(), parts.next(), parts.next()) {
                let count = file.summary.lines;
                lines.0.entry(name.to_owned()).or_default().add(Share {
                    run: count.covered,
                    all: count.count,
                });
            }
        }
        Ok(lines)
    }

    /// The names of the crates that were seen.
    pub(crate) fn crates(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The share of one crate.
    pub(crate) fn of(&self, name: &str) -> Share {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// All crates together.
    pub(crate) fn total(&self) -> Share {
        let mut total = Share::default();
        self.0.values().for_each(|share| total.add(*share));
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_source_of_crates_counts() {
        let file = |name: &str, run: u32, all: u32| serde_json::json!({"filename": name, "summary": {"lines": {"count": all, "covered": run}}});
        let report = serde_json::json!({"data": [{"files": [
            file("/w/crates/core/src/lib.rs", 9, 10),
            file("/w/crates/core/src/name.rs", 10, 10),
            file("/w/crates/core/tests/laws.rs", 0, 50),
            file("/elsewhere/serde/src/lib.rs", 0, 1000),
            file("crates/api/src/lib.rs", 1, 2),
        ]}]});
        let lines = Lines::read(&report.to_string(), Path::new("/w")).unwrap();
        assert_eq!(lines.of("core"), Share { run: 19, all: 20 });
        assert_eq!(lines.crates().collect::<Vec<_>>(), ["api", "core"]);
        assert_eq!(lines.total(), Share { run: 20, all: 22 });
        assert!((lines.of("core").percent() - 95.0).abs() < 1e-9);
        assert!((lines.of("none").percent() - 100.0).abs() < 1e-9);
    }
}
