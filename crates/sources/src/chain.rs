//! `Chain`: what a row of hooks does next, as a pure state machine.
//!
//! ```text
//!  start ─▶ Run hook 0 ─ok─▶ Run hook 1 (output of 0) ─ok─▶ … ─▶ Done
//!              │ failed: ignore ─▶ the next hook, same input
//!              │ failed: retry  ─▶ the same hook after 1 s, 2 s, … while retries are left
//!              └ failed: fail, or no retry left ─▶ Failed
//! ```
//!
//! Invariants: retries are counted over the whole chain; a hook that is ignored uses none and changes nothing; a hook
//! that is not allowed is a mistake of the configuration: it is never tried again and never ignored.

pub mod request_change;

use std::time::Duration;

/// First wait before a retry; each further try of the same hook waits this much longer.
const STEP: Duration = Duration::from_secs(1);
/// Longest wait before a retry.
pub const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// What a failure of a hook means (`retryPolicy`). Default `fail`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RetryPolicy {
    /// The input passes on unchanged.
    Ignore,
    /// Again, while the chain has retries left.
    Retry,
    /// The chain fails.
    #[default]
    Fail,
}

/// How a hook ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Well; its output is the next input.
    Succeeded,
    /// With a code, at its timeout, or the executor did not answer.
    Failed,
    /// It may not run, or its request is wrong: the same on every try.
    NotAllowed,
}

/// What a hook gets as its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The output of the hook that ran last.
    Previous,
    /// What the hook that ran last had as its own input; for the first one, the input of the chain.
    Kept,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Run this hook.
    Run {
        /// Its place in the chain, from 0.
        hook: usize,
        /// Its input.
        input: Input,
        /// How long to wait before; the wait can be cancelled.
        after: Duration,
    },
    /// All hooks are done.
    Done {
        /// What the chain gives.
        output: Input,
    },
    /// The chain failed.
    Failed {
        /// The hook that failed, from 0.
        hook: usize,
        /// Why there is no further try.
        why: Why,
    },
}

/// Why a failed hook is not tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Its policy is `fail`.
    Policy,
    /// The chain has used up its retries; this many.
    RetriesUsed(u32),
    /// It is not allowed.
    NotAllowed,
}

/// A chain under way.
#[derive(Debug, Clone)]
pub struct Chain {
    policies: Vec<RetryPolicy>,
    max_retries: u32,
    used: u32,
    hook: usize,
    /// Failed tries of this hook.
    failed: u32,
}

impl Chain {
    /// A chain of hooks with these policies, and what it does first. `max_retries` counts over all of them; 0: none.
    #[must_use]
    pub fn start(policies: Vec<RetryPolicy>, max_retries: u32) -> (Self, Next) {
        let chain = Self {
            policies,
            max_retries,
            used: 0,
            hook: 0,
            failed: 0,
        };
        let next = chain.run(Input::Kept, Duration::ZERO);
        (chain, next)
    }

    /// What to do after the hook that was to run ended so. After `Done` or `Failed` the answer stays the same in kind;
    /// nobody should ask.
    pub fn next(&mut self, outcome: Outcome) -> Next {
        let Some(policy) = self.policies.get(self.hook).copied() else {
            return Next::Done { output: Input::Kept };
        };
        match (outcome, policy) {
            (Outcome::Succeeded, _) => self.advance(Input::Previous),
            (Outcome::NotAllowed, _) => Next::Failed {
                hook: self.hook,
                why: Why::NotAllowed,
            },
            (Outcome::Failed, RetryPolicy::Ignore) => self.advance(Input::Kept),
            (Outcome::Failed, RetryPolicy::Fail) => Next::Failed {
                hook: self.hook,
                why: Why::Policy,
            },
            (Outcome::Failed, RetryPolicy::Retry) if self.used >= self.max_retries => Next::Failed {
                hook: self.hook,
                why: Why::RetriesUsed(self.used),
            },
            (Outcome::Failed, RetryPolicy::Retry) => {
                self.used += 1;
                self.failed = self.failed.saturating_add(1);
                self.run(Input::Kept, STEP.saturating_mul(self.failed).min(LONGEST_WAIT))
            }
        }
    }

    /// Retries used so far, over the whole chain.
    #[must_use]
    pub fn retries_used(&self) -> u32 {
        self.used
    }

    fn advance(&mut self, input: Input) -> Next {
        self.hook += 1;
        self.failed = 0;
        self.run(input, Duration::ZERO)
    }

    fn run(&self, input: Input, after: Duration) -> Next {
        if self.hook < self.policies.len() {
            Next::Run {
                hook: self.hook,
                input,
                after,
            }
        } else {
            Next::Done { output: input }
        }
    }
}

#[cfg(test)]
mod tests;
