//! A hook of a spec with the values of its variables.
//!
//! Invariant: no value of a variable is shown.

use std::{collections::BTreeMap, fmt, time::Duration};

use secrecy::ExposeSecret as _;
use trellis_api::external_source as api;
use trellis_core::Refusal;
use trellis_sources::{chain::RetryPolicy, interval, redact::Redaction};

use super::{
    Secrets,
    secret::{text, value},
    wrong,
};

/// Shortest value that is hidden although the spec has it in the open, in bytes.
const SHORTEST: usize = 4;

/// A hook, ready to be asked for.
#[derive(Clone)]
pub(in crate::external_source) struct Hook {
    /// Its name in the spec.
    pub(in crate::external_source) name: String,
    /// What its failure means.
    pub(in crate::external_source) policy: RetryPolicy,
    /// Most bytes that it may write; none: as the operator is set.
    pub(in crate::external_source) max_output: Option<u64>,
    /// What nobody should read of what it says: the values of its variables.
    pub(in crate::external_source) hidden: Redaction,
    /// What the executor is asked.
    pub(in crate::external_source) asked: trellis_hooks::Hook,
}

impl Hook {
    /// What its failure means, as the spec says it.
    pub(in crate::external_source) fn policy(&self) -> &'static str {
        match self.policy {
            RetryPolicy::Ignore => "ignore",
            RetryPolicy::Retry => "retry",
            RetryPolicy::Fail => "fail",
        }
    }

    /// Reads the hooks of one list.
    pub(super) fn all(
        field: &str,
        hooks: &[api::Hook],
        namespace: Option<&str>,
        secrets: &Secrets,
    ) -> Result<Vec<Self>, Refusal> {
        let hooks = hooks.iter().enumerate();
        hooks
            .map(|(place, hook)| Self::of(&format!("{field}[{place}]"), hook, namespace, secrets))
            .collect()
    }

    fn of(field: &str, hook: &api::Hook, namespace: Option<&str>, secrets: &Secrets) -> Result<Self, Refusal> {
        let timeout = interval::duration(&hook.timeout)
            .filter(|timeout| !timeout.is_zero() && *timeout <= trellis_hooks::MAX_TIMEOUT)
            .ok_or_else(|| {
                wrong(
                    &format!("{field}.timeout"),
                    format!("{:?} is no duration of at most 5m", hook.timeout),
                )
            })?;
        let (env, hidden) = environment(field, &hook.env, secrets)?;
        let asked = trellis_hooks::Hook {
            command: hook.command.clone(),
            args: hook.args.clone(),
            env,
            timeout: Some(timeout),
            namespace: namespace.map(ToOwned::to_owned),
        };
        Ok(Self {
            name: hook.name.clone(),
            policy: match hook.retry_policy {
                api::RetryPolicy::Ignore => RetryPolicy::Ignore,
                api::RetryPolicy::Retry => RetryPolicy::Retry,
                api::RetryPolicy::Fail => RetryPolicy::Fail,
            },
            max_output: hook.max_output_bytes,
            hidden,
            asked,
        })
    }

    /// How long it may run.
    pub(super) fn timeout(&self) -> Duration {
        self.asked.timeout.unwrap_or(trellis_hooks::MAX_TIMEOUT)
    }
}

fn environment(
    field: &str,
    variables: &[api::EnvVar],
    secrets: &Secrets,
) -> Result<(BTreeMap<String, String>, Redaction), Refusal> {
    let (mut all, mut hidden) = (BTreeMap::new(), Vec::new());
    for (place, variable) in variables.iter().enumerate() {
        let field = format!("{field}.env[{place}]");
        let found = match (&variable.value, &variable.value_from) {
            (Some(value), None) => value.clone(),
            (None, Some(source)) => {
                let reference = &source.secret_key_ref;
                let field = format!("{field}.valueFrom.secretKeyRef");
                let bytes = value(secrets, &field, &reference.name, &reference.key)?;
                text(&field, &reference.name, &reference.key, &bytes)?
                    .expose_secret()
                    .to_owned()
            }
            _ => return Err(wrong(&field, "a variable needs exactly one of value and valueFrom")),
        };
        trellis_hooks::check_environment(&variable.name, &found).map_err(|bad| wrong(&field, bad.to_string()))?;
        // What the spec has in the open and is this short is a word, such as a number, that other text has as well.
        if variable.value.is_none() || found.len() >= SHORTEST {
            hidden.push(found.clone());
        }
        all.insert(variable.name.clone(), found);
    }
    Ok((all, Redaction::of(hidden)))
}

impl fmt::Debug for Hook {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Hook({}: {})", self.name, self.asked.command)
    }
}
