//! The properties: which steps each draws, and how each story ends.

use proptest::{
    strategy::{Strategy, ValueTree as _},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

use crate::routed::steps as routed;
use crate::steps::{
    BREAKER, BREAKER_KEYS, LOOKALIKES, Mix, RETRY, RETRY_KEYS, SECTIONS, Step, TIMEOUT, TIMEOUT_KEYS, sequence,
};

/// A property of the facts' table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Property {
    P1,
    P2,
    P3,
    P4,
    P5,
    P6,
    P7,
    P9,
    P11,
    P12,
    P13,
}

/// One random story.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) property: Property,
    pub(crate) number: u32,
    pub(crate) seed: u64,
    pub(crate) plot: Plot,
}

/// What happens in a story.
#[derive(Clone, Debug)]
pub(crate) enum Plot {
    /// Policies for whole Services, in one namespace.
    Whole(Vec<Step>),
    /// Policies that make routes, in three namespaces, with a stand-in for Linkerd's policy controller.
    Routed(Vec<routed::Step>),
}

const MIXED: Mix = Mix {
    policies: &["one"],
    sections: SECTIONS,
    foreign: LOOKALIKES,
    weights: [4, 2, 1, 1, 3, 2, 1],
    inert: false,
};

impl Property {
    pub(crate) const ALL: [Self; 11] = [
        Self::P1,
        Self::P2,
        Self::P3,
        Self::P4,
        Self::P5,
        Self::P6,
        Self::P7,
        Self::P9,
        Self::P11,
        Self::P12,
        Self::P13,
    ];

    /// The stories about whole Services, and those about routes, as often as asked for, each.
    pub(crate) fn cases(self, each: u32, seed: u64) -> Vec<Case> {
        let whole = self.mix().map_or(0, |_| each);
        let routed = self.weights().map_or(0, |_| each);
        (0..whole + routed)
            .map(|number| {
                let plot = match (self.mix(), self.weights()) {
                    (Some(mix), _) if number < whole => Plot::Whole(draw(&sequence(mix), seed, number, self as u8)),
                    (_, weights) => {
                        let weights = weights.unwrap_or_default();
                        Plot::Routed(draw(&routed::sequence(weights), seed, number, self as u8))
                    }
                };
                Case {
                    property: self,
                    number,
                    seed,
                    plot,
                }
            })
            .collect()
    }

    /// How often what happens in a story about routes.
    fn weights(self) -> Option<routed::Weights> {
        Some(match self {
            Self::P1 => [4, 1, 1, 2, 1, 1],
            Self::P4 => [6, 1, 1, 1, 1, 1],
            Self::P6 => [3, 4, 1, 1, 1, 1],
            Self::P7 => [3, 1, 2, 2, 2, 5],
            Self::P9 => [6, 1, 1, 2, 1, 1],
            Self::P11 => [3, 1, 2, 4, 2, 1],
            Self::P13 => [3, 2, 1, 6, 1, 1],
            _ => return None,
        })
    }

    fn mix(self) -> Option<Mix> {
        Some(match self {
            Self::P6 | Self::P11 => return None,
            Self::P1 => Mix { inert: true, ..MIXED },
            Self::P2 => Mix {
                policies: &["one", "two"],
                weights: [4, 1, 4, 4, 4, 1, 1],
                ..MIXED
            },
            Self::P3 => Mix {
                sections: &[BREAKER],
                foreign: BREAKER_KEYS,
                weights: [5, 1, 1, 1, 2, 4, 1],
                ..MIXED
            },
            Self::P4 => Mix {
                sections: &[RETRY],
                foreign: RETRY_KEYS,
                weights: [5, 1, 1, 1, 2, 4, 1],
                ..MIXED
            },
            Self::P5 => Mix {
                sections: &[TIMEOUT],
                foreign: TIMEOUT_KEYS,
                weights: [5, 1, 1, 1, 2, 4, 1],
                ..MIXED
            },
            Self::P7 => Mix {
                policies: &["one", "two"],
                inert: true,
                weights: [4, 2, 2, 2, 6, 1, 1],
                ..MIXED
            },
            Self::P9 => Mix {
                foreign: TIMEOUT_KEYS,
                weights: [2, 8, 1, 1, 1, 2, 4],
                ..MIXED
            },
            Self::P12 => Mix {
                weights: [8, 1, 1, 1, 1, 1, 1],
                ..MIXED
            },
            Self::P13 => Mix {
                policies: &["one", "two"],
                weights: [3, 2, 1, 2, 2, 10, 3],
                ..MIXED
            },
        })
    }
}

/// A value of a strategy; the same numbers give the same value.
pub(crate) fn draw<S: Strategy>(strategy: &S, seed: u64, number: u32, of: u8) -> S::Value {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..12].copy_from_slice(&number.to_le_bytes());
    bytes[12] = of;
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    strategy.new_tree(&mut runner).unwrap().current()
}

impl Case {
    /// As `TRELLIS_CASE` names it.
    pub(crate) fn name(&self) -> String {
        format!("{:?}/{}", self.property, self.number)
    }

    /// How to run just this one again, and what it does.
    pub(crate) fn describe(&self) -> String {
        let steps: Vec<String> = match &self.plot {
            Plot::Whole(steps) => steps.iter().map(|step| format!("  {step:?}")).collect(),
            Plot::Routed(steps) => steps.iter().map(|step| format!("  {step:?}")).collect(),
        };
        format!(
            "TRELLIS_SEED={} TRELLIS_CASE={}\n{}",
            self.seed,
            self.name(),
            steps.join("\n")
        )
    }
}
