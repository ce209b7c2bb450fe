//! `Redaction`: takes secrets out of what a program said, before anybody reads it.
//!
//! ```text
//!  values of variables, headers, parameters ─▶ Redaction ─▶ hide(standard error) ─▶ the same with … in their places
//! ```
//!
//! Invariants: no value is in what is left, nor one of its lines, nor the end of one that the text begins with because
//! its beginning was cut off. What a program encodes in another way is not found.

use std::fmt;

/// What stands where a secret was.
const HIDDEN: &str = "…";
/// Lines of a value, and ends of one, that are shorter are no secrets by themselves: `}` or `---`.
const SHORTEST: usize = 4;

/// Values that nobody should read.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Redaction {
    /// Longest first, so that none is hidden in part.
    values: Vec<String>,
    /// Said in place of any text.
    instead: Option<&'static str>,
}

impl Redaction {
    /// Hides these, and what each of their lines says.
    pub fn of<S: Into<String>>(values: impl IntoIterator<Item = S>) -> Self {
        let mut all = Vec::new();
        for value in values {
            let value: String = value.into();
            let trimmed = value.trim();
            let lines = trimmed.lines().map(str::trim).filter(|line| line.len() >= SHORTEST);
            all.extend(lines.map(ToOwned::to_owned));
            if !trimmed.is_empty() {
                all.push(trimmed.to_owned());
            }
        }
        all.sort_by(|one, other| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
        all.dedup();
        Self {
            values: all,
            instead: None,
        }
    }

    /// Hides everything: whoever reads it learns `why`.
    #[must_use]
    pub fn whole(why: &'static str) -> Self {
        Self {
            values: Vec::new(),
            instead: Some(why),
        }
    }

    /// Hides what either hides.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            instead: self.instead.or(other.instead),
            ..Self::of(self.values.into_iter().chain(other.values))
        }
    }

    /// The text without them.
    #[must_use]
    pub fn hide(&self, text: &str) -> String {
        if let Some(why) = self.instead.filter(|_| !text.trim().is_empty()) {
            return why.to_owned();
        }
        let mut text = text.to_owned();
        for value in &self.values {
            text = text.replace(value, HIDDEN);
        }
        match self.values.iter().filter_map(|value| end_of(value, &text)).max() {
            Some(cut) => format!("{HIDDEN}{}", text.get(cut..).unwrap_or_default()),
            None => text,
        }
    }
}

/// How much of the text's beginning is the end of a value.
fn end_of(value: &str, text: &str) -> Option<usize> {
    let ends = value.char_indices().skip(1).filter_map(|(at, _)| value.get(at..));
    let found = ends
        .take_while(|end| end.len() >= SHORTEST)
        .find(|end| text.starts_with(end));
    found.map(str::len)
}

impl fmt::Debug for Redaction {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Redaction({} values)", self.values.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::a_value(&["geheim"], "the key geheim is wrong", "the key … is wrong")]
    #[case::a_line_end_of_a_file(&["geheim\n"], "geheim!", "…!")]
    #[case::one_in_another(&["geheim", "geheimnis"], "geheimnis geheim", "… …")]
    #[case::a_line_of_a_key(&["-----BEGIN\nMIIB\n}\n"], "at MIIB: }", "at …: }")]
    #[case::cut_off(&["geheimnis"], "imnis is wrong", "… is wrong")]
    #[case::a_short_one(&["ab"], "ab c", "… c")]
    #[case::none(&[""], "no such key", "no such key")]
    fn secrets_are_hidden(#[case] values: &[&str], #[case] text: &str, #[case] expected: &str) {
        assert_eq!(Redaction::of(values.iter().copied()).hide(text), expected);
    }

    #[test]
    fn everything_can_be_hidden() {
        let redaction = Redaction::of(["geheim"]).and(Redaction::whole("(not shown)"));
        assert_eq!(redaction.hide("anything at all"), "(not shown)");
        assert_eq!(redaction.hide("\n"), "\n");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn nothing_of_a_value_is_left(before in "[ -~]{0,20}", value in "[a-z]{4,12}", after in "[A-Z ]{0,20}", other in "[0-9]{4,8}") {
            let redaction = Redaction::of([value.clone()]).and(Redaction::of([other.clone()]));
            let hidden = redaction.hide(&format!("{before}{value}{other}{after}"));
            prop_assert!(!hidden.contains(&value) && !hidden.contains(&other), "{}", hidden);
            prop_assert!(hidden.ends_with(&after));
            let shown = format!("{redaction:?}");
            prop_assert!(!shown.contains(&value));
        }
    }
}
