//! `Samples`: the text that a proxy's `/metrics` answers, as numbers with labels.
//!
//! Follows Prometheus' text format 0.0.4: `name{label="value",…} number [time]`, `#` for comments, `\\`, `\"` and `\n`
//! inside a value. A line that is none of these is skipped: there is nothing that it could mean here.

use std::collections::BTreeMap;

/// One line.
#[derive(Debug, Clone, PartialEq)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// All lines of one answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Samples(Vec<Sample>);

impl Samples {
    pub(crate) fn read(text: &str) -> Self {
        Self(text.lines().filter_map(sample).collect())
    }

    /// The sum over all samples of a name with these labels; nothing when there is none.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let fits = |sample: &&Sample| {
            let has = |(key, value): &(&str, &str)| sample.labels.get(*key).is_some_and(|found| found == value);
            sample.name == name && labels.iter().all(has)
        };
        let values: Vec<f64> = self.0.iter().filter(fits).map(|sample| sample.value).collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }
}

fn sample(line: &str) -> Option<Sample> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let end = line.find(|c: char| c == '{' || c.is_whitespace())?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    // `NaN`, `+Inf` and `-Inf` are read too.
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample {
        name: name.to_owned(),
        labels,
        value,
    })
}

/// The labels up to the closing brace, and what follows it.
fn labels(text: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    let mut rest = text.trim_start();
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (key, after) = rest.split_once('=')?;
        let (value, after) = quoted(after.trim_start())?;
        labels.insert(key.trim().to_owned(), value);
        let after = after.trim_start();
        rest = after.strip_prefix(',').unwrap_or(after).trim_start();
    }
}

/// A quoted value, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let text = text.strip_prefix('"')?;
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => value.push(match characters.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_as_the_format_says() {
        let text = "# HELP a Help.\n# TYPE a counter\na 3\na{x=\"1\"} 4.5 1700000000000\nb{ x = \"1\" , y=\"q\\\"\\\\\\n}\", } +Inf\n\
                    c{x=\"open\nd{} 1\ne{x=\"1\"}\nf NaN\n";
        let samples = Samples::read(text);
        assert_eq!(samples.sum("a", &[]), Some(7.5));
        assert_eq!(samples.sum("a", &[("x", "1")]), Some(4.5));
        assert_eq!(samples.sum("b", &[("y", "q\"\\\n}")]), Some(f64::INFINITY));
        assert_eq!(samples.sum("d", &[]), Some(1.0));
        assert!(samples.sum("f", &[]).unwrap().is_nan());
        for nothing in ["c", "e", "g"] {
            assert_eq!(samples.sum(nothing, &[]), None, "{nothing}");
        }
        assert_eq!(samples.sum("a", &[("x", "2")]), None);
    }
}
