//! Drives a chain of hooks: `trellis_sources::chain` says what is next, this does it.
//!
//! Invariant: what a hook left behind counts only when it went well.

use std::io;

use trellis_core::Refusal;
use trellis_sources::{
    chain::{Chain, Next, Outcome, Why},
    failure::{Failure, HookCause},
};

use super::{super::order::Hook, Failed, Progress, Step};

/// Why a hook did not do its work.
pub(super) enum Fault {
    /// It may not run, or cannot be asked for like this: the same on every try.
    NotAllowed(Refusal),
    /// The sidecar says that it may not run: the same on every try, unless its whitelist is older than ours.
    Denied(Refusal),
    /// It failed, and may do better.
    Failed {
        /// Why.
        cause: HookCause,
        /// The same for the user, with the hook's name.
        told: String,
    },
    /// The operator's own disk failed: no fault of the hook.
    Spool(io::Error),
}

/// What goes through the hooks of a chain.
pub(super) trait Carried {
    /// Runs a hook on it. When that fails it stays as it was.
    fn through(&mut self, hook: &Hook) -> impl Future<Output = Result<(), Fault>> + Send;
}

/// A chain that is done.
#[derive(Debug, Default)]
pub(super) struct Driven {
    /// Retries that it used.
    pub(super) retries: u32,
    /// A sentence for each hook that failed and was ignored.
    pub(super) ignored: Vec<String>,
}

/// Runs the hooks in order, with at most so many retries together.
pub(super) async fn drive(
    carried: &mut impl Carried,
    hooks: &[Hook],
    retries: u32,
    progress: &Progress,
) -> Result<Driven, Failed> {
    let policies = hooks.iter().map(|hook| hook.policy).collect();
    let (mut chain, mut next) = Chain::start(policies, retries);
    let mut driven = Driven::default();
    let mut last = None;
    loop {
        let (place, after) = match next {
            Next::Run { hook, after, .. } => (hook, after),
            Next::Done { .. } => break,
            Next::Failed { why, .. } => return Err(failed(last, why)),
        };
        let Some(hook) = hooks.get(place) else { break };
        tokio::time::sleep(after).await;
        progress(Step::Hook(&hook.name));
        let outcome = match carried.through(hook).await {
            Ok(()) => Outcome::Succeeded,
            Err(Fault::Spool(error)) => return Err(Failed::spool(&error)),
            Err(fault) => {
                let outcome = match &fault {
                    Fault::NotAllowed(_) | Fault::Denied(_) => Outcome::NotAllowed,
                    _ => Outcome::Failed,
                };
                last = Some((hook, fault));
                outcome
            }
        };
        next = chain.next(outcome);
        let passed = matches!(next, Next::Run { hook, .. } if hook > place) || matches!(next, Next::Done { .. });
        if let (true, Some((hook, Fault::Failed { cause, .. }))) = (passed && outcome == Outcome::Failed, &last) {
            driven
                .ignored
                .push(format!("hook {} failed and was ignored: {cause}", hook.name));
        }
    }
    driven.retries = chain.retries_used();
    Ok(driven)
}

fn failed(last: Option<(&Hook, Fault)>, why: Why) -> Failed {
    match last {
        Some((hook, Fault::NotAllowed(refusal))) => {
            let told = format!("hook {}: {refusal}", hook.name);
            Failed {
                failure: Failure::Refused(refusal),
                told,
            }
        }
        // Our whitelist allows it, so nothing that we see would change when the sidecar's comes after: it is asked again.
        Some((hook, Fault::Denied(refusal))) => {
            let told = format!("hook {}: {refusal}", hook.name);
            Failed {
                failure: Failure::Payload(refusal),
                told,
            }
        }
        Some((hook, Fault::Failed { cause, told })) => {
            let retries = match why {
                Why::RetriesUsed(used) => Some(used),
                _ => None,
            };
            let used = retries.map(|used| format!("; the {used} retries of spec.maxRetries are used up"));
            Failed {
                failure: Failure::Hook {
                    name: hook.name.clone(),
                    cause,
                    retries,
                },
                told: format!("{told}{}", used.unwrap_or_default()),
            }
        }
        Some((_, Fault::Spool(error))) => Failed::spool(&error),
        None => Failed::defect(&io::Error::other("a chain of hooks failed before any of them ran")),
    }
}
