//! The wire format between a controller and the sidecar.
//!
//! ```text
//!  POST /execute   JSON with base64 in ─▶ 200 JSON with base64 out         (8 MiB each way; any HTTP client)
//!  POST /run       trellis-hook: base64(JSON), raw body in ─▶ 200, raw body out, then trailers     (any size)
//! ```
//!
//! Trailers of `/run`: `trellis-end` (a word of [`Word`]), `trellis-exit-code` (only with `exited`), `trellis-message`
//! and `trellis-stderr` (base64 of UTF-8 text and of the last bytes of standard error). An answer without
//! `trellis-end` is cut off and must not be used. Over HTTP/2 both bodies flow at the same time and have flow control;
//! HTTP/1.1 is served as well, with trailers for a client that sends `TE: trailers`.
//!
//! Refusals have the same statuses on both: 400 (not understood), 401 (token), 403 (not allowed), 405, 413 (too
//! large), 503 (busy); the body is one sentence of plain text.
//!
//! What goes wrong in a run that was started: `/execute` answers 200 with `exitCode` -1, the sentence as last line of
//! `stderr`, and the word in the added field `end`, which older clients ignore.

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize};

use crate::duration;

/// Most bytes of a message of `/execute`, each way: 8 MiB.
pub const EXECUTE_LIMIT: usize = 8 * 1024 * 1024;
/// Most bytes of standard output in an answer of `/execute`: with base64 and standard error it stays below 8 MiB.
pub(crate) const EXECUTE_STDOUT: u64 = (EXECUTE_LIMIT as u64 - 256 * 1024) / 4 * 3;
/// Longest timeout of one run: 5 minutes.
pub const MAX_TIMEOUT: Duration = Duration::from_mins(5);
/// How much of the end of standard error is kept, in bytes.
pub(crate) const STDERR_KEPT: usize = 64 * 1024;
/// How much of it fits into a trailer, in bytes.
pub(crate) const STDERR_TRAILER: usize = 4 * 1024;
/// Longest request in the header of `/run`, in bytes of base64.
pub(crate) const HEADER_LIMIT: usize = 192 * 1024;

pub(crate) const HOOK: &str = "trellis-hook";
pub(crate) const END: &str = "trellis-end";
pub(crate) const EXIT_CODE: &str = "trellis-exit-code";
pub(crate) const MESSAGE: &str = "trellis-message";
pub(crate) const STDERR: &str = "trellis-stderr";

/// A request to run a command: the body of `/execute`, and without `stdin` the header of `/run`.
///
/// Fields that are absent, or null as Go writes empty ones, are empty; fields that are not known are ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) command: String,
    #[serde(default, deserialize_with = "or_null")]
    pub(crate) args: Vec<String>,
    /// A Go duration; empty: the sidecar's default.
    #[serde(default, deserialize_with = "or_null")]
    pub(crate) timeout: String,
    #[serde(default, deserialize_with = "or_null")]
    pub(crate) env: BTreeMap<String, String>,
    /// Base64.
    #[serde(default, deserialize_with = "or_null", skip_serializing_if = "String::is_empty")]
    pub(crate) stdin: String,
    /// Added: namespace of the object whose hook this is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) namespace: Option<String>,
}

/// The answer of `/execute`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Executed {
    /// Base64.
    pub(crate) stdout: String,
    /// Base64.
    pub(crate) stderr: String,
    /// -1 when the command did not end by itself.
    #[serde(rename = "exitCode")]
    pub(crate) exit_code: i32,
    /// Added: only when the command did not end by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) end: Option<Word>,
    /// Added: the sentence that goes with `end`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<String>,
}

/// How a run ended, as a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Word {
    /// By itself.
    Exited,
    /// At its timeout.
    TimedOut,
    /// A stream had more bytes than it may.
    TooLarge,
    /// It had more processes than it may.
    TooManyProcesses,
    /// The caller went away, or the sidecar ends.
    Cancelled,
    /// It could not be run.
    Broken,
}

impl Word {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Exited, "exited"),
        (Self::TimedOut, "timed-out"),
        (Self::TooLarge, "too-large"),
        (Self::TooManyProcesses, "too-many-processes"),
        (Self::Cancelled, "cancelled"),
        (Self::Broken, "broken"),
    ];

    pub(crate) fn text(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(word, _)| *word == self)
            .map_or("broken", |(_, text)| text)
    }

    pub(crate) fn read(text: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(_, known)| *known == text)
            .map(|(word, _)| *word)
    }
}

/// The timeout of a request, or why it is none.
pub(crate) fn timeout(text: &str, default: Duration) -> Result<Duration, String> {
    let timeout = if text.is_empty() {
        default
    } else {
        duration::parse(text).map_err(|error| format!("timeout {error}"))?
    };
    if timeout.is_zero() {
        return Err("timeout is zero; it must be longer".to_owned());
    }
    if timeout > MAX_TIMEOUT {
        return Err(format!("timeout {text} is longer than {}", duration::text(MAX_TIMEOUT)));
    }
    Ok(timeout)
}

pub(crate) fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

fn or_null<'de, D, T>(input: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(input)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::whole(r#"{"command":"jq","args":["."],"timeout":"30s","env":{"A":"1"},"stdin":"e30="}"#)]
    #[case::nulls(r#"{"command":"jq","args":null,"timeout":"","env":null,"stdin":null}"#)]
    #[case::least(r#"{"command":"jq"}"#)]
    #[case::with_more(r#"{"command":"jq","later":true}"#)]
    fn requests_of_old_clients_are_read(#[case] text: &str) {
        let request: Request = serde_json::from_str(text).unwrap();
        assert_eq!(request.command, "jq");
        assert_eq!(request.namespace, None);
    }

    #[test]
    fn the_answer_has_the_old_fields() {
        let answer = Executed {
            stdout: encode(b"{}"),
            exit_code: 3,
            ..Executed::default()
        };
        assert_eq!(
            serde_json::to_string(&answer).unwrap(),
            r#"{"stdout":"e30=","stderr":"","exitCode":3}"#
        );
    }

    #[rstest]
    #[case("", Ok(30))]
    #[case("45s", Ok(45))]
    #[case("5m", Ok(300))]
    #[case("0s", Err("zero"))]
    #[case("5m1s", Err("longer than 5m"))]
    #[case("soon", Err("not a duration"))]
    fn timeouts_have_bounds(#[case] text: &str, #[case] expected: Result<u64, &str>) {
        match (timeout(text, Duration::from_secs(30)), expected) {
            (Ok(timeout), Ok(seconds)) => assert_eq!(timeout.as_secs(), seconds),
            (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
            (found, expected) => panic!("{found:?} is not {expected:?}"),
        }
    }

    #[test]
    fn words_are_read_back_and_serialised_alike() {
        for (word, text) in Word::ALL {
            assert_eq!(Word::read(text), Some(word));
            assert_eq!(serde_json::to_string(&word).unwrap(), format!("{text:?}"));
        }
    }
}
