//! Why a hook did not do its work.

use std::{error::Error as StdError, io};

use crate::wire::Word;

/// Why a hook did not do its work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The rules of the sidecar do not allow it: a configuration error, the same on every try. The sentence names the
    /// command.
    #[error("{0}")]
    NotAllowed(String),
    /// The request itself is wrong, such as a variable that hooks may not have.
    #[error("{0}")]
    Refused(String),
    /// It ran longer than it may: `timed out after 30s`, with the end of standard error.
    #[error("hook {message}{}", said(stderr))]
    TimedOut {
        /// How long that was.
        message: String,
        /// The end of its standard error.
        stderr: String,
    },
    /// It ended with another code than 0; -1 when it did not end by itself.
    #[error("hook {message}{}", said(stderr))]
    Failed {
        /// The exit code; 128 + signal when a signal ended it.
        code: i32,
        /// How it ended.
        message: String,
        /// The end of its standard error.
        stderr: String,
    },
    /// A stream or the request is larger than it may be.
    #[error("{0}")]
    TooLarge(String),
    /// All slots of the sidecar are taken and its queue is full.
    #[error("{0}")]
    Busy(String),
    /// The body that was to be its input broke.
    #[error("the input of the hook broke: {0}")]
    Input(String),
    /// What it wrote could not be kept.
    #[error("the output of the hook cannot be kept")]
    Kept(#[source] io::Error),
    /// The sidecar does not answer, or not to the end.
    #[error("hook executor is unreachable: {why}")]
    Unreachable {
        /// What happened.
        why: String,
        /// The cause, when there is one.
        #[source]
        source: Option<Box<dyn StdError + Send + Sync>>,
    },
}

impl Error {
    /// The error behind the name of its hook, as in `hook pick: exited with code 3: no such key`, after `hide` has taken
    /// out of standard error what nobody should read.
    #[must_use]
    pub fn told(&self, name: &str, hide: impl Fn(&str) -> String) -> String {
        let what = match self {
            Self::TimedOut { message, stderr } | Self::Failed { message, stderr, .. } => {
                format!("{message}{}", said(&hide(stderr)))
            }
            other => {
                let text = other.to_string();
                let rest = text.strip_prefix("hook").map(|rest| rest.trim_start_matches(':'));
                rest.unwrap_or(&text).trim().to_owned()
            }
        };
        format!("hook {name}: {what}")
    }

    /// The connection failed; the sentence says the innermost cause, which is the one that helps.
    pub(super) fn unreachable(error: Box<dyn StdError + Send + Sync>) -> Self {
        let mut innermost: &dyn StdError = error.as_ref();
        while let Some(cause) = innermost.source() {
            innermost = cause;
        }
        Self::Unreachable {
            why: innermost.to_string(),
            source: Some(error),
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::other(error)
    }
}

/// Longest part of standard error in a message, in characters.
const TAIL: usize = 512;

/// The end of standard error, for a message.
fn said(stderr: &str) -> String {
    let text = stderr.trim();
    if text.is_empty() {
        return String::new();
    }
    let skip = text.chars().count().saturating_sub(TAIL);
    let tail: String = text
        .chars()
        .skip(skip)
        .map(|c| if c.is_control() && c != '\n' { ' ' } else { c })
        .collect();
    format!(": {}{tail}", if skip > 0 { "…" } else { "" })
}

/// Success, or what the end of a run means.
pub(super) fn judge(word: Word, code: i32, message: String, stderr: &str) -> Result<(), Error> {
    let stderr = stderr.to_owned();
    match word {
        Word::Exited if code == 0 => Ok(()),
        Word::Exited => Err(Error::Failed {
            code,
            message: format!("exited with code {code}{}", hint(code)),
            stderr,
        }),
        Word::TimedOut => Err(Error::TimedOut { message, stderr }),
        Word::TooLarge => Err(Error::TooLarge(format!("hook: {message}"))),
        Word::TooManyProcesses | Word::Cancelled | Word::Broken => Err(Error::Failed {
            code: -1,
            message,
            stderr,
        }),
    }
}

/// What a code means that comes from a limit.
fn hint(code: i32) -> &'static str {
    match code {
        126 => " (the program cannot be started)",
        127 => " (a program was not found)",
        137 => " (killed; more memory or processor time than it may have?)",
        152 => " (more processor time than it may have)",
        153 => " (a file larger than it may be)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(Word::Exited, 3, "", "no such key\n", "hook exited with code 3: no such key")]
    #[case(
        Word::Exited,
        152,
        "",
        "",
        "hook exited with code 152 (more processor time than it may have)"
    )]
    #[case(Word::TimedOut, -1, "timed out after 30s", "", "hook timed out after 30s")]
    #[case(Word::TooLarge, -1, "stdout has more than 5 bytes", "", "hook: stdout has more than 5 bytes")]
    #[case(Word::TooManyProcesses, -1, "has more than 64 processes", "", "hook has more than 64 processes")]
    fn failures_read_as_sentences(
        #[case] word: Word,
        #[case] code: i32,
        #[case] message: &str,
        #[case] stderr: &str,
        #[case] text: &str,
    ) {
        assert_eq!(
            judge(word, code, message.to_owned(), stderr).unwrap_err().to_string(),
            text
        );
    }

    #[test]
    fn a_long_standard_error_is_cut_to_its_end() {
        let long = format!("{}the end", "é".repeat(1000));
        let text = said(&long);
        assert!(text.ends_with("the end") && text.starts_with(": …é"), "{text}");
        assert_eq!(text.chars().count(), TAIL + 3);
    }

    #[test]
    fn an_error_is_told_behind_the_name_of_its_hook() {
        let failed = judge(Word::Exited, 3, String::new(), "the key geheim is wrong").unwrap_err();
        let told = failed.told("pick", |text| text.replace("geheim", "…"));
        assert_eq!(told, "hook pick: exited with code 3: the key … is wrong");
        let large = Error::TooLarge("hook: stdout has more than 5 bytes".to_owned());
        assert_eq!(
            large.told("pick", str::to_owned),
            "hook pick: stdout has more than 5 bytes"
        );
    }

    #[test]
    fn success_is_no_error() {
        assert!(judge(Word::Exited, 0, String::new(), "a warning").is_ok());
    }
}
