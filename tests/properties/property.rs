//! The properties: which steps each draws, and how each story ends.

use proptest::{
    strategy::{Strategy, ValueTree as _},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

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
    P7,
    P9,
    P13,
}

/// One random story.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) property: Property,
    pub(crate) number: u32,
    pub(crate) seed: u64,
    pub(crate) steps: Vec<Step>,
}

const MIXED: Mix = Mix {
    policies: &["one"],
    sections: SECTIONS,
    foreign: LOOKALIKES,
    weights: [4, 2, 1, 1, 3, 2, 1],
    inert: false,
};

impl Property {
    pub(crate) const ALL: [Self; 8] = [
        Self::P1,
        Self::P2,
        Self::P3,
        Self::P4,
        Self::P5,
        Self::P7,
        Self::P9,
        Self::P13,
    ];

    fn mix(self) -> Mix {
        match self {
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
            Self::P13 => Mix {
                policies: &["one", "two"],
                weights: [3, 2, 1, 2, 2, 10, 3],
                ..MIXED
            },
        }
    }

    /// The story with this number. The same seed gives the same story.
    pub(crate) fn case(self, number: u32, seed: u64) -> Case {
        let steps = draw(&sequence(self.mix()), seed, number, self as u8);
        Case {
            property: self,
            number,
            seed,
            steps,
        }
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
        let steps: Vec<String> = self.steps.iter().map(|step| format!("  {step:?}")).collect();
        format!(
            "TRELLIS_SEED={} TRELLIS_CASE={}\n{}",
            self.seed,
            self.name(),
            steps.join("\n")
        )
    }
}
