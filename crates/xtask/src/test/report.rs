//! What the groups came to, for people and for scripts: the table, the unproven, and the counts last.

use std::time::Duration;

use super::group::Group;

/// What the line begins with that names the groups which were not run; after it `none` when there are none.
pub(crate) const UNPROVEN: &str = "NOT PROVEN HERE: ";

/// How a group ended.
pub(crate) enum Outcome {
    Passed,
    Failed,
    /// It could not be run here, and why.
    NotRun(String),
}

/// The groups so far, in the order in which they ran.
#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<(&'static str, Outcome, Duration)>,
}

impl Report {
    pub(crate) fn add(&mut self, name: &'static str, outcome: Outcome, took: Duration) {
        self.rows.push((name, outcome, took));
    }

    pub(crate) fn failed(&self) -> usize {
        self.rows
            .iter()
            .filter(|(_, outcome, _)| matches!(outcome, Outcome::Failed))
            .count()
    }

    fn passed(&self) -> usize {
        self.rows
            .iter()
            .filter(|(_, outcome, _)| matches!(outcome, Outcome::Passed))
            .count()
    }

    /// Whether the group was run here.
    pub(crate) fn ran(&self, name: &str) -> bool {
        self.rows
            .iter()
            .any(|(row, outcome, _)| *row == name && !matches!(outcome, Outcome::NotRun(_)))
    }

    /// Prints to stdout. The last line is the counts, the line before it what of `all` was not proven: what could not
    /// run, and what nobody asked for.
    pub(crate) fn print(&self, all: impl Iterator<Item = &'static str>) {
        print!("{}", self.text(all));
    }

    fn text(&self, all: impl Iterator<Item = &'static str>) -> String {
        let mut text = format!("\n{:<14} {:<8} {:>7}\n", "GROUP", "RESULT", "MINUTES");
        for (name, outcome, took) in &self.rows {
            let (result, note) = match outcome {
                Outcome::Passed => ("passed", ""),
                Outcome::Failed => ("FAILED", ""),
                Outcome::NotRun(why) => ("not run", why.as_str()),
            };
            let row = format!("{name:<14} {result:<8} {:>7.1}  {note}", took.as_secs_f64() / 60.0);
            text.push_str(row.trim_end());
            text.push('\n');
        }
        let unproven: Vec<&str> = all.filter(|name| !self.ran(name)).collect();
        let unproven = if unproven.is_empty() {
            "none".to_owned()
        } else {
            unproven.join(", ")
        };
        let (passed, failed) = (self.passed(), self.failed());
        text + &format!(
            "
{UNPROVEN}{unproven}
{passed} passed, {failed} failed
"
        )
    }
}

/// Prints the groups without running them.
pub(crate) fn list(groups: &[&Group]) {
    println!(
        "{:<14} {:>4} {:>5} {:>5}  {:<36} ABOUT",
        "GROUP", "RUNG", "COLD", "WARM", "NEEDS"
    );
    for group in groups {
        let mut needs: Vec<&str> = group.peers.iter().map(|peer| peer.name).collect();
        needs.extend(group.debian.iter().map(|package| package.name));
        if group.root {
            needs.push("root");
        }
        println!(
            "{:<14} {:>4} {:>5.1} {:>5.1}  {:<36} {}",
            group.name,
            group.rung,
            f64::from(group.minutes.cold) / 10.0,
            f64::from(group.minutes.warm) / 10.0,
            needs.join(", "),
            group.about
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_come_last_and_the_unproven_before_them() {
        let mut report = Report::default();
        report.add("unit", Outcome::Passed, Duration::from_secs(90));
        report.add("plane", Outcome::Failed, Duration::from_secs(6));
        report.add(
            "cover",
            Outcome::NotRun("needs the Debian package llvm-22".to_owned()),
            Duration::ZERO,
        );
        let text = report.text(["unit", "cover", "plane", "chart"].into_iter());
        assert!(
            text.ends_with("\nNOT PROVEN HERE: cover, chart\n1 passed, 1 failed\n"),
            "{text}"
        );
        assert!(text.contains("unit           passed       1.5\n"), "{text}");
        assert_eq!(report.failed(), 1);
        assert!(report.ran("plane") && !report.ran("cover") && !report.ran("chart"));
    }

    #[test]
    fn nothing_unproven_says_none() {
        let mut report = Report::default();
        report.add("unit", Outcome::Passed, Duration::ZERO);
        assert!(
            report
                .text(["unit"].into_iter())
                .ends_with("\nNOT PROVEN HERE: none\n1 passed, 0 failed\n")
        );
    }
}
