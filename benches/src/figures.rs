//! `Figures`: what was measured, beside its goal.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

/// What was measured on one machine.
#[derive(Debug, Serialize)]
pub struct Figures {
    /// Processors that the machine has.
    pub cores: usize,
    /// In the order in which they were measured.
    pub figures: Vec<Figure>,
}

/// One figure.
#[derive(Debug, Serialize)]
pub struct Figure {
    /// What it is.
    pub name: String,
    /// Its value.
    pub value: f64,
    /// Its unit; empty for a ratio.
    pub unit: &'static str,
    /// What it should be at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_most: Option<f64>,
    /// What it was made of, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub of: BTreeMap<&'static str, Vec<f64>>,
}

impl Figure {
    /// A figure without a goal.
    #[must_use]
    pub fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self {
            name: name.into(),
            value,
            unit,
            at_most: None,
            of: BTreeMap::new(),
        }
    }

    /// With a goal.
    #[must_use]
    pub fn at_most(mut self, goal: f64) -> Self {
        self.at_most = Some(goal);
        self
    }

    /// With what it was made of.
    #[must_use]
    pub fn of(mut self, name: &'static str, values: &[f64]) -> Self {
        self.of.insert(name, values.to_vec());
        self
    }
}

impl Default for Figures {
    fn default() -> Self {
        Self {
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            figures: Vec::new(),
        }
    }
}

impl Figures {
    /// For people.
    #[must_use]
    pub fn table(&self) -> String {
        let row = |cells: [&str; 4]| {
            let [name, value, goal, met] = cells;
            format!("{name:<58} {value:>12} {goal:>12}  {met}")
        };
        let mut lines = vec![row(["", "measured", "goal", ""])];
        for figure in &self.figures {
            let shown = |value: f64| format!("{} {}", number(value), figure.unit).trim().to_owned();
            let goal = figure.at_most.map(|goal| format!("≤ {}", shown(goal)));
            let met = |goal: f64| if figure.value <= goal { "met" } else { "missed" };
            let met = figure.at_most.map_or("", met);
            lines.push(row([
                &figure.name,
                &shown(figure.value),
                &goal.unwrap_or_default(),
                met,
            ]));
            for (name, values) in &figure.of {
                let values: Vec<_> = values.iter().copied().map(number).collect();
                lines.push(format!("    {name}: {}", values.join(" ")));
            }
        }
        lines.push(format!("{} cores", self.cores));
        lines.join("\n") + "\n"
    }
}

fn number(value: f64) -> String {
    if value.fract() == 0.0 || value >= 100.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

/// The middle one, or the mean of the two in the middle; 0 of nothing.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    at(values, 0.5)
}

/// The value below which this share of the values lies, by linear interpolation.
#[must_use]
pub fn at(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = share * last(&sorted);
    let nearest = |place: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an index, from 0 to the last"
        )]
        let index = place as usize;
        sorted.get(index).copied().unwrap_or_default()
    };
    let (below, above) = (nearest(place.floor()), nearest(place.ceil()));
    below + (above - below) * place.fract()
}

#[expect(clippy::cast_precision_loss, reason = "nobody measures 2^52 times")]
fn last(values: &[f64]) -> f64 {
    values.len().saturating_sub(1) as f64
}

/// As milliseconds.
#[must_use]
pub fn milliseconds(times: &[Duration]) -> Vec<f64> {
    times.iter().map(|time| time.as_secs_f64() * 1000.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle_whatever_the_order() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
        assert!((at(&[1.0, 2.0, 3.0], 1.0) - 3.0).abs() < f64::EPSILON);
        assert!(median(&[]).abs() < f64::EPSILON);
    }

    #[test]
    fn the_table_says_which_goals_are_met() {
        let figures = Figures {
            cores: 2,
            figures: vec![
                Figure::new("ratio", 1.25, "").at_most(1.5).of("raw s", &[1.0]),
                Figure::new("memory", 70.0, "MB").at_most(60.0),
            ],
        };
        let lines: Vec<_> = figures.table().lines().map(str::to_owned).collect();
        assert!(lines[1].ends_with("met") && lines[1].contains("1.25"), "{lines:?}");
        assert_eq!(lines[2], "    raw s: 1");
        assert!(
            lines[3].ends_with("missed") && lines[3].contains("≤ 60 MB"),
            "{lines:?}"
        );
    }
}
