//! `Refusal`: the one way to say that the user, not the machine, has to act.

use std::{error, fmt};

use serde::Serialize;

/// 'The user is wrong': nothing is retried until the spec or a referenced object changes.
///
/// Displayed as `field: message; hint: hint`, where field and hint appear only when they are set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// `CamelCase` reason from the kind's closed set; it becomes the reason of the condition.
    pub reason: &'static str,
    /// JSON path of the offending field in the user's object, such as `spec.retry.retryTimeout`.
    pub field: Option<String>,
    /// What is wrong, in one sentence without a final stop.
    pub message: String,
    /// What the user can do about it.
    pub hint: Option<String>,
}

impl Refusal {
    /// A refusal that names no field and gives no hint.
    #[must_use]
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason,
            field: None,
            message: message.into(),
            hint: None,
        }
    }

    /// The same refusal, naming the offending field.
    #[must_use]
    pub fn field(self, field: impl Into<String>) -> Self {
        Self {
            field: Some(field.into()),
            ..self
        }
    }

    /// The same refusal, saying what to do.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(field) = &self.field {
            write!(out, "{field}: ")?;
        }
        out.write_str(&self.message)?;
        if let Some(hint) = &self.hint {
            write!(out, "; hint: {hint}")?;
        }
        Ok(())
    }
}

impl error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(Refusal::new("Invalid", "zero is not a duration"), "zero is not a duration")]
    #[case(Refusal::new("Invalid", "is zero").field("spec.a"), "spec.a: is zero")]
    #[case(Refusal::new("Invalid", "is zero").hint("leave it out"), "is zero; hint: leave it out")]
    #[case(Refusal::new("Invalid", "is zero").field("spec.a").hint("leave it out"), "spec.a: is zero; hint: leave it out")]
    fn a_refusal_reads_as_one_sentence(#[case] refusal: Refusal, #[case] text: &str) {
        assert_eq!(refusal.to_string(), text);
        assert_eq!(refusal.reason, "Invalid");
    }

    #[test]
    fn a_refusal_is_an_error() {
        let boxed: Box<dyn error::Error + Send + Sync> = Box::new(Refusal::new("Invalid", "no"));
        assert_eq!(boxed.to_string(), "no");
    }
}
